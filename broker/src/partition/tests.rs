//! A partition as its shard uses it: the rules by name here, random histories in
//! `tests/histories.rs`, idempotence in `tests/idempotence.rs`, what is not local any more in
//! `tests/snapshots.rs`.

mod histories;
mod idempotence;
mod moved;
mod snapshots;

use kafka_wire::Compression;
use kafka_wire::records::RecordBatchBuilder;
use kafka_wire::validate::{BatchInfo, ValidationRules, validate};

use super::*;

const ID: PartitionId = PartitionId::new(9);
const BATCH_SIZE: u32 = 100;
const NOW: i64 = 1_700_000_000_000;
const ROOMY: usize = 1 << 20;

/// A partition with the raft log and the budget that belong to it.
struct Log {
    partition: Partition,
    budget: TailBudget,
    index: u64,
    term: u64,
    now: i64,
}

impl Log {
    fn new() -> Self {
        let budget = TailBudget::new(ROOMY);
        Self { partition: Partition::new(ID), budget, index: 0, term: 1, now: NOW }
    }

    /// `count` batches of `records` each, at timestamps 0, 1, 2 ..
    fn filled(count: i64, records: i32) -> Self {
        let mut log = Self::new();
        for timestamp in 0..count {
            log.append(plain(records, timestamp));
        }
        log
    }

    fn offer(&mut self, batch: Submission) -> Result<Prepared, AppendError> {
        let prepared = self.partition.prepare(&batch, self.now)?;
        if let Prepared::New(new) = prepared {
            self.index += 1;
            let (index, term) = (LogIndex::new(self.index), Term::new(self.term));
            let bytes = bytes_of(new.base_offset(), index);
            let size = bytes.len();
            self.partition.appended(new, index, term, bytes, size, &mut self.budget);
        }
        Ok(prepared)
    }

    /// The base offset of a batch that is new.
    fn append(&mut self, batch: Submission) -> i64 {
        match self.offer(batch) {
            Ok(Prepared::New(new)) => new.base_offset().get(),
            other => panic!("not appended: {other:?}"),
        }
    }

    fn commit(&mut self, index: u64) -> bool {
        self.partition.committed(LogIndex::new(index))
    }

    fn truncate(&mut self, from: u64) {
        let from = LogIndex::new(from);
        self.partition.truncate(from, &mut self.budget).expect("not committed");
        self.term += 1;
    }

    fn release(&mut self, index: u64) {
        self.partition.release_before(LogIndex::new(index), &mut self.budget);
    }

    fn trim(&mut self, to: i64) -> Result<(), TrimError> {
        self.partition.trim_to(Offset::new(to), &mut self.budget)
    }

    fn read(&self, from: i64, size_max: u64, at_least_one: bool) -> Result<ReadPlan, ReadError> {
        self.partition.read(Offset::new(from), size_max, at_least_one, VisibleEnd::HighWatermark)
    }

    /// Start, high watermark, end.
    fn ends(&self) -> (i64, i64, i64) {
        let log = &self.partition;
        (log.log_start().get(), log.high_watermark().get(), log.log_end().get())
    }
}

/// Of no producer.
fn plain(record_count: i32, max_timestamp: i64) -> Submission {
    Submission {
        record_count,
        batch_size: BATCH_SIZE,
        max_timestamp,
        attributes: 0,
        producer: None,
        first_sequence: FirstSequence::Any,
    }
}

/// Bytes that tell which batch they are, and of which entry.
fn bytes_of(base_offset: Offset, index: LogIndex) -> Bytes {
    let mut bytes = vec![0; usize::try_from(BATCH_SIZE).expect("small")];
    bytes[..8].copy_from_slice(&base_offset.get().to_be_bytes());
    bytes[8..16].copy_from_slice(&index.get().to_be_bytes());
    Bytes::from(bytes)
}

