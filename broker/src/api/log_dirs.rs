//! DescribeLogDirs: how large the partitions of this broker are, and what its WAL has room for.
//!
//! There is one log directory, the WAL. The size of a partition is that of its batches in the WAL,
//! which is what Kafka tells where older segments are in remote storage: what has gone from the WAL
//! because it is in objects is not counted. Total and usable bytes are the WAL's.

use std::collections::{BTreeMap, BTreeSet};

use kafka_wire::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_wire::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_wire::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use kafka_wire::{RequestHeader, Response, StrBytes};
use model::{PartitionId, ShardId};

use super::{Ask, CallState, Progress, broker_of, open};
use crate::cluster::{Image, Topic};
use crate::shard::Shard;
use crate::shard::call::ReplyTo;
use crate::shard::message::{LogUse, PartRequest};

/// A request that waits for the shards of the broker.
pub(crate) struct LogDirsCall {
    request: DescribeLogDirsRequest,
    outstanding: usize,
    all: LogUse,
}

pub(crate) fn serve(
    shard: &mut Shard,
    reply_to: ReplyTo,
    header: RequestHeader,
    request: DescribeLogDirsRequest,
) {
    // With shard listeners a client sees a broker for each shard.
    let own = broker_of(shard);
    let shards = (0..shard.node.shard_count).map(ShardId::new);
    let asks: Vec<Ask> = shards
        .filter(|id| shard.node.broker_of(*id) == own)
        .map(|id| (id, PartRequest::DescribeLog))
        .collect();
    let call = LogDirsCall { request, outstanding: asks.len(), all: LogUse::default() };
    open(shard, reply_to, header, CallState::LogDirs(Box::new(call)), None, asks);
}

impl LogDirsCall {
    pub(crate) fn described(&mut self, shard: &Shard, answer: LogUse) -> Progress {
        self.all.capacity += answer.capacity;
        self.all.free += answer.free;
        self.all.partitions.extend(answer.partitions);
        self.outstanding -= 1;
        if self.outstanding > 0 {
            return Progress::Wait;
        }
        let (image, log_dir) = (shard.metadata.image(), &shard.node.log_dir);
        let response = response(image, log_dir, &self.request, &self.all);
        Progress::Done(Response::DescribeLogDirs(response))
    }
}

fn response(
    image: &Image,
    log_dir: &str,
    request: &DescribeLogDirsRequest,
    all: &LogUse,
) -> DescribeLogDirsResponse {
    let sizes: BTreeMap<PartitionId, u64> = all.partitions.iter().copied().collect();
    let topics: Vec<_> = match &request.topics {
        None => {
            let indexes = |topic: &Topic| (0..topic.partition_count()).collect();
            image.topics().map(|topic| described(topic, &indexes(topic), &sizes)).collect()
        }
        Some(asked) => {
            let asked = indexes_by_name(asked);
            let known = asked.iter().filter_map(|(name, it)| Some((image.topic(name)?, it)));
            known.map(|(topic, indexes)| described(topic, indexes, &sizes)).collect()
        }
    };
    let here = topics.into_iter().filter(|topic| !topic.partitions.is_empty());
    let result = DescribeLogDirsResult::default()
        .with_log_dir(StrBytes::from_string(log_dir.to_owned()))
        .with_topics(here.collect())
        .with_total_bytes(signed(all.capacity))
        .with_usable_bytes(signed(all.free));
    DescribeLogDirsResponse::default().with_results(vec![result])
}

/// Each topic and each partition once, however often it is asked for.
fn indexes_by_name(asked: &[DescribableLogDirTopic]) -> BTreeMap<&str, BTreeSet<i32>> {
    let mut all: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
    for topic in asked {
        all.entry(topic.topic.as_str()).or_default().extend(&topic.partitions);
    }
    all
}

/// Those of a topic's partitions that are here. Their `offset_lag` stays 0, as in Kafka: a replica
/// knows of nothing committed beyond the end of its log, and there are no future replicas.
fn described(
    topic: &Topic,
    indexes: &BTreeSet<i32>,
    sizes: &BTreeMap<PartitionId, u64>,
) -> DescribeLogDirsTopic {
    let partitions = indexes.iter().filter_map(|index| {
        let size = sizes.get(&topic.partition(*index)?.id)?;
        Some(
            DescribeLogDirsPartition::default()
                .with_partition_index(*index)
                .with_partition_size(signed(*size)),
        )
    });
    DescribeLogDirsTopic::default()
        .with_name(StrBytes::from_string(topic.name.to_string()).into())
        .with_partitions(partitions.collect())
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "log_dirs_tests.rs"]
mod tests;
