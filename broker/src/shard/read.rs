//! Reading partitions on the shard that owns them: from the tail cache at once, from the WAL when
//! the device has answered, from the object tier (`remote.rs`) what the WAL has given up. What is
//! too little is watched.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use kafka_wire::batch::{self, BatchHeader};
use model::{LeaderEpoch, LogIndex, Offset, PartitionId, RaftGroupId};
use s3_uploader::ObjectName;
use wal_uring::{Disk, ReadError as WalReadError};

use super::Shard;
use super::call::Origin;
use super::message::{
    FoundOffset, OffsetKind, OffsetQuery, PartAnswer, PartitionData, PartitionRead, Read,
    ReadRecords, ReadRefused,
};
use super::remote::{RemotePlace, RemoteRead};
use super::remote_check::Check;
use super::watches::Watches;
use crate::metrics::Metric;
use crate::partition::{
    Partition, Piece, ReadError, ReadPlan, Sought, StoredBatch, VisibleEnd, raised,
};

/// Bytes of one partition that a fetch reads from objects, unless it asks for more at least. The
/// store's thread has the next ones ready by then.
const REMOTE_BYTES_MAX: u32 = 1 << 20;

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
    /// Where the answer of the object tier belongs, by token.
    pub(super) remote: BTreeMap<u64, RemoteRead>,
    /// What came from there last, until it is checked to its end.
    pub(super) checking: Option<(RemoteRead, Check)>,
    /// Damaged objects that the log tells of already.
    pub(super) told: BTreeSet<ObjectName>,
}

/// A request that needs batches from the WAL or from objects.
struct OpenRead {
    purpose: Purpose,
    /// Reads that are not done.
    outstanding: usize,
}

enum Purpose {
    Fetch {
        origin: Origin,
        parts: Vec<PartitionData>,
    },
    Offset {
        origin: Origin,
        search: Search,
        batch: Option<Bytes>,
    },
    /// Batches of a group's object that is gathered; `None` if one could not be read.
    Offload {
        group: RaftGroupId,
        batches: Option<Vec<Bytes>>,
    },
}

/// Which record of a partition ListOffsets asks for.
#[derive(Clone, Copy)]
pub(super) struct Search {
    pub(super) sought: Sought,
    pub(super) log_start: Offset,
    pub(super) epoch: LeaderEpoch,
}

/// One batch of a request that has to be read from the WAL.
#[derive(Clone, Copy)]
struct Wanted {
    part: usize,
    piece: usize,
    group: RaftGroupId,
    stored: StoredBatch,
}

/// The same, of an open read.
#[derive(Clone, Copy)]
struct Place {
    read: u64,
    wanted: Wanted,
}

struct Job {
    token: u64,
    group: RaftGroupId,
    index: LogIndex,
}

impl Shard {
    /// Reads some partitions for a fetch. Answers when all of it is in memory.
    pub(crate) fn read(&mut self, origin: Origin, read: Read) {
        let mut budget = read.max_bytes;
        let mut found = Vec::with_capacity(read.partitions.len());
        let (mut stored, mut remote) = (Vec::new(), Vec::new());
        let (mut size, mut settled) = (0, false);
        for (part, wanted) in read.partitions.iter().enumerate() {
            let limits = Limits { budget, first: size == 0, watch_below: read.watch_below };
            let result = match self.plan(wanted, limits, read.rack.as_deref()) {
                // One that stood still while another was elected may lack what is asked for.
                Err(ReadRefused::OutOfRange) if !self.knows_end_of(wanted.partition) => {
                    Err(ReadRefused::NotLeader)
                }
                result => result,
            };
            let result = result.map(|(group, mut records, planned)| {
                settled |= records.diverging.is_some() || records.preferred_replica.is_some();
                let more = match planned {
                    Planned::Local(plan) => {
                        records.batches = collect(plan.pieces, (group, part), &mut stored);
                        u32::try_from(plan.size).unwrap_or(u32::MAX)
                    }
                    Planned::Remote(from, max_bytes) => {
                        remote.push((part, wanted.partition, from, max_bytes));
                        max_bytes
                    }
                };
                budget = budget.saturating_sub(more);
                size += more;
                records
            });
            settled |= result.is_err();
            found.push(PartitionData { slot: wanted.slot, result });
        }
        if size < read.watch_below && !settled {
            let partitions = read.partitions.iter().map(|wanted| wanted.partition).collect();
            self.reads.watches.add(origin, partitions);
        }
        let read = self.open_read(Purpose::Fetch { origin, parts: found }, stored, remote.len());
        for (part, partition, from, max_bytes) in remote {
            self.read_remote(RemotePlace { read, part, from, max_bytes, partition }, false);
        }
    }