fn bases(plan: &ReadPlan) -> Vec<i64> {
    let base = |piece: &Piece| match piece {
        Piece::Cached(bytes) => {
            i64::from_be_bytes(bytes[..8].try_into().expect("a batch has a base offset"))
        }
        Piece::Stored(batch) => batch.base_offset.get(),
    };
    plan.pieces.iter().map(base).collect()
}

fn entry(partition: u64, base_offset: i64, record_count: u32) -> EntryDescriptor {
    EntryDescriptor {
        partition: PartitionId::new(partition),
        base_offset: Offset::new(base_offset),
        record_count,
        batch_size: BATCH_SIZE,
        max_timestamp: 0,
        appended_at: NOW,
        attributes: 0,
        producer: None,
    }
}

#[test]
fn offsets_are_dense_and_the_high_watermark_follows_the_commit() {
    let mut log = Log::new();
    assert_eq!(log.append(plain(3, 0)), 0);
    assert_eq!(log.append(plain(1, 0)), 3);
    assert_eq!(log.append(plain(6, 0)), 4);
    assert_eq!(log.ends(), (0, 0, 10));
    assert!(log.commit(2));
    assert_eq!(log.ends(), (0, 4, 10));
    assert!(!log.commit(1), "a commit does not go back");
    assert!(log.commit(70), "of which only entry 3 is ours");
    assert_eq!(log.ends(), (0, 10, 10));
    assert!(!log.commit(71));
    assert_eq!(log.partition.last_stable_offset(), log.partition.high_watermark());
}

#[test]
fn preparing_changes_nothing() {
    let mut log = Log::new();
    for _ in 0..3 {
        let prepared = log.partition.prepare(&plain(3, 0), NOW).expect("valid");
        assert!(matches!(prepared, Prepared::New(new) if new.base_offset() == Offset::ZERO));
    }
    assert_eq!(log.append(plain(3, 0)), 0);
}

#[test]
fn a_batch_that_could_not_be_read_back_is_refused() {
    let log = Log::new();
    let refused = |batch: Submission| log.partition.prepare(&batch, NOW).expect_err("refused");
    for record_count in [0, -1, i32::MIN] {
        let expected = AppendError::NotABatch { record_count, batch_size: BATCH_SIZE };
        assert_eq!(refused(plain(record_count, 0)), expected);
    }
    let tiny = Submission { batch_size: 60, ..plain(1, 0) };
    assert_eq!(refused(tiny), AppendError::NotABatch { record_count: 1, batch_size: 60 });
}

#[test]
fn offsets_run_out_without_a_panic() {
    let log_end = Offset::new(i64::MAX - 2);
    let partition = Partition::starting_at(ID, log_end);
    assert!(partition.prepare(&plain(2, 0), NOW).is_ok());
    let error = partition.prepare(&plain(3, 0), NOW).expect_err("too many");
    assert_eq!(error, AppendError::OffsetsExhausted { log_end });
}

#[test]
#[should_panic(expected = "prepared for another log end")]
fn a_stale_preparation_is_not_appended() {
    let mut log = Log::new();
    let Ok(Prepared::New(stale)) = log.partition.prepare(&plain(1, 0), NOW) else {
        panic!("new");
    };
    log.append(plain(1, 0));
    let (index, term) = (LogIndex::new(2), Term::new(1));
    log.partition.appended(stale, index, term, Bytes::new(), 0, &mut log.budget);
}

#[test]
fn a_read_starts_with_the_batch_that_contains_the_offset() {
    let mut log = Log::filled(5, 10);
    log.commit(5);
    for from in 20..30 {
        assert_eq!(bases(&log.read(from, u64::MAX, false).expect("in range")), [20, 30, 40]);
    }
}

#[test]
fn a_read_stops_at_the_byte_limit_but_can_return_one_batch() {
    let mut log = Log::filled(5, 10);
    log.commit(5);
    let found = |size_max, at_least_one| {
        let plan = log.read(0, size_max, at_least_one).expect("in range");
        assert_eq!(plan.size, 100 * u64::try_from(plan.pieces.len()).expect("small"));
        (bases(&plan), plan.more)
    };
    assert_eq!(found(99, false), (vec![], true));
    assert_eq!(found(0, true), (vec![0], true));
    assert_eq!(found(299, true), (vec![0, 10], true));
    assert_eq!(found(300, false), (vec![0, 10, 20], true));
    assert_eq!(found(500, false), (vec![0, 10, 20, 30, 40], false));
}

