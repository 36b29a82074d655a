//! Produce: checks each batch on the core that received it, sends it to the shard that owns the
//! partition, and answers when every part is committed.

use std::time::{Duration, Instant};

use kafka_wire::produce::{
    LeaderIdAndEpoch, NodeEndpoint, ProducePartition, ProducePartitionResponse, ProduceRequest,
    ProduceResponse, ProduceTopic, ProduceTopicResponse,
};
use kafka_wire::validate::{BatchError, validate};
use kafka_wire::{ErrorCode, RequestHeader, Response, StrBytes};
use model::{RaftGroupId, ShardId};

use super::records::rules;
use super::{Ask, CallState, Progress, open};
use crate::cluster::{self, Image, Topic};
use crate::metrics::Metric;
use crate::partition::raised;
use crate::shard::Shard;
use crate::shard::call::ReplyTo;
use crate::shard::message::{Append, AppendRefused, Appended, PartRequest};
use crate::shard::wal_room::THROTTLE_MS_MAX;

/// First version that names topics by id.
const TOPIC_ID_VERSION: i16 = 13;

/// The producer wants to hear of its records when all replicas in sync have them.
const ACKS_ALL: i16 = -1;

/// A produce request that waits for its parts.
pub(crate) struct ProduceCall {
    acks: i16,
    response: ProduceResponse,
    /// By part: topic and partition in the response, and the partition as it was asked for.
    places: Vec<Place>,
    outstanding: usize,
    started: Instant,
    throttle_ms: i32,
}

struct Place {
    topic: usize,
    partition: usize,
    at: cluster::Partition,
}

pub(crate) fn serve(
    shard: &mut Shard,
    reply_to: ReplyTo,
    header: RequestHeader,
    request: ProduceRequest,
) {
    let mut call = ProduceCall {
        acks: request.acks,
        response: ProduceResponse::default(),
        places: Vec::new(),
        outstanding: 0,
        started: shard.now.instant,
        throttle_ms: 0,
    };
    let mut asks = Vec::new();
    let refusal = refusal(&request);
    for topic in request.topics {
        call.add_topic(shard, &header, topic, refusal, &mut asks);
    }
    call.outstanding = asks.len();
    if asks.is_empty() {
        let response = call.finish(shard, reply_to);
        return finish(shard, reply_to, &header, response);
    }
    let timeout = u64::try_from(request.timeout_ms).unwrap_or_default();
    let deadline = (request.acks != 0).then(|| shard.now.instant + Duration::from_millis(timeout));
    open(shard, reply_to, header, CallState::Produce(call), deadline, asks);
}

/// Sends a finished reply; `None` (`acks=0`) sends nothing.
fn finish(shard: &mut Shard, reply_to: ReplyTo, header: &RequestHeader, done: Option<Response>) {
    match done {
        Some(response) => shard.respond(reply_to, header, response),
        None => shard.reply(reply_to, Vec::new()),
    }
}

/// What is wrong with the request as a whole, for every partition of it.
fn refusal(request: &ProduceRequest) -> Option<ErrorCode> {
    if !(-1..=1).contains(&request.acks) {
        return Some(ErrorCode::InvalidRequiredAcks);
    }
    // No transaction can be open: InitProducerId gives no id to a transactional producer.
    request.transactional_id.is_some().then_some(ErrorCode::InvalidTxnState)
}

