//! What every event can see: the clock, the checkers and the trace.

use std::collections::BTreeMap;

use model::{LogIndex, RaftGroupId};
use replication::Driver;

use crate::checker::{Agreement, Applied, Durability, Leadership, Violation};
use crate::trace::Trace;

pub(crate) struct World {
    /// Microseconds since the start.
    pub(crate) now: u64,
    pub(crate) agreement: Agreement,
    pub(crate) durability: Durability,
    pub(crate) leadership: Leadership,
    pub(crate) installs: usize,
    pub(crate) trace: Trace,
}

impl World {
    pub(crate) fn new(trace: Trace) -> Self {
        Self {
            now: 0,
            agreement: Agreement::default(),
            durability: Durability::default(),
            leadership: Leadership::default(),
            installs: 0,
            trace,
        }
    }

    pub(crate) fn note(&mut self, node: u64, facts: &[u64], text: impl FnOnce() -> String) {
        self.trace.note(self.now, node, facts, text);
    }

    /// A node is back: what its driver read from the disk must hold all that was durable.
    pub(crate) fn restarted(&mut self, node: u64, driver: &Driver) -> Result<(), Violation> {
        self.durability.recovered(
            node,
            |group, index| entry(driver, group, index),
            |group| driver.first_index(RaftGroupId::new(group)).get(),
        )?;
        let mut logs = BTreeMap::new();
        for group in driver.groups() {
            let (first, last) = (driver.first_index(group).get(), driver.last_index(group).get());
            let entries = (first..=last)
                .filter_map(|index| Some((index, entry(driver, group.get(), index)?)))
                .collect();
            self.note(node, &[6, group.get(), first, last], || {
                format!("group {group}: recovered {first}..={last}")
            });
            logs.insert(group.get(), (first - 1, entries));
        }
        self.durability.restarted(node, logs);
        self.durability.all_there()?;
        self.agreement.restarted(node);
        Ok(())
    }

    /// What a node compacts to: the index and the state after it.
    pub(crate) fn snapshot(&self, group: u64, index: u64) -> Vec<u8> {
        [index.to_le_bytes(), self.agreement.state(group, index).to_le_bytes()].concat()
    }

    pub(crate) fn installed(
        &mut self,
        node: u64,
        group: u64,
        index: u64,
        snapshot: &[u8],
    ) -> Result<(), Violation> {
        self.note(node, &[7, group, index], || format!("group {group}: snapshot at {index}"));
        if snapshot != self.snapshot(group, index) {
            return Err(Violation::Snapshot { node, group, index });
        }
        self.installs += 1;
        self.agreement.installed(node, group, index)
    }
}

fn entry(driver: &Driver, group: u64, index: u64) -> Option<Applied> {
    let entry = driver.entry(RaftGroupId::new(group), LogIndex::new(index))?;
    let payload_crc = entry.descriptor.map_or(0, |descriptor| descriptor.payload_crc);
    Some(Applied { term: entry.term.get(), payload_crc })
}