#[test]
fn a_read_ends_at_the_visible_end_and_is_empty_from_there_to_the_log_end() {
    let mut log = Log::filled(3, 10);
    log.commit(2);
    assert_eq!(bases(&log.read(0, u64::MAX, true).expect("in range")), [0, 10]);
    for from in 20..=30 {
        assert_eq!(log.read(from, u64::MAX, true), Ok(ReadPlan::default()), "from {from}");
    }
    for end in [VisibleEnd::HighWatermark, VisibleEnd::LastStable] {
        let size = log.partition.readable_size(Offset::new(5), u64::MAX, end);
        assert_eq!(size, Ok(200));
        assert_eq!(log.partition.readable_size(Offset::ZERO, 1, end), Ok(100));
    }
}

#[test]
fn a_read_outside_the_log_is_an_error() {
    let mut log = Log::filled(3, 10);
    log.commit(3);
    log.trim(15).expect("committed");
    for from in [-1, 0, 14, 31, i64::MAX] {
        let error = log.read(from, u64::MAX, true).expect_err("outside");
        let (log_start, log_end) = (Offset::new(15), Offset::new(30));
        assert_eq!(error, ReadError::OutOfRange { from: Offset::new(from), log_start, log_end });
    }
    assert_eq!(bases(&log.read(15, u64::MAX, true).expect("the log start")), [10, 20]);
}

#[test]
fn an_evicted_batch_is_named_by_its_entry() {
    let mut log = Log::filled(2, 10);
    log.commit(2);
    log.budget = {
        let mut small = TailBudget::new(0);
        log.partition.drop_tail(&mut log.budget);
        assert_eq!(log.budget.bytes(), 0);
        assert_eq!(small.victim(), None);
        small
    };
    let stored = |index, base_offset| {
        let (index, base_offset) = (LogIndex::new(index), Offset::new(base_offset));
        Piece::Stored(StoredBatch { index, base_offset, size: BATCH_SIZE })
    };
    let plan = log.read(0, u64::MAX, true).expect("in range");
    assert_eq!(plan.pieces, [stored(1, 0), stored(2, 10)]);
}

#[test]
fn one_plan_has_a_bounded_number_of_pieces() {
    let mut log = Log::filled(5000, 1);
    log.commit(5000);
    let plan = log.read(0, u64::MAX, true).expect("in range");
    assert_eq!((plan.pieces.len(), plan.more), (4096, true));
}

#[test]
fn trimming_needs_a_commit_and_keeps_the_batch_in_the_middle() {
    let mut log = Log::filled(4, 10);
    log.commit(3);
    let (to, high_watermark) = (Offset::new(31), Offset::new(30));
    assert_eq!(log.trim(31), Err(TrimError { to, high_watermark }));
    assert_eq!(log.trim(25), Ok(()));
    assert_eq!(log.ends(), (25, 30, 40));
    assert_eq!(log.partition.first_index(), Some(LogIndex::new(3)));
    assert_eq!(log.trim(7), Ok(()), "no change");
    assert_eq!(log.ends(), (25, 30, 40));
    log.commit(4);
    assert_eq!(log.trim(40), Ok(()));
    assert_eq!((log.ends(), log.partition.first_index()), ((40, 40, 40), None));
    assert_eq!(log.budget.bytes(), 0);
    assert_eq!(log.append(plain(1, 0)), 40);
    assert!(log.commit(5));
}

