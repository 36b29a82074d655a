//! Lists what is in a store, one a line.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use model::PartitionId;
use s3_uploader::{
    AuditedObject, BucketReader, Finding, ManifestName, ObjectName, OffsetRange, Standing, StoreUrl,
};

use super::view::View;
use super::{ObjectError, offsets};

#[derive(Clone, Debug, clap::Args)]
pub struct LsArgs {
    /// s3://BUCKET/PREFIX or file:///DIRECTORY.
    #[arg(long, value_name = "URL")]
    pub object_store: StoreUrl,
    /// Only objects with records of this topic, and which of its records they have.
    #[arg(long, value_name = "NAME")]
    pub topic: Option<String>,
    /// Only keys that begin with this.
    #[arg(value_name = "PREFIX", default_value = "")]
    pub prefix: String,
}

/// Ranges of partitions by the objects that have them.
type Ranges = BTreeMap<ObjectName, Vec<OffsetRange>>;

pub(super) fn ls(args: &LsArgs, out: &mut dyn Write) -> Result<(), ObjectError> {
    let bucket = BucketReader::open(&args.object_store)?;
    let view = View::of(&bucket)?;
    let wanted = match &args.topic {
        Some(topic) => {
            let ids = view.topics.as_ref().and_then(|topics| topics.of(topic));
            Some(ids.ok_or_else(|| ObjectError::Topic { topic: topic.clone() })?)
        }
        None => None,
    };
    let ranges = ranges_of(&view, wanted);
    let report = view.audit();
    let objects: BTreeMap<String, &AuditedObject> =
        report.objects.iter().map(|object| (object.name.to_string(), object)).collect();
    for listed in view.listed.iter().filter(|listed| listed.key.starts_with(&args.prefix)) {
        let (key, size) = (&listed.key, listed.size);
        match objects.get(key) {
            Some(object) if wanted.is_none() || ranges.contains_key(&object.name) => {
                print(&view, object, &ranges, wanted.is_some(), out)?;
            }
            None if wanted.is_none() => {
                let is_manifest = key.parse::<ManifestName>().is_ok();
                let kind = match &report.findings[..] {
                    _ if is_manifest => "manifest",
                    findings if findings.contains(&Finding::UnknownKey { key: key.clone() }) => {
                        "unknown"
                    }
                    _ => "claim",
                };
                writeln!(out, "{kind:8} {size:>12} {key}")?;
            }
            _ => {}
        }
    }
    for finding in &report.findings {
        let Finding::Missing { object, lost } = finding else { continue };
        let is_wanted =
            |range: &OffsetRange| wanted.is_none_or(|wanted| wanted.contains(&range.partition));
        if object.to_string().starts_with(&args.prefix) && lost.iter().any(is_wanted) {
            writeln!(out, "{:8} {:>12} {object}", "missing", "-")?;
        }
    }
    Ok(())
}

fn ranges_of(view: &View, wanted: Option<&BTreeSet<PartitionId>>) -> Ranges {
    let mut ranges = Ranges::new();
    for group in &view.groups {
        for id in group.manifest.partitions() {
            if wanted.is_some_and(|wanted| !wanted.contains(&id)) {
                continue;
            }
            for extent in group.manifest.extents(id) {
                ranges.entry(extent.object).or_default().push(OffsetRange::of(id, extent));
            }
        }
    }
    ranges
}

fn print(
    view: &View,
    object: &AuditedObject,
    ranges: &Ranges,
    each: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let AuditedObject { name, size, standing } = object;
    let standing = match standing {
        Standing::Live => "live",
        Standing::Retired => "retired",
        Standing::Newer => "newer",
        Standing::Orphan => "orphan",
    };
    let ranges = ranges.get(name).map(Vec::as_slice).unwrap_or_default();
    write!(out, "{standing:8} {size:>12} {name} ")?;
    match name {
        ObjectName::Range(name) => {
            let (first, last) = (name.first(), name.last());
            write!(out, "group {} term {} entries {first} to {last}", name.group(), name.term())?;
        }
        ObjectName::Merged(name) => {
            write!(out, "group {} term {} merge {}", name.group(), name.term(), name.number())?;
        }
    }
    writeln!(out, ", {} extents", ranges.len())?;
    for range in ranges.iter().filter(|_| each) {
        writeln!(out, "  {} {}", view.name(range.partition), offsets(range))?;
    }
    Ok(())
}