impl ProduceCall {
    fn add_topic(
        &mut self,
        shard: &Shard,
        header: &RequestHeader,
        topic: ProduceTopic,
        refusal: Option<ErrorCode>,
        asks: &mut Vec<Ask>,
    ) {
        let image = shard.metadata.image();
        let by_id = header.api_version >= TOPIC_ID_VERSION;
        let found =
            if by_id { image.topic_by_id(topic.topic_id) } else { image.topic(&topic.name) };
        let unknown =
            if by_id { ErrorCode::UnknownTopicId } else { ErrorCode::UnknownTopicOrPartition };
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let index = partition.index;
            let outcome = match (refusal, found) {
                (Some(code), _) => Err(ProducePartitionResponse::failed(index, code)),
                (None, None) => Err(ProducePartitionResponse::failed(index, unknown)),
                (None, Some(found)) => {
                    check(shard, (header.api_version, self.acks), found, partition)
                }
            };
            match outcome {
                Ok((at, ask)) => {
                    let place = Place {
                        topic: self.response.topics.len(),
                        partition: partitions.len(),
                        at,
                    };
                    self.places.push(place);
                    // What the client hears if no answer is in before its time-out.
                    let late = ErrorCode::RequestTimedOut;
                    partitions.push(ProducePartitionResponse::failed(index, late));
                    asks.push(ask);
                }
                Err(failed) => partitions.push(failed),
            }
        }
        let (name, topic_id) = (topic.name, topic.topic_id);
        self.response.topics.push(ProduceTopicResponse { name, topic_id, partitions });
    }

    /// Takes the answer of one part; the response when it was the last.
    pub(crate) fn answered(
        &mut self,
        shard: &mut Shard,
        reply_to: ReplyTo,
        part: u32,
        answer: Result<Appended, AppendRefused>,
    ) -> Progress {
        let place = &self.places[part as usize];
        let slot = &mut self.response.topics[place.topic].partitions[place.partition];
        match answer {
            Ok(appended) => {
                self.throttle_ms = self.throttle_ms.max(appended.throttle_ms);
                *slot = ProducePartitionResponse {
                    log_append_time_ms: appended.log_append_time_ms,
                    ..ProducePartitionResponse::appended(
                        slot.index,
                        appended.base_offset.get(),
                        appended.log_start_offset.get(),
                    )
                };
            }
            Err(refused) => {
                if refused == AppendRefused::Full {
                    self.throttle_ms = THROTTLE_MS_MAX;
                }
                *slot = ProducePartitionResponse::failed(slot.index, error_code(refused));
                if refused == AppendRefused::NotLeader {
                    self.name_leader(shard, part);
                }
            }
        }
        self.outstanding -= 1;
        if self.outstanding > 0 {
            return Progress::Wait;
        }
        self.finish(shard, reply_to).map_or(Progress::Silent, Progress::Done)
    }

    /// The time-out of the request: the parts without an answer say so.
    pub(crate) fn overdue(&mut self, shard: &mut Shard, reply_to: ReplyTo) -> Option<Response> {
        self.finish(shard, reply_to)
    }

    /// Tells the client who leads instead (KIP-951).
    fn name_leader(&mut self, shard: &Shard, part: u32) {
        let place = &self.places[part as usize];
        let leads = current_leader(shard, place.at.group, place.at.epoch_base);
        let Some((leader, endpoint)) = leads else { return };
        self.response.topics[place.topic].partitions[place.partition].current_leader = Some(leader);
        if !self.response.node_endpoints.contains(&endpoint) {
            self.response.node_endpoints.push(endpoint);
        }
    }

    /// The reply; `None` with `acks=0`, whose client learns of an error by the close.
    fn finish(&mut self, shard: &mut Shard, reply_to: ReplyTo) -> Option<Response> {
        if self.throttle_ms > 0 {
            self.response.throttle_time_ms = self.throttle_ms;
            shard.mute(reply_to.conn, self.throttle_ms);
        }
        if self.acks == 0 {
            let parts = self.response.topics.iter().flat_map(|topic| &topic.partitions);
            if parts.into_iter().any(|part| part.error_code != ErrorCode::None) {
                shard.refuse(reply_to.conn);
            }
            return None;
        }
        let waited = shard.now.instant.saturating_duration_since(self.started);
        shard.metrics.produce.record(waited);
        Some(Response::Produce(std::mem::take(&mut self.response)))
    }
}

