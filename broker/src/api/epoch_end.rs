//! OffsetForLeaderEpoch: where a leader epoch ended (KIP-101, KIP-320).

use kafka_wire::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_wire::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use kafka_wire::{RequestHeader, Response};
use model::{LeaderEpoch, Offset};

use super::{CallState, Progress, locate, open, read_error_code};
use crate::shard::Shard;
use crate::shard::call::ReplyTo;
use crate::shard::message::{PartRequest, ReadRefused};

/// An OffsetForLeaderEpoch request that waits for its parts.
pub(crate) struct EpochEndCall {
    response: OffsetForLeaderEpochResponse,
    /// By part: topic and partition in the response.
    places: Vec<(usize, usize)>,
    outstanding: usize,
}

pub(crate) fn serve(
    shard: &mut Shard,
    reply_to: ReplyTo,
    header: RequestHeader,
    request: &OffsetForLeaderEpochRequest,
) {
    let response = OffsetForLeaderEpochResponse::default();
    let mut call = EpochEndCall { response, places: Vec::new(), outstanding: 0 };
    let mut asks = Vec::new();
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
                    call.places.push(place);
                    asks.push((to, PartRequest::EpochEnd { partition, current, asked }));
                }
                Err(code) => partition.error_code = code.code(),
            }
            answered.partitions.push(partition);
        }
        call.response.topics.push(answered);
    }
    call.outstanding = asks.len();
    if asks.is_empty() {
        return shard.respond(reply_to, &header, Response::OffsetForLeaderEpoch(call.response));
    }
    open(shard, reply_to, header, CallState::EpochEnd(call), None, asks);
}

impl EpochEndCall {
    pub(crate) fn answered(
        &mut self,
        part: u32,
        answer: Result<(LeaderEpoch, Offset), ReadRefused>,
    ) -> Progress {
        let (topic, partition) = self.places[part as usize];
        let slot = &mut self.response.topics[topic].partitions[partition];
        match answer {
            Ok((epoch, end)) => {
                slot.leader_epoch = epoch.get();
                slot.end_offset = end.get();
            }
            Err(refused) => slot.error_code = read_error_code(refused).code(),
        }
        self.outstanding -= 1;
        if self.outstanding > 0 {
            return Progress::Wait;
        }
        Progress::Done(Response::OffsetForLeaderEpoch(std::mem::take(&mut self.response)))
    }
}
