//! Compares a store with its manifests, then reads all of it. One line for each finding: which
//! records it concerns and what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use model::PartitionId;
use s3_uploader::{
    AuditReport, AuditedObject, BucketReader, Extent, Finding, ManifestName, ObjectName,
    OffsetRange, Standing, StoreUrl, Unsound,
};

use super::content::{self, Fault};
use super::view::{DamagedFile, View, contents};
use super::{ObjectError, offsets};

/// Bytes of objects between two lines of progress.
const PROGRESS_STEP: u64 = 1 << 30;

const RESTORE: &str = "consumers get an error there and `tailrace recover` loses them: restore the \
                       object from a copy or an older version in the bucket";
const REPORT: &str = "this is a fault of Tailrace: leave the bucket as it is and report it";

#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArgs {
    /// s3://BUCKET/PREFIX or file:///DIRECTORY.
    #[arg(long, value_name = "URL")]
    pub object_store: StoreUrl,
    /// Names and sizes only: no object and no older manifest file is read.
    #[arg(long)]
    pub quick: bool,
    /// Fail for what is in the store and not in use, too, and name it.
    #[arg(long)]
    pub strict: bool,
}

/// Extents by the objects that they are in.
type Extents = BTreeMap<ObjectName, Vec<(PartitionId, Extent)>>;

pub(super) fn verify(
    args: &VerifyArgs,
    out: &mut dyn Write,
    progress: &mut dyn Write,
) -> Result<(), ObjectError> {
    let bucket = BucketReader::open(&args.object_store)?;
    writeln!(out, "cluster {}", bucket.cluster_id)?;
    let view = View::of(&bucket)?;
    let report = view.audit();
    let mut verifier = Verifier { args, bucket: &bucket, view: &view, out, errors: 0 };
    verifier.manifests()?;
    for finding in &report.findings {
        verifier.finding(finding)?;
    }
    if !args.quick {
        verifier.older_manifests()?;
        verifier.objects(&report, progress)?;
    }
    verifier.unused(&report)?;
    verifier.summary(&report)?;
    match verifier.errors {
        0 => Ok(()),
        count => Err(ObjectError::Damaged { what: args.object_store.to_string(), count }),
    }
}

struct Verifier<'a> {
    args: &'a VerifyArgs,
    bucket: &'a BucketReader,
    view: &'a View,
    out: &'a mut dyn Write,
    errors: u64,
}