/// Checks one partition's records as kafka-api.md, sections 3 and 4, order it.
fn check(
    shard: &Shard,
    (version, acks): (i16, i16),
    topic: &Topic,
    partition: ProducePartition,
) -> Result<(cluster::Partition, Ask), ProducePartitionResponse> {
    let index = partition.index;
    let fail = |code| ProducePartitionResponse::failed(index, code);
    let Some(found) = topic.partition(index) else {
        return Err(fail(ErrorCode::UnknownTopicOrPartition));
    };
    let mut batch = partition.records.ok_or_else(|| fail(ErrorCode::InvalidRecord))?;
    let rules = rules(&topic.config, version, shard.now.unix_ms);
    let info = validate(&mut batch, &rules).map_err(|error| {
        shard.metrics.add(Metric::ProduceRefused, 1);
        refused(index, &error)
    })?;
    if topic.internal {
        return Err(fail(ErrorCode::InvalidTopicException));
    }
    if info.is_transactional {
        return Err(fail(ErrorCode::InvalidTxnState));
    }
    let image = shard.metadata.image();
    let to =
        route(image, shard, found.group).ok_or_else(|| fail(ErrorCode::NotLeaderOrFollower))?;
    let in_sync_min = if acks == ACKS_ALL { topic.config.min_insync_replicas } else { 0 };
    let append = Append { partition: found.id, batch, info, in_sync_min };
    Ok((*found, (to, PartRequest::Append(append))))
}

/// The shard of this broker that hosts a group.
pub(crate) fn route(image: &Image, shard: &Shard, group: RaftGroupId) -> Option<ShardId> {
    image.shard_of(group, shard.node.id)
}

/// Who leads a group, and the leader epoch of a partition of it, as the replies of KIP-951 name it.
pub(crate) fn current_leader(
    shard: &Shard,
    group: RaftGroupId,
    epoch_base: u32,
) -> Option<(LeaderIdAndEpoch, NodeEndpoint)> {
    let image = shard.metadata.image();
    let (node, epoch) = shard.node.leader(group)?;
    let broker = image.broker_of(image.replica_on(group, node)?)?;
    let (endpoint, rack) = image.brokers().find(|(endpoint, _)| endpoint.broker == broker)?;
    let leader =
        LeaderIdAndEpoch { leader_id: broker.get(), leader_epoch: raised(epoch, epoch_base).get() };
    let endpoint = NodeEndpoint {
        node_id: broker.get(),
        host: StrBytes::from_string(endpoint.host.clone()),
        port: i32::from(endpoint.port),
        rack: rack.map(|rack| StrBytes::from_string(rack.to_owned())),
    };
    Some((leader, endpoint))
}

fn error_code(refused: AppendRefused) -> ErrorCode {
    match refused {
        AppendRefused::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        AppendRefused::NotLeader => ErrorCode::NotLeaderOrFollower,
        AppendRefused::OutOfOrderSequence => ErrorCode::OutOfOrderSequenceNumber,
        AppendRefused::InvalidProducerEpoch => ErrorCode::InvalidProducerEpoch,
        AppendRefused::OpenTransaction => ErrorCode::InvalidTxnState,
        AppendRefused::NotABatch => ErrorCode::InvalidRecord,
        AppendRefused::TooLarge => ErrorCode::MessageTooLarge,
        // Retriable in every client; nothing was written.
        AppendRefused::Full | AppendRefused::Behind | AppendRefused::NotInSync => {
            ErrorCode::NotEnoughReplicas
        }
    }
}

fn refused(index: i32, error: &BatchError) -> ProducePartitionResponse {
    let record_errors = match error {
        BatchError::MissingKey { record_errors } | BatchError::Timestamp { record_errors } => {
            record_errors.clone()
        }
        _ => Vec::new(),
    };
    ProducePartitionResponse {
        record_errors,
        error_message: Some(StrBytes::from_string(error.to_string())),
        ..ProducePartitionResponse::failed(index, super::records::error_code(error))
    }
}
