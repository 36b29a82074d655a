//! What was read lately, up to a bound of bytes; what was not used for longest goes first.

use std::collections::BTreeMap;

/// Least recently used out first. A value larger than the bound is not kept.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    entries: BTreeMap<K, Entry<V>>,
    /// Keys by when they were last used; uses are numbered.
    by_use: BTreeMap<u64, K>,
    uses: u64,
    size: u64,
    size_max: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    size: u64,
    used: u64,
}

impl<K: Copy + Ord, V: Clone> Cache<K, V> {
    pub(super) fn new(size_max: u64) -> Self {
        let (entries, by_use) = (BTreeMap::new(), BTreeMap::new());
        Self { entries, by_use, uses: 0, size: 0, size_max }
    }

    pub(super) fn get(&mut self, key: K) -> Option<V> {
        self.uses += 1;
        let entry = self.entries.get_mut(&key)?;
        self.by_use.remove(&entry.used);
        entry.used = self.uses;
        self.by_use.insert(self.uses, key);
        Some(entry.value.clone())
    }

    pub(super) fn contains(&self, key: K) -> bool {
        self.entries.contains_key(&key)
    }

    pub(super) fn insert(&mut self, key: K, value: V, size: u64) {
        self.remove(key);
        if size > self.size_max {
            return;
        }
        while self.size + size > self.size_max
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.size -= self.entries.remove(&oldest).map_or(0, |entry| entry.size);
        }
        self.uses += 1;
        self.size += size;
        self.by_use.insert(self.uses, key);
        self.entries.insert(key, Entry { value, size, used: self.uses });
    }

    pub(super) fn remove(&mut self, key: K) {
        if let Some(entry) = self.entries.remove(&key) {
            self.by_use.remove(&entry.used);
            self.size -= entry.size;
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_used_last_stays() {
        let mut cache = Cache::new(10);
        for key in 0..3 {
            cache.insert(key, key, 3);
        }
        assert_eq!(cache.get(0), Some(0));
        cache.insert(3, 3, 4);
        assert_eq!([0, 1, 2, 3].map(|key| cache.get(key)), [Some(0), None, Some(2), Some(3)]);
        cache.insert(4, 4, 11);
        assert!(!cache.contains(4));
        assert_eq!(cache.size(), 10);
        cache.remove(3);
        assert_eq!((cache.size(), cache.get(3)), (6, None));
    }

    proptest! {
        #[test]
        fn the_bound_holds(inserts in proptest::collection::vec((0..20_u8, 0..50_u64), 1..200)) {
            let mut cache = Cache::new(100);
            for (key, size) in inserts {
                cache.insert(key, size, size);
                prop_assert_eq!(cache.get(key), Some(size));
                let sizes: u64 = cache.entries.values().map(|entry| entry.size).sum();
                prop_assert_eq!(cache.size(), sizes);
                prop_assert!(sizes <= 100);
                prop_assert_eq!(cache.by_use.len(), cache.entries.len());
            }
        }
    }
}
