//! Which raft group a new partition goes to: one with as many copies as its topic is to have, or
//! the fewest above that; among those the one with the fewest partitions of its topic, then the one
//! with the fewest partitions, then the lowest id.

use std::collections::BTreeMap;

use model::RaftGroupId;

use super::image::Image;

/// Partitions counted per data group; counts those that it places too.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Placement {
    partition_counts: BTreeMap<RaftGroupId, u64>,
    copy_counts: BTreeMap<RaftGroupId, usize>,
}

impl Placement {
    pub fn new(image: &Image) -> Self {
        let mut partition_counts: BTreeMap<RaftGroupId, u64> =
            image.data_groups().map(|group| (group.id, 0)).collect();
        for partition in image.topics().flat_map(|topic| topic.partitions.iter()) {
            if let Some(count) = partition_counts.get_mut(&partition.group) {
                *count += 1;
            }
        }
        let copies = image.data_groups().map(|group| (group.id, group.replicas.len()));
        Self { partition_counts, copy_counts: copies.collect() }
    }

    /// The most copies that a group has.
    pub fn copies_max(&self) -> usize {
        self.copy_counts.values().copied().max().unwrap_or(0)
    }

    /// Groups for `count` partitions of one topic, each with `copies` copies at least. None if
    /// there is no such group.
    pub fn place(&mut self, count: usize, copies: usize) -> Option<Vec<RaftGroupId>> {
        let fewest = self.copy_counts.values().copied().filter(|it| *it >= copies).min()?;
        let fits = |(group, it): (&RaftGroupId, &usize)| (*it == fewest).then_some(*group);
        let mut order: Vec<RaftGroupId> = self.copy_counts.iter().filter_map(fits).collect();
        // Each round gives every group one partition, the emptiest group first. Sorting once is
        // enough: a round raises all counts by one.
        order.sort_by_key(|group| self.partition_counts.get(group));
        let groups: Vec<RaftGroupId> = order.into_iter().cycle().take(count).collect();
        for group in &groups {
            self.count(*group);
        }
        Some(groups)
    }

    /// The emptiest group for which `fits` holds, for a partition that is placed by hand.
    pub(super) fn emptiest(&self, fits: impl Fn(&RaftGroupId) -> bool) -> Option<RaftGroupId> {
        let fitting = self.partition_counts.iter().filter(|(group, _)| fits(group));
        fitting.min_by_key(|(_, count)| **count).map(|(group, _)| *group)
    }

    /// Counts a partition that was placed by hand.
    pub fn count(&mut self, group: RaftGroupId) {
        if let Some(count) = self.partition_counts.get_mut(&group) {
            *count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(counts: &[(u64, u64)]) -> Placement {
        let partition_counts =
            counts.iter().map(|(group, count)| (RaftGroupId::new(*group), *count)).collect();
        let copies = counts.iter().map(|(group, _)| (RaftGroupId::new(*group), 3));
        Placement { partition_counts, copy_counts: copies.collect() }
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
        mixed.copy_counts =
            [(1, 3), (2, 2), (3, 5)].map(|(id, it)| (RaftGroupId::new(id), it)).into();
        let mut group_of = |copies| mixed.place(1, copies).map(|groups| groups[0].get());
        let groups = [1, 2, 3, 4, 5, 6].map(&mut group_of);
        assert_eq!(groups, [Some(2), Some(2), Some(1), Some(3), Some(3), None]);
        assert_eq!(mixed.copies_max(), 5);
    }
}
