//! Group 0 on the shard that hosts it, and the metadata image that every shard has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use model::{LogIndex, PartitionId, RaftGroupId, ShardId};
use replication::{AppBytes, CommittedEntry, Descriptor};

use super::Shard;
use super::call::Origin;
use super::message::{CommandRefused, Message, PartAnswer};
use super::replicated_log::{Claim, Refused};
use crate::api::ProducerIds;
use crate::cluster::{CONSUMER_OFFSETS, Cluster, Command, Image, bootstrap};
use crate::metrics::Metric;
use crate::partition::KIND_METADATA_FIRST;

/// The shard that hosts group 0.
pub(crate) const METADATA_SHARD: ShardId = ShardId::new(0);

/// See the module's text.
pub(crate) struct Metadata {
    image: Arc<Image>,
    /// Group 0's state machine, on its shard.
    cluster: Option<Cluster>,
    /// The last entry of group 0 that `cluster` contains.
    applied: LogIndex,
    /// Who waits for a command of group 0, by its index.
    waiting: BTreeMap<LogIndex, (Origin, Instant)>,
    /// Producer ids reserved for this shard.
    pub(crate) producer_ids: ProducerIds,
    /// The cluster's first commands are proposed.
    bootstrapped: bool,
    /// An image was installed that holds everything the log had at start.
    ready: bool,
}

impl Metadata {
    pub(crate) fn new(cluster: Option<Cluster>) -> Self {
        Self {
            image: Arc::default(),
            cluster,
            applied: LogIndex::default(),
            waiting: BTreeMap::new(),
            producer_ids: ProducerIds::default(),
            bootstrapped: false,
            ready: false,
        }
    }

    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    /// Index of the last command that changed group 0's state, and of the last entry applied; on
    /// the shard that hosts it, once it was applied at all.
    pub(crate) fn position(&self) -> Option<(LogIndex, LogIndex)> {
        let cluster = self.cluster.as_ref().filter(|_| self.applied > LogIndex::default())?;
        Some((cluster.image().version(), self.applied))
    }

    /// Group 0's state as bytes, and the entry that it is of.
    pub(crate) fn snapshot(&self) -> Option<(LogIndex, Bytes)> {
        let (_, applied) = self.position()?;
        Some((applied, self.cluster.as_ref()?.encode_snapshot().into()))
    }

    /// The image that this shard started with is there: the log can be read by it.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }
}

impl Shard {
    /// Proposes a command to group 0, for a call on any shard; answered when it is applied.
    pub(crate) fn propose_command(&mut self, origin: Origin, command: &Command) {
        match self.try_propose_command(command) {
            Ok(index) => {
                self.metadata.waiting.insert(index, (origin, self.now.instant));
            }
            Err(refused) => {
                let refused = match refused {
                    Refused::NotLeader => CommandRefused::NotLeader,
                    Refused::TooLarge | Refused::Full => CommandRefused::Full,
                };
                self.answer(origin, PartAnswer::Command(Err(refused)));
            }
        }
    }

    fn try_propose_command(&mut self, command: &Command) -> Result<LogIndex, Refused> {
        let payload = Bytes::from(command.encode());
        let kind = AppBytes::new(&[KIND_METADATA_FIRST]).expect("one byte fits");
        let descriptor = Descriptor::of(&payload, true, kind).ok_or(Refused::TooLarge)?;
        let group = RaftGroupId::METADATA;
        let (_, index) = self.log.propose(group, Claim::Broker, descriptor, payload)?;
        Ok(index)
    }

    /// Applies committed entries: of group 0 to the cluster, of a data group to whoever needs their
    /// bytes again after a restart.
    pub(crate) fn apply(&mut self, group: RaftGroupId, entries: Vec<CommittedEntry>) {
        if group == RaftGroupId::METADATA {
            self.apply_commands(entries);
        } else {
            self.apply_edits(&entries);
            self.groups.defer(entries);
            self.load_offsets();
        }
    }

    fn apply_commands(&mut self, entries: Vec<CommittedEntry>) {
        let mut answers = Vec::new();
        let Some(cluster) = &mut self.metadata.cluster else { return };
        for entry in entries {
            self.metadata.applied = entry.index;
            let Some(payload) = entry.payload.filter(|_| entry.descriptor.is_some()) else {
                continue;
            };
            // Raft checked the payload against its descriptor: it is what a leader encoded.
            let command = Command::decode(&payload).expect("a committed command is well formed");
            let outcome = cluster.apply(entry.index, command);
            if let Some(waiting) = self.metadata.waiting.remove(&entry.index) {
                answers.push((waiting, outcome));
            }
        }
        let image = cluster.image();
        self.publish(image);
        for ((origin, proposed), outcome) in answers {
            let waited = self.now.instant.saturating_duration_since(proposed);
            self.metrics.metadata.record(waited);
            self.answer(origin, PartAnswer::Command(Ok(outcome)));
        }
    }

    /// Proposes the cluster's first commands once group 0 has a leader here, and hands the image to
    /// all shards once what the log held is applied.
    pub(crate) fn start_metadata(&mut self) {
        if self.metadata.bootstrapped || !self.log.has_caught_up(RaftGroupId::METADATA) {
            return;
        }
        self.metadata.bootstrapped = true;
        let node = &self.node;
        let endpoints = node.endpoints.clone();
        for command in bootstrap(node.cluster_id, node.id, endpoints, node.shard_count) {
            // The log is ours alone until it serves: a refusal means that it is full, and then the
            // broker cannot become ready. The error is told by the start's time-out.
            let _ = self.try_propose_command(&command);
        }
    }

    /// Gives the image to every shard, this one included.
    fn publish(&mut self, image: Arc<Image>) {
        // Complete only with every data group: before, the log is still being applied.
        let groups = image.data_groups().count();
        if !self.metadata.bootstrapped || groups < usize::from(self.node.shard_count) {
            return;
        }
        for shard in (0..self.node.shard_count).map(ShardId::new).filter(|id| *id != self.id) {
            self.mailbox.send(shard, Message::Image(Arc::clone(&image)));
        }
        self.install_image(image);
    }

    /// Takes a newer image: starts and drops partitions as it says.
    pub(crate) fn install_image(&mut self, image: Arc<Image>) {
        if image.version() <= self.metadata.image.version() {
            return;
        }
        let group = self.data_group();
        let mut offsets = BTreeMap::new();
        let mut hosted = std::collections::BTreeSet::<PartitionId>::new();
        for topic in image.topics() {
            for (index, partition) in (0_i32..).zip(&topic.partitions) {
                if partition.group == group {
                    hosted.insert(partition.id);
                    self.hosting.ensure(partition.id);
                    if *topic.name == *CONSUMER_OFFSETS {
                        offsets.insert(partition.id, index);
                    }
                }
            }
        }
        let gone = self.hosting.retain(|id| hosted.contains(&id));
        let old = std::mem::replace(&mut self.metadata.image, image);
        self.metrics.set(Metric::MetadataVersion, self.metadata.image.version().get());
        for partition in gone {
            self.wake_readers(partition);
        }
        self.metadata.ready = true;
        self.coordinate(offsets);
        self.forget_deleted_topics(&old);
        self.load_offsets();
    }
}
