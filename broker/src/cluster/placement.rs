//! Which raft group a new partition goes to: the one with the fewest partitions of its topic, among
//! those the one with the fewest partitions, among those the lowest id.

use std::collections::BTreeMap;

use model::RaftGroupId;

use super::image::Image;

/// Partitions counted per data group; counts those that it places too.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Placement {
    partition_counts: BTreeMap<RaftGroupId, u64>,
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
        Self { partition_counts }
    }

    /// Groups for `count` partitions of one topic. None if there is no group.
    pub fn place(&mut self, count: usize) -> Option<Vec<RaftGroupId>> {
        let mut order: Vec<RaftGroupId> = self.partition_counts.keys().copied().collect();
        if order.is_empty() {
            return None;
        }
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
        Placement { partition_counts }
    }

    fn placed(placement: &mut Placement, count: usize) -> Vec<u64> {
        placement.place(count).expect("groups").into_iter().map(RaftGroupId::get).collect()
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
        assert_eq!(placement(&[]).place(1), None);
        assert_eq!(placed(&mut placement(&[(1, 0)]), 0), []);
    }
}