#[test]
fn truncation_takes_back_what_is_not_committed_only() {
    let mut log = Log::filled(4, 10);
    log.commit(2);
    let result = log.partition.truncate(LogIndex::new(2), &mut log.budget);
    let (from, committed) = (LogIndex::new(2), LogIndex::new(2));
    assert_eq!(result, Err(TruncateError { from, committed }));
    log.truncate(3);
    assert_eq!(log.ends(), (0, 20, 20));
    log.index = 2;
    assert_eq!(log.append(plain(5, 0)), 20);
    log.commit(3);
    assert_eq!(log.ends(), (0, 25, 25));
    assert_eq!(bases(&log.read(20, u64::MAX, true).expect("in range")), [20]);
}

#[test]
fn readers_never_get_the_bytes_of_a_replaced_entry() {
    let mut log = Log::filled(3, 10);
    log.truncate(2);
    log.append(plain(10, 0));
    log.commit(4);
    let plan = log.read(10, u64::MAX, true).expect("in range");
    let replacing = bytes_of(Offset::new(10), LogIndex::new(4));
    assert_eq!(plan.pieces, [Piece::Cached(replacing)]);
}

#[test]
fn epochs_follow_truncation_and_trim() {
    let mut log = Log::filled(2, 10);
    log.commit(2);
    log.term = 4;
    log.append(plain(10, 0));
    log.truncate(3);
    assert_eq!(log.partition.latest_leader_epoch(), Some(LeaderEpoch::new(1)));
    log.partition.become_leader(Term::new(6)).expect("later");
    log.truncate(3);
    assert_eq!(log.partition.latest_leader_epoch(), Some(LeaderEpoch::new(1)));
    log.trim(15).expect("committed");
    let end = |epoch| log.partition.epoch_end(LeaderEpoch::new(epoch)).map(|end| end.end_offset);
    assert_eq!((end(0), end(1)), (Some(Offset::new(15)), Some(Offset::new(20))));
}

#[test]
fn an_inconsistent_replay_is_refused_and_changes_nothing() {
    let mut log = Log::filled(2, 10);
    let mut replay = |index, term, entry: &EntryDescriptor| {
        log.partition.replay(LogIndex::new(index), Term::new(term), entry)
    };
    let (last, found) = (LogIndex::new(2), LogIndex::new(2));
    assert_eq!(replay(2, 1, &entry(9, 20, 1)), Err(ReplayError::IndexWentBack { last, found }));
    for gap in [19, 21] {
        let (expected, found) = (Offset::new(20), Offset::new(gap));
        let error = ReplayError::OffsetGap { index: LogIndex::new(3), expected, found };
        assert_eq!(replay(3, 1, &entry(9, gap, 1)), Err(error));
    }
    let (expected, found) = (ID, PartitionId::new(8));
    let error = ReplayError::OtherPartition { expected, found };
    assert_eq!(replay(3, 1, &entry(8, 20, 1)), Err(error));
    let (latest, found) = (LeaderEpoch::new(1), LeaderEpoch::new(0));
    let error = ReplayError::EpochWentBack(EpochWentBack { latest, found });
    assert_eq!(replay(3, 0, &entry(9, 20, 1)), Err(error));
    assert_eq!(replay(3, 1, &entry(9, 20, 1)), Ok(()));
    assert_eq!(log.ends(), (0, 0, 21));
}

#[test]
fn an_entry_replayed_after_its_commit_is_visible_at_once() {
    let mut partition = Partition::starting_at(ID, Offset::new(50));
    assert!(!partition.committed(LogIndex::new(8)));
    partition.replay(LogIndex::new(7), Term::new(1), &entry(9, 50, 2)).expect("in order");
    partition.replay(LogIndex::new(9), Term::new(1), &entry(9, 52, 2)).expect("in order");
    assert_eq!(partition.high_watermark(), Offset::new(52));
}

#[test]
fn a_replayed_batch_can_be_kept_for_readers() {
    let mut log = Log::new();
    log.partition.replay(LogIndex::new(1), Term::new(1), &entry(9, 0, 2)).expect("in order");
    log.commit(1);
    let bytes = bytes_of(Offset::ZERO, LogIndex::new(1));
    log.partition.keep_in_tail(Offset::ZERO, bytes.clone(), bytes.len(), &mut log.budget);
    let plan = log.read(1, u64::MAX, true).expect("in range");
    assert_eq!(plan.pieces, [Piece::Cached(bytes)]);
}

