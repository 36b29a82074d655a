//! Group 0 as the bucket has it: topics, and which group has which partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{NodeId, PartitionId, RaftGroupId, ShardId, Term};

use super::bucket::Bucket;
use super::group::GroupRebuild;
use super::{Highest, Rebuilt, RecoverError};
use crate::cluster::{Arrived, CONSUMER_OFFSETS, Cluster, Image, Partition};
use crate::config::BrokerSettings;
use crate::shard::metadata::METADATA_SHARD;
use crate::voter::voter;

pub(super) struct Metadata {
    cluster: Cluster,
    highest: Highest,
    /// The broker that gets all of it, and which disk that is.
    pub(super) node: NodeId,
    pub(super) incarnation: u32,
}

/// A partition that the metadata knows.
#[derive(Clone, Debug)]
pub(super) struct Hosted {
    /// `topic-partition`, for people.
    pub(super) name: String,
    /// Its number in `__consumer_offsets`, if it is one of those.
    pub(super) offsets_index: Option<i32>,
    /// Where it is, and the move that brought it there; index 0 if it began there.
    pub(super) home: Arrived,
}

/// All of them.
pub(super) type Hosts = BTreeMap<PartitionId, Hosted>;

impl Metadata {
    /// `asked`: the broker that is to have it; if it is not said, the first that has a vote on the
    /// metadata. `incarnation`: of its new disk, where others know the one before.
    pub(super) fn read(
        bucket: &mut Bucket,
        asked: Option<NodeId>,
        incarnation: u32,
    ) -> Result<Self, RecoverError> {
        let settings = Arc::new(BrokerSettings::default());
        let decode = |file: &s3_uploader::ManifestFile| {
            Cluster::decode_snapshot(&file.state, Arc::clone(&settings))
                .map_err(|error| error.to_string())
        };
        let (found, highest) = bucket.newest(RaftGroupId::METADATA, decode)?;
        let cluster_id = bucket.cluster_id;
        let (_, mut cluster) = found.ok_or(RecoverError::NoMetadata { cluster_id })?;
        let image = cluster.image();
        let voters = image.group(RaftGroupId::METADATA).map(|group| &group.replicas[..]);
        let voters: Vec<_> = voters.unwrap_or_default().iter().map(|it| it.node).collect();
        let node = match asked {
            Some(node) if voters.contains(&node) => node,
            Some(node) => return Err(RecoverError::NoVoter { node, voters: listed(&voters) }),
            None => *voters.iter().min().ok_or(RecoverError::NoMetadata { cluster_id })?,
        };
        if image.members().len() > 1 {
            cluster.rebuild_on(node, incarnation);
        }
        let incarnation = cluster.image().incarnation(node);
        cluster.call_off_moves();
        Ok(Self { cluster, highest, node, incarnation })
    }

    pub(super) fn image(&self) -> Arc<Image> {
        self.cluster.image()
    }

    /// The only member of each group.
    pub(super) fn voter(&self) -> u64 {
        voter(self.node, self.incarnation)
    }

    /// Of each broker: every shard has a data group.
    pub(super) fn shard_count(&self) -> u16 {
        let image = self.image();
        let shards = image.data_groups().filter_map(|group| group.shard());
        shards.map(ShardId::get).max().map_or(0, |last| last.saturating_add(1))
    }

    /// Where a group is.
    pub(super) fn shard_of(&self, group: RaftGroupId) -> ShardId {
        self.image().shard_of(group, self.node).unwrap_or(METADATA_SHARD)
    }

    pub(super) fn hosts(&self) -> Hosts {
        let mut hosts = Hosts::new();
        for topic in self.image().topics() {
            for (index, partition) in (0_i32..).zip(&topic.partitions) {
                let offsets_index = (*topic.name == *CONSUMER_OFFSETS).then_some(index);
                let name = format!("{}-{index}", topic.name);
                let Partition { id, group, epoch_base, moved, arrived, .. } = *partition;
                let home = Arrived { group, id: moved, epoch_base, at: arrived };
                hosts.insert(id, Hosted { name, offsets_index, home });
            }
        }
        hosts
    }

    /// Says where a partition is, if that is not what the metadata has.
    pub(super) fn note_arrival(&mut self, partition: PartitionId, arrived: Arrived) {
        self.cluster.note_arrival(partition, arrived);
    }

    /// Ids that are in use in a group are not given out again, even if the newest metadata is lost.
    pub(super) fn pass_over(&mut self, rebuild: &GroupRebuild) {
        let (partition, producer) = rebuild.ids_end();
        self.cluster.pass_over(partition, producer);
        // Moves have the indexes of the entries that asked for them.
        self.highest.see(rebuild.last_move(), Term::default());
    }

    pub(super) fn finish(&self) -> Rebuilt {
        let (index, term) = self.highest.beyond();
        let state = self.cluster.encode_snapshot().into();
        Rebuilt { group: RaftGroupId::METADATA, shard: METADATA_SHARD, index, term, state }
    }
}

/// For people.
fn listed(nodes: &[NodeId]) -> String {
    let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
    nodes.join(", ")
}
