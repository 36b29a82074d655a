//! Group 0 on the shard that hosts it, and the metadata image that every shard has.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{LogIndex, NodeId, PartitionId, RaftGroupId, ShardId, Term};
use replication::{AppBytes, CommittedEntry, Descriptor};

use super::Shard;
use super::call::Origin;
use super::hosted::Fate;
use super::message::{CommandRefused, Message, PartAnswer};
use super::replicated_log::{Claim, Refused};
use crate::api::ProducerIds;
use crate::cluster::{self, CONSUMER_OFFSETS, Cluster, Command, Image, Shape, bootstrap};
use crate::config::HostPort;
use crate::metrics::Metric;
use crate::partition::KIND_METADATA_FIRST;

/// The shard that hosts group 0.
pub(crate) const METADATA_SHARD: ShardId = ShardId::new(0);

/// How long a broker waits to be registered before it asks again.
const REGISTER_INTERVAL: Duration = Duration::from_secs(1);

/// See the module's text.
pub(crate) struct Metadata {
    image: Arc<Image>,
    /// Group 0's state machine, on its shard.
    cluster: Option<Cluster>,
    /// The last entry of group 0 that `cluster` contains.
    applied: LogIndex,
    /// Who waits for a command of group 0, by its index; with the term of whom it was proposed by.
    waiting: BTreeMap<LogIndex, (Term, Origin, Instant)>,
    /// Who waits to hear whether another broker has proposed a command, by the number that it was
    /// given.
    pub(super) forwarded: BTreeMap<u64, (NodeId, Origin, Instant)>,
    pub(super) last_token: u64,
    /// When the other brokers last heard what the bucket has of the metadata.
    pub(super) told_stored: Option<Instant>,
    /// Brokers that were added, as another broker knows, and by which version of the metadata.
    pub(super) heard_added: (LogIndex, BTreeMap<NodeId, HostPort>),
    /// Producer ids reserved for this shard.
    pub(crate) producer_ids: ProducerIds,
    /// The cluster's first commands are proposed.
    bootstrapped: bool,
    /// What the WAL had of the metadata was looked at.
    begun: bool,
    /// Everything is applied that was committed when this broker first heard of a leader.
    current: bool,
    /// When this broker last asked to be registered.
    registering: Option<Instant>,
    /// An image was installed that holds everything the log had at start.
    ready: bool,
}

impl Metadata {
    /// `cluster`: with the last entry that it contains; on the shard that hosts group 0.
    pub(crate) fn new(cluster: Option<(LogIndex, Cluster)>) -> Self {
        let (applied, cluster) = cluster.unzip();
        Self {
            image: Arc::default(),
            cluster,
            applied: applied.unwrap_or_default(),
            waiting: BTreeMap::new(),
            forwarded: BTreeMap::new(),
            last_token: 0,
            told_stored: None,
            heard_added: Default::default(),
            producer_ids: ProducerIds::default(),
            bootstrapped: false,
            begun: false,
            current: false,
            registering: None,
            ready: false,
        }
    }

    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    /// The same, to keep.
    pub(crate) fn shared_image(&self) -> Arc<Image> {
        Arc::clone(&self.image)
    }

    /// Index of the last command that changed group 0's state, and of the last entry applied; on
    /// the shard that hosts it, once it was applied at all.
    pub(crate) fn position(&self) -> Option<(LogIndex, LogIndex)> {
        let cluster = self.cluster.as_ref().filter(|_| self.applied > LogIndex::default())?;
        Some((cluster.image().version(), self.applied))
    }

    /// The last entry of group 0 that was applied; on the shard that hosts it.
    pub(super) fn applied(&self) -> LogIndex {
        self.applied
    }

    /// The image of what was applied, which is too old to go by until it is current.
    pub(super) fn applied_image(&self) -> Option<Arc<Image>> {
        self.cluster.as_ref().map(Cluster::image)
    }

    /// Group 0's state as bytes, and the entry that it is of.
    pub(crate) fn snapshot(&self) -> Option<(LogIndex, Bytes)> {
        let (_, applied) = self.position()?;
        Some((applied, self.cluster.as_ref()?.encode_snapshot().into()))
    }