#[test]
fn timestamps_lead_to_the_first_record_that_is_not_older() {
    let mut log = Log::new();
    for max_timestamp in [100, 300, 200, 300, 400] {
        log.append(plain(10, max_timestamp));
    }
    log.commit(4);
    let base = |sought, from| {
        let end = VisibleEnd::HighWatermark;
        let found = log.partition.timestamp_candidates(sought, Offset::new(from), end).local?;
        let plan = ReadPlan { pieces: vec![found.batch], ..ReadPlan::default() };
        assert_eq!(bases(&plan)[0] + 10, found.end_offset.get());
        Some(bases(&plan)[0])
    };
    assert_eq!(base(Sought::AtOrAfter(0), 0), Some(0));
    assert_eq!(base(Sought::AtOrAfter(101), 0), Some(10));
    assert_eq!(base(Sought::AtOrAfter(300), 20), Some(30));
    assert_eq!(base(Sought::AtOrAfter(301), 0), None, "not committed");
    assert_eq!(base(Sought::Youngest, 0), Some(10));
    let (sought, end) = (Sought::Youngest, VisibleEnd::LastStable);
    let none = Log::new().partition.timestamp_candidates(sought, Offset::ZERO, end);
    assert_eq!(none, TimestampCandidates::default());
}

#[test]
fn a_trimmed_youngest_record_gives_way_to_the_next() {
    let mut log = Log::new();
    for max_timestamp in [900, 100, 500] {
        log.append(plain(10, max_timestamp));
    }
    log.commit(3);
    log.trim(5).expect("committed");
    let end = VisibleEnd::HighWatermark;
    let next = |from| {
        let found = log.partition.timestamp_candidates(Sought::Youngest, Offset::new(from), end);
        found.local.map(|candidate| candidate.end_offset.get())
    };
    // Its record of 900 may be one of those below 5: then the caller asks on from its end.
    assert_eq!(next(0), Some(10));
    assert_eq!(next(10), Some(30));
    assert_eq!(next(30), None);
}

#[test]
fn the_record_sought_is_found_among_those_of_a_batch() {
    for compression in [Compression::None, Compression::Lz4] {
        let mut builder = RecordBatchBuilder::new().base_offset(10).compression(compression);
        for timestamp in [5, 9, 7, 9] {
            builder.append(timestamp, None, Some(b"value"), &[]);
        }
        let batch = builder.build();
        let find = |sought: Sought, log_start| {
            let found = sought.find_in(Offset::new(log_start), &batch).expect("readable");
            found.map(|record| (record.offset.get(), record.timestamp))
        };
        assert_eq!(find(Sought::AtOrAfter(5), 0), Some((10, 5)));
        assert_eq!(find(Sought::AtOrAfter(6), 0), Some((11, 9)));
        assert_eq!(find(Sought::AtOrAfter(6), 12), Some((12, 7)));
        assert_eq!(find(Sought::AtOrAfter(10), 0), None);
        assert_eq!(find(Sought::Youngest, 0), Some((11, 9)));
        assert_eq!(find(Sought::Youngest, 12), Some((13, 9)));
        assert_eq!(find(Sought::Youngest, 14), None);
    }
}

#[test]
fn a_record_is_not_sought_in_bytes_that_are_no_batch() {
    let mut batch = RecordBatchBuilder::new().append(5, None, Some(b"value"), &[]).build();
    let find = |bytes: &[u8]| Sought::Youngest.find_in(Offset::ZERO, bytes);
    assert_eq!(find(&batch[..60]), Err(SearchError::NotABatch));
    let last = batch.len() - 1;
    assert_eq!(find(&batch[..last]), Err(SearchError::NotABatch));
    // The record's length.
    batch[61] = 0xff;
    assert!(matches!(find(&batch), Err(SearchError::Records(_))));
}

