//! Appending on the shard that owns the partition: offsets are assigned, the batch is proposed, and
//! the answer waits for its commit.

use bytes::Bytes;
use kafka_wire::batch::{self, BatchHeader, TimestampType};
use model::{LeaderEpoch, PartitionId, RaftGroupId, Term};
use replication::{AppBytes, Descriptor};
use wal_uring::checksum::crc_of;

use super::Shard;
use super::call::Origin;
use super::hosted::{Waiter, appended_at};
use super::message::{Append, AppendRefused, PartAnswer};
use super::replicated_log::{Claim, Refused};
use crate::metrics::Metric;
use crate::partition::{
    AppendError, Duplicate, NewBatch, Prepared, ProducerError, ProducerStamp, Submission,
};

impl Shard {
    /// Appends a client's batch; answers when it is committed, or if it is refused at once: where
    /// that is since nobody leads, a moment later.
    pub(crate) fn append(&mut self, origin: Origin, append: Append) {
        let (partition, waiter) =
            (append.partition, |appended| Waiter::Client { origin, appended });
        let Err(refused) = self.try_append(append, false, waiter) else { return };
        self.metrics.add(Metric::ProduceRefused, 1);
        match self.hosting.group_of(partition) {
            Some(group) if refused == AppendRefused::NotLeader => {
                self.refuse_unled(group, Some(partition), origin);
            }
            _ => self.answer(origin, PartAnswer::Append(Err(refused))),
        }
    }

    /// Appends a batch and lets `waiter` hear of its commit. `resident`: its bytes are wanted again
    /// when it is applied after a restart.
    pub(crate) fn try_append(
        &mut self,
        append: Append,
        resident: bool,
        waiter: impl FnOnce(super::message::Appended) -> Waiter,
    ) -> Result<(), AppendRefused> {
        let found = self.hosting.find(append.partition);
        let (group, partition) = found.ok_or(AppendRefused::UnknownPartition)?;
        let submission = Submission::from(&append.info);
        // First of all: what a follower knows of a producer may be old, and its word on a sequence
        // number, even on a repeat, would be taken for the leader's. So would the refusal of one
        // that stood still while another was elected.
        let Some(term) = self.log.leads(group).filter(|_| !partition.is_sealed()) else {
            // Soon another one leads it, or another group has it; or this one leads it again before
            // the next batch comes, which then is ahead of this one.
            let refused = Err(AppendRefused::NotLeader);
            self.remember_refusal(append.partition, submission.producer, refused);
            return refused;
        };
        let (epoch, now_ms) = (partition.epoch_of(term), self.now.unix_ms);
        let log_start = partition.log_start();
        let prepared = partition.prepare(&submission, now_ms).map_err(|error| {
            self.refusal_of(group, append.partition, submission.producer, error)
        })?;
        match prepared {
            Prepared::Duplicate(first) => {
                let time = first.log_append_time.unwrap_or(-1);
                let waiter = waiter(appended_at(first.base_offset, time, log_start));
                self.repeat(group, first, waiter);
            }
            Prepared::New(new) => {
                let time = log_append_time(&append).unwrap_or(-1);
                let waiter = waiter(appended_at(new.base_offset(), time, log_start));
                let id = append.partition;
                let admitted = self.admit(group, &append, submission.producer);
                let proposed = admitted.and_then(|()| {
                    self.propose_batch((group, term, epoch), append, new, resident, waiter)
                });
                self.remember_refusal(id, submission.producer, proposed);
                proposed?;
            }
        }
        Ok(())
    }

    /// What to say of a batch that does not fit its partition: that may be for what this broker
    /// refused before, or does not know.
    fn refusal_of(
        &self,
        group: RaftGroupId,
        partition: PartitionId,
        producer: Option<ProducerStamp>,
        error: AppendError,
    ) -> AppendRefused {
        let refused = AppendRefused::from(error);
        let explains = |it| self.refusals.explain(partition, it, self.now.instant);
        if !self.has_quorum(group) {
            AppendRefused::NotLeader
        } else if refused == AppendRefused::OutOfOrderSequence && producer.is_some_and(explains) {
            AppendRefused::Behind
        } else {
            refused
        }
    }

    /// May a batch that fits its partition go into the log now?
    fn admit(
        &self,
        group: RaftGroupId,
        append: &Append,
        producer: Option<ProducerStamp>,
    ) -> Result<(), AppendRefused> {
        self.check_in_sync(group, append.in_sync_min)?;
        // A producer that is not known may begin with any sequence number, but not with a batch
        // behind its first one, if that was refused.
        let id = append.partition;
        let is_unknown = |it: &ProducerStamp| {
            self.hosting.get(id).is_some_and(|partition| !partition.has_producer(it.id))
        };
        let explains = |it: &ProducerStamp| self.refusals.explain(id, *it, self.now.instant);
        // Hardly ever is anything refused, so that comes first.
        if producer.filter(explains).as_ref().is_some_and(is_unknown) {
            return Err(AppendRefused::Behind);
        }
        Ok(())
    }