    /// Decides what of one partition is returned: positions, and where its batches come from.
    fn plan(
        &self,
        wanted: &PartitionRead,
        limits: Limits,
        rack: Option<&str>,
    ) -> Result<(RaftGroupId, ReadRecords, Planned), ReadRefused> {
        let Limits { budget, first, watch_below } = limits;
        let (group, partition, as_follower) = self.readable_in(wanted, rack)?;
        let mut records = ReadRecords {
            high_watermark: partition.high_watermark(),
            last_stable_offset: partition.last_stable_offset(),
            log_start_offset: partition.log_start(),
            batches: Vec::new(),
            cut: usize::MAX,
            diverging: None,
            preferred_replica: None,
            from_follower: as_follower,
        };
        let refused = |error| refused(error, as_follower);
        if wanted.last_fetched_epoch.get() >= 0 {
            let diverging = partition.diverging_epoch(wanted.last_fetched_epoch, wanted.from);
            if let Some(end) = diverging.map_err(refused)? {
                records.diverging = Some((end.epoch, end.end_offset));
                return Ok((group, records, Planned::Local(ReadPlan::default())));
            }
        }
        records.preferred_replica =
            rack.and_then(|it| self.closest_replica(group, partition, wanted, it));
        if records.preferred_replica.is_some() {
            return Ok((group, records, Planned::Local(ReadPlan::default())));
        }
        let limit = budget.min(wanted.max_bytes);
        match partition.read(wanted.from, u64::from(limit), first, VisibleEnd::HighWatermark) {
            Ok(plan) => Ok((group, records, Planned::Local(plan))),
            // One batch at least for the first partition (KIP-74), and none beyond the limit after.
            Err(ReadError::Remote { .. }) if limit == 0 && !first => {
                Ok((group, records, Planned::Local(ReadPlan::default())))
            }
            Err(ReadError::Remote { from, .. }) => {
                let limit = limit.min(REMOTE_BYTES_MAX.max(watch_below));
                Ok((group, records, Planned::Remote(from, limit)))
            }
            Err(error @ ReadError::OutOfRange { .. }) => Err(refused(error)),
        }
    }

    /// Is this broker sure to know what there is of a partition that it leads?
    fn knows_end_of(&self, id: PartitionId) -> bool {
        self.hosting.group_of(id).is_some_and(|group| self.has_quorum(group))
    }

    /// A partition that this shard leads, for a client that believes in `current`, and its group.
    pub(super) fn readable(
        &self,
        id: PartitionId,
        current: LeaderEpoch,
    ) -> Result<(RaftGroupId, &Partition), ReadRefused> {
        let (group, partition) = self.hosting.find(id).ok_or(ReadRefused::UnknownPartition)?;
        // Before it has caught up, a new leader may not know all that readers have seen.
        if !self.log.has_caught_up(group) {
            return Err(ReadRefused::NotLeader);
        }
        self.check_epoch((group, partition), current)?;
        Ok((group, partition))
    }

    /// Compares the epoch that a client believes in.
    pub(super) fn check_epoch(
        &self,
        (group, partition): (RaftGroupId, &Partition),
        theirs: LeaderEpoch,
    ) -> Result<(), ReadRefused> {
        let ours = self.epoch_of(group, partition);
        if theirs == LeaderEpoch::NONE || theirs == ours {
            return Ok(());
        }
        Err(if theirs < ours { ReadRefused::FencedEpoch } else { ReadRefused::UnknownEpoch })
    }

    /// The leader epoch of a partition that clients see; `NONE` if nobody is known to lead.
    fn epoch_of(&self, group: RaftGroupId, partition: &Partition) -> LeaderEpoch {
        raised(self.node.leader_epoch(group), partition.origin().epoch_base)
    }

    /// Finds an offset for ListOffsets.
    pub(crate) fn find_offset(&mut self, origin: Origin, id: PartitionId, query: OffsetQuery) {
        let (group, partition) = match self.readable(id, query.current_epoch) {
            Ok(found) => found,
            Err(refused) => return self.answer(origin, PartAnswer::FindOffset(Err(refused))),
        };
        let epoch = self.epoch_of(group, partition);
        let log_start = partition.log_start();
        let manifest = &self.tiers[group].manifest;
        let tiered_end = manifest.offloaded_end(id).unwrap_or(log_start).max(log_start);
        let position =
            |offset| FoundOffset { offset: Some(offset), timestamp_ms: -1, leader_epoch: epoch };
        let sought = match query.kind {
            OffsetKind::Earliest => Err(position(log_start)),
            OffsetKind::EarliestLocal => Err(position(partition.local_start())),
            OffsetKind::EarliestPending => Err(position(tiered_end)),
            OffsetKind::LatestTiered if tiered_end > log_start => {
                Err(position(Offset::new(tiered_end.get() - 1)))
            }
            OffsetKind::LatestTiered => Err(FoundOffset::nothing(epoch)),
            OffsetKind::Latest => Err(position(partition.last_stable_offset())),
            OffsetKind::MaxTimestamp => Ok(Sought::Youngest),
            OffsetKind::AtOrAfter(timestamp) => Ok(Sought::AtOrAfter(timestamp)),
        };
        match sought {
            Ok(sought) => {
                let search = Search { sought, log_start, epoch };
                if !self.find_remote(origin, id, search, false) {
                    self.find_local(origin, id, search);
                }
            }
            Err(found) => self.answer(origin, PartAnswer::FindOffset(Ok(found))),
        }
    }

