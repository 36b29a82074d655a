//! Fetch: reads from the shards that own the partitions, waits while there is too little, and
//! answers with whole batches that are never copied.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_wire::batch::BatchHeader;
use kafka_wire::fetch::{
    EpochEndOffset, FetchPartitionResponse, FetchResponse, FetchTopicResponse,
};
use kafka_wire::messages::FetchRequest;
use kafka_wire::messages::fetch_request::FetchPartition;
use kafka_wire::{Compression, ErrorCode, RequestHeader, Response, StrBytes};
use model::{LeaderEpoch, NodeId, Offset, ShardId};

use super::produce::{current_leader, route};
use super::{Ask, CallState, Progress};
use crate::cluster::{self, Topic};
use crate::metrics::Metric;
use crate::shard::Shard;
use crate::shard::call::{CallId, Origin, ReplyTo};
use crate::shard::message::{
    PartAnswer, PartRequest, PartitionData, PartitionRead, Read, ReadRecords, ReadRefused,
};

/// First version that names topics by id.
const TOPIC_ID_VERSION: i16 = 13;
/// First version whose clients go to the replica that they are sent to (KIP-392).
const CLOSEST_REPLICA_VERSION: i16 = 11;
/// First version whose clients read zstd (KIP-110).
const ZSTD_VERSION: i16 = 10;
/// Up to this version a storage error is told as a change of leader.
const STORAGE_ERROR_HIDDEN_MAX: i16 = 5;

/// A fetch that waits for reads or for records.
pub(crate) struct FetchCall {
    version: i16,
    read_committed: bool,
    response: FetchResponse,
    /// By slot: topic and partition in the response, and the partition as it was asked for.
    places: Vec<(usize, usize, cluster::Partition)>,
    /// What each shard is asked, again after each wake.
    reads: BTreeMap<ShardId, Read>,
    max_bytes: usize,
    min_bytes: usize,
    deadline: Instant,
    started: Instant,
    /// Counts the rounds of reads: an answer to an earlier one is dropped.
    round: u32,
    outstanding: usize,
    /// Something must be told now: an error, or a log that diverges.
    urgent: bool,
    /// A watch fired while reads were under way.
    woken: bool,
}

pub(crate) fn serve(
    shard: &mut Shard,
    reply_to: ReplyTo,
    header: RequestHeader,
    request: &FetchRequest,
) {
    // Sessions are declined: a client that continues one starts over with a full fetch (KIP-227).
    if request.session_id != 0 && request.session_epoch > 0 {
        let error_code = ErrorCode::FetchSessionIdNotFound;
        let response = FetchResponse { error_code, ..FetchResponse::default() };
        return shard.respond(reply_to, &header, Response::Fetch(response));
    }
    let mut call = FetchCall::new(shard, &header, request);
    if call.reads.is_empty() {
        let response = call.finish(shard);
        return shard.respond(reply_to, &header, response);
    }
    let deadline = Some(call.deadline);
    call.outstanding = call.reads.len();
    let asks = call.asks();
    // The parts of a round share its number: it tells an old answer from a new one.
    let id = shard.calls.reserve();
    shard.calls.open(id, reply_to, header, CallState::Fetch(Box::new(call)), deadline);
    for (to, request) in asks {
        shard.ask(to, Origin { call: id, part: 0 }, request);
    }
}

impl FetchCall {
    fn new(shard: &Shard, header: &RequestHeader, request: &FetchRequest) -> Self {
        let limit = shard.node.settings.broker.fetch_bytes_max;
        let max_bytes = u32::try_from(request.max_bytes).unwrap_or_default().min(limit);
        let min_bytes = u32::try_from(request.min_bytes).unwrap_or_default().min(max_bytes);
        let wait = u64::try_from(request.max_wait_ms).unwrap_or_default();
        let started = shard.now.instant;
        let mut call = Self {
            version: header.api_version,
            read_committed: request.isolation_level == 1,
            response: FetchResponse::default(),
            places: Vec::new(),
            reads: BTreeMap::new(),
            max_bytes: max_bytes as usize,
            min_bytes: min_bytes as usize,
            deadline: started + Duration::from_millis(wait),
            started,
            round: 0,
            outstanding: 0,
            urgent: false,
            woken: false,
        };
        let watch_below = if wait == 0 { 0 } else { min_bytes };
        let rack = rack(header.api_version, request);
        for topic in &request.topics {
            let by_id = header.api_version >= TOPIC_ID_VERSION;
            let image = shard.metadata.image();
            let found =
                if by_id { image.topic_by_id(topic.topic_id) } else { image.topic(&topic.topic) };
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for wanted in &topic.partitions {
                let place = (call.response.topics.len(), partitions.len());
                let rack = rack.clone();
                let empty = Read { partitions: Vec::new(), max_bytes, watch_below, rack };
                let outcome = call.add(shard, found.map(AsRef::as_ref), wanted, place, &empty);
                partitions.push(outcome.unwrap_or_else(|code| {
                    call.urgent = true;
                    FetchPartitionResponse::failed(wanted.partition, code)
                }));
            }
            call.response.topics.push(FetchTopicResponse {
                name: StrBytes::clone(&topic.topic),
                topic_id: topic.topic_id,
                partitions,
            });
        }
        call
    }