#[test]
fn a_batch_of_a_client_is_submitted_as_validated() {
    let mut builder = RecordBatchBuilder::new().producer(7, 2, 30);
    builder.append(5, None, Some(b"value"), &[]);
    let mut batch = builder.build();
    let info = validate(&mut batch, &ValidationRules::default()).expect("valid");
    let submission = Submission::from(&info);
    let expected = Submission {
        producer: Some(ProducerStamp { id: 7, epoch: 2, base_sequence: 30 }),
        batch_size: u32::try_from(batch.len()).expect("small"),
        ..plain(1, 5)
    };
    assert_eq!(submission, expected);
    let none = Submission::from(&BatchInfo { producer_id: -1, ..info });
    assert_eq!(none, Submission { producer: None, ..expected });
}

#[test]
fn a_fetcher_with_other_records_is_told_where_they_diverge() {
    let mut log = Log::filled(2, 10);
    log.term = 3;
    log.append(plain(10, 0));
    let diverges = |epoch, offset| {
        let found = log.partition.diverging_epoch(LeaderEpoch::new(epoch), Offset::new(offset));
        found.map(|end| end.map(|end| (end.epoch.get(), end.end_offset.get())))
    };
    assert_eq!(diverges(1, 20), Ok(None));
    assert_eq!(diverges(1, 21), Ok(Some((1, 20))));
    assert_eq!(diverges(2, 20), Ok(Some((1, 20))));
    assert_eq!(diverges(3, 30), Ok(None));
    assert_eq!(diverges(3, 31), Ok(Some((3, 30))));
    assert!(matches!(diverges(4, 30), Err(ReadError::OutOfRange { .. })));
}

#[test]
fn a_new_leader_knows_its_epoch_before_it_writes() {
    let mut log = Log::filled(2, 10);
    log.partition.become_leader(Term::new(4)).expect("later");
    let end = log.partition.epoch_end(LeaderEpoch::new(4)).expect("known");
    assert_eq!(end, EpochEnd { epoch: LeaderEpoch::new(4), end_offset: Offset::new(20) });
    let end = log.partition.epoch_end(LeaderEpoch::new(3)).expect("known");
    assert_eq!(end, EpochEnd { epoch: LeaderEpoch::new(1), end_offset: Offset::new(20) });
    assert_eq!(log.partition.leader_epoch_at(Offset::new(19)), Some(LeaderEpoch::new(1)));
    assert_eq!(log.partition.latest_leader_epoch(), Some(LeaderEpoch::new(4)));
    assert!(log.partition.become_leader(Term::new(0)).is_err());
}

#[test]
fn an_idle_partition_costs_at_most_4_kib() {
    const IDLE_MAX: usize = 4096;
    let mut log = Log::new();
    assert!(log.partition.memory_size() <= IDLE_MAX, "{}", log.partition.memory_size());
    log.append(Submission {
        producer: Some(ProducerStamp { id: 1, epoch: 0, base_sequence: 0 }),
        ..plain(1, 0)
    });
    log.commit(1);
    assert!(log.partition.memory_size() <= IDLE_MAX, "{}", log.partition.memory_size());
}

#[test]
fn a_partition_that_was_busy_is_small_again() {
    let mut log = Log::filled(5000, 1);
    log.commit(5000);
    assert!(log.partition.memory_size() > 5000 * 32);
    log.trim(5000).expect("committed");
    assert!(log.partition.memory_size() <= 4096, "{}", log.partition.memory_size());
}

#[test]
fn what_a_replica_has_ends_with_the_entries_that_it_has() {
    let mut log = Log::new();
    for _ in 0..3 {
        log.append(plain(5, 0));
        log.index += 10;
    }
    let end_at = |log: &Log, index| log.partition.end_at(LogIndex::new(index)).get();
    let ends = [0, 1, 11, 12, 22, 23, 99].map(|index| end_at(&log, index));
    assert_eq!(ends, [0, 5, 5, 10, 10, 15, 15]);
    log.commit(12);
    log.release(12);
    assert_eq!(end_at(&log, 0), 10, "what is not local is in an object");
}
