//! Random histories of two partitions in one raft log, against a model that keeps every entry and
//! derives all from that list.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::snapshots::restored;
use super::*;

/// As an index: after all entries.
const ALL: LogIndex = LogIndex::new(u64::MAX);
const PARTITIONS: usize = 2;
/// Room for about ten batches of [`BATCH_SIZE`] with their overhead.
const TIGHT: usize = 2300;

#[derive(Clone, Debug)]
enum Step {
    Produce {
        at: usize,
        producer: Option<Produced>,
        records: i32,
        timestamp: i64,
    },
    Commit {
        ahead: u64,
    },
    /// A new leader that replaces the last entries.
    Truncate {
        back: u64,
    },
    Trim {
        at: usize,
        percent: i64,
    },
    /// The committed entries but the last `back` are in the object store.
    Release {
        back: u64,
    },
    /// A restart from a snapshot that stands for so much of what is committed.
    Restore {
        percent: u64,
    },
    Expire,
    Read {
        at: usize,
        percent: i64,
        size_max: u64,
        at_least_one: bool,
    },
}

#[derive(Clone, Debug)]
struct Produced {
    id: i64,
    epoch: i16,
    sequence: Sequence,
}

#[derive(Clone, Debug)]
enum Sequence {
    Next,
    /// That of the batch so many back.
    Again(usize),
    Exactly(i32),
}

fn step() -> impl Strategy<Value = Step> {
    let at = 0..PARTITIONS;
    let sequence = prop_oneof![
        6 => Just(Sequence::Next),
        3 => (0_usize..8).prop_map(Sequence::Again),
        1 => prop_oneof![Just(0), Just(i32::MAX - 1), 0..4].prop_map(Sequence::Exactly),
    ];
    let epoch = prop_oneof![6 => Just(1_i16), 1 => 0..4_i16];
    let producer = (0..2_i64, epoch, sequence);
    let producer = producer.prop_map(|(id, epoch, sequence)| Produced { id, epoch, sequence });
    prop_oneof![
        12 => (at.clone(), prop::option::weighted(0.8, producer), 1..4, 0..50_i64).prop_map(
            |(at, producer, records, timestamp)| Step::Produce { at, producer, records, timestamp }
        ),
        4 => (0..6_u64).prop_map(|ahead| Step::Commit { ahead }),
        2 => (0..6_u64).prop_map(|back| Step::Truncate { back }),
        1 => (at.clone(), 0..101_i64).prop_map(|(at, percent)| Step::Trim { at, percent }),
        1 => (0..20_u64).prop_map(|back| Step::Release { back }),
        1 => (0..101_u64).prop_map(|percent| Step::Restore { percent }),
        1 => Just(Step::Expire),
        3 => (at, -5..106_i64, 0..1000_u64, any::<bool>()).prop_map(
            |(at, percent, size_max, at_least_one)| {
                Step::Read { at, percent, size_max, at_least_one }
            }
        ),
    ]
}

#[derive(Clone, Debug)]
struct Entry {
    index: u64,
    term: u64,
    at: usize,
    batch: EntryDescriptor,
}

/// Every entry of the raft log, and what cannot be derived from them.
#[derive(Debug)]
struct Model {
    entries: Vec<Entry>,
    committed: u64,
    last_index: u64,
    term: u64,
    log_start: [i64; PARTITIONS],
    released: u64,
    /// Producers are forgotten up to an entry.
    expired: BTreeMap<(usize, i64), u64>,
}

#[derive(Debug, Eq, PartialEq)]
enum Decision {
    New,
    Duplicate { base_offset: i64, committed: bool },
    OutOfOrder,
    InvalidEpoch,
}

