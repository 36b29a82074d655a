//! ListOffsets: asks the shard of each partition for an offset by name or by time.

use kafka_wire::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_wire::messages::{ListOffsetsRequest, ListOffsetsResponse};
use kafka_wire::{ErrorCode, RequestHeader, Response};
use model::LeaderEpoch;

use super::parts::{Parts, Place};
use super::{CallState, Progress, locate, read_error_code};
use crate::shard::Shard;
use crate::shard::call::ReplyTo;
use crate::shard::message::{FoundOffset, OffsetKind, OffsetQuery, PartRequest, ReadRefused};

/// Timestamps that stand for an offset by name.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
/// KIP-405, KIP-1005 and KIP-1023: where the local log begins and the objects end.
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// A ListOffsets request that waits for its parts.
pub(crate) type OffsetsCall = Parts<ListOffsetsResponse>;

pub(crate) fn serve(
    shard: &mut Shard,
    reply_to: ReplyTo,
    header: RequestHeader,
    request: &ListOffsetsRequest,
) {
    let mut call = OffsetsCall::new();
    for topic in &request.topics {
        let mut answered = ListOffsetsTopicResponse::default().with_name(topic.name.clone());
        for wanted in &topic.partitions {
            let place = (call.response.topics.len(), answered.partitions.len());
            let mut partition = ListOffsetsPartitionResponse::default()
                .with_partition_index(wanted.partition_index)
                .with_timestamp(-1)
                .with_offset(-1)
                .with_leader_epoch(-1);
            let epoch = LeaderEpoch::new(wanted.current_leader_epoch);
            let question = question(wanted.timestamp, epoch, header.api_version);
            match question.and_then(|query| {
                let (to, partition) = locate(shard, &topic.name, wanted.partition_index)?;
                Ok((to, PartRequest::FindOffset { partition, query }))
            }) {
                Ok((to, request)) => call.ask(place, to, request),
                Err(code) => partition.error_code = code.code(),
            }
            answered.partitions.push(partition);
        }
        call.response.topics.push(answered);
    }
    call.open(shard, reply_to, header, Response::ListOffsets, CallState::Offsets);
}

/// What a timestamp of the request asks for.
fn question(
    timestamp: i64,
    current_epoch: LeaderEpoch,
    version: i16,
) -> Result<OffsetQuery, ErrorCode> {
    let kind = match timestamp {
        LATEST => OffsetKind::Latest,
        EARLIEST => OffsetKind::Earliest,
        MAX_TIMESTAMP if version >= 7 => OffsetKind::MaxTimestamp,
        EARLIEST_LOCAL if version >= 8 => OffsetKind::EarliestLocal,
        LATEST_TIERED if version >= 9 => OffsetKind::LatestTiered,
        EARLIEST_PENDING_UPLOAD if version >= 11 => OffsetKind::EarliestPending,
        at if at >= 0 => OffsetKind::AtOrAfter(at),
        _ => return Err(ErrorCode::UnsupportedVersion),
    };
    Ok(OffsetQuery { kind, current_epoch })
}

impl OffsetsCall {
    pub(crate) fn found(
        &mut self,
        part: u32,
        answer: Result<FoundOffset, ReadRefused>,
    ) -> Progress {
        let fill = |response: &mut ListOffsetsResponse, (topic, partition): Place| {
            let slot = &mut response.topics[topic].partitions[partition];
            match answer {
                Ok(found) => {
                    slot.timestamp = found.timestamp_ms;
                    slot.offset = found.offset.map_or(-1, model::Offset::get);
                    slot.leader_epoch =
                        if found.offset.is_some() { found.leader_epoch.get() } else { -1 };
                }
                Err(refused) => slot.error_code = read_error_code(refused).code(),
            }
        };
        self.answered(part, fill, Response::ListOffsets)
    }
}
