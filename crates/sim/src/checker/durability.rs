//! Acknowledged means durable on a majority at that moment, and there for ever.
//!
//! The checker keeps a book of its own on what each node has made durable, from what was given to
//! its WAL and from the WAL's durable LSN. Every restart compares that book with what the disk
//! really gave back.

use std::collections::{BTreeMap, VecDeque};

use crate::checker::{Applied, Violation};
use crate::{MAJORITY, NODE_COUNT};

/// A record given to a node's WAL.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Write {
    Entry {
        group: u64,
        index: u64,
        entry: Applied,
    },
    /// A snapshot stands for everything up to `mark`. One from the leader replaces what follows as
    /// well.
    Snapshot {
        group: u64,
        mark: u64,
        replaces: bool,
    },
}

#[derive(Default)]
pub(crate) struct Durability {
    nodes: [Book; NODE_COUNT],
    /// By group and index.
    acknowledged: BTreeMap<(u64, u64), Applied>,
    /// Acknowledgements whose majority did not include the leader's own disk.
    without_leader: usize,
}

#[derive(Default)]
struct Book {
    /// Written, not yet durable: the LSN after the record.
    under_way: VecDeque<(u64, Write)>,
    logs: BTreeMap<u64, DurableLog>,
}

/// The durable log of one group on one node.
#[derive(Clone, Default)]
struct DurableLog {
    mark: u64,
    entries: BTreeMap<u64, Applied>,
}

impl Durability {
    pub(crate) fn written(&mut self, node: u64, end: u64, write: Write) {
        self.book(node).under_way.push_back((end, write));
    }

    /// Everything that ends at or before `lsn` is durable on `node`.
    pub(crate) fn durable(&mut self, node: u64, lsn: u64) {
        let book = self.book(node);
        while let Some((end, write)) = book.under_way.front().copied()
            && end <= lsn
        {
            book.under_way.pop_front();
            book.apply(write);
        }
    }

    pub(crate) fn acknowledged(
        &mut self,
        node: u64,
        group: u64,
        index: u64,
        entry: Applied,
    ) -> Result<(), Violation> {
        let copies = self.copies(group, index, entry);
        if copies < MAJORITY {
            return Err(Violation::AckWithoutMajority { node, group, index, copies });
        }
        if !self.book(node).holds(group, index, entry) {
            self.without_leader += 1;
        }
        self.acknowledged.insert((group, index), entry);
        Ok(())
    }

    /// A node came back with `recovered`. All of its book must be there; writes that were under way
    /// may be.
    pub(crate) fn recovered(
        &mut self,
        node: u64,
        recovered: impl Fn(u64, u64) -> Option<Applied>,
        first: impl Fn(u64) -> u64,
    ) -> Result<(), Violation> {
        let book = self.book(node);
        // Any prefix of what was under way may have reached the disk, and may have replaced a
        // suffix.
        let replaced = book.replaced_under_way();
        for (group, log) in &book.logs {
            let end = replaced.get(group).copied().unwrap_or(u64::MAX);
            for (index, entry) in log.entries.range(..end) {
                if *index >= first(*group) && recovered(*group, *index) != Some(*entry) {
                    return Err(Violation::DurableLost { node, group: *group, index: *index });
                }
            }
        }
        Ok(())
    }

    /// From now on the book of a restarted node is what its disk gave back.
    pub(crate) fn restarted(
        &mut self,
        node: u64,
        logs: BTreeMap<u64, (u64, BTreeMap<u64, Applied>)>,
    ) {
        let book = self.book(node);
        book.under_way.clear();
        book.logs = logs
            .into_iter()
            .map(|(group, (mark, entries))| (group, DurableLog { mark, entries }))
            .collect();
    }

    /// Every acknowledged entry is still durable on a majority.
    pub(crate) fn all_there(&self) -> Result<(), Violation> {
        for ((group, index), entry) in &self.acknowledged {
            let copies = self.copies(*group, *index, *entry);
            if copies < MAJORITY {
                return Err(Violation::AckLost { group: *group, index: *index, copies });
            }
        }
        Ok(())
    }

    pub(crate) fn acknowledgements(&self) -> usize {
        self.acknowledged.len()
    }

    pub(crate) fn without_leader(&self) -> usize {
        self.without_leader
    }

    fn copies(&self, group: u64, index: u64, entry: Applied) -> usize {
        self.nodes.iter().filter(|book| book.holds(group, index, entry)).count()
    }

    fn book(&mut self, node: u64) -> &mut Book {
        &mut self.nodes[crate::position(node)]
    }
}

impl Book {
    fn holds(&self, group: u64, index: u64, entry: Applied) -> bool {
        self.logs.get(&group).is_some_and(|log| {
            index <= log.mark || log.entries.get(&index).is_some_and(|held| *held == entry)
        })
    }

    fn apply(&mut self, write: Write) {
        match write {
            Write::Entry { group, index, entry } => {
                let log = self.logs.entry(group).or_default();
                log.entries.split_off(&index);
                log.entries.insert(index, entry);
            }
            Write::Snapshot { group, mark, replaces } => {
                let log = self.logs.entry(group).or_default();
                log.mark = log.mark.max(mark);
                let kept = log.entries.split_off(&(mark + 1));
                log.entries = if replaces { BTreeMap::new() } else { kept };
            }
        }
    }

    /// By group: the lowest index that a write under way may have replaced.
    fn replaced_under_way(&self) -> BTreeMap<u64, u64> {
        let mut replaced = BTreeMap::new();
        for (_, write) in &self.under_way {
            let (group, from) = match *write {
                Write::Entry { group, index, .. } => (group, index),
                Write::Snapshot { group, mark, replaces: true } => (group, mark + 1),
                Write::Snapshot { .. } => continue,
            };
            let lowest = replaced.entry(group).or_insert(from);
            *lowest = from.min(*lowest);
        }
        replaced
    }
}
