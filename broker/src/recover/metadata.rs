//! Group 0 as the bucket has it: topics, and which group has which partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{NodeId, PartitionId, RaftGroupId, ShardId};

use super::bucket::Bucket;
use super::group::GroupRebuild;
use super::{Highest, Rebuilt, RecoverError};
use crate::cluster::{CONSUMER_OFFSETS, Cluster, Image};
use crate::config::BrokerSettings;
use crate::shard::metadata::METADATA_SHARD;

pub(super) struct Metadata {
    cluster: Cluster,
    highest: Highest,
    pub(super) node: NodeId,
}

/// A partition of a group.
#[derive(Clone, Debug)]
pub(super) struct Hosted {
    /// `topic-partition`, for people.
    pub(super) name: String,
    /// Its number in `__consumer_offsets`, if it is one of those.
    pub(super) offsets_index: Option<i32>,
}

impl Metadata {
    pub(super) fn read(bucket: &mut Bucket) -> Result<Self, RecoverError> {
        let settings = Arc::new(BrokerSettings::default());
        let decode = |file: &s3_uploader::ManifestFile| {
            Cluster::decode_snapshot(&file.state, Arc::clone(&settings))
                .map_err(|error| error.to_string())
        };
        let (found, highest) = bucket.newest(RaftGroupId::METADATA, decode)?;
        let cluster_id = bucket.cluster_id;
        let (_, cluster) = found.ok_or(RecoverError::NoMetadata { cluster_id })?;
        let image = cluster.image();
        let mut nodes: Vec<NodeId> = image
            .data_groups()
            .flat_map(|group| group.replicas.iter().map(|replica| replica.node))
            .collect();
        nodes.sort_unstable();
        nodes.dedup();
        let moved = image.partitions().find(|(_, _, partition)| partition.is_moved());
        match nodes[..] {
            [node] => match moved {
                Some((_, _, it)) => Err(RecoverError::Moved { name: image.name_of(it.id) }),
                None => Ok(Self { cluster, highest, node }),
            },
            [] => Err(RecoverError::NoMetadata { cluster_id }),
            _ => Err(RecoverError::Nodes { count: nodes.len() }),
        }
    }

    pub(super) fn image(&self) -> Arc<Image> {
        self.cluster.image()
    }

    /// Of the node: every shard has a data group.
    pub(super) fn shard_count(&self) -> u16 {
        let image = self.image();
        let shards = image.data_groups().filter_map(|group| image.shard_of(group.id, self.node));
        shards.map(ShardId::get).max().map_or(0, |last| last.saturating_add(1))
    }

    /// Where a group is on the node.
    pub(super) fn shard_of(&self, group: RaftGroupId) -> ShardId {
        self.image().shard_of(group, self.node).unwrap_or(METADATA_SHARD)
    }

    pub(super) fn hosted(&self, group: RaftGroupId) -> BTreeMap<PartitionId, Hosted> {
        let mut hosted = BTreeMap::new();
        for topic in self.image().topics() {
            for (index, partition) in (0_i32..).zip(&topic.partitions) {
                if partition.group == group {
                    let offsets_index = (*topic.name == *CONSUMER_OFFSETS).then_some(index);
                    let name = format!("{}-{index}", topic.name);
                    hosted.insert(partition.id, Hosted { name, offsets_index });
                }
            }
        }
        hosted
    }

    /// Ids that are in use in a group are not given out again, even if the newest metadata is lost.
    pub(super) fn pass_over(&mut self, rebuild: &GroupRebuild) {
        let (partition, producer) = rebuild.ids_end();
        self.cluster.pass_over(partition, producer);
    }

    pub(super) fn finish(&self) -> Rebuilt {
        let (index, term) = self.highest.beyond();
        let state = self.cluster.encode_snapshot().into();
        Rebuilt { group: RaftGroupId::METADATA, shard: METADATA_SHARD, index, term, state }
    }
}
