//! Random histories against a model that knows one list of extents and looks at all of it each
//! time.

use std::collections::BTreeSet;

use prop::sample::Index;

use super::*;

const PARTITIONS: u64 = 4;

/// What to try next; numbers are turned into an edit that fits the model, or just does not.
#[derive(Clone, Debug)]
enum Step {
    /// Per partition how far from its end the extent begins and the lengths of its extents. The
    /// log goes forward by so many entries, or not at all.
    Offload {
        entries: u64,
        pieces: Vec<(u64, i64, Vec<i64>)>,
    },
    /// Extents of partitions from one to another, with base and end moved.
    Merge(Vec<(u64, Index, Index, [i64; 2])>),
    LogStart {
        partition: u64,
        ahead: i64,
    },
    Drop {
        partitions: Vec<u64>,
    },
    /// Retired objects, and one that may be live.
    Remove {
        retired: usize,
        other: Option<Index>,
    },
    /// An edit that was tried before, once more.
    Repeat(Index),
}

fn any_step() -> impl Strategy<Value = Step> {
    let distance = prop_oneof![9 => Just(0_i64), 1 => -2_i64..4];
    let piece = (0..PARTITIONS, distance, prop::collection::vec(1_i64..6, 1..3));
    let entries = prop_oneof![9 => 1_u64..4, 1 => Just(0)];
    let shift = || prop_oneof![9 => Just(0_i64), 1 => -2_i64..3];
    let run = (0..PARTITIONS, any::<Index>(), any::<Index>(), [shift(), shift()]);
    let other = prop_oneof![9 => Just(None), 1 => any::<Index>().prop_map(Some)];
    prop_oneof![
        8 => (entries, prop::collection::vec(piece, 0..4))
            .prop_map(|(entries, pieces)| Step::Offload { entries, pieces }),
        5 => prop::collection::vec(run, 0..4).prop_map(Step::Merge),
        4 => (0..PARTITIONS, -3_i64..12)
            .prop_map(|(partition, ahead)| Step::LogStart { partition, ahead }),
        1 => prop::collection::vec(0..PARTITIONS, 0..3)
            .prop_map(|partitions| Step::Drop { partitions }),
        3 => (0_usize..4, other).prop_map(|(retired, other)| Step::Remove { retired, other }),
        1 => any::<Index>().prop_map(Step::Repeat),
    ]
}

#[derive(Clone, Debug, Default)]
struct Model {
    upto: u64,
    extents: Vec<(PartitionId, Extent)>,
    log_starts: BTreeMap<PartitionId, Offset>,
    ends: BTreeMap<PartitionId, Offset>,
    /// Size of each object that is listed, and when it was retired.
    objects: BTreeMap<ObjectName, (u64, Option<i64>)>,
}

impl Model {
    fn log_start(&self, partition: PartitionId) -> Offset {
        self.log_starts.get(&partition).copied().unwrap_or_default()
    }

    fn of(&self, partition: PartitionId) -> Vec<&Extent> {
        let own = self.extents.iter().filter(|(owner, _)| *owner == partition);
        let mut own: Vec<&Extent> = own.map(|(_, extent)| extent).collect();
        own.sort_by_key(|extent| extent.base);
        own
    }

