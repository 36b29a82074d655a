//! Offload: committed entries of a data group become an object, the object becomes an entry of
//! the group's log, and then the log and the WAL give up what is in the object.
//!
//! ```text
//! Idle -> Gathering -> Reading -> Uploading -> Recording -> Idle
//!         (batches)    (the WAL)  (the store)  (the log)
//! ```
//!
//! One object at a time. A crash at any step leaves at most an object that no manifest names.
//!
//! **Invariant**: the WAL is trimmed only of entries whose object is named by a manifest that a
//! majority holds durably, and that the snapshot under the log contains.

use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{LogIndex, Offset, PartitionId, RaftGroupId};
use s3_uploader::{BatchMeta, Edit, FailPoint, Job, LooseObject, ObjectName, Outcome, fail_point};
use wal_uring::Lsn;

use super::Shard;
use super::compaction::Release;
use super::hosted::entry_of;
use super::replicated_log::Refused;
use super::tier::Tier;
use super::tiers::JobOf;
use crate::metrics::Metric;
use crate::partition::{EntryDescriptor, Partition, Piece};

/// Entries that one turn of the shard looks at, so that no other work waits long.
const GATHERED_PER_TURN: usize = 256;
/// Entries of one object at most.
const ENTRIES_MAX: usize = 1 << 18;
/// Rest after a failure: the next turn would most likely fail too. It doubles with each in a row.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// See the module's text.
pub(crate) struct Offload {
    phase: Phase,
    /// Entries up to here are in objects, or hold no records.
    upto: LogIndex,
    /// The last entry of the last object's name. The next name begins after it, so that the names
    /// leave no hole: who rebuilds from the bucket can tell what is missing.
    named: LogIndex,
    /// Entries up to here are committed.
    committed: LogIndex,
    /// Bytes of batches that are committed and not offloaded.
    pending: u64,
    /// When the oldest of them was committed.
    oldest: Option<Instant>,
    /// Where the WAL ended when the last object was begun.
    began: Lsn,
    /// Nothing is begun before.
    not_before: Option<Instant>,
    pause: Duration,
    /// Another content than ours is stored under the name of an object that ends here: what had to
    /// be left out has changed since it was written. The next one ends elsewhere.
    taken: Option<LogIndex>,
    /// The broker stops: offload what there is, whatever its size and age.
    flushing: bool,
    /// A snapshot is wanted of more of the log than is offloaded: the same, once.
    wanted: bool,
    /// What is in the last object and in memory still.
    pub(super) release: Option<Release>,
}

enum Phase {
    Idle,
    Gathering(Gathered),
    /// Some batches are being read from the WAL.
    Reading(Gathered),
    /// Entries up to an index, and the bytes of their batches.
    Uploading(LogIndex, u64),
    /// The object is stored; its edit is proposed, or has to be.
    Recording {
        edit: Box<Edit>,
        upto: LogIndex,
        bytes: u64,
        proposed: bool,
    },
}

/// Batches on their way into one object, in log order.
struct Gathered {
    /// Entries up to here are looked at.
    upto: LogIndex,
    bytes: u64,
    batches: Vec<(PartitionId, BatchMeta, Piece)>,
}

impl Offload {
    pub(crate) fn new(upto: LogIndex) -> Self {
        Self {
            phase: Phase::Idle,
            upto,
            named: upto,
            committed: upto,
            pending: 0,
            oldest: None,
            began: Lsn::ZERO,
            not_before: None,
            pause: PAUSE,
            taken: None,
            flushing: false,
            wanted: false,
            release: None,
        }
    }

    /// Entries up to here are in objects, or hold no records.
    pub(crate) fn upto(&self) -> LogIndex {
        self.upto
    }

    /// Entries up to here need not be in the log: they are in objects, or hold no records.
    pub(super) fn covered(&self) -> LogIndex {
        if self.is_done() { self.upto.max(self.committed) } else { self.upto }
    }

    /// Offloads what there is now, whatever its size and age.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// The same, unless an object is on its way.
    pub(super) fn want_when_idle(&mut self) {
        self.wanted |= matches!(self.phase, Phase::Idle);
    }

    /// Bytes that are committed and not offloaded.
    pub(crate) fn pending(&self) -> u64 {
        self.pending
    }

    /// How old the oldest of them is.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        self.oldest.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// An entry with a batch of `size` bytes is committed.
    pub(crate) fn committed(&mut self, size: u64, now: Instant) {
        self.pending += size;
        self.oldest.get_or_insert(now);
    }

