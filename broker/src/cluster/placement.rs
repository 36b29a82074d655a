//! Which raft group a new partition goes to: one with as many copies as its topic is to have, or
//! the fewest above that; among those the one with the fewest partitions of its topic, then the one
//! with the fewest partitions, then the lowest id.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::RaftGroupId;

use super::image::{Group, Image};

/// Partitions counted per data group; counts those that it places too.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Placement(BTreeMap<RaftGroupId, Counted>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Counted {
    copies: usize,
    partitions: u64,
}

impl Placement {
    pub fn new(image: &Image) -> Self {
        let counted = |group: &Arc<Group>| Counted { copies: group.replicas.len(), partitions: 0 };
        let groups = image.data_groups().map(|group| (group.id, counted(group)));
        let mut placement = Self(groups.collect());
        for partition in image.topics().flat_map(|topic| topic.partitions.iter()) {
            placement.count(partition.destination());
        }
        placement
    }

    /// The most copies that a group has.
    pub fn copies_max(&self) -> usize {
        self.0.values().map(|it| it.copies).max().unwrap_or(0)
    }

    /// Groups for `count` partitions of one topic, each with `copies` copies at least. None if
    /// there is no such group.
    pub fn place(&mut self, count: usize, copies: usize) -> Option<Vec<RaftGroupId>> {
        let fewest = self.0.values().map(|it| it.copies).filter(|it| *it >= copies).min()?;
        let fitting = self.0.iter().filter(|(_, it)| it.copies == fewest);
        let mut order: Vec<_> = fitting.map(|(group, it)| (it.partitions, *group)).collect();
        // Each round gives every group one partition, the emptiest group first. Sorting once is
        // enough: a round raises all counts by one.
        order.sort_unstable();
        let groups: Vec<_> =
            order.into_iter().map(|(_, group)| group).cycle().take(count).collect();
        for group in &groups {
            self.count(*group);
        }
        Some(groups)
    }

    /// The emptiest group for which `fits` holds, for a partition that is placed by hand.
    pub(super) fn emptiest(&self, fits: impl Fn(&RaftGroupId) -> bool) -> Option<RaftGroupId> {
        let fitting = self.0.iter().filter(|(group, _)| fits(group));
        fitting.min_by_key(|(_, it)| it.partitions).map(|(group, _)| *group)
    }

    /// Counts a partition that was placed by hand.
    pub fn count(&mut self, group: RaftGroupId) {
        if let Some(counted) = self.0.get_mut(&group) {
            counted.partitions += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(counts: &[(u64, u64)]) -> Placement {
        let counted = |partitions| Counted { copies: 3, partitions };
        let counts = counts.iter().map(|(group, it)| (RaftGroupId::new(*group), counted(*it)));
        Placement(counts.collect())
    }

    fn placed(placement: &mut Placement, count: usize) -> Vec<u64> {
        placement.place(count, 3).expect("groups").into_iter().map(RaftGroupId::get).collect()
    }

    #[test]
    fn a_topic_is_spread_over_all_groups_first() {
        let mut uneven = placement(&[(1, 9), (2, 0), (3, 4)]);
        assert_eq!(placed(&mut uneven, 4), [2, 3, 1, 2]);
        assert_eq!(uneven, placement(&[(1, 10), (2, 2), (3, 5)]));
    }

    #[test]
    fn topics_of_one_partition_fill_the_emptiest_group() {
        let mut even = placement(&[(1, 0), (2, 0)]);
        let groups: Vec<u64> = (0..4).flat_map(|_| placed(&mut even, 1)).collect();
        assert_eq!(groups, [1, 2, 1, 2]);
    }

    #[test]
    fn nothing_is_placed_without_groups() {
        assert_eq!(placement(&[]).place(1, 1), None);
        assert_eq!(placed(&mut placement(&[(1, 0)]), 0), []);
    }

    #[test]
    fn a_topic_has_as_many_copies_as_it_asks_for_or_the_fewest_above() {
        let mut mixed = placement(&[(1, 0), (2, 7), (3, 0)]);
        for (counted, copies) in mixed.0.values_mut().zip([3, 2, 5]) {
            counted.copies = copies;
        }
        let mut group_of = |copies| mixed.place(1, copies).map(|groups| groups[0].get());
        let groups = [1, 2, 3, 4, 5, 6].map(&mut group_of);
        assert_eq!(groups, [Some(2), Some(2), Some(1), Some(3), Some(3), None]);
        assert_eq!(mixed.copies_max(), 5);
    }
}
