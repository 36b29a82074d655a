//! A broker of one shard without threads, sockets or clock, for `crates/sim`: the real shard on a
//! simulated disk, alone or one of several. What `core.rs` is to a reactor this is to a simulation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{NodeId, PartitionId, RaftGroupId, ShardId};
use s3_uploader::{Client, Extent, Manifest, ManifestFile, ObjectName};
use uring::ConnId;
use uuid::Uuid;
use wal_uring::WalOptions;
use wal_uring::sim::SimDisk;

use crate::cluster::Endpoint;
use crate::config::{BrokerSettings, HostPort, NodeSettings};
use crate::net::NetAction;
use crate::node::{Identity, Node};
use crate::shard::group_snapshot::GroupSnapshot;
use crate::shard::{Now, Shard};
use crate::shard_thread::{Seeds, recover};

pub use crate::recover::simulated::SimRebuild;
pub use crate::shard::inspect::{
    ClusterChange, Counters, GroupState, Homes, PartitionState, Standing,
};

const SHARD: ShardId = ShardId::new(0);

/// What a broker starts from, beside its disk and its store.
#[derive(Clone, Debug)]
pub struct Start {
    /// The disk must be formatted for it, with one slice.
    pub node: i32,
    /// Of its disk: 0 for its first.
    pub incarnation: u32,
    /// All brokers of the cluster, this one included; empty if it is alone.
    pub nodes: Vec<i32>,
    /// The oldest and the newest version that it speaks with other brokers.
    pub versions: (u16, u16),
    /// Of a new disk.
    pub data_groups: NonZeroU16,
    pub cluster_id: Uuid,
    pub settings: BrokerSettings,
    pub wal: WalOptions,
    /// Of its elections, and of the ids that it makes.
    pub seeds: [u64; 3],
}

/// A moment of the simulation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Moment {
    /// Microseconds since the simulation began: the disk's time too.
    pub micros: u64,
    pub unix_ms: i64,
}

/// See the module's text.
pub struct SimBroker {
    shard: Shard,
    disk: SimDisk,
    /// The shard's time at microsecond 0: any will do.
    epoch: Instant,
    /// By connection that the shard does not read now: what arrived for it.
    paused: BTreeMap<u32, VecDeque<Bytes>>,
    replies: Vec<(u32, Vec<Bytes>)>,
    /// Brokers that it wants to be connected to.
    dials: Vec<i32>,
    /// Data groups that it led at the last call of [`Self::write_as_old_leader`].
    led: BTreeSet<RaftGroupId>,
}

impl SimBroker {
    /// # Errors
    ///
    /// What was durable on the disk is not there, or does not fit together.
    #[expect(clippy::disallowed_methods, reason = "only differences of instants are used")]
    pub fn start(
        mut disk: SimDisk,
        store: Client,
        start: Start,
        now: Moment,
    ) -> Result<Self, String> {
        let Start {
            node,
            incarnation,
            nodes,
            versions,
            data_groups,
            cluster_id,
            settings,
            wal,
            seeds,
        } = start;
        let [election, high, low] = seeds;
        let address = |node| (NodeId::new(node), HostPort::new("simulated", 9192));
        let nodes = nodes.into_iter().map(address).collect();
        let broker = settings;
        // A WAL without groups is a new one: the simulation loses none without saying so.
        let new_cluster = true;
        let data_groups_per_core = Some(data_groups);
        let settings =
            NodeSettings { nodes, data_groups_per_core, new_cluster, broker, ..Default::default() };
        let (broker, host) = (NodeId::new(node), "simulated".to_owned());
        let endpoints = vec![Endpoint { broker, host, port: 9092, shard: None }];
        let identity = Identity { cluster_id, node: broker, incarnation };
        let mut node = Node::new(identity, settings, 1, endpoints, election);
        node.peer_versions = versions;
        let node = Arc::new(node);
        let seeds = Seeds { election, ids: [high, low] };
        let recovered = recover(&mut disk, SHARD, &node, wal, seeds);
        let (recovery, mut wal, _) = recovered.map_err(|error| error.to_string())?;
        // The disk's time begins anew with each start.
        assert!(disk.poll(now.micros).is_none(), "nothing is in flight before the first request");
        wal.prepare(&mut disk);
        let epoch = Instant::now();
        let now = at(epoch, now);
        let mut shard = Shard::new(recovery.into_parts(SHARD, node, store, wal, now), now);
        // It has few partitions, and what comes between two of them is to happen.
        shard.released_per_turn = 1;
        let (paused, replies, dials) = (BTreeMap::new(), Vec::new(), Vec::new());
        Ok(Self { shard, disk, epoch, paused, replies, dials, led: BTreeSet::new() })
    }