    /// Everything up to `index` is committed.
    pub(crate) fn advance(&mut self, index: LogIndex) {
        self.committed = self.committed.max(index);
    }

    /// The log begins after `upto`, by a snapshot. A job of the store that is under way ends by
    /// itself.
    pub(super) fn install(&mut self, upto: LogIndex) {
        let (phase, flushing) = (std::mem::replace(&mut self.phase, Phase::Idle), self.flushing);
        *self = Self { flushing, ..Self::new(upto) };
        if matches!(phase, Phase::Reading(_) | Phase::Uploading(..)) {
            self.phase = phase;
        }
    }

    /// Another broker offloads from now on.
    pub(super) fn step_down(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Gathering(_) | Phase::Recording { .. }) {
            self.rest(now);
        }
    }

    #[cfg(feature = "simulation")]
    pub(super) const fn phase_name(&self) -> &'static str {
        match self.phase {
            Phase::Idle => "idle",
            Phase::Gathering(_) => "gathering",
            Phase::Reading(_) => "reading",
            Phase::Uploading(..) => "uploading",
            Phase::Recording { proposed: false, .. } => "recording, not proposed",
            Phase::Recording { .. } => "recording",
        }
    }

    /// The last entry of the object that is stored and not in the manifest yet.
    #[cfg(feature = "simulation")]
    pub(super) fn recording(&self) -> Option<LogIndex> {
        match self.phase {
            Phase::Recording { upto, .. } => Some(upto),
            _ => None,
        }
    }

    pub(crate) fn flush(&mut self) {
        self.flushing = true;
        self.not_before = None;
    }

    /// Nothing is left to offload, or under way, and what is in objects is in memory no more.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Idle) && self.pending == 0 && self.release.is_none()
    }

    fn rest(&mut self, now: Instant) {
        self.phase = Phase::Idle;
        self.not_before = Some(now + self.pause);
        self.pause = PAUSE_MAX.min(2 * self.pause);
    }

    /// `bytes` of batches are no longer pending.
    fn settle(&mut self, upto: LogIndex, bytes: u64, now: Instant) {
        self.upto = self.upto.max(upto);
        self.pending = self.pending.saturating_sub(bytes);
        self.oldest = (self.pending > 0).then_some(now);
    }
}

impl Shard {
    /// Moves the offload of all groups on as far as it goes without waiting.
    pub(crate) fn offload_on(&mut self) {
        for at in 0..self.tiers.len() {
            let busy = self.tiers.at(at).filter(|(_, tier)| !tier.offload.is_done());
            if let Some(group) = busy.map(|(group, _)| group) {
                self.release_on(group);
                self.offload_group_on(group);
            }
        }
    }

    fn offload_group_on(&mut self, group: RaftGroupId) {
        match std::mem::replace(&mut self.tiers[group].offload.phase, Phase::Idle) {
            Phase::Idle if self.offload_is_due(group) => self.begin_offload(group),
            Phase::Gathering(gathered) => self.gather(group, gathered),
            Phase::Recording { edit, upto, bytes, proposed: false } => {
                self.record_object(group, edit, upto, bytes);
            }
            phase => self.tiers[group].offload.phase = phase,
        }
    }

    /// There is more to gather, or to release, in the next turn.
    pub(crate) fn offload_goes_on(&self) -> bool {
        self.tiers.iter().any(|(_, Tier { offload, .. })| {
            offload.release.is_some() || matches!(offload.phase, Phase::Gathering(_))
        })
    }

    fn offload_is_due(&self, group: RaftGroupId) -> bool {
        let offload = &self.tiers[group].offload;
        let now = self.now.instant;
        if offload.pending == 0
            || offload.not_before.is_some_and(|at| now < at)
            || !self.log.has_caught_up(group)
            // Whoever rebuilds the cluster from the bucket must find the topics of what is there.
            || self.node.metadata_stored() < self.metadata.image().version()
            || !self.tiers[group].arrivals_are_stored()
        {
            return false;
        }
        let settings = &self.node.settings.broker;
        offload.flushing
            || offload.wanted
            || offload.pending >= self.object_size()
            || offload.age(now) >= settings.offload_age
            || self.log.wants_offload(offload.began)
    }

    /// Bytes of an object that is worth a request, less where the WAL is small: all groups share
    /// that.
    pub(super) fn object_size(&self) -> u64 {
        let asked = u64::from(self.node.settings.broker.offload_bytes);
        asked.min(self.log.object_size_max() / self.tiers.len().max(1) as u64)
    }

