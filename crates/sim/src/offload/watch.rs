//! The bucket, seen from outside: no object is missing that somebody names, and none goes before
//! its time.

use std::collections::{BTreeMap, BTreeSet};

use crate::kafka::violation::Violation;
use broker::simulation::{GroupState, Homes, SimBroker, manifest_of};
use model::RaftGroupId;
use s3_uploader::{Bucket, Change, Manifest, ManifestFile, ObjectName, StoreUrl};

/// From the proposal of an edit, whose time counts, to its sight here.
const SLACK_MS: i64 = 1_000;

pub(crate) struct Watch {
    bucket: Bucket,
    url: StoreUrl,
    grace_ms: i64,
    /// By group.
    named: BTreeMap<RaftGroupId, Named>,
    /// Since when the broker's manifest does not refer to an object any more.
    released: BTreeMap<ObjectName, i64>,
    pub(crate) created: usize,
    pub(crate) deleted: usize,
    pub(crate) manifest_files: usize,
}

/// The objects of a group that something refers to.
#[derive(Default)]
struct Named {
    /// What the manifest contains, and of which metadata it was.
    seen: (u64, u64),
    /// The broker's manifest.
    live: BTreeSet<ObjectName>,
    /// The bucket's newest manifest: its number, and what it refers to.
    newest: (u64, BTreeSet<ObjectName>),
}

impl Watch {
    pub(crate) fn new(bucket: Bucket, url: StoreUrl, grace_ms: i64) -> Self {
        Self {
            bucket,
            url,
            grace_ms,
            named: BTreeMap::new(),
            released: BTreeMap::new(),
            created: 0,
            deleted: 0,
            manifest_files: 0,
        }
    }

    /// Looks at what changed in the manifest of a group; `homes` by the newest metadata.
    pub(crate) fn look(
        &mut self,
        broker: &SimBroker,
        state: &GroupState,
        homes: &Homes,
        now_ms: i64,
    ) -> Result<(), Violation> {
        let named = self.named.entry(state.group).or_default();
        let seen = (state.edited, homes.version);
        if std::mem::replace(&mut named.seen, seen) == seen {
            return Ok(());
        }
        self.compare(state.group, broker.needed(state.group, homes), now_ms)
    }

    /// All brokers lost their disks: an object that only they named, and no file in the bucket, is
    /// one of which nobody knows any more. So is a merged one; what it was made of is there still.
    pub(crate) fn all_is_lost(&mut self) {
        let files = self.named.values().flat_map(|named| &named.newest.1);
        let files: BTreeSet<_> = files.copied().collect();
        self.named.values_mut().for_each(|named| named.live.retain(|it| files.contains(it)));
    }

    /// Looks at what changed in the bucket.
    pub(crate) fn look_at_bucket(&mut self, now_ms: i64) -> Result<(), Violation> {
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

    fn compare(
        &mut self,
        group: RaftGroupId,
        live: BTreeSet<ObjectName>,
        now_ms: i64,
    ) -> Result<(), Violation> {
        let named = self.named.entry(group).or_default();
        let before = std::mem::replace(&mut named.live, live.clone());
        for object in live.difference(&before) {
            self.must_be_there(object, "the broker's manifest")?;
            self.released.remove(object);
        }
        // How long an object stays is for the group that made it.
        let own = before.difference(&live).filter(|object| object.group() == group);
        self.released.extend(own.map(|object| (*object, now_ms)));
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
        let decoded = file.and_then(|file| Ok((manifest_of(&file)?, file)));
        let (manifest, file) = decoded.map_err(|reason| Violation::Reply { reason })?;
        let (group, sequence) = (file.group, file.sequence);
        let known = self.named.get(&group).map_or(0, |named| named.newest.0);
        let Some(manifest) = manifest.filter(|_| sequence > known) else { return Ok(()) };
        self.manifest_files += 1;
        let named: BTreeSet<_> = own(&manifest).collect();
        named.iter().try_for_each(|object| self.must_be_there(object, "the newest manifest"))?;
        self.named.entry(group).or_default().newest = (sequence, named);
        Ok(())
    }

    fn was_deleted(&mut self, key: &str, now_ms: i64) -> Result<(), Violation> {
        let Ok(object) = self.own(key).parse::<ObjectName>() else { return Ok(()) };
        self.deleted += 1;
        let missing = |namer| Violation::Missing { object: object.to_string(), namer };
        // Also another group than the one that made it may name it.
        if self.named.values().any(|named| named.live.contains(&object)) {
            return Err(missing("the broker's manifest"));
        }
        // The file of a group that a partition has left again may be old, and is not read for it.
        let named = self.named.get(&object.group());
        if named.is_some_and(|named| named.newest.1.contains(&object)) {
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

/// The objects of a manifest that its group made.
fn own(manifest: &Manifest) -> impl Iterator<Item = ObjectName> {
    manifest.live().copied().filter(|object| !manifest.is_foreign(object))
}