    /// A client connects.
    pub fn connect(&mut self, conn: u32) {
        self.shard.accepted(ConnId::simulated(conn), IpAddr::V4(Ipv4Addr::LOCALHOST));
    }

    /// Another broker connects.
    pub fn connect_peer(&mut self, conn: u32) {
        self.shard.peer_accepted(ConnId::simulated(conn), IpAddr::V4(Ipv4Addr::LOCALHOST));
    }

    /// Brokers that it asked to be connected to since the last call.
    pub fn take_dials(&mut self) -> Vec<i32> {
        std::mem::take(&mut self.dials)
    }

    /// What became of one of [`Self::take_dials`].
    pub fn dialed(&mut self, node: i32, conn: Result<u32, String>) {
        self.shard.peer_dialed(NodeId::new(node), conn.map(ConnId::simulated));
    }

    /// The other side closed a connection, or it is lost.
    pub fn closed(&mut self, conn: u32) {
        self.paused.remove(&conn);
        self.shard.closed(ConnId::simulated(conn));
    }

    /// Bytes of a client or another broker arrive.
    pub fn receive(&mut self, conn: u32, bytes: Bytes) {
        match self.paused.get_mut(&conn) {
            Some(waiting) => waiting.push_back(bytes),
            None => {
                // Nothing spins here.
                let _ = self.shard.received(ConnId::simulated(conn), &bytes);
            }
        }
    }

    /// The time of what arrives now.
    pub fn enter(&mut self, now: Moment) {
        self.shard.now = at(self.epoch, now);
    }

    /// Does all that can be done at this moment; returns what was sent on each connection, in
    /// order: nothing where the broker closed it.
    pub fn turn(&mut self, now: Moment) -> Vec<(u32, Vec<Bytes>)> {
        self.enter(now);
        loop {
            while let Some(done) = self.disk.poll(now.micros) {
                self.shard.disk_done(&mut self.disk, done);
            }
            self.shard.take_in();
            self.shard.settle(&mut self.disk);
            let actions = self.shard.take_actions();
            let acted = !actions.is_empty();
            actions.into_iter().for_each(|action| self.carry_out(action));
            if !acted && !self.shard.has_work() {
                return std::mem::take(&mut self.replies);
            }
        }
    }

    /// When [`Self::turn`] is next to be called if nothing arrives before, in microseconds.
    pub fn next_turn(&self) -> Option<u64> {
        let deadline = self.shard.next_deadline().map(|at| {
            let since = at.saturating_duration_since(self.epoch);
            u64::try_from(since.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX)
        });
        [deadline, self.disk.next_due()].into_iter().flatten().min()
    }

    /// Its groups are led: by it, with all applied that is in its logs, or by another broker.
    pub fn is_ready(&self) -> bool {
        self.shard.node.all_ready()
    }

    /// The groups that it leads, and the term of each.
    pub fn led(&self) -> Vec<(u64, u64)> {
        self.shard.led()
    }

    /// It votes in all of its groups, and no change of that is under way.
    pub fn votes(&self) -> bool {
        self.shard.votes()
    }

    /// Asks for a change of the cluster; false where group 0 is not led.
    pub fn change_cluster(&mut self, change: ClusterChange) -> bool {
        self.shard.change_cluster(change)
    }

    /// Asks that a partition moves to a group, or stays in it; false where group 0 is not led.
    pub fn move_partition(&mut self, topic: &str, index: i32, to: RaftGroupId) -> bool {
        self.shard.move_partition(topic, index, to)
    }

    /// The moves that brought partitions to where they are, by their entries of group 0.
    pub fn moved(&self) -> Vec<u64> {
        self.shard.moved()
    }

    /// Where partitions are, for all that it knows.
    pub fn homes(&self) -> Homes {
        self.shard.homes()
    }

    /// The objects that a group has to have: its own, and those of other groups where partitions
    /// are that came from there.
    pub fn needed(&self, group: RaftGroupId, homes: &Homes) -> BTreeSet<ObjectName> {
        self.shard.needed(group, homes)
    }

    /// What it knows of a broker; nothing before it has an image.
    pub fn standing(&self, node: i32) -> Option<Standing> {
        self.shard.standing(NodeId::new(node))
    }

    /// Its groups in words, for a timeline: who takes part, and who leads for all that it knows.
    pub fn describe(&self) -> Vec<String> {
        self.shard.describe_groups()
    }

    /// No group is on its way to other brokers, nor a partition to another group, for all that it
    /// knows.
    pub fn is_balanced(&self) -> bool {
        self.shard.is_balanced()
    }

    /// Hands over what it leads, as a broker does that is asked to stop.
    pub fn hand_over(&mut self) {
        self.shard.hand_over();
    }

    /// Still leads what another one could.
    pub fn could_hand_over(&self) -> bool {
        self.shard.could_hand_over()
    }

