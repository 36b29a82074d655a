//! Where the store is, as the configuration names it.
//!
//! ```text
//! file:///var/lib/tailrace/objects
//! s3://bucket/some/prefix?region=eu-west-1&endpoint=http://127.0.0.1:9000&path-style=true
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::store::key::check_key;

/// A checked address of a store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StoreUrl {
    File(PathBuf),
    S3(S3Url),
}

/// Credentials are not part of it: they come from the environment, as for every AWS program.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct S3Url {
    pub bucket: String,
    /// Without slashes at its ends; may be empty.
    pub prefix: String,
    pub region: Option<String>,
    pub endpoint: Option<String>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
}

/// Why a text is not the address of a store.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StoreUrlError {
    #[error("`{url}` names no store: write file:///folder or s3://bucket/prefix")]
    Scheme { url: String },
    #[error("`{url}`: a folder's path begins with /, as in file:///var/lib/tailrace/objects")]
    Relative { url: String },
    #[error("`{bucket}` cannot be a bucket's name: 3 to 63 of a-z, 0-9, `-` and `.`")]
    Bucket { bucket: String },
    #[error(
        "`{prefix}` cannot be a prefix: parts of A-Z, a-z, 0-9, `-`, `_`, `.`, between slashes"
    )]
    Prefix { prefix: String },
    #[error("`{name}` is not a parameter of s3://: region, endpoint and path-style are")]
    Parameter { name: String },
    #[error("`{value}` is not a value of {name}: {expected}")]
    Value { name: &'static str, value: String, expected: &'static str },
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(url: &str) -> Result<Self, StoreUrlError> {
        if let Some(path) = url.strip_prefix("file://") {
            let is_absolute = path.starts_with('/') && path.len() > 1;
            let path = is_absolute.then(|| Self::File(PathBuf::from(path)));
            return path.ok_or_else(|| StoreUrlError::Relative { url: url.to_owned() });
        }
        match url.strip_prefix("s3://") {
            Some(rest) => rest.parse().map(Self::S3),
            None => Err(StoreUrlError::Scheme { url: url.to_owned() }),
        }
    }
}

impl FromStr for S3Url {
    type Err = StoreUrlError;

    /// Reads what follows `s3://`.
    fn from_str(rest: &str) -> Result<Self, StoreUrlError> {
        let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_bucket = (3..=63).contains(&bucket.len())
            && bucket.bytes().all(|byte| good(byte) || b"-.".contains(&byte))
            && bucket.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !is_bucket {
            return Err(StoreUrlError::Bucket { bucket: bucket.to_owned() });
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        if !prefix.is_empty() && check_key(prefix).is_err() {
            return Err(StoreUrlError::Prefix { prefix: prefix.to_owned() });
        }
        let mut parsed =
            Self { bucket: bucket.to_owned(), prefix: prefix.to_owned(), ..Self::default() };
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            parsed.set(name, value)?;
        }
        Ok(parsed)
    }
}

impl S3Url {
    fn set(&mut self, name: &str, value: &str) -> Result<(), StoreUrlError> {
        let wrong =
            |name, expected| Err(StoreUrlError::Value { name, value: value.to_owned(), expected });
        match (name, value) {
            ("region", "") => return wrong("region", "write one like eu-west-1"),
            ("region", _) => self.region = Some(value.to_owned()),
            ("endpoint", _) if !value.starts_with("http://") && !value.starts_with("https://") => {
                return wrong("endpoint", "it begins with http:// or https://");
            }
            ("endpoint", _) => self.endpoint = Some(value.to_owned()),
            ("path-style", "true") => self.path_style = true,
            ("path-style", "false") => self.path_style = false,
            ("path-style", _) => return wrong("path-style", "true or false"),
            _ => return Err(StoreUrlError::Parameter { name: name.to_owned() }),
        }
        Ok(())
    }
}

impl StoreUrl {
    /// The embedded default: a folder.
    pub fn folder(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::S3(url) => write!(f, "s3://{url}"),
        }
    }
}

impl fmt::Display for S3Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        let mut separator = '?';
        let path_style = self.path_style.then(|| "true".to_owned());
        let parameters =
            [("region", &self.region), ("endpoint", &self.endpoint), ("path-style", &path_style)];
        for (name, value) in parameters {
            if let Some(value) = value {
                write!(f, "{separator}{name}={value}")?;
                separator = '&';
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_addresses_are_read_and_written_alike() {
        for url in [
            "file:///var/lib/objects",
            "s3://bucket",
            "s3://my-bucket.1/a/b",
            "s3://bucket/a?region=eu-west-1&endpoint=http://127.0.0.1:9000&path-style=true",
        ] {
            assert_eq!(url.parse::<StoreUrl>().expect(url).to_string(), url);
        }
        let parsed: StoreUrl = "s3://bucket/a/b/?path-style=false".parse().expect("an address");
        assert_eq!(parsed.to_string(), "s3://bucket/a/b");
    }

    #[test]
    fn a_bad_address_is_one_clear_line() {
        for (url, expected) in [
            ("", "`` names no store: write file:///folder or s3://bucket/prefix"),
            ("/var", "`/var` names no store: write file:///folder or s3://bucket/prefix"),
            ("file://var", "a folder's path begins with /"),
            ("file:///", "a folder's path begins with /"),
            ("s3://", "`` cannot be a bucket's name"),
            ("s3://A_B/x", "`A_B` cannot be a bucket's name"),
            ("s3://bucket/../x", "`../x` cannot be a prefix"),
            ("s3://bucket?zone=1", "`zone` is not a parameter of s3://"),
            ("s3://bucket?region=", "`` is not a value of region: write one like eu-west-1"),
            ("s3://bucket?endpoint=host:1", "it begins with http:// or https://"),
            ("s3://bucket?path-style=1", "`1` is not a value of path-style: true or false"),
        ] {
            let error = url.parse::<StoreUrl>().expect_err(url).to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains('\n'));
        }
    }
}
