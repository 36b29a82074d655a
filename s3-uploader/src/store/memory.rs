//! A bucket in memory, for simulations: it outlives the brokers that use it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::store::{Etag, Listed, PAGE_KEYS_MAX, Page, Put, StoreError, StoreUrl, joined};

/// Clones are the same bucket.
#[derive(Clone, Debug, Default)]
pub struct Bucket(Arc<Mutex<Contents>>);

/// What happened to a bucket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    Created(String),
    Deleted(String),
}

#[derive(Debug, Default)]
struct Contents {
    /// By prefix and key.
    objects: BTreeMap<String, Object>,
    /// Of which each has a number, that is its object's etag.
    writes: u64,
    now_ms: i64,
    changes: Vec<Change>,
    reuses_names: bool,
}

#[derive(Debug)]
struct Object {
    bytes: Bytes,
    write: u64,
    modified_ms: i64,
}

/// The part of a bucket under a prefix.
#[derive(Debug)]
pub(super) struct MemoryStore {
    bucket: Bucket,
    prefix: String,
}

impl Bucket {
    /// Sets the store's clock.
    pub fn set_now_ms(&self, now_ms: i64) {
        self.contents().now_ms = now_ms;
    }

    /// The keys that begin with `prefix`, and the bytes of each, in order.
    pub fn objects(&self, url: &StoreUrl, prefix: &str) -> Vec<(String, Bytes)> {
        let (begin, cut) = (format!("{url}/{prefix}"), format!("{url}/").len());
        let contents = self.contents();
        let found = contents.objects.range(begin.clone()..);
        let found = found.take_while(|(key, _)| key.starts_with(&begin));
        found.map(|(key, object)| (key[cut..].to_owned(), object.bytes.clone())).collect()
    }

    pub fn contains(&self, url: &StoreUrl, key: &str) -> bool {
        let mut contents = self.contents();
        let key = contents.named(format!("{url}/{key}"));
        contents.objects.contains_key(&key)
    }

    /// What happened since this was last called, in order, with keys that begin with their prefix.
    pub fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut self.contents().changes)
    }

    /// A planted bug: objects of a group are named by their first entry alone, and a name that is
    /// taken is believed to be of an earlier attempt.
    pub fn reuse_names(&self) {
        self.contents().reuses_names = true;
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    /// The key under which an object is kept: another one only if the bug is planted.
    fn named(&mut self, key: String) -> String {
        let Some((group, rest)) = key.split_once("/term/").filter(|_| self.reuses_names) else {
            return key;
        };
        let first = rest.split_once('/').and_then(|(_, range)| range.split_once('-'));
        first.map_or_else(|| key.clone(), |(first, _)| format!("{group}/term/{first}"))
    }

    fn put(&mut self, key: String, bytes: Bytes) -> Etag {
        self.writes += 1;
        let (write, modified_ms) = (self.writes, self.now_ms);
        self.objects.insert(key, Object { bytes, write, modified_ms });
        Etag(write.to_string())
    }
}

impl MemoryStore {
    pub(super) fn new(bucket: Bucket, url: &StoreUrl) -> Self {
        Self { bucket, prefix: format!("{url}/") }
    }

    pub(super) fn put_new(&self, key: &str, parts: &[Bytes]) -> Put {
        let mut contents = self.bucket.contents();
        let key = contents.named(self.full(key));
        if contents.objects.contains_key(&key) {
            return if contents.reuses_names { Put::Created } else { Put::Exists };
        }
        contents.put(key.clone(), joined(parts));
        contents.changes.push(Change::Created(key));
        Put::Created
    }

    pub(super) fn put_if_match(
        &self,
        key: &str,
        etag: &Etag,
        bytes: Bytes,
    ) -> Result<Etag, StoreError> {
        let (_, found) = self.get(key)?;
        if found != *etag {
            return Err(StoreError::PreconditionFailed { key: key.to_owned() });
        }
        Ok(self.bucket.contents().put(self.full(key), bytes))
    }

    pub(super) fn get(&self, key: &str) -> Result<(Bytes, Etag), StoreError> {
        self.found(key, |object| (object.bytes.clone(), Etag(object.write.to_string())))
    }

    /// Fewer bytes if the object ends before.
    pub(super) fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.found(key, |object| {
            let at = |position: u64| {
                usize::try_from(position)
                    .map_or(object.bytes.len(), |at| at.min(object.bytes.len()))
            };
            object.bytes.slice(at(range.start)..at(range.end))
        })
    }

    pub(super) fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.found(key, size_of)
    }

    pub(super) fn list(&self, prefix: &str, after: Option<&str>) -> Page {
        let (begin, after) = (self.full(prefix), after.map(|key| self.full(key)));
        let contents = self.bucket.contents();
        let listed = contents.objects.range(begin.clone()..);
        let listed = listed.take_while(|(key, _)| key.starts_with(&begin));
        let mut listed = listed.filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
        let objects = listed.by_ref().take(PAGE_KEYS_MAX).map(|(key, object)| Listed {
            key: key[self.prefix.len()..].to_owned(),
            size: size_of(object),
            modified_ms: object.modified_ms,
        });
        Page { objects: objects.collect(), more: listed.next().is_some() }
    }

    pub(super) fn delete(&self, keys: &[String]) {
        let mut contents = self.bucket.contents();
        for key in keys {
            let key = contents.named(self.full(key));
            if contents.objects.remove(&key).is_some() {
                contents.changes.push(Change::Deleted(key));
            }
        }
    }

    fn found<T>(&self, key: &str, take: impl FnOnce(&Object) -> T) -> Result<T, StoreError> {
        let mut contents = self.bucket.contents();
        let full = contents.named(self.full(key));
        let found = contents.objects.get(&full).map(take);
        found.ok_or_else(|| StoreError::NotFound { key: key.to_owned() })
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

fn size_of(object: &Object) -> u64 {
    u64::try_from(object.bytes.len()).expect("a length fits 64 bits")
}
