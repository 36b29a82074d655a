//! All nodes apply the same entries in the same order, without gaps, and reach the same state.

use std::collections::BTreeMap;

use crate::checker::{Applied, Violation};
use crate::random::mix;

#[derive(Default)]
pub(crate) struct Agreement {
    /// By group and index: the entry, and the state after it.
    applied: BTreeMap<(u64, u64), (Applied, u64)>,
    /// By node and group: the last index applied.
    position: BTreeMap<(u64, u64), u64>,
}

impl Agreement {
    /// A node starts from its snapshot, or from nothing.
    pub(crate) fn restarted(&mut self, node: u64) {
        self.position.retain(|(of, _), _| *of != node);
    }

    pub(crate) fn applied(
        &mut self,
        node: u64,
        group: u64,
        index: u64,
        found: Applied,
    ) -> Result<(), Violation> {
        let position = self.position.entry((node, group)).or_insert(0);
        if index != *position + 1 {
            let expected = *position + 1;
            return Err(Violation::ApplyGap { node, group, expected, found: index });
        }
        *position = index;
        let before = self.state(group, index - 1);
        let state = mix(before ^ mix(found.term ^ (u64::from(found.payload_crc) << 32)));
        let (expected, _) = *self.applied.entry((group, index)).or_insert((found, state));
        if expected != found {
            return Err(Violation::Disagreement { node, group, index, expected, found });
        }
        Ok(())
    }

    /// A snapshot never takes a node back.
    pub(crate) fn installed(&mut self, node: u64, group: u64, index: u64) -> Result<(), Violation> {
        if self.position(node, group) > index {
            return Err(Violation::Snapshot { node, group, index });
        }
        self.position.insert((node, group), index);
        Ok(())
    }

    /// Last index that a node applied.
    pub(crate) fn position(&self, node: u64, group: u64) -> u64 {
        self.position.get(&(node, group)).copied().unwrap_or(0)
    }

    /// The state of a group after `index`.
    pub(crate) fn state(&self, group: u64, index: u64) -> u64 {
        self.applied.get(&(group, index)).map_or(0, |(_, state)| *state)
    }

    pub(crate) fn entries(&self) -> usize {
        self.applied.len()
    }
}
