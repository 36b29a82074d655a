//! What must hold, whatever happens. Each checker sees the events of all nodes and stops the run at
//! the first that contradicts it.

mod agreement;
mod durability;
mod leadership;

pub(crate) use agreement::Agreement;
pub(crate) use durability::{Durability, Write};
pub(crate) use leadership::Leadership;

/// A promise that was broken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Violation {
    #[error("node {node} acknowledged group {group} index {index}, durable on {copies} nodes only")]
    AckWithoutMajority { node: u64, group: u64, index: u64, copies: usize },
    #[error("node {node} lost group {group} index {index}, which it had made durable")]
    DurableLost { node: u64, group: u64, index: u64 },
    #[error("acknowledged group {group} index {index} is on {copies} nodes only")]
    AckLost { group: u64, index: u64, copies: usize },
    #[error("node {node} applied group {group} index {index} as {found}, another as {expected}")]
    Disagreement { node: u64, group: u64, index: u64, expected: Applied, found: Applied },
    #[error("node {node} applied group {group} index {found}, expected {expected}")]
    ApplyGap { node: u64, group: u64, expected: u64, found: u64 },
    #[error("node {node} applied group {group} index {index} with a wrong or missing payload")]
    Payload { node: u64, group: u64, index: u64 },
    #[error("node {node} restored group {group} to index {index} with a wrong state")]
    Snapshot { node: u64, group: u64, index: u64 },
    #[error("nodes {first} and {second} both led group {group} in term {term}")]
    TwoLeaders { group: u64, term: u64, first: u64, second: u64 },
    #[error("node {node} cannot recover: {reason}")]
    Recovery { node: u64, reason: String },
    #[error("node {node}: its WAL failed: {reason}")]
    Wal { node: u64, reason: String },
    #[error(
        "healed, but group {group} did not commit on node {node}: applied {applied} of {expected}"
    )]
    Stuck { node: u64, group: u64, applied: u64, expected: u64 },
    #[error("healed, but group {group} has no leader that takes entries")]
    NoLeader { group: u64 },
    #[error("panic: {message}")]
    Panic { message: String },
}

/// An entry as its log has it: two nodes that disagree in either number hold different entries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Applied {
    pub term: u64,
    /// CRC-32C of the payload; 0 for a leader's empty entry.
    pub payload_crc: u32,
}

impl std::fmt::Display for Applied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "term {} payload {:08x}", self.term, self.payload_crc)
    }
}
