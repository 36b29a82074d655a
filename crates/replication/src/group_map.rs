//! Something for each raft group of a shard. With hundreds of groups at rest most of what a core
//! does is to go through them in each tick, and a tree's nodes are cache misses each time.

use model::RaftGroupId;

/// Numbers are below that.
pub(crate) const NUMBERS: u64 = 1 << 16;

/// What is at no place.
const NOWHERE: u32 = u32::MAX;

/// A map from raft groups, which are numbered from 0 on without large gaps, in the order of their
/// numbers: its size is that of the highest number that it ever had.
#[derive(Clone, Debug)]
pub struct GroupMap<V> {
    /// By number: where the group is among the entries.
    places: Vec<u32>,
    entries: Vec<(RaftGroupId, V)>,
}

impl<V> Default for GroupMap<V> {
    fn default() -> Self {
        Self { places: Vec::new(), entries: Vec::new() }
    }
}

impl<V> GroupMap<V> {
    fn place(&self, group: RaftGroupId) -> Option<usize> {
        let number = usize::try_from(group.get()).ok()?;
        let place = self.places.get(number).copied().filter(|place| *place != NOWHERE)?;
        usize::try_from(place).ok()
    }

    pub fn get(&self, group: RaftGroupId) -> Option<&V> {
        self.place(group).map(|place| &self.entries[place].1)
    }

    pub fn get_mut(&mut self, group: RaftGroupId) -> Option<&mut V> {
        self.place(group).map(|place| &mut self.entries[place].1)
    }

    pub fn contains(&self, group: RaftGroupId) -> bool {
        self.place(group).is_some()
    }

    /// What was there before, if anything.
    ///
    /// # Panics
    /// If the number of the group is 65,536 or more.
    pub fn insert(&mut self, group: RaftGroupId, value: V) -> Option<V> {
        if let Some(found) = self.get_mut(group) {
            return Some(std::mem::replace(found, value));
        }
        assert!(group.get() < NUMBERS, "group {group}: no group has such a number");
        let number = usize::try_from(group.get()).expect("it is below 65,536");
        if self.places.len() <= number {
            self.places.resize(number + 1, NOWHERE);
        }
        let place = self.entries.partition_point(|(other, _)| *other < group);
        self.entries.insert(place, (group, value));
        self.note_places_from(place);
        None
    }

    pub fn remove(&mut self, group: RaftGroupId) -> Option<V> {
        let place = self.place(group)?;
        let (_, value) = self.entries.remove(place);
        self.note_places_from(place);
        if let Some(at) = usize::try_from(group.get()).ok().and_then(|it| self.places.get_mut(it)) {
            *at = NOWHERE;
        }
        Some(value)
    }

    pub fn keys(&self) -> impl Iterator<Item = RaftGroupId> + '_ {
        self.entries.iter().map(|(group, _)| *group)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().map(|(_, value)| value)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.iter_mut().map(|(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (RaftGroupId, &V)> {
        self.entries.iter().map(|(group, value)| (*group, value))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (RaftGroupId, &mut V)> {
        self.entries.iter_mut().map(|(group, value)| (*group, value))
    }

    fn note_places_from(&mut self, place: usize) {
        for (at, (group, _)) in self.entries.iter().enumerate().skip(place) {
            let number = usize::try_from(group.get()).expect("it was one when it came");
            self.places[number] = u32::try_from(at).expect("fewer groups than numbers");
        }
    }
}

impl<V> FromIterator<(RaftGroupId, V)> for GroupMap<V> {
    fn from_iter<I: IntoIterator<Item = (RaftGroupId, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (group, value) in entries {
            map.insert(group, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_is_as_a_tree_is() {
        let (mut map, mut tree) = (GroupMap::default(), BTreeMap::new());
        // Each step in turn inserts or removes one of 64, in no order.
        for step in 0..4000_u64 {
            let group = RaftGroupId::new(step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58);
            if step % 3 == 0 {
                assert_eq!(map.remove(group), tree.remove(&group));
            } else {
                assert_eq!(map.insert(group, step), tree.insert(group, step));
            }
            let other = RaftGroupId::new(step % 70);
            assert_eq!(map.get(other), tree.get(&other));
            assert_eq!(map.get_mut(other), tree.get_mut(&other));
            assert_eq!(map.contains(other), tree.contains_key(&other));
            assert!(map.iter().eq(tree.iter().map(|(group, value)| (*group, value))));
        }
        assert!(map.keys().eq(tree.keys().copied()) && map.values().eq(tree.values()));
        assert!(map.iter_mut().map(|(group, value)| (group, *value)).eq(tree.clone()));
        assert!(map.values_mut().map(|value| *value).eq(tree.into_values()));
        assert_eq!(map.get(RaftGroupId::new(u64::MAX)), None);
    }
}