    fn begin_offload(&mut self, group: RaftGroupId) {
        self.tiers[group].offload.wanted = false;
        self.tiers[group].offload.began = self.log.appended_end();
        let first = self.log.first_index(group);
        let upto = self.tiers[group].offload.upto.max(LogIndex::new(first.get() - 1));
        self.gather(group, Gathered { upto, bytes: 0, batches: Vec::new() });
    }

    /// Looks at some more entries; sends the object off when it is complete.
    fn gather(&mut self, group: RaftGroupId, mut gathered: Gathered) {
        let size_max = self.object_size();
        for _ in 0..GATHERED_PER_TURN {
            let offload = &mut self.tiers[group].offload;
            let is_taken = offload.taken == Some(gathered.upto);
            if gathered.upto >= offload.committed && is_taken {
                // The entry that was proposed then makes another name possible.
                return offload.rest(self.now.instant);
            }
            let is_full = gathered.bytes >= size_max || gathered.batches.len() >= ENTRIES_MAX;
            if gathered.upto >= offload.committed || is_full && !is_taken {
                return self.read_gathered(group, gathered);
            }
            gathered.upto = gathered.upto.next();
            let descriptor = self.log.entry(group, gathered.upto);
            let descriptor = descriptor.and_then(|entry| entry.descriptor);
            let Some(batch) = descriptor.as_ref().and_then(entry_of) else { continue };
            gathered.bytes += u64::from(batch.batch_size());
            // The batches of a deleted topic are left behind, and so are deleted records.
            let wanted = |log: &&Partition| batch.end_offset() > log.log_start();
            if let Some(partition) = self.hosting.of(group, batch.partition()).filter(wanted) {
                let piece = partition.piece_of(gathered.upto, &batch);
                gathered.batches.push((batch.partition(), meta_of(&batch), piece));
            }
        }
        self.tiers[group].offload.phase = Phase::Gathering(gathered);
    }

    /// Reads from the WAL what is in no cache any more.
    fn read_gathered(&mut self, group: RaftGroupId, gathered: Gathered) {
        let stored =
            gathered.batches.iter().enumerate().filter_map(|(at, (_, _, piece))| match piece {
                Piece::Stored(stored) => Some((at, *stored)),
                Piece::Cached(_) => None,
            });
        let stored: Vec<_> = stored.collect();
        if stored.is_empty() {
            return self.upload(group, gathered);
        }
        self.tiers[group].offload.phase = Phase::Reading(gathered);
        self.read_for_offload(group, stored);
    }

    /// The WAL gave back what was asked, in the order of asking; `None` if a read failed.
    pub(super) fn gathered_read(&mut self, group: RaftGroupId, found: Option<Vec<Bytes>>) {
        if !self.tiers.contains(group) {
            return; // It has left this broker.
        }
        let phase = std::mem::replace(&mut self.tiers[group].offload.phase, Phase::Idle);
        let Phase::Reading(mut gathered) = phase else {
            // It has left this broker meanwhile, and come back.
            self.tiers[group].offload.phase = phase;
            return;
        };
        let Some(found) = found else {
            self.metrics.add(Metric::OffloadFailures, 1);
            return self.tiers[group].offload.rest(self.now.instant);
        };
        let is_stored = |piece: &&mut Piece| matches!(piece, Piece::Stored(_));
        let places = gathered.batches.iter_mut().map(|(_, _, piece)| piece).filter(is_stored);
        for (piece, bytes) in places.zip(found) {
            *piece = Piece::Cached(bytes);
        }
        self.upload(group, gathered);
    }

    fn upload(&mut self, group: RaftGroupId, gathered: Gathered) {
        let now = self.now.instant;
        let Some(term) = self.log.leads(group) else { return self.tiers[group].offload.rest(now) };
        if gathered.batches.is_empty() {
            self.tiers[group].offload.settle(gathered.upto, gathered.bytes, now);
            return;
        }
        let first = self.tiers[group].offload.named.next();
        let name = ObjectName::range(group, term, first, gathered.upto)
            .expect("an object with batches has entries");
        let batches = gathered.batches.into_iter().map(|(partition, meta, piece)| match piece {
            Piece::Cached(batch) => (partition, meta, batch),
            Piece::Stored(_) => unreachable!("all were read"),
        });
        let object = LooseObject { name, batches: batches.collect() };
        self.tiers[group].offload.phase = Phase::Uploading(gathered.upto, gathered.bytes);
        fail_point(FailPoint::OffloadGathered);
        if !self.tiers.start(group, Job::Seal(object), JobOf::Object) {
            self.tiers[group].offload.rest(now);
        }
    }

