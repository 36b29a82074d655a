//! DeleteRecords: moves the log start of partitions, as clients ask for it (KIP-107).

use kafka_wire::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_wire::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use kafka_wire::{ErrorCode, RequestHeader, Response};
use model::{Offset, PartitionId, ShardId};

use super::parts::{Parts, Place};
use super::{CallState, Progress, locate};
use crate::shard::Shard;
use crate::shard::call::ReplyTo;
use crate::shard::message::{PartRequest, TrimRefused};

/// What stands for the high watermark.
const HIGH_WATERMARK: i64 = -1;

/// A DeleteRecords request that waits for its parts.
pub(crate) type TrimCall = Parts<DeleteRecordsResponse>;

pub(crate) fn serve(
    shard: &mut Shard,
    reply_to: ReplyTo,
    header: RequestHeader,
    request: &DeleteRecordsRequest,
) {
    let mut call = TrimCall::new();
    for topic in &request.topics {
        let mut answered = DeleteRecordsTopicResult::default().with_name(topic.name.clone());
        for wanted in &topic.partitions {
            let place = (call.response.topics.len(), answered.partitions.len());
            let mut partition = DeleteRecordsPartitionResult::default()
                .with_partition_index(wanted.partition_index)
                .with_low_watermark(-1);
            match target(shard, &topic.name, wanted.partition_index) {
                Ok((to, id)) => {
                    let before =
                        (wanted.offset != HIGH_WATERMARK).then(|| Offset::new(wanted.offset));
                    let request = PartRequest::DeleteRecords { partition: id, before };
                    call.ask(place, to, request);
                }
                Err(code) => partition.error_code = code.code(),
            }
            answered.partitions.push(partition);
        }
        call.response.topics.push(answered);
    }
    call.open(shard, reply_to, header, Response::DeleteRecords, CallState::Trims);
}

/// The partition, unless its topic's policy keeps records by their keys alone.
fn target(shard: &Shard, topic: &str, index: i32) -> Result<(ShardId, PartitionId), ErrorCode> {
    let found = shard.metadata.image().topic(topic);
    if found.is_some_and(|topic| !topic.config.cleanup_policy.delete) {
        return Err(ErrorCode::PolicyViolation);
    }
    locate(shard, topic, index)
}

impl TrimCall {
    pub(crate) fn trimmed(&mut self, part: u32, answer: Result<Offset, TrimRefused>) -> Progress {
        let fill = |response: &mut DeleteRecordsResponse, (topic, partition): Place| {
            let slot = &mut response.topics[topic].partitions[partition];
            match answer {
                Ok(log_start) => slot.low_watermark = log_start.get(),
                Err(refused) => slot.error_code = error_code(refused).code(),
            }
        };
        self.answered(part, fill, Response::DeleteRecords)
    }
}

fn error_code(refused: TrimRefused) -> ErrorCode {
    match refused {
        TrimRefused::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        TrimRefused::NotLeader => ErrorCode::NotLeaderOrFollower,
        TrimRefused::OutOfRange => ErrorCode::OffsetOutOfRange,
        TrimRefused::Full => ErrorCode::NotEnoughReplicas,
    }
}
