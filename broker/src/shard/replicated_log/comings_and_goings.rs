//! Groups that come to this broker while it runs, and groups that leave it.

use bytes::Bytes;
use model::RaftGroupId;
use wal_uring::{AppendError, Part, Record};

use super::{GroupState, ReplicatedLog, snapshot_stream, stream};
use crate::shard::replicated_log::steps::Step;

impl ReplicatedLog {
    /// There are other brokers, or none any more.
    pub(crate) fn set_has_peers(&mut self, has_peers: bool) {
        self.ticks.set_has_peers(has_peers);
    }

    pub(crate) fn has_group(&self, group: RaftGroupId) -> bool {
        self.groups.contains(group)
    }

    /// Makes a group that this broker does not have. Without voters it waits until the others have
    /// made it a member.
    pub(crate) fn create_group(&mut self, group: RaftGroupId, voters: &[u64]) {
        self.act_all();
        self.driver.create_group(group, voters);
        self.groups.insert(group, GroupState::new(&self.driver, group));
    }

    /// Forgets a group of which this broker is no member any more; what it has in the WAL is void
    /// from the record on that says so, and holds up no trimming.
    pub(crate) fn remove_group(&mut self, group: RaftGroupId) {
        self.act_all();
        let Some(record) = self.driver.remove_group(group) else { return };
        self.groups.remove(group);
        self.queued_bytes -= self.steps.forget(group);
        self.unpersisted.retain(|(_, ticket, _)| ticket.group() != group);
        self.snapshots.retain(|ticket| ticket.group() != group);
        self.rewriting.retain(|it| *it != group);
        self.events.retain(|event| event.group() != Some(group));
        self.outgoing.retain(|(_, message)| message.group() != group);
        self.forgetting.insert(group, None);
        self.steps.push(Step::Gone { group, record });
    }

    pub(super) fn append_gone(
        &mut self,
        group: RaftGroupId,
        record: &Bytes,
    ) -> Result<(), AppendError> {
        let parts = &[Part::of(record)];
        let appended = self.wal.append(Record::State { stream: stream(group), parts })?;
        self.appended_end = appended.end;
        // It acts on what is before it in the WAL: where that is trimmed it is not needed either.
        self.forgetting.insert(group, Some(appended.end));
        self.states.remove(&stream(group));
        self.states.remove(&snapshot_stream(group));
        Ok(())
    }
}