    /// The model after the edit, or nothing if it must be refused.
    fn after(&self, edit: &Edit, now_ms: i64) -> Option<Self> {
        let mut next = self.clone();
        match edit {
            Edit::Offloaded { upto, object, object_size, extents } => {
                if upto.get() <= self.upto || self.objects.contains_key(object) {
                    return None;
                }
                next.upto = upto.get();
                for (partition, extent) in extents {
                    let end = next.ends.insert(*partition, extent.end);
                    let missing_from = end.unwrap_or(extent.base);
                    let is_missed =
                        missing_from < extent.base && self.log_start(*partition) < extent.base;
                    if missing_from > extent.base || is_missed {
                        return None;
                    }
                    next.extents.push((*partition, extent.clone()));
                }
                if !extents.is_sorted_by_key(|(partition, _)| *partition) {
                    return None;
                }
                next.objects.insert(*object, (*object_size, None));
            }
            Edit::Merged { object, object_size, extents } => {
                let ids: Vec<_> = extents.iter().map(|(partition, _)| *partition).collect();
                if self.objects.contains_key(object) || !ids.is_sorted_by(|a, b| a < b) {
                    return None;
                }
                for (partition, extent) in extents {
                    next.merge(*partition, extent);
                }
                next.objects.insert(*object, (*object_size, None));
            }
            Edit::LogStart { partition, offset } => {
                if *offset > self.log_start(*partition) {
                    next.log_starts.insert(*partition, *offset);
                }
            }
            Edit::Dropped { partitions } => {
                next.extents.retain(|(partition, _)| !partitions.contains(partition));
                next.log_starts.retain(|partition, _| !partitions.contains(partition));
                next.ends.retain(|partition, _| !partitions.contains(partition));
            }
            Edit::Removed { objects } => {
                let is_live = |name: &ObjectName| {
                    self.objects.get(name).is_some_and(|(_, retired)| retired.is_none())
                };
                if objects.iter().any(is_live) {
                    return None;
                }
                next.objects.retain(|name, _| !objects.contains(name));
            }
        }
        next.settle(now_ms);
        Some(next)
    }

    /// Offset by offset: what is there of the merged ones, and what is missing at their beginning.
    fn merge(&mut self, partition: PartitionId, merged: &Extent) {
        let present =
            |offset: i64| self.of(partition).iter().any(|extent| extent.holds(Offset::new(offset)));
        let offsets = || merged.base.get()..merged.end.get();
        let missing = offsets().take_while(|offset| !present(*offset)).count();
        let rest = offsets().skip(missing);
        let of_whole_extents = self.of(partition).iter().all(|extent| {
            let inside = (extent.base.get()..extent.end.get()).filter(|at| offsets().contains(at));
            let count = i64::try_from(inside.count()).expect("small");
            count == 0 || count == extent.end.get() - extent.base.get()
        });
        let deleted = missing == 0
            || offsets().take(missing).all(|at| Offset::new(at) < self.log_start(partition));
        if rest.clone().count() > 0 && rest.clone().all(present) && of_whole_extents && deleted {
            self.extents.retain(|(owner, extent)| {
                *owner != partition || !offsets().contains(&extent.base.get())
            });
            self.extents.push((partition, merged.clone()));
        }
    }

    /// Takes away what is below the log start, then retires what nothing refers to.
    fn settle(&mut self, now_ms: i64) {
        let log_starts = self.log_starts.clone();
        self.extents.retain(|(partition, extent)| {
            log_starts.get(partition).is_none_or(|log_start| extent.end > *log_start)
        });
        for (name, (_, retired)) in &mut self.objects {
            let is_used = self.extents.iter().any(|(_, extent)| extent.object == *name);
            if !is_used && retired.is_none() {
                *retired = Some(now_ms);
            }
        }
    }

    fn edit_of(&self, step: &Step, number: u64, tried: &[Edit]) -> Edit {
        match step {
            Step::Offload { entries, pieces } => self.offload(*entries, pieces),
            Step::Merge(runs) => {
                let mut pieces: Vec<_> = runs.iter().map(|run| self.run_of(run)).collect();
                // Out of order, or a partition twice, in a few.
                if !number.is_multiple_of(8) {
                    pieces.sort_by_key(|piece| piece.0);
                    pieces.dedup_by_key(|piece| piece.0);
                }
                // Numbers seldom collide but sometimes do.
                merged(number / 2, &pieces)
            }
            Step::LogStart { partition, ahead } => {
                let log_start = self.log_start(PartitionId::new(*partition));
                super::log_start(*partition, log_start.get() + ahead)
            }
            Step::Drop { partitions } => dropped(partitions),
            Step::Remove { retired, other } => {
                let old = self.objects.iter().filter(|(_, (_, retired))| retired.is_some());
                let mut objects: Vec<_> = old.map(|(name, _)| *name).take(*retired).collect();
                if let Some(at) = other.filter(|_| !self.objects.is_empty()) {
                    objects.extend(self.objects.keys().nth(at.index(self.objects.len())));
                }
                Edit::Removed { objects }
            }
            Step::Repeat(at) if !tried.is_empty() => tried[at.index(tried.len())].clone(),
            Step::Repeat(_) => dropped(&[]),
        }
    }