impl Model {
    fn of(&self, at: usize) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.at == at)
    }

    fn log_end(&self, at: usize) -> i64 {
        self.of(at).last().map_or(0, |entry| entry.batch.end_offset().get())
    }

    fn local_start(&self, at: usize) -> i64 {
        let released = self.of(at).rfind(|entry| entry.index <= self.released);
        let end = released.map_or(0, |entry| entry.batch.end_offset().get());
        end.max(self.log_start[at])
    }

    fn high_watermark(&self, at: usize) -> i64 {
        let committed = self.of(at).rfind(|entry| entry.index <= self.committed);
        committed.map_or(0, |entry| entry.batch.end_offset().get())
    }

    fn produced(&self, at: usize, id: i64) -> Vec<(&Entry, ProducerStamp)> {
        let expired = self.expired.get(&(at, id)).copied().unwrap_or(0);
        let known = self.of(at).filter(|entry| entry.index > expired);
        let stamped = known.filter_map(|entry| Some((entry, entry.batch.producer?)));
        stamped.filter(|(_, stamp)| stamp.id == id).collect()
    }

    fn next_sequence(&self, at: usize, id: i64) -> i32 {
        let Some((entry, stamp)) = self.produced(at, id).pop() else { return 0 };
        let next = i64::from(stamp.base_sequence) + i64::from(entry.batch.record_count);
        i32::try_from(next % (1 << 31)).expect("below 2^31")
    }

    fn stamp(&self, at: usize, produced: &Produced) -> ProducerStamp {
        let before = self.produced(at, produced.id);
        let next = self.next_sequence(at, produced.id);
        let base_sequence = match produced.sequence {
            Sequence::Next => next,
            Sequence::Again(back) => {
                before.iter().rev().nth(back).map_or(next, |(_, stamp)| stamp.base_sequence)
            }
            Sequence::Exactly(sequence) => sequence,
        };
        ProducerStamp { id: produced.id, epoch: produced.epoch, base_sequence }
    }

    fn decide(&self, at: usize, stamp: ProducerStamp, records: i32) -> Decision {
        let before = self.produced(at, stamp.id);
        let Some((_, last)) = before.last() else { return Decision::New };
        // A replica that forgot the producer may have taken an older epoch after a newer one.
        let youngest_first = before.iter().rev();
        let of_epoch = youngest_first.take_while(|(_, earlier)| earlier.epoch == last.epoch);
        for (entry, earlier) in of_epoch.take(5) {
            if *earlier == stamp && entry.batch.record_count == records.unsigned_abs() {
                let base_offset = entry.batch.base_offset.get();
                let committed = entry.index <= self.committed;
                return Decision::Duplicate { base_offset, committed };
            }
        }
        let expected = if stamp.epoch == last.epoch { self.next_sequence(at, stamp.id) } else { 0 };
        match stamp.epoch < last.epoch {
            true => Decision::InvalidEpoch,
            false if stamp.base_sequence == expected => Decision::New,
            false => Decision::OutOfOrder,
        }
    }
}

#[derive(Debug)]
struct History {
    model: Model,
    partitions: [Partition; PARTITIONS],
    budget: TailBudget,
}