    /// The object is stored, or could not be.
    pub(super) fn object_done(&mut self, group: RaftGroupId, outcome: Outcome) {
        let phase = std::mem::replace(&mut self.tiers[group].offload.phase, Phase::Idle);
        let Phase::Uploading(upto, bytes) = phase else { unreachable!("one object at a time") };
        match outcome {
            Outcome::Sealed { object, size, extents } => {
                fail_point(FailPoint::OffloadStored);
                self.tiers[group].offload.pause = PAUSE;
                self.tiers[group].offload.taken = None;
                self.metrics.add(Metric::OffloadObjects, 1);
                self.metrics.add(Metric::OffloadBytes, size);
                let edit = Edit::Offloaded { upto, object, object_size: size, extents };
                self.record_object(group, Box::new(edit), upto, bytes);
            }
            outcome => {
                if outcome == Outcome::Conflict {
                    self.tiers[group].offload.taken = Some(upto);
                    // It changes nothing but the end of the log.
                    let _ = self.propose_edit(group, &Edit::Dropped { partitions: Vec::new() });
                }
                self.metrics.add(Metric::OffloadFailures, 1);
                self.tiers[group].offload.rest(self.now.instant);
            }
        }
    }

    fn record_object(&mut self, group: RaftGroupId, edit: Box<Edit>, upto: LogIndex, bytes: u64) {
        // The reserve for the broker's own entries may be used up for now: then it is tried again.
        let outcome = self.propose_edit(group, &edit);
        if outcome == Err(Refused::NotLeader) {
            return self.tiers[group].offload.rest(self.now.instant);
        }
        let proposed = outcome.is_ok();
        fail_point(FailPoint::OffloadProposed);
        self.tiers[group].offload.phase = Phase::Recording { edit, upto, bytes, proposed };
    }

    /// An object is in the manifest: its entries are needed no more.
    pub(super) fn offloaded(&mut self, group: RaftGroupId, upto: LogIndex) {
        fail_point(FailPoint::OffloadApplied);
        let bytes = match self.end_recording(group, upto) {
            Some(bytes) => bytes,
            None => self.batch_bytes(group, self.tiers[group].offload.upto, upto),
        };
        self.tiers[group].offload.settle(upto, bytes, self.now.instant);
        self.tiers[group].offload.named = upto;
        self.release(group, upto);
    }

    /// An edit changed nothing: it was proposed on a state that is no more.
    pub(super) fn offload_void(&mut self, group: RaftGroupId, edit: &Edit) {
        if let Edit::Offloaded { upto, .. } = edit {
            self.end_recording(group, *upto);
        }
    }

    /// Ends the recording of an object up to `upto`, if it is the one under way here; returns the
    /// bytes of its batches.
    fn end_recording(&mut self, group: RaftGroupId, upto: LogIndex) -> Option<u64> {
        match self.tiers[group].offload.phase {
            Phase::Recording { upto: own, bytes, .. } if own == upto => {
                self.tiers[group].offload.phase = Phase::Idle;
                Some(bytes)
            }
            _ => None,
        }
    }

    /// Bytes of the batches in entries after `from` up to `upto`: of an edit that was made before
    /// this start.
    fn batch_bytes(&self, group: RaftGroupId, from: LogIndex, upto: LogIndex) -> u64 {
        (from.get() + 1..=upto.get())
            .filter_map(|index| self.log.entry(group, LogIndex::new(index))?.descriptor)
            .filter_map(|descriptor| entry_of(&descriptor))
            .map(|batch| u64::from(batch.batch_size()))
            .sum()
    }

    /// The log start of a partition moved: by retention, or because a client asked.
    pub(super) fn log_start_moved(
        &mut self,
        group: RaftGroupId,
        partition: PartitionId,
        offset: Offset,
    ) {
        if let Some((log, tail)) = self.hosting.of_mut(group, partition) {
            // Never above the high watermark: it was checked when the edit was proposed.
            let _ = log.trim_to(offset, tail);
        }
    }
}

fn meta_of(batch: &EntryDescriptor) -> BatchMeta {
    BatchMeta {
        base_offset: batch.base_offset(),
        end_offset: batch.end_offset(),
        max_timestamp: batch.max_timestamp(),
    }
}
