//! Names of things in a store, relative to its prefix.

use crate::store::StoreError;

const KEY_SIZE_MAX: usize = 900;

/// Refuses what a file system would read as something else than a name below the store's folder,
/// and names that begin with a dot, which the file store keeps for itself.
pub(crate) fn check_key(key: &str) -> Result<(), StoreError> {
    let part_is_good = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    if key.len() <= KEY_SIZE_MAX && key.split('/').all(part_is_good) {
        return Ok(());
    }
    let shown: String = key.escape_default().take(100).collect();
    Err(StoreError::Config { advice: format!("`{shown}` is not a name that a store may hold") })
}

/// A prefix is empty or the beginning of a key.
pub(crate) fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    if prefix.is_empty() { Ok(()) } else { check_key(prefix.strip_suffix('/').unwrap_or(prefix)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_below_the_prefix_are_keys() {
        for good in ["cluster", "manifest/00/01", "a/b-c_d.seg"] {
            assert_eq!(check_key(good), Ok(()), "{good}");
        }
        let long = "x".repeat(901);
        for bad in ["", "/", "a/", "/a", "a//b", "..", "a/../b", ".tmp/x", "a\\b", "a b", &long] {
            assert!(check_key(bad).is_err(), "{bad}");
        }
        assert_eq!(check_prefix(""), Ok(()));
        assert_eq!(check_prefix("group/"), Ok(()));
        assert!(check_prefix("group/../").is_err());
    }
}
