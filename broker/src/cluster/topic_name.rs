//! What a topic may be called.

/// Bytes in the longest topic name; Kafka's limit, which leaves room for a file name's suffix.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// The topic of committed consumer offsets.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";

/// The topic of transactions' states.
const TRANSACTION_STATE: &str = "__transaction_state";

/// Why a name is refused, in Kafka's words.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TopicNameError {
    #[error("Topic name is invalid: the empty string is not allowed")]
    Empty,
    #[error("Topic name is invalid: '{name}' is not allowed")]
    Dots { name: String },
    #[error(
        "Topic name is invalid: the length of '{name}' is longer than the max allowed length \
         {TOPIC_NAME_BYTES_MAX}"
    )]
    TooLong { name: String },
    #[error(
        "Topic name is invalid: '{name}' contains one or more characters other than ASCII \
         alphanumerics, '.', '_' and '-'"
    )]
    Characters { name: String },
}

/// Checks length and characters. Whether the name is taken is the planner's question.
pub fn check_topic_name(name: &str) -> Result<(), TopicNameError> {
    let owned = || name.to_owned();
    if name.is_empty() {
        return Err(TopicNameError::Empty);
    }
    if name == "." || name == ".." {
        return Err(TopicNameError::Dots { name: owned() });
    }
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return Err(TopicNameError::TooLong { name: owned() });
    }
    if !name.bytes().all(is_topic_byte) {
        return Err(TopicNameError::Characters { name: owned() });
    }
    Ok(())
}

/// Whether the broker keeps its own state in a topic of this name; clients may read but not write.
pub fn is_internal(name: &str) -> bool {
    name == CONSUMER_OFFSETS || name == TRANSACTION_STATE
}

/// Whether two names become one where Kafka's metric names turn "." into "_".
pub(super) fn names_collide(left: &str, right: &str) -> bool {
    let same = |(left, right): (u8, u8)| left == right || is_separator(left) && is_separator(right);
    left.len() == right.len() && left.bytes().zip(right.bytes()).all(same)
}

/// Whether a name can collide with a different one at all.
pub(super) fn may_collide(name: &str) -> bool {
    name.bytes().any(is_separator)
}

fn is_separator(byte: u8) -> bool {
    byte == b'.' || byte == b'_'
}

fn is_topic_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rules() {
        let longest = "x".repeat(TOPIC_NAME_BYTES_MAX);
        for name in ["a", "A.b_C-9", "...", "__x", longest.as_str()] {
            assert_eq!(check_topic_name(name), Ok(()), "{name}");
        }
        let too_long = "x".repeat(TOPIC_NAME_BYTES_MAX + 1);
        assert_eq!(check_topic_name(""), Err(TopicNameError::Empty));
        for name in [".", ".."] {
            assert_eq!(check_topic_name(name), Err(TopicNameError::Dots { name: name.into() }));
        }
        assert_eq!(check_topic_name(&too_long), Err(TopicNameError::TooLong { name: too_long }));
        for name in ["a b", "a/b", "ä", "a\0", "a:b"] {
            let expected = TopicNameError::Characters { name: name.into() };
            assert_eq!(check_topic_name(name), Err(expected));
        }
    }

    #[test]
    fn a_dot_collides_with_an_underscore_and_nothing_else_does() {
        assert!(names_collide("a.b_c", "a_b.c"));
        assert!(names_collide("a.b", "a.b"));
        assert!(!names_collide("a.b", "a-b"));
        assert!(!names_collide("a.b", "a.bc"));
        assert!(may_collide("a_b") && may_collide(".a") && !may_collide("a-b"));
    }

    #[test]
    fn internal_topics_are_known_by_name() {
        assert!(is_internal("__consumer_offsets") && is_internal("__transaction_state"));
        assert!(!is_internal("__consumer_offsets2") && !is_internal("__x"));
    }
}
