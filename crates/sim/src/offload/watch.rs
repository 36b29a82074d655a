//! The bucket, seen from outside: no object is missing that somebody names, and none goes before
//! its time.

use std::collections::{BTreeMap, BTreeSet};

use crate::kafka::violation::Violation;
use broker::simulation::{SimBroker, manifest_of};
use s3_uploader::{Bucket, Change, Manifest, ManifestFile, ObjectName, StoreUrl};

/// From the proposal of an edit, whose time counts, to its sight here.
const SLACK_MS: i64 = 1_000;

pub(crate) struct Watch {
    bucket: Bucket,
    url: StoreUrl,
    grace_ms: i64,
    /// What the broker's manifest refers to, and since when it does not any more.
    live: BTreeSet<ObjectName>,
    released: BTreeMap<ObjectName, i64>,
    edited: u64,
    /// The bucket's newest manifest: its number, and what it refers to.
    newest: (u64, BTreeSet<ObjectName>),
    pub(crate) created: usize,
    pub(crate) deleted: usize,
    pub(crate) manifest_files: usize,
}

impl Watch {
    pub(crate) fn new(bucket: Bucket, url: StoreUrl, grace_ms: i64) -> Self {
        Self {
            bucket,
            url,
            grace_ms,
            live: BTreeSet::new(),
            released: BTreeMap::new(),
            edited: 0,
            newest: (0, BTreeSet::new()),
            created: 0,
            deleted: 0,
            manifest_files: 0,
        }
    }

    /// Looks at what changed in the bucket and in the manifest.
    pub(crate) fn look(&mut self, broker: &SimBroker, now_ms: i64) -> Result<(), Violation> {
        let edited = broker.counters().edited;
        if edited != self.edited {
            self.edited = edited;
            self.compare(broker.manifest(), now_ms)?;
        }
        for change in self.bucket.take_changes() {
            match change {
                Change::Created(key) => self.was_created(&key)?,
                Change::Deleted(key) => self.was_deleted(&key, now_ms)?,
            }
        }
        Ok(())
    }

    /// Objects in the bucket that the manifest does not know.
    pub(crate) fn orphans(&self, manifest: &Manifest) -> Vec<String> {
        let keys = self.bucket.objects(&self.url, "").into_iter().map(|(key, _)| key);
        keys.filter(|key| key.parse().is_ok_and(|name| !manifest.contains(&name))).collect()
    }

    fn compare(&mut self, manifest: &Manifest, now_ms: i64) -> Result<(), Violation> {
        let live: BTreeSet<_> = manifest.live().copied().collect();
        for object in live.difference(&self.live) {
            self.must_be_there(object, "the broker's manifest")?;
            self.released.remove(object);
        }
        let released = self.live.difference(&live).map(|object| (*object, now_ms));
        self.released.extend(released);
        self.live = live;
        Ok(())
    }

    fn was_created(&mut self, key: &str) -> Result<(), Violation> {
        let key = self.own(key);
        if !key.starts_with("manifest/") {
            self.created += usize::from(key.parse::<ObjectName>().is_ok());
            return Ok(());
        }
        let files = self.bucket.objects(&self.url, key);
        let Some((_, bytes)) = files.first() else { return Ok(()) };
        let file = ManifestFile::decode(bytes).map_err(|error| error.to_string());
        let decoded = file.and_then(|file| Ok((file.sequence, manifest_of(&file)?)));
        let (sequence, manifest) = decoded.map_err(|reason| Violation::Reply { reason })?;
        let Some(manifest) = manifest.filter(|_| sequence > self.newest.0) else { return Ok(()) };
        self.manifest_files += 1;
        let named: BTreeSet<_> = manifest.live().copied().collect();
        named.iter().try_for_each(|object| self.must_be_there(object, "the newest manifest"))?;
        self.newest = (sequence, named);
        Ok(())
    }

    fn was_deleted(&mut self, key: &str, now_ms: i64) -> Result<(), Violation> {
        let Ok(object) = self.own(key).parse::<ObjectName>() else { return Ok(()) };
        self.deleted += 1;
        let missing = |namer| Violation::Missing { object: object.to_string(), namer };
        if self.live.contains(&object) {
            return Err(missing("the broker's manifest"));
        }
        if self.newest.1.contains(&object) {
            return Err(missing("the newest manifest"));
        }
        // One that was never named is an orphan; how long it stays is not promised.
        let Some(since) = self.released.remove(&object) else { return Ok(()) };
        let after_ms = now_ms - since;
        if after_ms + SLACK_MS < self.grace_ms {
            return Err(Violation::NoGrace { object: object.to_string(), after_ms });
        }
        Ok(())
    }

    fn must_be_there(&self, object: &ObjectName, namer: &'static str) -> Result<(), Violation> {
        let object = object.to_string();
        if self.bucket.contains(&self.url, &object) {
            return Ok(());
        }
        Err(Violation::Missing { object, namer })
    }

    /// A key without the store's prefix.
    fn own<'a>(&self, key: &'a str) -> &'a str {
        &key[self.url.to_string().len() + 1..]
    }
}
