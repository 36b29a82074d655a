//! Prints an object or a manifest file, one part a line.

use std::io::{self, Write};

use kafka_wire::compression::Compression;
use s3_uploader::{
    Arrival, BucketReader, Extent, GroupHead, ManifestFile, ManifestName, ObjectName, Section,
    StoreUrl, Unsound, decode_index,
};

use super::ObjectError;
use super::content::{Batch, walk};
use super::view::{Contents, contents};

#[derive(Clone, Debug, clap::Args)]
pub struct DumpArgs {
    /// s3://BUCKET/PREFIX or file:///DIRECTORY.
    #[arg(long, value_name = "URL")]
    pub object_store: StoreUrl,
    /// An object or a manifest file, as `tailrace object ls` lists it.
    pub key: String,
}

pub(super) fn dump(args: &DumpArgs, out: &mut dyn Write) -> Result<(), ObjectError> {
    let bucket = BucketReader::open(&args.object_store)?;
    let key = &args.key;
    let dumped = if let Ok(name) = key.parse::<ObjectName>() {
        dump_object(&bucket, name, out)?
    } else if let Ok(name) = key.parse::<ManifestName>() {
        dump_manifest(&bucket, name, out)?
    } else {
        return Err(ObjectError::Key { key: key.clone() });
    };
    match dumped {
        Ok(0) => Ok(()),
        Ok(count) => Err(ObjectError::Damaged { what: key.clone(), count }),
        Err(Unsound::Gone(_)) => Err(ObjectError::Absent { key: key.clone() }),
        Err(Unsound::Damaged(reason)) => {
            writeln!(out, "error: {reason}")?;
            Err(ObjectError::Damaged { what: key.clone(), count: 1 })
        }
    }
}

/// The number of errors, each of which has its line.
type Dumped = Result<Result<u64, Unsound>, ObjectError>;

fn dump_object(bucket: &BucketReader, name: ObjectName, out: &mut dyn Write) -> Dumped {
    let size = match bucket.sound(bucket.store.size(&name.to_string()))? {
        Ok(size) => size,
        Err(unsound) => return Ok(Err(unsound)),
    };
    let directory = match bucket.directory(name, size)? {
        Ok(directory) => directory,
        Err(unsound) => return Ok(Err(unsound)),
    };
    let count = directory.sections.len();
    writeln!(out, "object {name}: {size} bytes, {count} sections; trailer and directory ok")?;
    let mut errors = 0;
    for section in &directory.sections {
        match dump_section(bucket, section, out)? {
            Ok(count) => errors += count,
            Err(unsound) => return Ok(Err(unsound)),
        }
    }
    Ok(Ok(errors))
}

fn dump_section(bucket: &BucketReader, section: &Section, out: &mut dyn Write) -> Dumped {
    let Section { partition, extent, data_crc } = section;
    write!(out, "section partition {partition} ")?;
    print_extent(extent, out)?;
    writeln!(out, " data crc {data_crc:#010x}")?;
    let mut errors = 0;
    let key = extent.object.to_string();
    match bucket.sound(bucket.store.get_range(&key, extent.index_range()))? {
        Ok(bytes) => match decode_index(&bytes, extent) {
            Ok(_) => writeln!(out, "  index ok")?,
            Err(error) => {
                writeln!(out, "  error: {error}")?;
                errors += 1;
            }
        },
        Err(unsound) => return Ok(Err(unsound)),
    }
    let mut printed = Ok(());
    let walked = walk(bucket, extent, Some(section), &mut |batch| {
        errors += u64::from(!batch.crc_is_valid);
        // The walk cannot be stopped from here: after an error the rest is not printed.
        if printed.is_ok() {
            printed = print_batch(&batch, out);
        }
    })?;
    printed?;
    let walked = match walked {
        Ok(walked) => walked,
        Err(unsound) => return Ok(Err(unsound)),
    };
    if let Some(position) = walked.stopped_at {
        writeln!(out, "  error: there is no batch at byte {position}")?;
        errors += 1;
    }
    if let Err(error) = walked.data {
        writeln!(out, "  error: {error}")?;
        errors += 1;
    }
    Ok(Ok(errors))
}

fn print_extent(extent: &Extent, out: &mut dyn Write) -> io::Result<()> {
    let Extent { base, end, position, size, index_position, index_count, .. } = extent;
    write!(
        out,
        "offsets {base} to {end}, youngest {}: {size} bytes at {position}, index of {index_count} \
         at {index_position},",
        extent.max_timestamp
    )
}

fn print_batch(batch: &Batch, out: &mut dyn Write) -> io::Result<()> {
    let header = &batch.header;
    let codec = header.compression().map_or("of an unknown codec", |codec| match codec {
        Compression::None => "uncompressed",
        Compression::Gzip => "gzip",
        Compression::Snappy => "snappy",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    });
    writeln!(
        out,
        "  batch at {} bytes {} offsets {} to {} epoch {} records {} times {} to {} {codec}, {}",
        batch.position,
        batch.size,
        batch.base(),
        batch.end(),
        header.partition_leader_epoch(),
        header.record_count(),
        header.base_timestamp(),
        header.max_timestamp(),
        if batch.crc_is_valid { "crc ok" } else { "error: crc is wrong" }
    )
}

fn dump_manifest(bucket: &BucketReader, name: ManifestName, out: &mut dyn Write) -> Dumped {
    let file = match bucket.manifest_file(name)? {
        Ok(file) => file,
        Err(unsound) => return Ok(Err(unsound)),
    };
    let ManifestFile { cluster_id, group, term, index, sequence, state } = &file;
    writeln!(
        out,
        "manifest file {sequence} of group {group}: cluster {cluster_id}, term {term}, state of \
         entry {index}, {} bytes; checksum ok",
        state.len()
    )?;
    match contents(&file) {
        Ok(Contents::Metadata(topics)) => {
            for (id, name) in topics.names() {
                writeln!(out, "partition {id} is {name}")?;
            }
        }
        Ok(Contents::Group(head)) => print_head(&head, out)?,
        Err(unsound) => return Ok(Err(unsound)),
    }
    Ok(Ok(0))
}

fn print_head(head: &GroupHead, out: &mut dyn Write) -> io::Result<()> {
    let GroupHead { edited, manifest } = head;
    let upto = manifest.offloaded_upto();
    writeln!(out, "edits up to entry {edited}, offloaded up to entry {upto}")?;
    for (name, size) in manifest.live_sizes() {
        writeln!(out, "live {name} {size} bytes")?;
    }
    for (name, size, retired_ms) in manifest.retired_sizes() {
        writeln!(out, "retired {name} {size} bytes at {retired_ms}")?;
    }
    for id in manifest.partitions() {
        let end =
            manifest.offloaded_end(id).map_or_else(|| "none".to_owned(), |end| end.to_string());
        write!(out, "partition {id} log start {} end {end}", manifest.log_start(id))?;
        if let Some(Arrival { id, epoch_base }) = manifest.arrival(id) {
            write!(out, ", came by move {id}, epochs from {epoch_base}")?;
        }
        if let Some(id) = manifest.sealed(id) {
            write!(out, ", sealed for move {id}")?;
        }
        writeln!(out)?;
        for extent in manifest.extents(id) {
            write!(out, "  extent ")?;
            print_extent(extent, out)?;
            writeln!(out, " in {}", extent.object)?;
        }
    }
    for (id, lent) in manifest.lent() {
        writeln!(out, "partition {id} is in group {} since its entry {}", lent.to, lent.since)?;
        for object in lent.objects() {
            writeln!(out, "  lent {object}")?;
        }
    }
    Ok(())
}