    /// Looks for a record in the part of a log that is in the WAL.
    pub(super) fn find_local(&mut self, origin: Origin, id: PartitionId, search: Search) {
        let visible = VisibleEnd::LastStable;
        let candidate = self.hosting.find(id).and_then(|(group, partition)| {
            let found = partition.timestamp_candidates(search.sought, search.log_start, visible);
            Some((group, found.local?))
        });
        let Some((group, candidate)) = candidate else {
            let found = FoundOffset::nothing(search.epoch);
            return self.answer(origin, PartAnswer::FindOffset(Ok(found)));
        };
        let mut stored = Vec::new();
        let batch = collect(vec![candidate.batch], (group, 0), &mut stored).pop();
        self.open_read(Purpose::Offset { origin, search, batch }, stored, 0);
    }

    /// Reads batches for an object that is being gathered.
    pub(super) fn read_for_offload(
        &mut self,
        group: RaftGroupId,
        batches: Vec<(usize, StoredBatch)>,
    ) {
        let empty = vec![Bytes::new(); batches.len()];
        let places = batches.into_iter().enumerate();
        let stored =
            places.map(|(piece, (_, stored))| Wanted { part: 0, piece, group, stored }).collect();
        self.open_read(Purpose::Offload { group, batches: Some(empty) }, stored, 0);
    }

    /// Answers OffsetForLeaderEpoch; epoch and offset are -1 if the epoch is older than the log.
    pub(crate) fn epoch_end(
        &mut self,
        origin: Origin,
        id: PartitionId,
        current: LeaderEpoch,
        asked: LeaderEpoch,
    ) {
        let answer = self.readable(id, current).map(|(_, partition)| {
            let end = partition.epoch_end(asked);
            end.map_or((LeaderEpoch::NONE, Offset::new(-1)), |end| (end.epoch, end.end_offset))
        });
        self.answer(origin, PartAnswer::EpochEnd(answer));
    }

    /// Notes a read with its WAL reads, and so many of the object tier; returns its number. One
    /// that waits for nothing is over at once.
    fn open_read(&mut self, purpose: Purpose, stored: Vec<Wanted>, remote_count: usize) -> u64 {
        self.reads.next += 1;
        let number = self.reads.next;
        let outstanding = stored.len() + remote_count;
        if outstanding == 0 {
            self.finish_read(OpenRead { purpose, outstanding });
            return number;
        }
        // What is offloaded makes room, and readers find it elsewhere: however many of them wait
        // for a slow device, it goes first.
        let behind = match purpose {
            Purpose::Offload { .. } => std::mem::take(&mut self.reads.queue),
            _ => VecDeque::new(),
        };
        for wanted in stored {
            let token = self.reads.next_token();
            self.reads.places.insert(token, Place { read: number, wanted });
            let Wanted { group, stored, .. } = wanted;
            self.reads.queue.push_back(Job { token, group, index: stored.index });
            self.metrics.add(Metric::FetchStoredBytes, u64::from(stored.size));
        }
        self.reads.queue.extend(behind);
        self.reads.open.insert(number, OpenRead { purpose, outstanding });
        number
    }