    /// Why it has stopped.
    pub fn failure(&self) -> Option<String> {
        self.shard.failure()
    }

    /// The power is cut; returns what is left on the disk.
    pub fn cut_power(self) -> Vec<u8> {
        self.disk.crash()
    }

    /// The process is killed; the kernel completes what it was given.
    pub fn kill(self) -> Vec<u8> {
        self.disk.kill()
    }

    /// Begins to offload all that there is, as a broker does that is asked to stop.
    pub fn flush(&mut self) {
        self.shard.flush_tier();
    }

    pub fn is_flushed(&self) -> bool {
        self.shard.tier_is_flushed()
    }

    /// Writes the mark of a clean stop; true once it is written.
    pub fn shut_down(&mut self) -> bool {
        self.shard.shut_down(&mut self.disk)
    }

    /// A hash over all that the disk was asked and did.
    pub fn disk_trace(&self) -> u32 {
        self.disk.trace()
    }

    /// What it knows of each data group.
    pub fn groups(&self) -> impl Iterator<Item = GroupState> {
        self.shard.group_states()
    }

    /// The manifest of a data group.
    pub fn manifest(&self, group: RaftGroupId) -> &Manifest {
        self.shard.manifest(group)
    }

    /// Where the records of a partition are that are in objects.
    pub fn extents(&self, partition: PartitionId) -> &[Extent] {
        self.shard.extents(partition)
    }

    /// The partitions of all topics, in order.
    pub fn partitions(&self) -> Vec<PartitionState> {
        self.shard.partition_states()
    }

    pub fn counters(&self) -> Counters {
        self.shard.counters()
    }

    /// A planted bug: tells producers of their batches as soon as those are proposed.
    pub fn acknowledge_early(&mut self) {
        self.shard.acknowledge_early();
    }

    /// A planted bug: one that was replaced stores its manifest as the newest one. To be called
    /// after each turn.
    pub fn write_as_old_leader(&mut self) {
        let leads = |(group, _): (u64, u64)| Some(RaftGroupId::new(group)).filter(is_data);
        let led: BTreeSet<_> = self.shard.led().into_iter().filter_map(leads).collect();
        for group in self.led.difference(&led) {
            self.shard.store_file_unasked(*group);
        }
        self.led = led;
    }

    /// A planted bug: gives up the log of an object that is stored, before the entry that names it
    /// is committed.
    pub fn trim_early(&mut self) {
        self.shard.trim_early();
    }

    /// A planted bug: says of groups that others have taken the place of those that are to go,
    /// before they have.
    pub fn settle_early(&mut self) {
        self.shard.settle_early();
    }

    /// A planted bug: greets others as if its disk had taken part already.
    pub fn greet_as_old(&mut self) {
        self.shard.greet_as_old();
    }

    /// A planted bug: stores objects of partitions that no file in the bucket tells of.
    pub fn store_arrivals_late(&mut self) {
        self.shard.store_arrivals_late();
    }

    /// A planted bug: partitions take records though they are sealed.
    pub fn ignore_seals(&mut self) {
        self.shard.ignore_seals();
    }

    /// A planted bug: deletes what nothing refers to at once, without asking whether the bucket's
    /// newest manifest still names it.
    pub fn delete_unasked(&mut self) {
        self.shard.delete_unasked();
    }

    fn carry_out(&mut self, action: NetAction) {
        match action {
            NetAction::Send { conn, pieces } => {
                self.replies.push((number(conn), pieces));
                self.shard.sent(conn);
            }
            NetAction::Pause { conn } => {
                self.paused.entry(number(conn)).or_default();
            }
            NetAction::Resume { conn } => {
                for bytes in self.paused.remove(&number(conn)).into_iter().flatten() {
                    self.receive(number(conn), bytes);
                }
            }
            NetAction::CloseAfterSend { conn } | NetAction::Close { conn } => {
                self.replies.push((number(conn), Vec::new()));
            }
            NetAction::Dial { node } => self.dials.push(node.get()),
        }
    }
}

fn is_data(group: &RaftGroupId) -> bool {
    *group != RaftGroupId::METADATA
}

/// The manifest in a file of the bucket, if the file is a data group's.
///
/// # Errors
///
/// The file is damaged.
pub fn manifest_of(file: &ManifestFile) -> Result<Option<Manifest>, String> {
    if !is_data(&file.group) {
        return Ok(None);
    }
    let snapshot = GroupSnapshot::decode(&file.state).map_err(|error| error.to_string())?;
    Ok(Some(snapshot.stored.manifest))
}

fn at(epoch: Instant, moment: Moment) -> Now {
    let instant = epoch + Duration::from_micros(moment.micros);
    Now { instant, unix_ms: moment.unix_ms }
}

fn number(conn: ConnId) -> u32 {
    conn.simulated_index().expect("all connections are simulated")
}
