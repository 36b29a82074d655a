//! Which small objects to merge next.

use model::{Offset, PartitionId, Term};

use crate::manifest::Manifest;
use crate::object::Extent;
use crate::object_name::{ObjectName, ObjectNameError};

/// When small extents become one large one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MergePolicy {
    /// Extents of this size or more are left alone.
    pub small_below: u64,
    /// The merged data has at most this size.
    pub target_size: u64,
    /// Fewer extents are not worth a merge.
    pub extents_min: usize,
}

/// A run of extents of one partition without a gap: what one merged object is to replace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MergePlan {
    pub partition: PartitionId,
    /// At least one, in order of offsets.
    pub extents: Vec<Extent>,
}

impl MergePlan {
    /// The name of the object to build, for a leader in `term`.
    ///
    /// # Errors
    ///
    /// There are no extents.
    pub fn object(&self, term: Term) -> Result<ObjectName, ObjectNameError> {
        let base = self.extents.first().map_or(Offset::ZERO, |first| first.base);
        let end = self.extents.last().map_or(Offset::ZERO, |last| last.end);
        ObjectName::merged(self.partition, term, base, end)
    }
}

impl Manifest {
    /// The merge that replaces the most extents, if the policy asks for any; of equal ones that of
    /// the lowest partition and offset. Walks all extents: call it every few seconds, not more.
    pub fn merge_candidate(&self, policy: &MergePolicy) -> Option<MergePlan> {
        let mut best: Option<(PartitionId, &[Extent])> = None;
        for partition in self.partitions() {
            let run = longest_run(self.extents(partition), policy);
            let enough = run.len() >= policy.extents_min.max(1);
            if enough && best.is_none_or(|(_, extents)| extents.len() < run.len()) {
                best = Some((partition, run));
            }
        }
        best.map(|(partition, extents)| MergePlan { partition, extents: extents.to_vec() })
    }
}

/// The first of the longest runs of small extents whose sizes add up to no more than the target.
fn longest_run<'a>(extents: &'a [Extent], policy: &MergePolicy) -> &'a [Extent] {
    let mut best = 0..0;
    let (mut start, mut size) = (0, 0_u64);
    for (at, extent) in extents.iter().enumerate() {
        if extent.size >= policy.small_below {
            (start, size) = (at + 1, 0);
            continue;
        }
        // A partition's sizes add up to 64 bits: `apply` and `decode` see to it.
        size += extent.size;
        while size > policy.target_size && start <= at {
            size -= extents[start].size;
            start += 1;
        }
        if at + 1 - start > best.len() {
            best = start..at + 1;
        }
    }
    &extents[best]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::tests::offloaded;

    const POLICY: MergePolicy = MergePolicy { small_below: 10, target_size: 20, extents_min: 3 };

    /// Extents of these sizes, each of ten offsets, in an object of their own.
    fn with(partitions: &[&[u64]]) -> Manifest {
        let mut manifest = Manifest::default();
        let mut first = 1;
        for (partition, sizes) in (1..).zip(partitions) {
            for (base, size) in (0..).step_by(10).zip(*sizes) {
                let edit = offloaded(first, first, &[(partition, base, base + 10, *size)]);
                manifest.apply(&edit, 0).expect("fits");
                first += 1;
            }
        }
        manifest
    }

    /// Partition, base and end of the candidate.
    fn candidate(partitions: &[&[u64]]) -> Option<(u64, i64, i64)> {
        let plan = with(partitions).merge_candidate(&POLICY)?;
        let (first, last) = (plan.extents.first()?, plan.extents.last()?);
        Some((plan.partition.get(), first.base.get(), last.end.get()))
    }

    #[test]
    fn a_run_of_small_extents_is_merged() {
        assert_eq!(candidate(&[]), None);
        assert_eq!(candidate(&[&[1, 1]]), None, "too few");
        assert_eq!(candidate(&[&[1, 1, 1]]), Some((1, 0, 30)));
        assert_eq!(candidate(&[&[1, 1, 10, 1, 1]]), None, "a large one between");
        assert_eq!(candidate(&[&[1, 10, 1, 1, 1]]), Some((1, 20, 50)));
        assert_eq!(candidate(&[&[9, 9, 9, 9]]), None, "three are above the target");
        assert_eq!(candidate(&[&[9, 9, 2, 9, 9]]), Some((1, 0, 30)), "exactly the target");
        assert_eq!(candidate(&[&[9, 9, 9, 1, 1, 1]]), Some((1, 10, 50)), "first of the longest");
    }

    #[test]
    fn the_merge_that_replaces_most_comes_first() {
        assert_eq!(candidate(&[&[1, 1, 1], &[1, 1], &[1, 1, 1, 1]]), Some((3, 0, 40)));
        assert_eq!(candidate(&[&[1, 1], &[1, 1, 1], &[1, 1, 1]]), Some((2, 0, 30)));
    }

    #[test]
    fn the_object_is_named_by_what_it_covers() {
        let plan = with(&[&[10, 1, 1, 1]]).merge_candidate(&POLICY).expect("a run of three");
        let name = plan.object(Term::new(5)).expect("a range");
        let (base, end) = (Offset::new(10), Offset::new(40));
        assert_eq!(Ok(name), ObjectName::merged(PartitionId::new(1), Term::new(5), base, end));
        MergePlan { extents: vec![], ..plan }.object(Term::new(5)).expect_err("covers nothing");
    }

    proptest! {
        /// Compared with trying every run there is.
        #[test]
        fn the_longest_allowed_run_is_found(
            sizes in prop::collection::vec(1_u64..14, 0..30),
            small_below in 0_u64..14,
            target_size in 0_u64..40,
            extents_min in 0_usize..6,
        ) {
            let policy = MergePolicy { small_below, target_size, extents_min };
            let manifest = with(&[&sizes]);
            let allowed = |run: &[u64]| {
                run.len() >= extents_min.max(1)
                    && run.iter().all(|size| *size < small_below)
                    && run.iter().sum::<u64>() <= target_size
            };
            let lengths = (1..=sizes.len())
                .filter(|length| sizes.windows(*length).any(allowed));
            let plan = manifest.merge_candidate(&policy);
            prop_assert_eq!(plan.as_ref().map(|plan| plan.extents.len()), lengths.max());
            if let Some(plan) = plan {
                let run: Vec<u64> = plan.extents.iter().map(|extent| extent.size).collect();
                prop_assert!(allowed(&run));
                prop_assert!(plan.extents.is_sorted_by(|a, b| a.end == b.base));
            }
        }
    }
}