impl Verifier<'_> {
    fn error(&mut self, line: &str) -> Result<(), ObjectError> {
        self.errors += 1;
        Ok(writeln!(self.out, "error: {line}")?)
    }

    /// The newest manifest files: whoever rebuilds the cluster begins with them.
    fn manifests(&mut self) -> Result<(), ObjectError> {
        for DamagedFile { name, reason } in &self.view.damaged {
            self.error(&format!(
                "{name}: {reason}; `tailrace recover` uses the one before it: the broker stores a \
                 newer one within five minutes of its next change; or restore the file from a copy"
            ))?;
        }
        let has_data = !self.view.groups.is_empty();
        if self.view.topics.is_none() && has_data {
            self.error(
                "no manifest file of group 0 can be read: `tailrace recover` has no topics; let \
                 the broker run and create a topic, or restore the file from a copy",
            )?;
        }
        Ok(())
    }

    /// Nothing reads these while a newer one is whole.
    fn older_manifests(&mut self) -> Result<(), ObjectError> {
        let view = self.view;
        let newest = view.groups.iter().map(|group| group.file);
        let damaged = view.damaged.iter().map(|file| file.name);
        let known: BTreeSet<ManifestName> = newest.chain(damaged).collect();
        let names = view.listed.iter().filter_map(|listed| listed.key.parse().ok());
        for name in names.filter(|name| !known.contains(name)) {
            let file = self.bucket.manifest_file(name)?;
            if let Err(Unsound::Damaged(reason)) = file.and_then(|file| contents(&file)) {
                self.error(&format!(
                    "{name}: {reason}; a newer one is in use: restore this one or delete it"
                ))?;
            }
        }
        Ok(())
    }

    fn finding(&mut self, finding: &Finding) -> Result<(), ObjectError> {
        let line = match finding {
            Finding::UnknownKey { key } => {
                let line = format!("{key}: not written by Tailrace and read by nobody: remove it");
                return if self.args.strict { self.error(&line) } else { self.note(&line) };
            }
            Finding::Missing { object, lost } => {
                format!("{object}: {}: there is no such object; {RESTORE}", self.ranges(lost))
            }
            Finding::Size { object, stored, found, lost } => {
                let ranges = self.ranges(lost);
                format!("{object}: {ranges}: it has {found} of {stored} bytes; {RESTORE}")
            }
            Finding::Entries { group, first, last } => format!(
                "group {group}: no object has its entries {first} to {last}, offloaded after its \
                 newest manifest; `tailrace recover` loses their records: restore the object from \
                 a copy, or let the broker run until it has stored a newer manifest"
            ),
            Finding::Hole(range) => format!("{}: no extent has them; {REPORT}", self.range(range)),
            Finding::Overlap(range) => {
                format!("{}: two extents have them; {REPORT}", self.range(range))
            }
            Finding::Outside { object, range } => {
                let range = self.range(range);
                format!("{object}: {range}: the extent is not inside of the object; {REPORT}")
            }
            Finding::NotLive { object, range } => {
                let range = self.range(range);
                format!("{object}: {range}: the object is not listed as live; {REPORT}")
            }
            Finding::LiveAndRetired { object } => {
                format!("{object}: it is listed as live and as retired; {REPORT}")
            }
        };
        self.error(&line)
    }

    fn note(&mut self, line: &str) -> Result<(), ObjectError> {
        Ok(writeln!(self.out, "note: {line}")?)
    }

    /// Reads what is in use. What waits to be deleted, and orphans, nobody reads.
    fn objects(
        &mut self,
        report: &AuditReport,
        progress: &mut dyn Write,
    ) -> Result<(), ObjectError> {
        let extents = self.extents();
        let of_wrong_size = |object: &AuditedObject| {
            let name = object.name;
            let is_it =
                |found: &Finding| matches!(found, Finding::Size { object, .. } if *object == name);
            report.findings.iter().any(is_it)
        };
        let is_read = |object: &&AuditedObject| {
            matches!(object.standing, Standing::Live | Standing::Newer) && !of_wrong_size(object)
        };
        let wanted: Vec<_> = report.objects.iter().filter(is_read).collect();
        let total: u64 = wanted.iter().map(|object| object.size).sum();
        let (mut read, mut shown, mut gone) = (0, 0, false);
        for (number, object) in wanted.iter().enumerate() {
            let own = extents.get(&object.name).map(Vec::as_slice).unwrap_or_default();
            match content::check(self.bucket, object, own)? {
                Ok(faults) => faults.iter().try_for_each(|it| self.fault(object, it, own))?,
                Err(Unsound::Damaged(reason)) => {
                    self.fault(object, &Fault { range: None, reason }, own)?;
                }
                Err(Unsound::Gone(_)) => gone = true,
            }
            read += object.size;
            if read - shown >= PROGRESS_STEP {
                shown = read;
                let (number, count) = (number + 1, wanted.len());
                writeln!(progress, "{number} of {count} objects, {read} of {total} bytes read")?;
            }
        }
        if gone { self.look_again(report) } else { Ok(()) }
    }

    /// An object was deleted while others were read: by the broker, after it had stored a newer
    /// manifest, or by somebody else. What the newest manifest misses now tells.
    fn look_again(&mut self, before: &AuditReport) -> Result<(), ObjectError> {
        let report = View::of(self.bucket)?.audit();
        let is_new = |found: &&Finding| found.is_loss() && !before.findings.contains(found);
        report.findings.iter().filter(is_new).try_for_each(|found| self.finding(found))
    }

    fn extents(&self) -> Extents {
        let mut extents = Extents::new();
        for group in &self.view.groups {
            for id in group.manifest.partitions() {
                for extent in group.manifest.extents(id) {
                    extents.entry(extent.object).or_default().push((id, extent.clone()));
                }
            }
        }
        extents
    }

    fn fault(
        &mut self,
        object: &AuditedObject,
        fault: &Fault,
        extents: &[(PartitionId, Extent)],
    ) -> Result<(), ObjectError> {
        let Fault { range, reason } = fault;
        let name = &object.name;
        let line = match range {
            Some(range) => format!("{name}: {}: {reason}; {RESTORE}", self.range(range)),
            None if object.standing == Standing::Newer => format!(
                "{name}: {reason}; `tailrace recover` leaves it out: restore the object from a \
                 copy, or let the broker run until it has stored a newer manifest"
            ),
            None => {
                let ranges = extents.iter().map(|(id, extent)| OffsetRange::of(*id, extent));
                let ranges = self.ranges(&ranges.collect::<Vec<_>>());
                format!(
                    "{name}: {ranges}: {reason}; its records are read by the manifest all the \
                     same: restore the object from a copy"
                )
            }
        };
        self.error(&line)
    }

    fn range(&self, range: &OffsetRange) -> String {
        format!("{} {}", self.view.name(range.partition), offsets(range))
    }

    fn ranges(&self, ranges: &[OffsetRange]) -> String {
        if ranges.is_empty() {
            return "offsets of no partition that is here".to_owned();
        }
        ranges.iter().map(|range| self.range(range)).collect::<Vec<_>>().join(", ")
    }

    fn unused(&mut self, report: &AuditReport) -> Result<(), ObjectError> {
        let is_orphan = |object: &&AuditedObject| object.standing == Standing::Orphan;
        for object in report.objects.iter().filter(is_orphan).filter(|_| self.args.strict) {
            self.error(&format!(
                "{}: no manifest lists it: a crash left it, and the broker removes it later",
                object.name
            ))?;
        }
        Ok(())
    }

    fn summary(&mut self, report: &AuditReport) -> Result<(), ObjectError> {
        let of = |standing| {
            let all = report.objects.iter().filter(move |object| object.standing == standing);
            all.fold((0_u64, 0_u64), |(count, size), object| (count + 1, size + object.size))
        };
        let view = self.view;
        let is_manifest = |key: &str| key.parse::<ManifestName>().is_ok();
        let manifests = view.listed.iter().filter(|listed| is_manifest(&listed.key)).count();
        let partitions: usize =
            view.groups.iter().map(|group| group.manifest.partitions().count()).sum();
        let extents: usize = view.groups.iter().map(|group| group.manifest.extent_count()).sum();
        let bytes: u64 = report.objects.iter().map(|object| object.size).sum();
        let (retired, newer) = (of(Standing::Retired), of(Standing::Newer));
        let orphans = of(Standing::Orphan);
        writeln!(
            self.out,
            "{} objects, {bytes} bytes: {} live, {} newer than the manifests, {} retired ({} \
             bytes), {} orphans ({} bytes)",
            report.objects.len(),
            of(Standing::Live).0,
            newer.0,
            retired.0,
            retired.1,
            orphans.0,
            orphans.1
        )?;
        let read = if self.args.quick { "names and sizes compared" } else { "all of it read" };
        writeln!(
            self.out,
            "{partitions} partitions, {extents} extents, {manifests} manifest files; {read}; {} \
             error(s)",
            self.errors
        )?;
        Ok(())
    }
}
