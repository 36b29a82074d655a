//! A group that is rebuilt from outside: what its WAL has to hold so that recovery finds it.

use bytes::{Bytes, BytesMut};
use model::{LogIndex, Term};

use crate::driver::{CompactError, SNAPSHOT_SIZE_MAX};
use crate::members::Members;
use crate::state::{HardRecord, Mark, SnapshotRecord};

/// The records of a group whose whole log a snapshot stands for; to be written in this order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RestoredGroup {
    /// For the group's snapshot stream.
    pub snapshot: Bytes,
    /// For the group's hard-state stream.
    pub state: Bytes,
}

impl RestoredGroup {
    /// The next entry is after `index`, the next election is above `term`, in which this node has
    /// no vote left to give.
    ///
    /// # Errors
    ///
    /// `data` is larger than a snapshot may be.
    pub fn new(
        node: u64,
        voters: &[u64],
        index: LogIndex,
        term: Term,
        data: Bytes,
    ) -> Result<Self, CompactError> {
        if data.len() > SNAPSHOT_SIZE_MAX {
            return Err(CompactError::TooLarge);
        }
        let mark = Mark { index: index.get(), term: term.get() };
        let members = Members::of_voters(voters.to_vec());
        let state = HardRecord {
            term: mark.term,
            vote: node,
            commit: mark.index,
            mark,
            voters: members.voters.clone(),
        };
        let snapshot = SnapshotRecord { mark, members, data };
        let mut arena = BytesMut::new();
        Ok(Self { snapshot: snapshot.encode(&mut arena), state: state.encode(&mut arena) })
    }
}

#[cfg(test)]
mod tests {
    use model::RaftGroupId;

    use super::*;
    use crate::{Action, Driver, DriverConfig};

    #[test]
    fn a_restored_group_goes_on_after_its_snapshot_in_a_later_term() {
        let (group, index, term) = (RaftGroupId::new(1), LogIndex::new(40), Term::new(7));
        let data = Bytes::from_static(b"state");
        let restored = RestoredGroup::new(1, &[1], index, term, data.clone()).expect("small");
        let mut driver = Driver::new(DriverConfig::new(1, 5));
        driver.recover_state(group, &restored.snapshot).expect("a snapshot record");
        driver.recover_state(group, &restored.state).expect("a state record");
        driver.start().expect("they fit");
        assert_eq!(driver.snapshot(group), Some((index, data)));
        assert_eq!(driver.last_index(group), index);
        let mut first = None;
        while let Some(action) = driver.poll_action() {
            if let Action::Persist { ticket, entries, .. } = action {
                let written = || entries.first().map(|entry| (entry.term, entry.index));
                first = first.or_else(written);
                driver.handle_persisted(ticket);
            }
        }
        assert_eq!(first, Some((Term::new(8), LogIndex::new(41))));
    }

    #[test]
    fn a_snapshot_that_is_too_large_is_refused() {
        let data = Bytes::from(vec![0; SNAPSHOT_SIZE_MAX + 1]);
        let restored = RestoredGroup::new(1, &[1], LogIndex::new(1), Term::new(1), data);
        assert_eq!(restored, Err(CompactError::TooLarge));
    }
}
