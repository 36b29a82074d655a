//! At most one node leads a group in a term.

use std::collections::BTreeMap;

use crate::checker::Violation;

#[derive(Default)]
pub(crate) struct Leadership {
    /// By group and term.
    leaders: BTreeMap<(u64, u64), u64>,
}

impl Leadership {
    pub(crate) fn elected(&mut self, node: u64, group: u64, term: u64) -> Result<(), Violation> {
        let first = *self.leaders.entry((group, term)).or_insert(node);
        if first != node {
            return Err(Violation::TwoLeaders { group, term, first, second: node });
        }
        Ok(())
    }

    pub(crate) fn elections(&self) -> usize {
        self.leaders.len()
    }
}
