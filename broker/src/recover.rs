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
mod moves;
mod object;
#[cfg(feature = "simulation")]
pub(crate) mod simulated;
mod wal;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use bytes::Bytes;
use model::{LogIndex, NodeId, Offset, PartitionId, RaftGroupId, ShardId, Term};
use s3_uploader::{BucketError, BucketReader, StoreUrl};
use tools::format::random_incarnation;
use tools::size::Size;

use self::bucket::Bucket;
use self::metadata::Metadata;
use self::moves::rebuild_groups;
use crate::shard_thread::unix_ms;
use crate::start::StartError;

/// The old broker may have won elections since it last wrote to the bucket. Its terms, which
/// clients have seen as leader epochs, must not be given out again: fewer than this are supposed.
/// A move that is not in the bucket yet has raised them by 1,024.
const TERMS_SKIPPED: u64 = 4096;

/// What to rebuild, and where.
#[derive(Clone, Debug)]
pub struct RecoverSettings {
    pub object_store: StoreUrl,
    /// Must hold no WAL.
    pub data_dir: PathBuf,
    /// The WAL, where it is not `wal` in the data directory.
    pub wal: Option<PathBuf>,
    pub wal_size: Size,
    /// The broker that it is for, of a cluster; one with a vote on the metadata.
    pub node_id: Option<NodeId>,
}

/// Why nothing was rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error("the object store holds no metadata of cluster {cluster_id} that can be read")]
    NoMetadata { cluster_id: uuid::Uuid },
    #[error("--node-id {node}: name a broker that has a vote on the metadata: {voters}")]
    NoVoter { node: NodeId, voters: String },
    #[error("{name} has moved between raft groups, and cannot be put together: {reason}")]
    Moved { name: String, reason: String },
    #[error("{name} is in a raft group that the metadata does not know: is it damaged?")]
    NoGroup { name: String },
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

/// All that the bucket gives back.
struct Rebuild {
    bucket: Bucket,
    metadata: Metadata,
    /// Group 0 first.
    groups: Vec<Rebuilt>,
    ranges: Ranges,
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
    let bucket = Bucket::new(BucketReader::open(&settings.object_store)?);
    writeln!(out, "cluster-id={}", bucket.cluster_id)?;
    let incarnation = random_incarnation().map_err(StartError::from)?;
    let rebuilt = Rebuild::of(bucket, settings.node_id, incarnation, unix_ms())?;
    writeln!(out, "shards={}", rebuilt.metadata.shard_count())?;
    target.write(&rebuilt)?;
    rebuilt.print(out)
}

impl Rebuild {
    /// `incarnation`: of the new disk, where others know the one before.
    fn of(
        mut bucket: Bucket,
        node: Option<NodeId>,
        incarnation: u32,
        now_ms: i64,
    ) -> Result<Self, RecoverError> {
        let mut metadata = Metadata::read(&mut bucket, node, incarnation)?;
        let (mut groups, mut ranges) = (Vec::new(), Ranges::new());
        for (group, rebuild) in rebuild_groups(&mut bucket, &mut metadata, now_ms)? {
            metadata.pass_over(&rebuild);
            let shard = metadata.shard_of(group);
            groups.push(rebuild.finish(&mut bucket, &mut ranges, shard)?);
        }
        groups.insert(0, metadata.finish());
        Ok(Self { bucket, metadata, groups, ranges })
    }

    fn print(&self, out: &mut dyn Write) -> Result<(), RecoverError> {
        let Self { bucket, metadata, ranges, .. } = self;
        let image = metadata.image();
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
        self.print_others(out)
    }

    /// What is to be done with the other brokers.
    fn print_others(&self, out: &mut dyn Write) -> Result<(), RecoverError> {
        let node = self.metadata.node;
        let others = self.metadata.image().members().into_iter().filter(|it| *it != node);
        let others: Vec<_> = others.map(|it| it.to_string()).collect();
        if !others.is_empty() {
            let others = others.join(", ");
            writeln!(
                out,
                "node {node} has all of it; the disks of {others} count no more: start these \
                 brokers with empty ones and --replacement while node {node} runs"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "recover/tests.rs"]
mod tests;