    /// Lets a call hear when the command at a place of group 0's log is applied.
    pub(super) fn await_command(
        &mut self,
        (term, index): (Term, LogIndex),
        origin: Origin,
        since: Instant,
    ) {
        self.waiting.insert(index, (term, origin, since));
    }

    /// The image that this shard started with is there: the log can be read by it.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }
}

impl Shard {
    /// Proposes a command to group 0, for a call on any shard, where that is led; answered when it
    /// is applied here.
    pub(crate) fn propose_command(&mut self, origin: Origin, command: &Command) {
        match self.try_propose_command(command) {
            Ok(place) => self.metadata.await_command(place, origin, self.now.instant),
            Err(Refused::NotLeader) if self.forward_command(origin, command) => {}
            Err(refused) => {
                let refused = match refused {
                    Refused::NotLeader => CommandRefused::NotLeader,
                    Refused::TooLarge | Refused::Full | Refused::Behind => CommandRefused::Full,
                };
                self.answer(origin, PartAnswer::Command(Err(refused)));
            }
        }
    }

    pub(super) fn try_propose_command(
        &mut self,
        command: &Command,
    ) -> Result<(Term, LogIndex), Refused> {
        let payload = Bytes::from(command.encode());
        let kind = AppBytes::new(&[KIND_METADATA_FIRST]).expect("one byte fits");
        let descriptor = Descriptor::of(&payload, true, kind).ok_or(Refused::TooLarge)?;
        let group = RaftGroupId::METADATA;
        self.log.propose(group, Claim::Broker, descriptor, payload)
    }

    /// Applies committed entries: of group 0 to the cluster, of a data group to whoever needs their
    /// bytes again after a restart.
    pub(crate) fn apply(&mut self, group: RaftGroupId, entries: Vec<CommittedEntry>) {
        if group == RaftGroupId::METADATA {
            self.apply_commands(entries);
        } else {
            self.apply_edits(group, &entries);
            let led = self.log.leads(group);
            self.groups.defer(group, entries, led);
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
            if let Some((term, origin, since)) = self.metadata.waiting.remove(&entry.index) {
                // Another leader may have put another command there.
                let outcome = (entry.term == term).then_some(outcome);
                answers.push((origin, since, outcome.ok_or(CommandRefused::NotLeader)));
            }
        }
        let image = cluster.image();
        self.publish(image);
        for (origin, since, outcome) in answers {
            let waited = self.now.instant.saturating_duration_since(since);
            self.metrics.metadata.record(waited);
            self.answer(origin, PartAnswer::Command(outcome));
        }
    }

    /// A snapshot of group 0's leader stands for the commands up to `index`.
    pub(super) fn install_cluster(&mut self, index: LogIndex, snapshot: &Bytes) {
        let Some(cluster) = &mut self.metadata.cluster else { return };
        let settings = Arc::clone(cluster.settings());
        // Raft checked what came: it is what a leader encoded.
        *cluster = Cluster::decode_snapshot(snapshot, settings).expect("a leader's snapshot");
        let image = cluster.image();
        self.metadata.applied = index;
        self.publish(image);
    }

    /// Has this broker registered where the others reach it, if it is not yet.
    pub(super) fn register(&mut self) {
        let (now, id) = (self.now.instant, self.node.id);
        let asked = self.metadata.registering;
        let is_known = |image: &Image| {
            image.node(id).is_some_and(|node| {
                node.endpoints == self.node.endpoints && node.rack == self.node.settings.rack
            })
        };
        let known = self.metadata.cluster.as_ref().is_none_or(|it| is_known(&it.image()));
        if known
            || !self.metadata.current
            || asked.is_some_and(|at| now.saturating_duration_since(at) < REGISTER_INTERVAL)
        {
            return;
        }
        self.metadata.registering = Some(now);
        let endpoints = self.node.endpoints.clone();
        let rack = self.node.settings.rack.clone();
        let command = Command::RegisterBroker { node: id, endpoints, rack };
        // Nobody waits for it: the image tells, and until it does this is tried again.
        let call = self.calls.reserve();
        self.propose_command(Origin { call, part: 0 }, &command);
    }

