//! A partition that comes from another raft group: its state travels as bytes, without the indexes
//! of that group's log, which mean nothing in another one.

use model::{LeaderEpoch, LogIndex, Term};

use super::{Partition, leader_epoch};
use crate::codec::{DecodeError, Reader, Writer};

/// How a partition came to its group; all 0 if it began there.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Origin {
    /// The entry of the group's log that adopted it, if that is not under a snapshot.
    pub index: LogIndex,
    /// The move, by its entry of group 0.
    pub id: LogIndex,
    /// What its leader epochs are above the group's terms.
    pub epoch_base: u32,
}

impl Partition {
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// It came by a move, says the snapshot of its group.
    pub fn set_origin(&mut self, origin: Origin) {
        self.origin = origin;
    }

    /// The leader epoch that clients see while its group is led in `term`.
    pub fn epoch_of(&self, term: Term) -> LeaderEpoch {
        raised(leader_epoch(term), self.origin.epoch_base)
    }

    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Takes no more records, or does again.
    pub fn set_sealed(&mut self, sealed: bool) {
        self.sealed = sealed;
    }

    /// The whole of it, for another group: all its records are committed and in the object store.
    /// `None` if they are not.
    pub fn encode_whole(&self) -> Option<Vec<u8>> {
        if self.has_uncommitted() || self.batches.first().is_some() {
            return None;
        }
        let mut writer = Writer::default();
        self.encode_snapshot(self.committed_index, &mut writer);
        Some(writer.finish())
    }

    /// What [`Self::encode_whole`] wrote, in the group whose log adopts it by the entry of
    /// `origin`.
    ///
    /// # Errors
    ///
    /// The bytes are not the state of a partition.
    pub fn adopted(state: &[u8], origin: Origin) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(state);
        let mut partition = Self::decode_snapshot(&mut reader)?;
        reader.finish()?;
        let index = origin.index;
        partition.committed_index = index;
        partition.last_index = index;
        partition.dropped_index = index;
        partition.producers.set_indexes(index);
        partition.origin = origin;
        Ok(partition)
    }
}

/// A leader epoch of a partition that had higher ones in another group.
pub fn raised(epoch: LeaderEpoch, base: u32) -> LeaderEpoch {
    let base = i32::try_from(base).unwrap_or(i32::MAX);
    if epoch == LeaderEpoch::NONE {
        epoch
    } else {
        LeaderEpoch::new(epoch.get().saturating_add(base))
    }
}
