//! The promises of a broker, and of several together.

/// A promise that was broken. Partitions are named by topic and index.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Violation {
    #[error("the broker cannot start: {reason}")]
    Start { reason: String },
    #[error("the broker failed: {reason}")]
    Failed { reason: String },
    #[error("{partition}: acknowledged offset {offset} is gone or another batch's")]
    Lost { partition: String, offset: i64 },
    #[error("{partition}: the batch at offset {offset} was read before with other bytes")]
    Changed { partition: String, offset: i64 },
    #[error("{partition}: at offset {offset} is a batch that nobody sent, or that is there twice")]
    Foreign { partition: String, offset: i64 },
    #[error("{partition}: offset {expected} follows, found {found}")]
    Gap { partition: String, expected: i64, found: i64 },
    #[error("{partition}: offset {offset} cannot be read: {reason}")]
    Unreadable { partition: String, offset: i64, reason: String },
    #[error("{partition}: {what} went back from {from} to {to}")]
    WentBack { partition: String, what: &'static str, from: i64, to: i64 },
    #[error("{partition}: the log starts at {log_start}, which nobody asked for")]
    Trimmed { partition: String, log_start: i64 },
    #[error("{partition}: offsets from {from} are in no entry of the log and in no object")]
    Uncovered { partition: String, from: i64 },
    #[error("{object} is missing from the bucket; {namer} names it")]
    Missing { object: String, namer: &'static str },
    #[error("{object} was deleted {after_ms} ms after the last reference to it went")]
    NoGrace { object: String, after_ms: i64 },
    #[error("a producer was refused for what it did right: {reason}")]
    Refused { reason: String },
    #[error("all is well again, but after {seconds} s {what}")]
    Stuck { seconds: u64, what: String },
    #[error("a reply of the broker does not decode: {reason}")]
    Reply { reason: String },
    #[error("nodes {nodes:?} both lead group {group} in term {term}")]
    TwoLeaders { group: u64, term: u64, nodes: [i32; 2] },
    #[error("rebuilt from the bucket alone: {reason}")]
    Rebuild { reason: String },
    #[error("panic: {message}")]
    Panic { message: String },
}