    /// Plans the read of one partition.
    fn add(
        &mut self,
        shard: &Shard,
        topic: Option<&Topic>,
        wanted: &FetchPartition,
        place: (usize, usize),
        empty: &Read,
    ) -> Result<FetchPartitionResponse, ErrorCode> {
        let unknown = if self.version >= TOPIC_ID_VERSION {
            ErrorCode::UnknownTopicId
        } else {
            ErrorCode::UnknownTopicOrPartition
        };
        let topic = topic.ok_or(unknown)?;
        let found = topic.partition(wanted.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let to = route(shard.metadata.image(), shard, found.group)
            .ok_or(ErrorCode::NotLeaderOrFollower)?;
        let slot = u32::try_from(self.places.len()).expect("fewer partitions than bytes");
        self.places.push((place.0, place.1, *found));
        self.reads.entry(to).or_insert_with(|| empty.clone()).partitions.push(PartitionRead {
            slot,
            partition: found.id,
            from: Offset::new(wanted.fetch_offset),
            max_bytes: u32::try_from(wanted.partition_max_bytes).unwrap_or_default(),
            current_epoch: LeaderEpoch::new(wanted.current_leader_epoch),
            last_fetched_epoch: LeaderEpoch::new(wanted.last_fetched_epoch),
        });
        Ok(FetchPartitionResponse::empty(wanted.partition))
    }

    fn asks(&self) -> Vec<Ask> {
        self.reads.iter().map(|(to, read)| (*to, PartRequest::Read(read.clone()))).collect()
    }

    /// Takes what one shard read, or its word that there is more now.
    pub(crate) fn answered(
        &mut self,
        shard: &mut Shard,
        id: CallId,
        round: u32,
        answer: PartAnswer,
    ) -> Progress {
        if round != self.round {
            return Progress::Wait;
        }
        match answer {
            PartAnswer::Read(parts) => {
                for part in parts {
                    self.fill(shard, part);
                }
                self.outstanding -= 1;
            }
            _ => self.woken = true,
        }
        if self.outstanding > 0 {
            return Progress::Wait;
        }
        if self.urgent || self.size() >= self.min_bytes || shard.now.instant >= self.deadline {
            self.stop_watching(shard, id);
            return Progress::Done(self.finish(shard));
        }
        if !std::mem::take(&mut self.woken) {
            return Progress::Wait;
        }
        self.round += 1;
        self.outstanding = self.reads.len();
        Progress::AskAgain { part: self.round, asks: self.asks() }
    }

    /// The longest wait is over: what is there goes out.
    pub(crate) fn overdue(&mut self, shard: &mut Shard, id: CallId) -> Option<Response> {
        if self.outstanding > 0 {
            // A read is under way; its answer finds the deadline passed.
            return None;
        }
        self.stop_watching(shard, id);
        Some(self.finish(shard))
    }

    fn stop_watching(&self, shard: &mut Shard, id: CallId) {
        for to in self.reads.keys() {
            shard.cancel(*to, id);
        }
    }

    fn size(&self) -> usize {
        let partitions = self.response.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.map(FetchPartitionResponse::records_size).sum()
    }

    fn fill(&mut self, shard: &Shard, part: PartitionData) {
        let Some(&(topic, partition, at)) = self.places.get(part.slot as usize) else { return };
        let slot = &mut self.response.topics[topic].partitions[partition];
        match part.result.map_err(|refused| error_code(refused, self.version)) {
            Ok(records) if self.version < ZSTD_VERSION && has_zstd(&records) => {
                self.urgent = true;
                let code = ErrorCode::UnsupportedCompressionType;
                *slot = FetchPartitionResponse::failed(slot.partition, code);
            }
            Ok(records) => {
                self.urgent |= records.diverging.is_some() || records.preferred_replica.is_some();
                *slot = filled(slot.partition, records, self.read_committed);
            }
            Err(code) => {
                self.urgent = true;
                *slot = FetchPartitionResponse::failed(slot.partition, code);
                let moved =
                    matches!(code, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch);
                if moved
                    && let Some((leader, endpoint)) = current_leader(shard, at.group, at.epoch_base)
                {
                    slot.current_leader = Some(leader);
                    if !self.response.node_endpoints.contains(&endpoint) {
                        self.response.node_endpoints.push(endpoint);
                    }
                }
            }
        }
    }

    /// Cuts what several shards returned to the request's limit, in the order of the request. The
    /// first partition that has records keeps them (KIP-74).
    fn finish(&mut self, shard: &Shard) -> Response {
        let mut size = 0;
        for partition in self.response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            let here = partition.records_size();
            if size > 0 && size + here > self.max_bytes {
                partition.records.clear();
            } else {
                size += here;
            }
        }
        shard.metrics.add(Metric::FetchBytes, size as u64);
        let waited = shard.now.instant.saturating_duration_since(self.started);
        shard.metrics.fetch.record(waited);
        Response::Fetch(std::mem::take(&mut self.response))
    }
}