impl History {
    fn new() -> Self {
        let model = Model {
            entries: Vec::new(),
            committed: 0,
            last_index: 0,
            term: 1,
            log_start: [0; PARTITIONS],
            released: 0,
            expired: BTreeMap::new(),
        };
        let partitions = [Partition::new(id(0)), Partition::new(id(1))];
        Self { model, partitions, budget: TailBudget::new(TIGHT) }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Produce { at, ref producer, records, timestamp } => {
                self.produce(at, producer.as_ref(), records, timestamp);
            }
            Step::Commit { ahead } => {
                self.model.committed = (self.model.committed + ahead).min(self.model.last_index);
                for at in 0..PARTITIONS {
                    let before = self.partitions[at].high_watermark().get();
                    let moved = self.partitions[at].committed(LogIndex::new(self.model.committed));
                    assert_eq!(moved, before < self.model.high_watermark(at));
                }
            }
            Step::Truncate { back } => self.truncate(back),
            Step::Trim { at, percent } => {
                let to = self.model.high_watermark(at) * percent / 100;
                self.model.log_start[at] = self.model.log_start[at].max(to);
                self.partitions[at].trim_to(Offset::new(to), &mut self.budget).expect("committed");
            }
            Step::Release { back } => {
                let model = &mut self.model;
                model.released = model.released.max(model.committed.saturating_sub(back));
                let index = LogIndex::new(model.released);
                let partitions = &mut self.partitions;
                partitions.iter_mut().for_each(|p| p.release_before(index, &mut self.budget));
            }
            Step::Restore { percent } => self.restore(percent),
            Step::Expire => self.expire(),
            Step::Read { at, percent, size_max, at_least_one } => {
                let from = self.model.log_end(at) * percent / 100 + percent / 101;
                self.read(at, from, size_max, at_least_one);
            }
        }
        self.check();
    }

    fn produce(&mut self, at: usize, produced: Option<&Produced>, records: i32, timestamp: i64) {
        let producer = produced.map(|produced| self.model.stamp(at, produced));
        let batch = Submission { producer, ..plain(records, timestamp) };
        let decision =
            producer.map_or(Decision::New, |producer| self.model.decide(at, producer, records));
        // Foreign entries lie between.
        let index = self.model.last_index + 1 + u64::try_from(timestamp % 2).expect("positive");
        let now = i64::try_from(index).expect("small");
        let made = match self.partitions[at].prepare(&batch, now) {
            Ok(Prepared::New(new)) => {
                assert_eq!(new.base_offset().get(), self.model.log_end(at));
                self.append(at, new, index);
                Decision::New
            }
            Ok(Prepared::Duplicate(duplicate)) => Decision::Duplicate {
                base_offset: duplicate.base_offset.get(),
                committed: duplicate.committed,
            },
            Err(AppendError::Producer(ProducerError::OutOfOrderSequence { .. })) => {
                Decision::OutOfOrder
            }
            Err(AppendError::Producer(ProducerError::InvalidProducerEpoch { .. })) => {
                Decision::InvalidEpoch
            }
            Err(other) => panic!("{other}"),
        };
        assert_eq!(made, decision);
    }

    fn append(&mut self, at: usize, new: NewBatch, index: u64) {
        let term = self.model.term;
        let bytes = bytes_of(new.base_offset(), LogIndex::new(index));
        let batch = EntryDescriptor::decode(&new.descriptor().encode()).expect("round trip");
        self.model.entries.push(Entry { index, term, at, batch });
        self.model.last_index = index;
        let (index, term) = (LogIndex::new(index), Term::new(term));
        let budget = &mut self.budget;
        self.partitions[at].appended(new, index, term, bytes, 100, budget);
        while let Some(victim) = budget.victim() {
            let at = usize::try_from(victim.partition.get()).expect("small");
            self.partitions[at].evict(victim, budget);
        }
        assert!(budget.bytes() <= TIGHT);
    }

    fn truncate(&mut self, back: u64) {
        let model = &mut self.model;
        let from = (model.last_index + 1).saturating_sub(back).max(model.committed + 1);
        model.entries.retain(|entry| entry.index < from);
        model.last_index = from - 1;
        model.term += 1;
        for partition in &mut self.partitions {
            let result = partition.truncate(LogIndex::new(from), &mut self.budget);
            result.expect("not committed");
            partition.become_leader(Term::new(model.term)).expect("later");
        }
    }

    /// Half of the log's age ago; an entry's age is its index.
    fn expire(&mut self) {
        let before = self.model.last_index / 2;
        for at in 0..PARTITIONS {
            let partition = &mut self.partitions[at];
            partition.expire_producers(i64::try_from(before).expect("small"), 0);
            for id in 0..2 {
                let last = self.model.produced(at, id).last().map(|(entry, _)| entry.index);
                if let Some(last) = last.filter(|last| *last <= self.model.committed)
                    && last < before
                {
                    self.model.expired.insert((at, id), last);
                }
            }
        }
    }

    fn read(&self, at: usize, from: i64, size_max: u64, at_least_one: bool) {
        let end = VisibleEnd::LastStable;
        let result = self.partitions[at].read(Offset::new(from), size_max, at_least_one, end);
        if from < self.model.log_start[at] || from > self.model.log_end(at) {
            assert!(matches!(result, Err(ReadError::OutOfRange { .. })), "{result:?}");
            return;
        }
        let local_start = self.model.local_start(at);
        if from < local_start {
            let (from, local_start) = (Offset::new(from), Offset::new(local_start));
            assert_eq!(result, Err(ReadError::Remote { from, local_start }));
            return;
        }
        let visible = self.model.of(at).filter(|entry| {
            entry.batch.end_offset().get() > from && entry.index <= self.model.committed
        });
        let fits = usize::try_from(size_max / u64::from(BATCH_SIZE)).expect("small");
        let fits = fits.max(usize::from(at_least_one));
        let expected: Vec<_> = visible.take(fits).collect();
        let plan = result.expect("in range");
        assert_eq!(plan.pieces.len(), expected.len(), "from {from}");
        for (piece, entry) in plan.pieces.iter().zip(expected) {
            let (index, base_offset) = (LogIndex::new(entry.index), entry.batch.base_offset);
            let stored = StoredBatch { index, base_offset, size: BATCH_SIZE };
            match piece {
                Piece::Cached(bytes) => assert_eq!(*bytes, bytes_of(base_offset, index)),
                Piece::Stored(batch) => assert_eq!(*batch, stored),
            }
        }
    }

    fn check(&self) {
        for (at, partition) in self.partitions.iter().enumerate() {
            assert_eq!(partition.log_start().get(), self.model.log_start[at]);
            assert_eq!(partition.local_start().get(), self.model.local_start(at));
            assert_eq!(partition.high_watermark().get(), self.model.high_watermark(at));
            assert_eq!(partition.log_end().get(), self.model.log_end(at));
            for entry in self.model.of(at) {
                let last = entry.batch.last_offset();
                if last >= partition.log_start() {
                    let epoch = partition.leader_epoch_at(last);
                    assert_eq!(epoch, Some(leader_epoch(Term::new(entry.term))));
                }
            }
        }
    }

    /// A restart from a snapshot of some committed entries, with the others replayed. Like an old
    /// leader, its successor does not know who expired.
    fn restore(&mut self, percent: u64) {
        let model = &mut self.model;
        let upto = model.committed * percent / 100;
        model.term += 1;
        for (at, live) in self.partitions.iter_mut().enumerate() {
            let mut restored = restored(live, upto);
            // The snapshot may have some of them already.
            let later: Vec<_> =
                model.entries.iter().filter(|e| e.at == at && e.index > upto).collect();
            let upto = upto.max(live.dropped_index.get());
            model.expired.iter_mut().filter(|((of, _), _)| *of == at).for_each(|(_, expired)| {
                *expired = upto.min(*expired);
            });
            replay(&mut restored, later.into_iter());
            restored.committed(LogIndex::new(model.committed));
            restored.trim_to(live.log_start(), &mut self.budget).expect("committed");
            restored.become_leader(Term::new(model.term)).expect("later");
            live.drop_tail(&mut self.budget);
            *live = restored;
        }
        model.released = model.released.max(upto);
    }

    /// What recovery builds from the descriptors is what the live partitions became.
    fn check_replay(&mut self) {
        for at in 0..PARTITIONS {
            let mut replayed = Partition::new(id(at));
            replay(&mut replayed, self.model.of(at));
            replayed.committed(LogIndex::new(self.model.committed));
            let mut budget = TailBudget::new(0);
            let live = &mut self.partitions[at];
            replayed.trim_to(live.log_start(), &mut budget).expect("committed");
            replayed.release_before(LogIndex::new(self.model.released), &mut budget);
            let all = |partition: &Partition| {
                partition.batches.iter_from(Offset::ZERO).copied().collect::<Vec<_>>()
            };
            assert_eq!(all(&replayed), all(live));
            assert_eq!(replayed.local_start(), live.local_start());
            assert_eq!(replayed.high_watermark(), live.high_watermark());
            assert_eq!(replayed.log_end(), live.log_end());
            if self.model.expired.is_empty() {
                assert_eq!(replayed.producers.as_of(ALL), live.producers.as_of(ALL));
            }
            for offset in live.log_start().get()..live.log_end().get() {
                let offset = Offset::new(offset);
                assert_eq!(replayed.leader_epoch_at(offset), live.leader_epoch_at(offset));
            }
            // An epoch without records is known to its leader only.
            let term = self.model.term + 1;
            live.become_leader(Term::new(term)).expect("later");
            replayed.become_leader(Term::new(term)).expect("later");
            for epoch in 0..=i32::try_from(term).expect("small") {
                let epoch = LeaderEpoch::new(epoch);
                assert_eq!(replayed.epoch_end(epoch), live.epoch_end(epoch));
                let fetched = live.high_watermark();
                let diverges = live.diverging_epoch(epoch, fetched);
                assert_eq!(replayed.diverging_epoch(epoch, fetched), diverges);
            }
            self.check_continuation(at, &replayed);
        }
    }

    /// A follower that takes over decides as the old leader would.
    fn check_continuation(&self, at: usize, replayed: &Partition) {
        if !self.model.expired.is_empty() {
            return;
        }
        for id in 0..2 {
            for epoch in 0..4 {
                let next = self.model.next_sequence(at, id);
                for base_sequence in [0, 1, next] {
                    let stamp = ProducerStamp { id, epoch, base_sequence };
                    let batch = Submission { producer: Some(stamp), ..plain(1, 0) };
                    let live = self.partitions[at].prepare(&batch, 0);
                    assert_eq!(replayed.prepare(&batch, 0), live);
                }
            }
        }
    }
}

fn replay<'a>(partition: &mut Partition, entries: impl Iterator<Item = &'a Entry>) {
    for entry in entries {
        let (index, term) = (LogIndex::new(entry.index), Term::new(entry.term));
        partition.replay(index, term, &entry.batch).expect("consistent");
    }
}

fn id(at: usize) -> PartitionId {
    PartitionId::new(u64::try_from(at).expect("small"))
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(500)
    })]

    #[test]
    fn every_history_is_that_of_the_model(steps in prop::collection::vec(step(), 1..120)) {
        let mut history = History::new();
        for step in &steps {
            history.take(step);
        }
        history.check_replay();
        for partition in &mut history.partitions {
            partition.drop_tail(&mut history.budget);
        }
        prop_assert_eq!(history.budget.bytes(), 0);
    }
}