    fn run_of(&self, (partition, from, to, shift): &(u64, Index, Index, [i64; 2])) -> Piece {
        let own = self.of(PartitionId::new(*partition));
        let (from, to) = match own.len() {
            0 => (0, 0),
            len => (from.index(len), to.index(len)),
        };
        let base = own.get(from.min(to)).map_or(0, |extent| extent.base.get());
        let end = own.get(from.max(to)).map_or(5, |extent| extent.end.get());
        let base = (base + shift[0]).max(0);
        (*partition, base, (end + shift[1]).max(base + 1), 20)
    }

    fn offload(&self, entries: u64, pieces: &[(u64, i64, Vec<i64>)]) -> Edit {
        let mut pieces = pieces.to_vec();
        // One of many is left out of order.
        if entries != 3 {
            pieces.sort_by_key(|piece| piece.0);
        }
        let mut ends = self.ends.clone();
        let mut laid = Vec::new();
        for (partition, distance, lengths) in pieces {
            let end = ends.entry(PartitionId::new(partition)).or_default();
            let mut base = (end.get() + distance).max(0);
            for length in lengths {
                laid.push((partition, base, base + length, u64::try_from(length).expect("small")));
                base += length;
            }
            *end = Offset::new(base);
        }
        let upto = self.upto + entries;
        offloaded(upto.min(self.upto + 1), upto, &laid)
    }

    fn compare(&self, manifest: &Manifest) {
        let live = |(name, (_, retired)): (&ObjectName, &(u64, Option<i64>))| {
            retired.is_none().then_some(*name)
        };
        let live: BTreeSet<ObjectName> = self.objects.iter().filter_map(live).collect();
        assert_eq!(manifest.live().copied().collect::<BTreeSet<_>>(), live);
        for before_ms in [0, 3, 10, i64::MAX] {
            let old = self.objects.iter().filter(|(_, (_, retired))| {
                retired.is_some_and(|retired_ms| retired_ms < before_ms)
            });
            let old: Vec<&ObjectName> = old.map(|(name, _)| name).collect();
            assert_eq!(manifest.retired(before_ms).collect::<Vec<_>>(), old);
        }
        for (_, extent) in &self.extents {
            assert!(!manifest.retired(i64::MAX).any(|retired| *retired == extent.object));
            assert!(manifest.contains(&extent.object));
        }
        let size = |is_live: bool| -> u64 {
            let chosen = self.objects.values().filter(|object| object.1.is_none() == is_live);
            chosen.map(|object| object.0).sum()
        };
        let totals = manifest.totals();
        assert_eq!((totals.live_size, totals.retired_size), (size(true), size(false)));
        assert_eq!(totals.live_count, live.len());
        assert_eq!(totals.retired_count, self.objects.len() - live.len());
        assert_eq!(manifest.offloaded_upto().get(), self.upto);
        assert_eq!(manifest.extent_count(), self.extents.len());
        (0..PARTITIONS).map(PartitionId::new).for_each(|p| self.compare_partition(manifest, p));
        assert_eq!(Manifest::decode(&manifest.encode()).as_ref(), Ok(manifest));
    }

