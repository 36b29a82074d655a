//! Compares what is in a bucket with what the manifests in it say, without I/O.
//!
//! The manifests are the newest of each data group, and were the newest still when the listing was
//! complete. Then a live object that the listing lacks is lost: a broker deletes an object only
//! after it has stored a newer manifest that does not list it as live.
//!
//! Partitions move between groups, so one group's extents may be in objects of another, which that
//! other one deletes only when the newest manifest of whoever has the partition does not name them.
//! Of a partition that several manifests have, that with the latest move counts: the others were
//! stored before it left, or list what it lent on.

use std::collections::{BTreeMap, BTreeSet};

use model::{LogIndex, Offset, PartitionId, RaftGroupId};

use crate::manifest::Manifest;
use crate::manifest_file::ManifestName;
use crate::object::Extent;
use crate::object_name::{ObjectName, RangeName};
use crate::store::{CLUSTER_KEY, Listed, PROBE_PREFIX};

#[cfg(test)]
mod tests;

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Audit<'a> {
    /// The whole bucket.
    pub listed: &'a [Listed],
    pub groups: &'a [AuditedGroup<'a>],
    /// The partitions of all topics. Of others a manifest may have only what came after they were
    /// deleted: an offload was under way. `None` if the topics are not known.
    pub hosted: Option<&'a BTreeSet<PartitionId>>,
}

/// A data group as its newest manifest file has it.
#[derive(Clone, Copy, Debug)]
pub struct AuditedGroup<'a> {
    pub group: RaftGroupId,
    pub manifest: &'a Manifest,
    /// When the file was stored, by the store's clock.
    pub stored_ms: i64,
}

/// What the comparison shows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AuditReport {
    /// All that are listed, in the order of the listing.
    pub objects: Vec<AuditedObject>,
    pub findings: Vec<Finding>,
}

/// An object of the bucket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AuditedObject {
    pub name: ObjectName,
    pub size: u64,
    pub standing: Standing,
}

/// What an object of the bucket is to the manifests.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Standing {
    /// Extents refer to it, or it is lent.
    Live,
    /// It waits to be deleted.
    Retired,
    /// Stored after the manifest: who rebuilds the cluster finds it by its name.
    Newer,
    /// No manifest lists it and none will: a crash or a replaced leader left it.
    Orphan,
}

/// Records of a partition.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct OffsetRange {
    pub partition: PartitionId,
    pub base: Offset,
    /// Exclusive.
    pub end: Offset,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Finding {
    /// A key that this product does not write; nothing reads it.
    UnknownKey { key: String },
    /// Extents refer to an object that is not there. Nothing is known to be `lost` if it is only
    /// lent: by now the partition's group may do without it.
    Missing { object: ObjectName, lost: Vec<OffsetRange> },
    /// The same of an object that has another size than was stored.
    Size { object: ObjectName, stored: u64, found: u64, lost: Vec<OffsetRange> },
    /// No object has these entries, inclusive, of a group's log, but one has entries after them.
    Entries { group: RaftGroupId, first: LogIndex, last: LogIndex },
    /// No extent has these records, although they are not deleted.
    Hole(OffsetRange),
    /// Two extents have these records.
    Overlap(OffsetRange),
    /// An extent is not inside of its object.
    Outside { object: ObjectName, range: OffsetRange },
    /// An extent refers to an object that the manifest does not list as live: it may be deleted.
    NotLive { object: ObjectName, range: OffsetRange },
    /// An object is listed as live and as retired, by one group or by two.
    LiveAndRetired { object: ObjectName },
}

impl Finding {
    /// Whether records are lost or may come to be.
    pub fn is_loss(&self) -> bool {
        !matches!(self, Self::UnknownKey { .. })
    }
}

impl OffsetRange {
    pub fn of(partition: PartitionId, extent: &Extent) -> Self {
        Self { partition, base: extent.base, end: extent.end }
    }
}

