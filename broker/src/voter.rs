//! A broker's number among the members of a raft group: its node id, and which of its disks it is.
//! A voter that has lost its disk has lost what it promised; the one that takes its place is
//! another to raft, though it is the same broker to everybody else.
//!
//! The lower half is the node id, from 1 as raft counts; the upper the incarnation of the disk, 0
//! for the first. Normative: `docs/formats/raft-state.md`.

use model::NodeId;

/// The number of a node with the disk that it has now.
pub(crate) fn voter(node: NodeId, incarnation: u32) -> u64 {
    (u64::from(incarnation) << 32) | (u64::from(node.get().unsigned_abs()) + 1)
}

/// The node that has a number.
pub(crate) fn node_of(voter: u64) -> Option<NodeId> {
    let number = u32::try_from(voter & u64::from(u32::MAX)).ok()?;
    i32::try_from(number.checked_sub(1)?).ok().map(NodeId::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_of_one_node_are_different_voters() {
        for node in [0, 1, i32::MAX - 1].map(NodeId::new) {
            let voters = [0, 1, u32::MAX].map(|incarnation| voter(node, incarnation));
            assert!(voters.is_sorted_by(|one, next| one < next));
            assert!(voters.iter().all(|it| node_of(*it) == Some(node)));
        }
        assert_eq!(node_of(0), None);
        assert_eq!(node_of(5 << 32), None);
    }
}