    /// Gives the WAL the reads that it takes.
    pub(crate) fn read_on(&mut self, disk: &mut impl Disk) {
        while let Some(job) = self.reads.queue.pop_front() {
            match self.log.read(disk, job.group, job.index, job.token) {
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
        let Some(Place { read: number, wanted }) = self.reads.places.remove(&token) else { return };
        // What was offloaded meanwhile is in an object, and what others have durably may not be so
        // here yet: the client asks again and gets it.
        let moved = !self.log.has_durably(wanted.group, wanted.stored.index);
        let Some(read) = self.reads.open.get_mut(&number) else { return };
        let batch = payload.filter(|batch| is_intact(batch, &wanted.stored));
        match &mut read.purpose {
            Purpose::Fetch { parts, .. } => {
                let result = &mut parts[wanted.part].result;
                match (batch, result) {
                    (Some(batch), Ok(records)) => records.batches[wanted.piece] = batch,
                    // Batches after a missing one would be a gap: none is returned from there.
                    (None, Ok(records)) if moved => records.cut = records.cut.min(wanted.piece),
                    (None, result) => *result = Err(ReadRefused::Storage),
                    (Some(_), Err(_)) => {}
                }
            }
            Purpose::Offset { batch: found, .. } => *found = batch,
            Purpose::Offload { batches, .. } => match (batch, batches.as_mut()) {
                (Some(batch), Some(batches)) => batches[wanted.piece] = batch,
                _ => *batches = None,
            },
        }
        self.one_read_done(number);
    }

    /// One of the reads of `number` is done.
    fn one_read_done(&mut self, number: u64) {
        let Some(read) = self.reads.open.get_mut(&number) else { return };
        read.outstanding -= 1;
        if read.outstanding == 0
            && let Some(read) = self.reads.open.remove(&number)
        {
            self.finish_read(read);
        }
    }

    /// Puts what the object tier gave into its place.
    pub(super) fn fill_remote(
        &mut self,
        place: &RemotePlace,
        batches: Result<Vec<Bytes>, ReadRefused>,
    ) {
        if let Some(read) = self.reads.open.get_mut(&place.read)
            && let Purpose::Fetch { parts, .. } = &mut read.purpose
            && let Ok(records) = &mut parts[place.part].result
        {
            match batches {
                Ok(batches) => records.batches = batches,
                Err(refused) => parts[place.part].result = Err(refused),
            }
        }
        self.one_read_done(place.read);
    }

    fn finish_read(&mut self, read: OpenRead) {
        match read.purpose {
            Purpose::Fetch { origin, mut parts } => {
                for records in parts.iter_mut().filter_map(|part| part.result.as_mut().ok()) {
                    records.batches.truncate(records.cut);
                    self.count_read(records);
                }
                self.answer(origin, PartAnswer::Read(parts));
            }
            Purpose::Offset { origin, search, batch } => {
                let found = batch.map(|batch| search.sought.find_in(search.log_start, &batch));
                let found = found.and_then(Result::ok).ok_or(ReadRefused::Storage);
                let answer = found.map(|found| FoundOffset {
                    offset: found.map(|found| found.offset),
                    timestamp_ms: found.map_or(-1, |found| found.timestamp),
                    leader_epoch: search.epoch,
                });
                self.answer(origin, PartAnswer::FindOffset(answer));
            }
            Purpose::Offload { group, batches } => self.gathered_read(group, batches),
        }
    }
}

impl Reads {
    pub(super) fn next_token(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// How much of one partition is returned: what is left of the request's bytes, whether it is the
/// first one with any, and what the request waits for.
#[derive(Clone, Copy)]
struct Limits {
    budget: u32,
    first: bool,
    watch_below: u32,
}

/// Where the batches of a partition come from.
enum Planned {
    Local(ReadPlan),
    /// From the objects, from an offset, so many bytes.
    Remote(Offset, u32),
}

/// The cached batches of a plan, with an empty place for each that has to be read.
fn collect(
    pieces: Vec<Piece>,
    (group, part): (RaftGroupId, usize),
    wanted: &mut Vec<Wanted>,
) -> Vec<Bytes> {
    let place = |(piece, found)| match found {
        Piece::Cached(batch) => batch,
        Piece::Stored(stored) => {
            wanted.push(Wanted { part, piece, group, stored });
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

/// What a reader is told. What a follower does not have its leader may have: told that the offset
/// is out of range, a client could give up its position. What is deleted here is so everywhere.
fn refused(error: ReadError, as_follower: bool) -> ReadRefused {
    match error {
        ReadError::OutOfRange { from, log_start, .. } if as_follower && from >= log_start => {
            ReadRefused::NotYetHere
        }
        ReadError::OutOfRange { .. } | ReadError::Remote { .. } => ReadRefused::OutOfRange,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_leader_says_that_an_offset_is_beyond_the_log() {
        let out = |from| {
            let [from, log_start, log_end] = [from, 10, 20].map(Offset::new);
            ReadError::OutOfRange { from, log_start, log_end }
        };
        for (from, of_leader, of_follower) in [
            (9, ReadRefused::OutOfRange, ReadRefused::OutOfRange),
            (10, ReadRefused::OutOfRange, ReadRefused::NotYetHere),
            (21, ReadRefused::OutOfRange, ReadRefused::NotYetHere),
        ] {
            assert_eq!(refused(out(from), false), of_leader, "{from}");
            assert_eq!(refused(out(from), true), of_follower, "{from}");
        }
    }
}