    /// Hands the image to all shards once it has what was committed before, and proposes the
    /// cluster's first commands once group 0 has a leader here.
    pub(crate) fn start_metadata(&mut self) {
        let is_current = !self.metadata.current && self.log.is_current(RaftGroupId::METADATA);
        if is_current || !self.metadata.begun {
            self.metadata.current |= is_current;
            self.metadata.begun = true;
            let image = self.metadata.applied_image();
            image.into_iter().for_each(|image| self.publish(image));
        }
        if self.metadata.bootstrapped || !self.log.has_caught_up(RaftGroupId::METADATA) {
            return;
        }
        self.metadata.bootstrapped = true;
        let image = self.metadata.applied_image();
        if image.is_some_and(|image| image.cluster_id().is_some()) {
            return; // The cluster has begun: its groups may be others by now.
        }
        let node = &self.node;
        let groups_per_shard = u16::try_from(self.tiers.len()).unwrap_or(u16::MAX);
        let shape = Shape { shard_count: node.shard_count, groups_per_shard };
        let (endpoints, rack) = (node.endpoints.clone(), node.settings.rack.clone());
        let own = cluster::Node { id: node.id, endpoints, rack };
        for command in bootstrap(node.cluster_id, own, &node.founders(), shape) {
            // The log is ours alone until it serves: a refusal means that it is full, and then the
            // broker cannot become ready. The error is told by the start's time-out.
            let _ = self.try_propose_command(&command);
        }
    }

    /// Gives the image to every shard, this one included.
    fn publish(&mut self, image: Arc<Image>) {
        // The cluster's id is the last that it begins with: before, groups are missing.
        if !self.metadata.current || image.cluster_id().is_none() {
            // Also an old one names brokers without which there may be no majority.
            self.meet_members(&image);
            // And disks that have taken part, once it has all that is known to be committed.
            if self.metadata.applied >= self.log.committed(RaftGroupId::METADATA) {
                self.note_disks(&image);
            }
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
        self.meet_members(&image);
        self.keep_groups(&image);
        let offsets = image.topic(CONSUMER_OFFSETS).map(|topic| {
            let partitions = (0_i32..).zip(&topic.partitions);
            let here = partitions.filter(|(_, partition)| self.tiers.contains(partition.group));
            here.map(|(index, partition)| (partition.id, (index, partition.group))).collect()
        });
        self.note_disks(&image);
        let moved = self.place_partitions(&image);
        self.follow_moves(&image);
        let old = std::mem::replace(&mut self.metadata.image, image);
        self.metrics.set(Metric::MetadataVersion, self.metadata.image.version().get());
        for partition in moved {
            self.wake_readers(partition);
            self.tell_unled_of_moved(partition);
        }
        self.metadata.ready = true;
        self.coordinate(offsets.unwrap_or_default());
        self.forget_deleted_topics(&old);
        self.load_offsets();
    }

    /// Starts the partitions that an image puts here and that are not there yet, and puts apart or
    /// drops those that it puts elsewhere. Returns those whose readers have to go elsewhere.
    pub(super) fn place_partitions(&mut self, image: &Image) -> Vec<PartitionId> {
        let (mut hosted, mut left) = (BTreeSet::new(), Vec::new());
        for partition in image.topics().flat_map(|topic| &topic.partitions) {
            if self.tiers.contains(partition.group) {
                if self.hosting.ensure(partition.group, partition.id, partition.moved) {
                    left.push(partition.id);
                }
                hosted.insert((partition.group, partition.id));
            }
            hosted.extend(partition.moving.map(|it| (it.to, partition.id)));
        }
        let all = LazyCell::new(|| -> BTreeSet<PartitionId> {
            image.partitions().map(|(_, _, partition)| partition.id).collect()
        });
        let tiers = &self.tiers;
        let gone = self.hosting.sort(|group, log| {
            let id = log.id();
            // One that the image has never had may be younger than it, and so may its move.
            let is_younger = !image.has_had(id) || log.origin().id > image.version();
            if is_younger || hosted.contains(&(group, id)) {
                Fate::Here
            } else if tiers.contains(group) && tiers[group].manifest.has(id) && all.contains(&id) {
                Fate::Apart
            } else {
                Fate::Gone
            }
        });
        left.extend(gone);
        left
    }
}