    fn compare_partition(&self, manifest: &Manifest, partition: PartitionId) {
        let own = self.of(partition);
        assert_eq!(manifest.extents(partition).iter().collect::<Vec<_>>(), own);
        let size: u64 = own.iter().map(|extent| extent.size).sum();
        assert_eq!(manifest.partition_size(partition), size);
        assert_eq!(manifest.log_start(partition), self.log_start(partition));
        assert_eq!(manifest.offloaded_end(partition), self.ends.get(&partition).copied());
        let is_known =
            self.ends.contains_key(&partition) || self.log_starts.contains_key(&partition);
        assert_eq!(manifest.partitions().any(|known| known == partition), is_known);
        let end = self.ends.get(&partition).map_or(3, |end| end.get() + 3);
        for offset in (-1..end).map(Offset::new) {
            let at = own.iter().position(|extent| extent.holds(offset));
            let found = at.map(|at| (own[at], own.get(at + 1).copied()));
            assert_eq!(manifest.find(partition, offset), found, "offset {offset}");
        }
    }
}

fn run(steps: &[Step]) {
    let (mut model, mut manifest) = (Model::default(), Manifest::default());
    let mut tried = Vec::new();
    for (number, step) in (0..).zip(steps) {
        let edit = model.edit_of(step, number, &tried);
        let now_ms = i64::try_from(number).expect("small");
        let before = manifest.clone();
        let applied = manifest.apply(&edit, now_ms);
        match model.after(&edit, now_ms) {
            Some(next) => {
                assert_eq!(applied, Ok(()), "{edit:?}");
                model = next;
            }
            None => {
                assert!(applied.is_err(), "{edit:?}");
                assert_eq!(manifest, before, "a refused edit changes nothing");
            }
        }
        model.compare(&manifest);
        tried.push(edit);
    }
}

/// A manifest with some of everything in it.
fn sample() -> Manifest {
    let mut manifest = Manifest::default();
    let edits = [
        offloaded(1, 10, &[(0, 0, 5, 10), (1, 0, 5, 10), (2, 7, 9, 3)]),
        offloaded(11, 20, &[(0, 5, 9, 10), (1, 5, 6, 10)]),
        offloaded(21, 30, &[(0, 9, 10, 10)]),
        merged(1, &[(0, 0, 9, 20)]),
        log_start(1, 6),
        log_start(3, 60),
    ];
    for (edit, now_ms) in edits.iter().zip(0..) {
        manifest.apply(edit, now_ms).expect("fits");
    }
    manifest
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_agree_with_the_model(steps in prop::collection::vec(any_step(), 1..40)) {
        run(&steps);
    }

    /// Whatever decodes is the only reading of its bytes, and keeps the invariants, so that edits
    /// apply to it without a panic.
    #[test]
    fn random_bytes_never_panic(
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4),
        tail in prop::collection::vec(any::<u8>(), 0..200),
        edit in any_edit(),
    ) {
        let mut bytes = sample().encode().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for bytes in [bytes.as_slice(), &tail, &[&[1], &tail[..]].concat()] {
            let Ok(mut manifest) = Manifest::decode(bytes) else { continue };
            prop_assert_eq!(&manifest.encode()[..], bytes);
            let _ = manifest.apply(&edit, 5);
            let _ = manifest.apply(&dropped(&[0, 1, 2, 3]), 6);
            prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        }
    }

    /// Bytes of edits that would fit, changed here and there: what still decodes is applied or
    /// refused, and what is applied keeps the invariants that `decode` checks.
    #[test]
    fn changed_edits_keep_the_invariants(
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..3),
    ) {
        for edit in [
            offloaded(31, 40, &[(0, 10, 12, 5), (2, 9, 12, 5)]),
            merged(3, &[(0, 0, 10, 20)]),
            log_start(2, 8),
            dropped(&[0, 1]),
            Edit::Removed { objects: vec![range_name(11, 20)] },
        ] {
            let mut manifest = sample();
            let mut bytes = edit.encode(5).to_vec();
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            let Ok((edit, now_ms)) = Edit::decode(&bytes) else { continue };
            let applied = manifest.apply(&edit, now_ms);
            prop_assert!(applied.is_ok() || manifest == sample());
            prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        }
    }
}
