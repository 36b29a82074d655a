//! OffsetForLeaderEpoch: where a leader epoch ended (KIP-101, KIP-320).

use kafka_wire::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_wire::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use kafka_wire::{RequestHeader, Response};
use model::{LeaderEpoch, Offset};

use super::parts::{Parts, Place};
use super::{CallState, Progress, locate, read_error_code};
use crate::shard::Shard;
use crate::shard::call::ReplyTo;
use crate::shard::message::{PartRequest, ReadRefused};

/// An OffsetForLeaderEpoch request that waits for its parts.
pub(crate) type EpochEndCall = Parts<OffsetForLeaderEpochResponse>;

pub(crate) fn serve(
    shard: &mut Shard,
    reply_to: ReplyTo,
    header: RequestHeader,
    request: &OffsetForLeaderEpochRequest,
) {
    let mut call = EpochEndCall::new();
    for topic in &request.topics {
        let mut answered = OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone());
        for wanted in &topic.partitions {
            let place = (call.response.topics.len(), answered.partitions.len());
            let mut partition = EpochEndOffset::default()
                .with_partition(wanted.partition)
                .with_leader_epoch(-1)
                .with_end_offset(-1);
            let current = LeaderEpoch::new(wanted.current_leader_epoch);
            let asked = LeaderEpoch::new(wanted.leader_epoch);
            match locate(shard, &topic.topic, wanted.partition) {
                Ok((to, partition)) => {
                    call.ask(place, to, PartRequest::EpochEnd { partition, current, asked });
                }
                Err(code) => partition.error_code = code.code(),
            }
            answered.partitions.push(partition);
        }
        call.response.topics.push(answered);
    }
    call.open(shard, reply_to, header, Response::OffsetForLeaderEpoch, CallState::EpochEnd);
}

impl EpochEndCall {
    pub(crate) fn found(
        &mut self,
        part: u32,
        answer: Result<(LeaderEpoch, Offset), ReadRefused>,
    ) -> Progress {
        let fill = |response: &mut OffsetForLeaderEpochResponse, (topic, partition): Place| {
            let slot = &mut response.topics[topic].partitions[partition];
            match answer {
                Ok((epoch, end)) => {
                    slot.leader_epoch = epoch.get();
                    slot.end_offset = end.get();
                }
                Err(refused) => slot.error_code = read_error_code(refused).code(),
            }
        };
        self.answered(part, fill, Response::OffsetForLeaderEpoch)
    }
}
