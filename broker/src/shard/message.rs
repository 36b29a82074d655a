//! What shards say to one another.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_wire::StrBytes;
use kafka_wire::validate::BatchInfo;
use model::{LeaderEpoch, NodeId, Offset, PartitionId, RaftGroupId};
use s3_uploader::Adoption;

use super::call::{CallId, Origin};
use crate::cluster::{Command, Core, CoreLoad, Image, Outcome};
use crate::group::{GroupRequest, GroupResponse};

/// A message from one shard to another.
pub(crate) enum Message {
    /// A newer metadata image, from the shard that hosts group 0.
    Image(Arc<Image>),
    /// A part of a client's request, for the shard that owns what it is about.
    Request { origin: Origin, request: PartRequest },
    /// The answer to one.
    Answer { origin: Origin, answer: PartAnswer },
    /// A client wants the first replicas of these groups of the receiver to lead.
    Prefer { groups: Vec<RaftGroupId> },
    /// How busy a core of this broker is; for the shard that has group 0.
    Load { core: Core, load: CoreLoad },
    /// The call waits for nothing any more: its watches can go.
    Cancel { call: CallId },
}

/// What is asked of the shard that owns a partition, a consumer group or the metadata.
pub(crate) enum PartRequest {
    Append(Append),
    Read(Read),
    FindOffset {
        partition: PartitionId,
        query: OffsetQuery,
    },
    EpochEnd {
        partition: PartitionId,
        current: LeaderEpoch,
        asked: LeaderEpoch,
    },
    Group(Box<GroupRequest>),
    Command(Box<Command>),
    /// Makes `before` the log start of a partition; `None` is the high watermark.
    DeleteRecords {
        partition: PartitionId,
        before: Option<Offset>,
    },
    /// What the shard's part of the WAL is used for.
    DescribeLog,
    /// Lets a group of the shard have a partition. Not answered.
    Adopt(Box<Adoption>),
}

/// The answers, variant by variant.
pub(crate) enum PartAnswer {
    Append(Result<Appended, AppendRefused>),
    Read(Vec<PartitionData>),
    /// A watched partition has records now: read again.
    Wake,
    FindOffset(Result<FoundOffset, ReadRefused>),
    EpochEnd(Result<(LeaderEpoch, Offset), ReadRefused>),
    Group(Box<GroupResponse>),
    /// The log start as it is now, or why it did not move.
    Trimmed(Result<Offset, TrimRefused>),
    Command(Result<Outcome, CommandRefused>),
    Log(LogUse),
}

/// What a shard's part of the WAL is used for, in bytes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct LogUse {
    pub(crate) capacity: u64,
    /// What is left of it.
    pub(crate) free: u64,
    /// By partition: its batches that are not in objects alone.
    pub(crate) partitions: Vec<(PartitionId, u64)>,
}

/// A validated batch for one partition.
pub(crate) struct Append {
    pub(crate) partition: PartitionId,
    pub(crate) batch: BytesMut,
    pub(crate) info: BatchInfo,
    /// Replicas that must be in sync for it, the leader included; 0 if the producer does not care.
    pub(crate) in_sync_min: u32,
}

/// A batch that is durable on a majority.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Appended {
    pub(crate) base_offset: Offset,
    pub(crate) log_append_time_ms: i64,
    pub(crate) log_start_offset: Offset,
    /// How long the client should hold back because the WAL fills.
    pub(crate) throttle_ms: i32,
}

/// Why a batch was not appended. Nothing was written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AppendRefused {
    UnknownPartition,
    NotLeader,
    OutOfOrderSequence,
    InvalidProducerEpoch,
    OpenTransaction,
    NotABatch,
    /// Larger than an entry of the WAL can be.
    TooLarge,
    /// The WAL has no room until something is trimmed.
    Full,
    /// Too much waits for other brokers: a moment later it may do.
    Behind,
    /// Fewer replicas are in sync than the topic wants.
    NotInSync,
}

/// Why a log start was not moved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TrimRefused {
    UnknownPartition,
    NotLeader,
    /// Above the high watermark, or no offset at all.
    OutOfRange,
    /// The WAL has no room for the entry that says so.
    Full,
}

/// Reads of several partitions of one shard.
#[derive(Clone)]
pub(crate) struct Read {
    pub(crate) partitions: Vec<PartitionRead>,
    /// Bytes of records to return; one batch may exceed it (KIP-74).
    pub(crate) max_bytes: u32,
    /// If fewer bytes than this are there, say so, keep watch and wake the call at the next commit.
    pub(crate) watch_below: u32,
    /// Of a consumer that may read from followers and says where it is (KIP-392).
    pub(crate) rack: Option<StrBytes>,
}

/// Where to read one partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartitionRead {
    /// Position in the client's request.
    pub(crate) slot: u32,
    pub(crate) partition: PartitionId,
    pub(crate) from: Offset,
    pub(crate) max_bytes: u32,
    pub(crate) current_epoch: LeaderEpoch,
    pub(crate) last_fetched_epoch: LeaderEpoch,
}

/// What was read of one partition.
pub(crate) struct PartitionData {
    pub(crate) slot: u32,
    pub(crate) result: Result<ReadRecords, ReadRefused>,
}

/// Whole batches and the positions that a fetch reports.
#[derive(Clone, Debug)]
pub(crate) struct ReadRecords {
    pub(crate) high_watermark: Offset,
    pub(crate) last_stable_offset: Offset,
    pub(crate) log_start_offset: Offset,
    pub(crate) batches: Vec<Bytes>,
    /// Batches from this one on are not returned: the WAL gave one up while it was read.
    pub(crate) cut: usize,
    /// The reader's log has left ours: the epoch and where it ended here (KIP-595's truncation).
    pub(crate) diverging: Option<(LeaderEpoch, Offset)>,
    /// The broker id of a replica in the rack of the reader, which gets nothing here.
    pub(crate) preferred_replica: Option<NodeId>,
    /// Another broker leads the partition.
    pub(crate) from_follower: bool,
}

/// Why a partition was not read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ReadRefused {
    UnknownPartition,
    NotLeader,
    OutOfRange,
    /// A follower has not got that far, for all that it knows.
    NotYetHere,
    FencedEpoch,
    UnknownEpoch,
    /// What the WAL gave back is not what was written.
    Storage,
}

/// Which offset of a partition is asked for (ListOffsets).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct OffsetQuery {
    pub(crate) kind: OffsetKind,
    pub(crate) current_epoch: LeaderEpoch,
}

/// The offsets that ListOffsets knows by name, and the one by time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum OffsetKind {
    Earliest,
    /// The first record that is not only in an object.
    EarliestLocal,
    /// The last record that is in an object.
    LatestTiered,
    /// The first record that is in no object yet.
    EarliestPending,
    /// End of what readers may see.
    Latest,
    /// The record with the largest timestamp.
    MaxTimestamp,
    /// The first record at or after a time, in milliseconds since 1970.
    AtOrAfter(i64),
}

/// An offset with the timestamp of its record, -1 where that is not asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct FoundOffset {
    /// `None`: no such record.
    pub(crate) offset: Option<Offset>,
    pub(crate) timestamp_ms: i64,
    pub(crate) leader_epoch: LeaderEpoch,
}

impl FoundOffset {
    /// No such record.
    pub(crate) fn nothing(leader_epoch: LeaderEpoch) -> Self {
        Self { offset: None, timestamp_ms: -1, leader_epoch }
    }
}

/// Why a metadata command was not carried out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CommandRefused {
    NotLeader,
    Full,
}
