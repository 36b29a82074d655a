//! Reading partitions on the shard that owns them: from the tail cache at once, from the WAL when
//! the device has answered. What is too little is watched.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use kafka_wire::batch::{self, BatchHeader};
use model::{LeaderEpoch, LogIndex, Offset, PartitionId};
use wal_uring::{Disk, ReadError as WalReadError};

use super::Shard;
use super::call::Origin;
use super::message::{
    FoundOffset, OffsetKind, OffsetQuery, PartAnswer, PartitionData, PartitionRead, Read,
    ReadRecords, ReadRefused,
};
use super::watches::Watches;
use crate::metrics::Metric;
use crate::partition::{Partition, Piece, ReadError, Sought, StoredBatch, VisibleEnd};

/// The reads of a shard that wait for the device, and the fetches that wait for records.
#[derive(Default)]
pub(crate) struct Reads {
    pub(crate) watches: Watches,
    open: BTreeMap<u64, OpenRead>,
    next: u64,
    /// Reads that the WAL has not taken yet, oldest first.
    queue: VecDeque<Job>,
    /// Where the answer to a WAL read belongs, by token.
    places: BTreeMap<u64, Place>,
}

/// A request that needs batches from the WAL.
struct OpenRead {
    origin: Origin,
    purpose: Purpose,
    /// WAL reads that are not done.
    outstanding: usize,
}

enum Purpose {
    Fetch(Vec<PartitionData>),
    Offset { sought: Sought, log_start: Offset, epoch: LeaderEpoch, batch: Option<Bytes> },
}

/// One batch of an open read.
#[derive(Clone, Copy)]
struct Place {
    read: u64,
    part: usize,
    piece: usize,
    stored: StoredBatch,
}

struct Job {
    token: u64,
    index: LogIndex,
}

impl Shard {
    /// Reads some partitions for a fetch. Answers when all of it is in memory.
    pub(crate) fn read(&mut self, origin: Origin, read: Read) {
        let mut budget = read.max_bytes;
        let mut found = Vec::with_capacity(read.partitions.len());
        let mut stored = Vec::new();
        let (mut size, mut settled) = (0, false);
        for (part, wanted) in read.partitions.iter().enumerate() {
            let result = self.plan(wanted, budget, size == 0);
            let result = result.map(|(mut records, pieces, more)| {
                budget = budget.saturating_sub(more);
                size += more;
                settled |= records.diverging.is_some();
                records.batches = collect(pieces, part, &mut stored);
                records
            });
            settled |= result.is_err();
            found.push(PartitionData { slot: wanted.slot, result });
        }
        if size < read.watch_below && !settled {
            let partitions = read.partitions.iter().map(|wanted| wanted.partition).collect();
            self.reads.watches.add(origin, partitions);
        }
        self.open_read(origin, Purpose::Fetch(found), stored);
    }

    /// Decides what of one partition is returned: positions, batches and their size.
    fn plan(
        &self,
        wanted: &PartitionRead,
        budget: u32,
        first: bool,
    ) -> Result<(ReadRecords, Vec<Piece>, u32), ReadRefused> {
        let partition = self.readable(wanted.partition, wanted.current_epoch)?;
        let mut records = ReadRecords {
            high_watermark: partition.high_watermark(),
            last_stable_offset: partition.last_stable_offset(),
            log_start_offset: partition.log_start(),
            batches: Vec::new(),
            diverging: None,
        };
        if wanted.last_fetched_epoch.get() >= 0 {
            let diverging = partition.diverging_epoch(wanted.last_fetched_epoch, wanted.from)?;
            if let Some(end) = diverging {
                records.diverging = Some((end.epoch, end.end_offset));
                return Ok((records, Vec::new(), 0));
            }
        }
        let limit = u64::from(budget.min(wanted.max_bytes));
        let plan = partition.read(wanted.from, limit, first, VisibleEnd::HighWatermark)?;
        Ok((records, plan.pieces, u32::try_from(plan.size).unwrap_or(u32::MAX)))
    }

    /// A partition that this shard leads, for a client that believes in `current`.
    fn readable(&self, id: PartitionId, current: LeaderEpoch) -> Result<&Partition, ReadRefused> {
        let partition = self.hosting.get(id).ok_or(ReadRefused::UnknownPartition)?;
        if self.log.leads(self.data_group()).is_none() {
            return Err(ReadRefused::NotLeader);
        }
        let ours = self.node.leader_epoch(self.data_group());
        match current {
            LeaderEpoch::NONE => Ok(partition),
            theirs if theirs < ours => Err(ReadRefused::FencedEpoch),
            theirs if theirs > ours => Err(ReadRefused::UnknownEpoch),
            _ => Ok(partition),
        }
    }