impl Audit<'_> {
    pub fn run(&self) -> AuditReport {
        let mut report = AuditReport::default();
        self.sort_keys(&mut report);
        self.check_objects(&mut report);
        for group in self.groups {
            let sizes = group.manifest.live_sizes().collect();
            for partition in group.manifest.partitions() {
                self.check_partition(group.manifest, partition, &sizes, &mut report.findings);
            }
        }
        self.check_entries(&mut report);
        report
    }

    /// Objects, with their standing, and keys of nobody.
    fn sort_keys(&self, report: &mut AuditReport) {
        let standings = self.standings();
        for Listed { key, size, modified_ms } in self.listed {
            if let Ok(name) = key.parse::<ObjectName>() {
                let standing = match standings.get(&name) {
                    Some(standing) => *standing,
                    None if self.is_newer(&name, *modified_ms) => Standing::Newer,
                    None => Standing::Orphan,
                };
                report.objects.push(AuditedObject { name, size: *size, standing });
            } else if *key != CLUSTER_KEY
                && !key.starts_with(PROBE_PREFIX)
                && key.parse::<ManifestName>().is_err()
            {
                report.findings.push(Finding::UnknownKey { key: key.clone() });
            }
        }
    }

    /// Of all objects that a manifest lists. What one needs is live, whatever another one says.
    fn standings(&self) -> BTreeMap<ObjectName, Standing> {
        let latest = self.latest_arrivals();
        let mut standings = BTreeMap::new();
        for AuditedGroup { manifest, .. } in self.groups {
            standings.extend(manifest.live().map(|name| (*name, Standing::Live)));
        }
        for AuditedGroup { manifest, .. } in self.groups {
            let retired = manifest.retired_sizes();
            standings.extend(retired.map(|(name, ..)| (*name, Standing::Retired)));
        }
        for AuditedGroup { manifest, .. } in self.groups {
            let needed = needed(manifest, &latest);
            standings.extend(needed.keys().map(|name| (*name, Standing::Live)));
        }
        standings
    }

    /// The last move of each partition that has moved, as far as the manifests tell.
    fn latest_arrivals(&self) -> BTreeMap<PartitionId, LogIndex> {
        let mut latest = BTreeMap::new();
        for (partition, arrival) in self.groups.iter().flat_map(|group| group.manifest.arrivals()) {
            let id = latest.entry(partition).or_insert(arrival.id);
            *id = arrival.id.max(*id);
        }
        latest
    }

    /// Whether an object that no manifest lists may come to be listed. A range tells by its
    /// entries. A merged object has no place in the group's log: it tells by its age.
    fn is_newer(&self, object: &ObjectName, modified_ms: i64) -> bool {
        match object {
            ObjectName::Range(name) => name.first() > self.offloaded_upto(name.group()),
            ObjectName::Merged(name) => {
                let known = self.groups.iter().find(|known| known.group == name.group());
                known.is_none_or(|group| group.stored_ms <= modified_ms)
            }
        }
    }

    fn offloaded_upto(&self, group: RaftGroupId) -> LogIndex {
        let known = self.groups.iter().find(|known| known.group == group);
        known.map_or_else(LogIndex::default, |known| known.manifest.offloaded_upto())
    }

    /// What the manifests need of the bucket.
    fn check_objects(&self, report: &mut AuditReport) {
        let sizes: BTreeMap<ObjectName, u64> =
            report.objects.iter().map(|object| (object.name, object.size)).collect();
        let manifests = || self.groups.iter().map(|group| group.manifest);
        let retired: BTreeSet<ObjectName> =
            manifests().flat_map(|it| it.retired_sizes().map(|(name, ..)| *name)).collect();
        let latest = self.latest_arrivals();
        let needed: BTreeSet<(ObjectName, u64)> =
            manifests().flat_map(|manifest| needed(manifest, &latest)).collect();
        let mut bad = BTreeMap::new();
        for (object, stored) in needed {
            if retired.contains(&object) {
                report.findings.push(Finding::LiveAndRetired { object });
            }
            let found = sizes.get(&object).copied();
            if found != Some(stored) {
                bad.insert((object, stored), (found, Vec::new()));
            }
        }
        for manifest in manifests() {
            for partition in present(manifest, &latest) {
                for extent in manifest.extents(partition) {
                    let object = (extent.object, manifest.live_size(&extent.object));
                    if let Some((_, lost)) = bad.get_mut(&object) {
                        lost.push(OffsetRange::of(partition, extent));
                    }
                }
            }
        }
        report.findings.extend(bad.into_iter().map(
            |((object, stored), (found, lost))| match found {
                None => Finding::Missing { object, lost },
                Some(found) => Finding::Size { object, stored, found, lost },
            },
        ));
    }

    /// Whether a partition's extents follow each other from its log start to its end.
    fn check_partition(
        &self,
        manifest: &Manifest,
        partition: PartitionId,
        sizes: &BTreeMap<&ObjectName, u64>,
        findings: &mut Vec<Finding>,
    ) {
        let range = |base, end| OffsetRange { partition, base, end };
        let extents = manifest.extents(partition);
        let is_hosted = self.hosted.is_some_and(|hosted| hosted.contains(&partition));
        let mut at = manifest.log_start(partition);
        if let Some(first) = extents.first().filter(|_| !is_hosted) {
            at = at.max(first.base);
        }
        let mut before: Option<Offset> = None;
        for extent in extents {
            let Extent { object, base, end, .. } = *extent;
            if base > at {
                findings.push(Finding::Hole(range(at, base)));
            }
            if let Some(before) = before.filter(|before| *before > base) {
                findings.push(Finding::Overlap(range(base, before.min(end))));
            }
            match sizes.get(&object) {
                None => findings.push(Finding::NotLive { object, range: range(base, end) }),
                Some(size) if !extent.is_sound(*size) => {
                    findings.push(Finding::Outside { object, range: range(base, end) });
                }
                Some(_) => {}
            }
            at = at.max(end);
            before = before.max(Some(end));
        }
        if let Some(end) = manifest.offloaded_end(partition).filter(|end| *end > at)
            && (is_hosted || !extents.is_empty())
        {
            findings.push(Finding::Hole(range(at, end)));
        }
    }

    /// Whether the objects after each manifest follow each other: names leave no hole. Of several
    /// that begin at one entry the log went on with that of the latest leader, or start.
    fn check_entries(&self, report: &mut AuditReport) {
        let mut newer: BTreeMap<RaftGroupId, BTreeMap<LogIndex, RangeName>> = BTreeMap::new();
        for object in &report.objects {
            if let (ObjectName::Range(name), Standing::Newer) = (object.name, object.standing) {
                let by_first = newer.entry(name.group()).or_default();
                let best = by_first.entry(name.first()).or_insert(name);
                *best = (*best).max(name);
            }
        }
        for (group, by_first) in newer {
            let mut covered = self.offloaded_upto(group);
            for (first, name) in by_first {
                if first <= covered {
                    continue;
                }
                if first > covered.next() {
                    let last = LogIndex::new(first.get() - 1);
                    report.findings.push(Finding::Entries { group, first: covered.next(), last });
                }
                covered = name.last();
            }
        }
    }
}

/// Partitions that have not moved on to another group since, as far as the manifests tell.
fn present(
    manifest: &Manifest,
    latest: &BTreeMap<PartitionId, LogIndex>,
) -> impl Iterator<Item = PartitionId> {
    manifest.partitions().filter(|partition| {
        let arrived = manifest.arrival(*partition).map(|arrival| arrival.id);
        arrived.as_ref() >= latest.get(partition)
    })
}

/// Objects, with their sizes, that must be there: own ones that are live, of which this manifest
/// decides, and foreign ones as long as the partition is here.
fn needed(
    manifest: &Manifest,
    latest: &BTreeMap<PartitionId, LogIndex>,
) -> BTreeMap<ObjectName, u64> {
    let own = manifest.live_sizes().filter(|(name, _)| !manifest.is_foreign(name));
    let own = own.map(|(name, size)| (*name, size));
    let referred = present(manifest, latest).flat_map(|it| manifest.objects_of(it));
    own.chain(referred.filter(|(name, _)| manifest.is_foreign(name))).collect()
}