/// Where a consumer is that may read from followers. One that does not say it only ever reads from
/// leaders, as do clients of older versions.
fn rack(version: i16, request: &FetchRequest) -> Option<StrBytes> {
    let is_consumer = request.replica_id.0 < 0 && request.replica_state.replica_id.0 < 0;
    let has_rack = version >= CLOSEST_REPLICA_VERSION && !request.rack_id.is_empty();
    (is_consumer && has_rack).then(|| request.rack_id.clone())
}

fn filled(partition: i32, records: ReadRecords, read_committed: bool) -> FetchPartitionResponse {
    FetchPartitionResponse {
        high_watermark: records.high_watermark.get(),
        last_stable_offset: records.last_stable_offset.get(),
        log_start_offset: records.log_start_offset.get(),
        diverging_epoch: records
            .diverging
            .map(|(epoch, end)| EpochEndOffset { epoch: epoch.get(), end_offset: end.get() }),
        aborted_transactions: read_committed.then(Vec::new),
        preferred_read_replica: records.preferred_replica.map_or(-1, NodeId::get),
        records: records.batches,
        ..FetchPartitionResponse::empty(partition)
    }
}

fn has_zstd(records: &ReadRecords) -> bool {
    let is_zstd = |batch: &Bytes| {
        BatchHeader::read(batch).and_then(BatchHeader::compression) == Some(Compression::Zstd)
    };
    records.batches.iter().any(is_zstd)
}

fn error_code(refused: ReadRefused, version: i16) -> ErrorCode {
    match refused {
        ReadRefused::Storage if version <= STORAGE_ERROR_HIDDEN_MAX => {
            ErrorCode::NotLeaderOrFollower
        }
        refused => super::read_error_code(refused),
    }
}

#[cfg(test)]
mod tests {
    use kafka_wire::messages::BrokerId;

    use super::*;

    #[test]
    fn only_consumers_that_name_a_rack_and_can_be_sent_on_read_from_followers() {
        let request = |name: &'static str, replica: i32| {
            let request = FetchRequest::default().with_rack_id(StrBytes::from_static_str(name));
            request.with_replica_id(BrokerId(replica))
        };
        assert_eq!(rack(11, &request("b", -1)).as_deref(), Some("b"));
        assert_eq!(rack(17, &request("b", -1)).as_deref(), Some("b"));
        assert_eq!(rack(10, &request("b", -1)), None);
        assert_eq!(rack(11, &request("", -1)), None);
        assert_eq!(rack(11, &request("b", 2)), None, "another broker");
        let mut follower = request("b", -1);
        follower.replica_state.replica_id = BrokerId(2);
        assert_eq!(rack(15, &follower), None, "another broker");
    }
}