    /// Finds an offset for ListOffsets.
    pub(crate) fn find_offset(&mut self, origin: Origin, id: PartitionId, query: OffsetQuery) {
        let epoch = self.node.leader_epoch(self.data_group());
        let partition = match self.readable(id, query.current_epoch) {
            Ok(partition) => partition,
            Err(refused) => return self.answer(origin, PartAnswer::FindOffset(Err(refused))),
        };
        let log_start = partition.log_start();
        let position =
            |offset| FoundOffset { offset: Some(offset), timestamp_ms: -1, leader_epoch: epoch };
        let sought = match query.kind {
            OffsetKind::Earliest => Err(position(log_start)),
            OffsetKind::Latest => Err(position(partition.last_stable_offset())),
            OffsetKind::MaxTimestamp => Ok(Sought::Youngest),
            OffsetKind::AtOrAfter(timestamp) => Ok(Sought::AtOrAfter(timestamp)),
        };
        let sought = match sought {
            Ok(sought) => sought,
            Err(found) => return self.answer(origin, PartAnswer::FindOffset(Ok(found))),
        };
        let visible = VisibleEnd::LastStable;
        let Some(candidate) = partition.timestamp_candidate(sought, log_start, visible) else {
            let found = FoundOffset { offset: None, timestamp_ms: -1, leader_epoch: epoch };
            return self.answer(origin, PartAnswer::FindOffset(Ok(found)));
        };
        let mut stored = Vec::new();
        let batch = collect(vec![candidate.batch], 0, &mut stored).pop();
        self.open_read(origin, Purpose::Offset { sought, log_start, epoch, batch }, stored);
    }

    /// Answers OffsetForLeaderEpoch; epoch and offset are -1 if the epoch is older than the log.
    pub(crate) fn epoch_end(
        &mut self,
        origin: Origin,
        id: PartitionId,
        current: LeaderEpoch,
        asked: LeaderEpoch,
    ) {
        let answer = self.readable(id, current).map(|partition| {
            let end = partition.epoch_end(asked);
            end.map_or((LeaderEpoch::NONE, Offset::new(-1)), |end| (end.epoch, end.end_offset))
        });
        self.answer(origin, PartAnswer::EpochEnd(answer));
    }

    fn open_read(
        &mut self,
        origin: Origin,
        purpose: Purpose,
        stored: Vec<(usize, usize, StoredBatch)>,
    ) {
        let read = OpenRead { origin, purpose, outstanding: stored.len() };
        if stored.is_empty() {
            return self.finish_read(read);
        }
        self.reads.next += 1;
        let number = self.reads.next;
        for (part, piece, stored) in stored {
            self.reads.next += 1;
            let token = self.reads.next;
            self.reads.places.insert(token, Place { read: number, part, piece, stored });
            self.reads.queue.push_back(Job { token, index: stored.index });
            self.metrics.add(Metric::FetchStoredBytes, u64::from(stored.size));
        }
        self.reads.open.insert(number, read);
    }

    /// Gives the WAL the reads that it takes.
    pub(crate) fn read_on(&mut self, disk: &mut impl Disk) {
        let group = self.data_group();
        while let Some(job) = self.reads.queue.pop_front() {
            match self.log.read(disk, group, job.index, job.token) {
                Ok(()) => {}
                Err(WalReadError::Busy) => {
                    self.reads.queue.push_front(job);
                    break;
                }
                Err(_) => self.read_done(job.token, None),
            }
        }
    }

    /// A WAL read finished; without a payload if it failed.
    pub(crate) fn read_done(&mut self, token: u64, payload: Option<Bytes>) {
        let Some(place) = self.reads.places.remove(&token) else { return };
        let Some(read) = self.reads.open.get_mut(&place.read) else { return };
        let batch = payload.filter(|batch| is_intact(batch, &place.stored));
        match &mut read.purpose {
            Purpose::Fetch(parts) => {
                let result = &mut parts[place.part].result;
                match (batch, result) {
                    (Some(batch), Ok(records)) => records.batches[place.piece] = batch,
                    (None, result) => *result = Err(ReadRefused::Storage),
                    (Some(_), Err(_)) => {}
                }
            }
            Purpose::Offset { batch: found, .. } => *found = batch,
        }
        read.outstanding -= 1;
        if read.outstanding == 0
            && let Some(read) = self.reads.open.remove(&place.read)
        {
            self.finish_read(read);
        }
    }

    fn finish_read(&mut self, read: OpenRead) {
        let answer = match read.purpose {
            Purpose::Fetch(parts) => PartAnswer::Read(parts),
            Purpose::Offset { sought, log_start, epoch, batch } => {
                let found = batch.and_then(|batch| sought.find_in(log_start, &batch).ok());
                let answer = found.ok_or(ReadRefused::Storage).map(|found| FoundOffset {
                    offset: found.map(|found| found.offset),
                    timestamp_ms: found.map_or(-1, |found| found.timestamp),
                    leader_epoch: epoch,
                });
                PartAnswer::FindOffset(answer)
            }
        };
        self.answer(read.origin, answer);
    }
}

/// The cached batches of a plan, with an empty place for each that has to be read.
fn collect(
    pieces: Vec<Piece>,
    part: usize,
    stored: &mut Vec<(usize, usize, StoredBatch)>,
) -> Vec<Bytes> {
    let place = |(piece, found)| match found {
        Piece::Cached(batch) => batch,
        Piece::Stored(batch) => {
            stored.push((part, piece, batch));
            Bytes::new()
        }
    };
    pieces.into_iter().enumerate().map(place).collect()
}

/// Is this the batch that was written there? Rot and misdirected reads end here, not at a consumer.
fn is_intact(bytes: &Bytes, stored: &StoredBatch) -> bool {
    BatchHeader::read(bytes).is_some_and(|header| {
        header.base_offset() == stored.base_offset.get() && header.size() == Some(bytes.len())
    }) && batch::crc_is_valid(bytes)
}

impl From<ReadError> for ReadRefused {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::OutOfRange { .. } => Self::OutOfRange,
        }
    }
}