    fn remember_refusal(
        &mut self,
        partition: PartitionId,
        producer: Option<ProducerStamp>,
        proposed: Result<(), AppendRefused>,
    ) {
        let Some(producer) = producer else { return };
        match proposed {
            Ok(()) => self.refusals.forget(partition, producer.id),
            Err(
                AppendRefused::Full
                | AppendRefused::Behind
                | AppendRefused::NotInSync
                | AppendRefused::NotLeader,
            ) => self.refusals.note(partition, producer, self.now.instant),
            Err(_) => {}
        }
    }

    /// A batch that is in the log already: the answer waits until that one is committed.
    fn repeat(&mut self, group: RaftGroupId, first: Duplicate, waiter: Waiter) {
        if first.committed {
            return self.tell(waiter, Ok(()));
        }
        // An uncommitted batch without an open entry would be a fault of ours. The answer is one
        // that clients retry on, never a yes.
        if let Some(waiter) = self.hosting.wait_for(group, first.index, waiter) {
            self.tell(waiter, Err(AppendRefused::NotLeader));
        }
    }

    fn propose_batch(
        &mut self,
        (group, term, epoch): (RaftGroupId, Term, LeaderEpoch),
        append: Append,
        new: NewBatch,
        resident: bool,
        waiter: Waiter,
    ) -> Result<(), AppendRefused> {
        let Append { partition: id, mut batch, info, .. } = append;
        batch::patch(&mut batch, new.base_offset().get(), epoch.get());
        // The batch is a slice of its request, but the rest of that is batches too or a few bytes.
        let allocation = batch.len();
        let payload = batch.freeze();
        let descriptor = describe(&payload, resident, &new);
        let claim = if resident { Claim::Broker } else { Claim::Client };
        let (_, index) = self.log.propose(group, claim, descriptor, payload.clone())?;
        let record_count = info.record_count;
        let size = payload.len();
        let Some((partition, tail)) = self.hosting.with_tail(id) else {
            unreachable!("it was prepared above");
        };
        partition.appended(new, index, term, payload, allocation, tail);
        let batch = (id, u32::try_from(size).unwrap_or(u32::MAX));
        self.hosting.push_open(group, index, batch, Some(waiter), Some(self.now.instant));
        self.hosting.evict();
        self.count_append(record_count, size);
        Ok(())
    }

    fn count_append(&self, record_count: i32, size: usize) {
        self.metrics.add(Metric::ProduceRecords, u64::try_from(record_count).unwrap_or(0));
        self.metrics.add(Metric::ProduceBytes, size as u64);
    }

    /// Wakes the fetches that wait for a partition's records.
    pub(crate) fn wake_readers(&mut self, partition: PartitionId) {
        for origin in self.reads.watches.changed(partition) {
            self.answer(origin, PartAnswer::Wake);
        }
    }
}

/// The broker's timestamp, if the topic wants it.
fn log_append_time(append: &Append) -> Option<i64> {
    let stamped = append.info.timestamp_type == TimestampType::LogAppendTime;
    stamped.then_some(append.info.max_timestamp)
}

fn describe(payload: &Bytes, resident: bool, new: &NewBatch) -> Descriptor {
    let app = AppBytes::new(&new.descriptor().encode()).expect("a descriptor's size is fixed");
    // The batch's own checksum, which covers all but the first bytes, was found right when it came.
    let payload_crc = match BatchHeader::read(payload) {
        Some(header) => crc_of(payload, batch::CRC_START, header.crc()),
        None => crc32c::crc32c(payload),
    };
    let descriptor = Descriptor::of_checked(payload, payload_crc, resident, app);
    descriptor.expect("a request is smaller than 4 GiB")
}

impl From<AppendError> for AppendRefused {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Producer(
                ProducerError::OutOfOrderSequence { .. } | ProducerError::NoSequence { .. },
            ) => Self::OutOfOrderSequence,
            AppendError::Producer(ProducerError::InvalidProducerEpoch { .. }) => {
                Self::InvalidProducerEpoch
            }
            AppendError::Producer(ProducerError::OpenTransaction { .. }) => Self::OpenTransaction,
            AppendError::NotABatch { .. } | AppendError::OffsetsExhausted { .. } => Self::NotABatch,
        }
    }
}

impl From<Refused> for AppendRefused {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotLeader => Self::NotLeader,
            Refused::TooLarge => Self::TooLarge,
            Refused::Full => Self::Full,
            Refused::Behind => Self::Behind,
        }
    }
}
