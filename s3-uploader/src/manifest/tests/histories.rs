//! Random histories against a model that knows one list of extents and looks at all of it each
//! time.

use std::collections::BTreeSet;

use prop::sample::Index;

use super::*;

const PARTITIONS: u64 = 4;
/// The group whose names `range_name` and `merged_name` give.
pub(super) const OWN: RaftGroupId = RaftGroupId::new(3);
pub(super) const OTHER: RaftGroupId = RaftGroupId::new(5);

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
    /// A partition is sealed for a move, or for none.
    Seal {
        partition: u64,
        id: Option<u64>,
    },
    /// A partition arrives: per extent its length, and which of the listed objects it is in, if it
    /// is not a new one of another group. Something may be wrong with it.
    Adopt {
        partition: u64,
        id: u64,
        parts: Vec<(i64, Option<Index>)>,
        flaw: u8,
    },
    Lend {
        partition: u64,
    },
    /// So many of what is lent of a partition, and one that may not be. If nothing is lent it is of
    /// some partition.
    Release {
        lent: Index,
        count: usize,
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
        12 => any_move(),
        1 => any::<Index>().prop_map(Step::Repeat),
    ]
}

fn any_move() -> impl Strategy<Value = Step> {
    let other = || prop_oneof![2 => Just(None), 1 => any::<Index>().prop_map(Some)];
    let parts = prop::collection::vec((1_i64..6, other()), 0..4);
    let flaw = prop_oneof![9 => Just(0_u8), 2 => 1_u8..6];
    prop_oneof![
        1 => (0..PARTITIONS, prop::option::of(0_u64..20))
            .prop_map(|(partition, id)| Step::Seal { partition, id }),
        4 => (0..PARTITIONS, 0_u64..20, parts, flaw)
            .prop_map(|(partition, id, parts, flaw)| Step::Adopt { partition, id, parts, flaw }),
        3 => (0..PARTITIONS).prop_map(|partition| Step::Lend { partition }),
        3 => (any::<Index>(), 0_usize..4, other())
            .prop_map(|(lent, count, other)| Step::Release { lent, count, other }),
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
    foreign: BTreeSet<ObjectName>,
    sealed: BTreeMap<PartitionId, LogIndex>,
    arrivals: BTreeMap<PartitionId, Arrival>,
    lent: BTreeMap<PartitionId, BTreeSet<ObjectName>>,
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
                let is_here = |partition: &PartitionId| !self.lent.contains_key(partition);
                next.extents.retain(|(partition, _)| is_here(partition));
                next.ends.retain(|partition, _| is_here(partition));
                next.objects.insert(*object, (*object_size, None));
            }
            Edit::Merged { object, object_size, extents } => {
                let ids: Vec<_> = extents.iter().map(|(partition, _)| *partition).collect();
                if self.objects.contains_key(object) || !ids.is_sorted_by(|a, b| a < b) {
                    return None;
                }
                let is_open = |id: &PartitionId| !self.sealed.contains_key(id);
                for (partition, extent) in extents.iter().filter(|(id, _)| is_open(id)) {
                    next.merge(*partition, extent);
                }
                next.objects.insert(*object, (*object_size, None));
            }
            Edit::LogStart { partition, offset } => {
                let is_lent = self.lent.contains_key(partition);
                if *offset > self.log_start(*partition) && !is_lent {
                    next.log_starts.insert(*partition, *offset);
                }
            }
            Edit::Dropped { partitions } => {
                partitions.iter().for_each(|partition| next.forget(*partition));
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
            Edit::Adopted(adoption) => next.adopt(adoption)?,
            other => next.after_move(other),
        }
        next.settle(now_ms);
        Some(next)
    }

    fn forget(&mut self, partition: PartitionId) {
        self.extents.retain(|(owner, _)| *owner != partition);
        self.log_starts.remove(&partition);
        self.ends.remove(&partition);
        self.sealed.remove(&partition);
        self.arrivals.remove(&partition);
    }

    /// Edits that are never refused.
    fn after_move(&mut self, edit: &Edit) {
        match edit {
            Edit::Sealed { partition, id } => {
                let latest = self.sealed.get(partition).max(Some(id)).copied();
                self.sealed.extend(latest.map(|id| (*partition, id)));
            }
            Edit::Unsealed { partition } => {
                self.sealed.remove(partition);
            }
            Edit::Lent { partition, .. } => {
                let objects: BTreeSet<_> =
                    self.of(*partition).iter().map(|extent| extent.object).collect();
                self.forget(*partition);
                if !objects.is_empty() {
                    self.lent.insert(*partition, objects);
                }
            }
            Edit::Released { partition, objects } => {
                let lent = self.lent.entry(*partition).or_default();
                lent.retain(|object| !objects.contains(object));
                self.lent.retain(|_, objects| !objects.is_empty());
            }
            other => unreachable!("{other:?}"),
        }
    }

    /// Nothing if it must be refused. The steps list objects in order and only those in use.
    fn adopt(&mut self, adoption: &Adoption) -> Option<()> {
        let Adoption { partition, id, epoch_base, log_start, end, .. } = *adoption;
        if self.arrivals.get(&partition).is_some_and(|arrival| arrival.id >= id) {
            return None;
        }
        let mut at = adoption.extents.first().map_or(end, |first| Some(first.base));
        for extent in &adoption.extents {
            if Some(extent.base) != at || extent.end <= log_start {
                return None;
            }
            at = Some(extent.end);
        }
        if at != end || log_start < Offset::ZERO {
            return None;
        }
        for (name, size) in &adoption.objects {
            if self.objects.get(name).is_some_and(|known| *known != (*size, None)) {
                return None;
            }
            if self.objects.insert(*name, (*size, None)).is_none() && name.group() != OWN {
                self.foreign.insert(*name);
            }
        }
        self.forget(partition);
        self.lent.remove(&partition);
        self.extents.extend(adoption.extents.iter().map(|extent| (partition, extent.clone())));
        self.ends.extend(end.map(|end| (partition, end)));
        self.log_starts.extend((log_start > Offset::ZERO).then_some((partition, log_start)));
        self.arrivals.insert(partition, Arrival { id, epoch_base });
        Some(())
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

    /// Takes away what is below the log start, then retires what nothing refers to, or forgets it
    /// if it is another group's.
    fn settle(&mut self, now_ms: i64) {
        let log_starts = self.log_starts.clone();
        self.extents.retain(|(partition, extent)| {
            log_starts.get(partition).is_none_or(|log_start| extent.end > *log_start)
        });
        let (extents, lent, foreign) = (&self.extents, &self.lent, &mut self.foreign);
        self.objects.retain(|name, (_, retired)| {
            let is_used = extents.iter().any(|(_, extent)| extent.object == *name)
                || lent.values().any(|objects| objects.contains(name));
            if !is_used && retired.is_none() {
                *retired = Some(now_ms);
            }
            is_used || !foreign.remove(name)
        });
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
                objects.extend(other.and_then(|at| self.listed(at)));
                Edit::Removed { objects }
            }
            Step::Seal { partition, id } => {
                let partition = PartitionId::new(*partition);
                let sealed = |id: u64| Edit::Sealed { partition, id: LogIndex::new(id) };
                id.map_or(Edit::Unsealed { partition }, sealed)
            }
            Step::Adopt { partition, id, parts, flaw } => {
                let partition = PartitionId::new(*partition);
                let mut adoption = self.adoption(partition, number, parts, *flaw);
                adoption.id = LogIndex::new(*id);
                Edit::Adopted(Box::new(adoption))
            }
            Step::Lend { partition } => {
                let partition = PartitionId::new(*partition);
                Edit::Lent { partition, to: OTHER, since: number }
            }
            Step::Release { lent, count, other } => {
                let partition = self.lent.keys().nth(lent.index(self.lent.len().max(1)));
                let partition = partition.copied().unwrap_or_default();
                let lent = self.lent.get(&partition).into_iter().flatten();
                let mut objects: Vec<_> = lent.take(*count).copied().collect();
                objects.extend(other.and_then(|at| self.listed(at)));
                Edit::Released { partition, objects }
            }
            Step::Repeat(at) if !tried.is_empty() => tried[at.index(tried.len())].clone(),
            Step::Repeat(_) => dropped(&[]),
        }
    }

    /// One of the objects that are listed.
    fn listed(&self, at: Index) -> Option<ObjectName> {
        let count = self.objects.len();
        (count > 0).then(|| self.objects.keys().nth(at.index(count)).copied()).flatten()
    }

    fn adoption(
        &self,
        partition: PartitionId,
        number: u64,
        parts: &[(i64, Option<Index>)],
        flaw: u8,
    ) -> Adoption {
        let start = self.ends.get(&partition).map_or(3, |end| end.get());
        let (mut end, mut objects, mut extents) = (start, BTreeMap::new(), Vec::new());
        for (at, (length, listed)) in (0..).zip(parts) {
            let new = ObjectName::merged(OTHER, Term::new(number), at);
            let object = listed.and_then(|at| self.listed(at)).unwrap_or(new);
            let size = self.objects.get(&object).map_or(200, |known| known.0);
            // A few come with another size than they have.
            objects.insert(object, size + u64::from(flaw == 1));
            let (laid, _) = laid_out(object, &[(0, end, end + length, 1)]);
            end += length;
            extents.extend(laid.into_iter().map(|(_, extent)| extent));
        }
        let shift = |of: u8| i64::from(flaw == of);
        if let Some(first) = extents.first_mut() {
            first.end = first.end.plus(shift(2));
        }
        Adoption {
            group: OWN,
            partition,
            id: LogIndex::default(),
            epoch_base: 7,
            log_start: Offset::new((start + shift(3) * 9 - shift(4) * 99).min(end)),
            end: Some(Offset::new(end + shift(5))).filter(|_| end > start),
            objects: objects.into_iter().collect(),
            extents,
            state: Bytes::new(),
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
        self.compare_moves(manifest);
        assert_eq!(Manifest::decode(&manifest.encode()).as_ref(), Ok(manifest));
    }

    fn compare_moves(&self, manifest: &Manifest) {
        assert!(manifest.sealed_partitions().eq(self.sealed.iter().map(|(id, it)| (*id, *it))));
        assert!(manifest.arrivals().eq(self.arrivals.iter().map(|(id, it)| (*id, *it))));
        let lent: BTreeMap<_, _> =
            manifest.lent().map(|(id, lent)| (id, lent.objects().clone())).collect();
        assert_eq!(lent, self.lent);
        for name in self.objects.keys() {
            assert_eq!(manifest.is_foreign(name), self.foreign.contains(name));
            let own = self.extents.iter().filter(|(_, extent)| extent.object == *name).count();
            assert_eq!(manifest.references(name), own);
            assert_eq!(manifest.small().any(|(small, _)| small == *name), own > 0);
        }
        assert!(manifest.retired(i64::MAX).all(|name| name.group() == OWN));
    }

    fn compare_partition(&self, manifest: &Manifest, partition: PartitionId) {
        let own = self.of(partition);
        assert_eq!(manifest.extents(partition).iter().collect::<Vec<_>>(), own);
        let size: u64 = own.iter().map(|extent| extent.size).sum();
        assert_eq!(manifest.partition_size(partition), size);
        assert_eq!(manifest.log_start(partition), self.log_start(partition));
        let objects: BTreeSet<_> = own.iter().map(|extent| extent.object).collect();
        let objects: Vec<_> = objects.iter().map(|name| (*name, self.objects[name].0)).collect();
        assert_eq!(manifest.objects_of(partition), objects);
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_agree_with_the_model(steps in prop::collection::vec(any_step(), 1..40)) {
        run(&steps);
    }
}
