//! `tailrace recover`: a data directory rebuilt from the bucket alone, up to the last offload.
//!
//! ```text
//! manifest/0/...  -> topics, groups            ─┐
//! manifest/g/...  -> state of group g up to i   ├─> snapshot and hard state of each group -> a WAL
//! group/g/...     -> what came after i         ─┘
//! ```
//!
//! The bucket is only read. The groups go on after every entry, and in a later term than any, that
//! the bucket knows of: what the rebuilt broker writes never meets the name of an older object.
//!
//! **Invariant**: nothing is left out silently: what cannot be used is named in the output.

mod bucket;
mod group;
mod metadata;
mod object;
mod wal;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use bytes::Bytes;
use model::{LogIndex, Offset, PartitionId, RaftGroupId, ShardId, Term};
use s3_uploader::{BucketError, StoreUrl};
use tools::size::Size;

use self::bucket::Bucket;
use self::group::GroupRebuild;
use self::metadata::Metadata;
use crate::cluster::Image;
use crate::shard_thread::unix_ms;
use crate::start::StartError;

/// The old broker may have won elections since it last wrote to the bucket. Its terms, which
/// clients have seen as leader epochs, must not be given out again: fewer than this are supposed.
const TERMS_SKIPPED: u64 = 1024;

/// What to rebuild, and where.
#[derive(Clone, Debug)]
pub struct RecoverSettings {
    pub object_store: StoreUrl,
    /// Must hold no WAL.
    pub data_dir: PathBuf,
    /// The WAL, where it is not `wal` in the data directory.
    pub wal: Option<PathBuf>,
    pub wal_size: Size,
}

/// Why nothing was rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error("the object store holds no metadata of cluster {cluster_id} that can be read")]
    NoMetadata { cluster_id: uuid::Uuid },
    #[error("the cluster had {count} nodes: only a cluster of one node can be rebuilt")]
    Nodes { count: usize },
    #[error(
        "{name} has moved between raft groups, or was to: what belongs to it is in the objects of \
         several of them, and cannot be rebuilt yet"
    )]
    Moved { name: String },
    #[error("{path} exists: recover into a directory that holds no WAL")]
    Exists { path: PathBuf },
    #[error(
        "the state of group {group} has {size} bytes, a record of the WAL at most {max}: give a \
         larger --wal-size"
    )]
    StateSize { group: RaftGroupId, size: usize, max: usize },
    #[error("cannot write the WAL at {path}: {reason}")]
    Wal { path: PathBuf, reason: String },
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// A group as it will be found in the WAL.
struct Rebuilt {
    group: RaftGroupId,
    shard: ShardId,
    index: LogIndex,
    term: Term,
    state: Bytes,
}

/// First offset and end of each partition.
type Ranges = BTreeMap<PartitionId, (Offset, Offset)>;

/// The highest numbers that the bucket shows of one group: what is made must be above them.
#[derive(Clone, Copy, Debug, Default)]
struct Highest {
    index: LogIndex,
    term: Term,
}

impl Highest {
    fn see(&mut self, index: LogIndex, term: Term) {
        self.index = self.index.max(index);
        self.term = self.term.max(term);
    }

    /// Index and term from which a rebuilt group goes on.
    fn beyond(self) -> (LogIndex, Term) {
        (self.index.next(), Term::new(self.term.get().saturating_add(TERMS_SKIPPED)))
    }
}

/// Rebuilds a data directory. Prints each partition with its offsets, what was damaged, totals, and
/// what cannot be there.
///
/// # Errors
///
/// The store cannot be read, is no cluster's, or the WAL cannot be written. Then there is no WAL
/// in the directory.
pub fn recover(settings: &RecoverSettings, out: &mut dyn Write) -> Result<(), RecoverError> {
    let target = wal::Target::new(settings)?;
    let mut bucket = Bucket::open(&settings.object_store)?;
    writeln!(out, "cluster-id={}", bucket.cluster_id)?;
    let mut metadata = Metadata::read(&mut bucket)?;
    let shard_count = metadata.shard_count();
    writeln!(out, "shards={shard_count}")?;
    let now_ms = unix_ms();
    let (mut groups, mut ranges) = (Vec::new(), Ranges::new());
    let data_groups: Vec<_> = metadata.image().data_groups().map(|group| group.id).collect();
    for group in data_groups {
        let mut rebuild = GroupRebuild::start(&mut bucket, metadata.hosted(group), group, now_ms)?;
        rebuild.take_objects(&mut bucket)?;
        metadata.pass_over(&rebuild);
        let shard = metadata.shard_of(group);
        groups.push(rebuild.finish(&mut bucket, &mut ranges, shard)?);
    }
    let image = metadata.image();
    groups.insert(0, metadata.finish());
    target.write(&bucket, metadata.node, shard_count, &groups)?;
    print(out, &image, &ranges, &bucket)
}

fn print(
    out: &mut dyn Write,
    image: &Image,
    ranges: &Ranges,
    bucket: &Bucket,
) -> Result<(), RecoverError> {
    let (mut partition_count, mut record_count) = (0_u64, 0);
    for topic in image.topics() {
        for (index, partition) in topic.partitions.iter().enumerate() {
            let (start, end) = ranges.get(&partition.id).copied().unwrap_or_default();
            writeln!(out, "{}-{index}: offsets {start} to {end}", topic.name)?;
            partition_count += 1;
            record_count += end.get() - start.get();
        }
    }
    for line in &bucket.damage {
        writeln!(out, "damaged: {line}")?;
    }
    if !bucket.topicless.is_empty() {
        let count = bucket.topicless.len();
        writeln!(out, "left out: {count} partitions whose topics are deleted")?;
    }
    let (topics, damaged) = (image.topics().len(), bucket.damage.len());
    writeln!(
        out,
        "recovered {topics} topics, {partition_count} partitions, {record_count} offsets; \
         {damaged} damaged"
    )?;
    writeln!(
        out,
        "each partition goes on at its end; what was written after the last offload is lost"
    )?;
    Ok(())
}

#[cfg(test)]
#[path = "recover/tests.rs"]
mod tests;
