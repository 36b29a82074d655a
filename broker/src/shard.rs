//! One core's slice of the broker: the sole owner of its connections, raft groups, partitions,
//! consumer groups and WAL. Everything here is synchronous and does no I/O: events come in with the
//! time, and what is to be done to sockets and disk goes out ([`Shard::flush`]).
//!
//! A turn is: events (bytes, disk completions, messages of other shards), then [`Shard::settle`],
//! which lets raft and the WAL move on and answers what became durable, then the actions.

pub(crate) mod append;
mod balancer;
pub(crate) mod call;
mod catch_up;
mod closest_replica;
mod comings_and_goings;
mod compaction;
pub(crate) mod connections;
pub(crate) mod coordinate;
mod flow_control;
pub(crate) mod group_snapshot;
pub(crate) mod held;
pub(crate) mod hosted;
mod in_sync;
#[cfg(feature = "simulation")]
pub(crate) mod inspect;
mod leaderless;
mod leadership;
mod lent;
pub(crate) mod load;
mod log_event;
pub(crate) mod mailbox;
mod manifest_files;
mod members;
pub(crate) mod merge;
pub(crate) mod message;
pub(crate) mod metadata;
pub(crate) mod moves;
pub(crate) mod offload;
mod peering;
pub(crate) mod read;
mod refusals;
pub(crate) mod remote;
mod remote_check;
pub(crate) mod replicated_log;
pub(crate) mod sweep;
pub(crate) mod tier;
pub(crate) mod tier_upkeep;
pub(crate) mod tiers;
mod unled;
pub(crate) mod upkeep;
pub(crate) mod wal_room;
pub(crate) mod watches;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use model::ShardId;
use uring::{ConnId, DiskDone};
use wal_uring::Disk;

use self::balancer::Balancer;
use self::call::{CallId, Calls, Origin};
use self::connections::Connections;
use self::coordinate::Groups;
use self::flow_control::Rooms;
use self::held::Held;
use self::hosted::Hosting;
use self::in_sync::InSync;
use self::leaderless::Leaderless;
use self::leadership::Leadership;
use self::load::{LoadMeter, Loads};
use self::log_event::LogEvent;
use self::mailbox::Mailbox;
use self::members::Joining;
use self::message::{LogUse, Message, PartAnswer, PartRequest};
use self::metadata::Metadata;
use self::moves::Moves;
use self::read::Reads;
use self::refusals::Refusals;
use self::replicated_log::ReplicatedLog;
use self::tiers::Tiers;
use self::unled::Unled;
use self::upkeep::Upkeep;
use crate::api;
use crate::metrics::{Metric, ShardMetrics};
use crate::net::NetAction;
use crate::node::Node;
use crate::peer::Peers;
use crate::peer::frame::frame_size_max;
use crate::peer::hello::Hello;
use crate::random::Random;
use crate::voter::node_of;

/// The time, read once at the top of a turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    /// Milliseconds since 1970, for Kafka's timestamps only: it may jump.
    pub(crate) unix_ms: i64,
}

/// See the module's text.
pub(crate) struct Shard {
    pub(crate) id: ShardId,
    pub(crate) node: Arc<Node>,
    pub(crate) metrics: Arc<ShardMetrics>,
    pub(crate) now: Now,
    pub(crate) calls: Calls,
    pub(crate) mailbox: Mailbox,
    pub(crate) metadata: Metadata,
    pub(crate) random: Random,
    log: ReplicatedLog,
    hosting: Hosting,
    reads: Reads,
    groups: Groups,
    tiers: Tiers,
    /// See `compaction.rs`.
    pub(crate) released_per_turn: usize,
    upkeep: Upkeep,
    pub(crate) peers: Peers,
    rooms: Rooms,
    joining: Joining,
    led_told: Option<Instant>,
    balancer: Balancer,
    pub(crate) load: LoadMeter,
    /// Where group 0 is led.
    loads: Loads,
    moves: Moves,
    held: Held,
    in_sync: InSync,
    leaderless: Leaderless,
    leadership: Leadership,
    refusals: Refusals,
    unled: Unled,
    connections: Connections,
    /// Bytes queued for a client since its send queue was last empty.
    unsent: BTreeMap<ConnId, usize>,
    /// Connections that a reply may have unblocked.
    unblocked: Vec<ConnId>,
    actions: Vec<NetAction>,
    /// Lines for the operator.
    notes: Vec<String>,
    /// Counted in [`Node`] once this shard serves.
    ready: bool,
}

/// What a shard is made of; everything that is not empty at its start.
pub(crate) struct Parts {
    pub(crate) id: ShardId,
    pub(crate) node: Arc<Node>,
    pub(crate) log: ReplicatedLog,
    pub(crate) hosting: Hosting,
    pub(crate) groups: Groups,
    pub(crate) tiers: Tiers,
    pub(crate) metadata: Metadata,
    pub(crate) random: Random,
}

/// Requests of all connections of a shard that may be in memory at once.
const REQUEST_BYTES_MAX: usize = 256 << 20;

impl Shard {
    pub(crate) fn new(parts: Parts, now: Now) -> Self {
        let Parts { id, node, log, hosting, groups, tiers, metadata, random } = parts;
        Self {
            id,
            metrics: Arc::clone(&node.metrics[usize::from(id.get())]),
            now,
            calls: Calls::new(id),
            mailbox: Mailbox::new(id, Arc::clone(&node.switchboard)),
            metadata,
            random,
            hosting,
            reads: Reads::default(),
            groups,
            tiers,
            released_per_turn: compaction::RELEASED_PER_TURN,
            upkeep: Upkeep::new(now.instant),
            rooms: Rooms::default(),
            joining: Joining::default(),
            led_told: None,
            balancer: Balancer::default(),
            load: LoadMeter::default(),
            loads: Loads::default(),
            moves: Moves::default(),
            held: Held::default(),
            in_sync: InSync::default(),
            leaderless: Leaderless::new(now.instant),
            leadership: Leadership::default(),
            refusals: Refusals::default(),
            unled: Unled::default(),
            peers: peers(&node, id, &log, now.instant),
            connections: Connections::new(REQUEST_BYTES_MAX),
            unsent: BTreeMap::new(),
            unblocked: Vec::new(),
            actions: Vec::new(),
            notes: Vec::new(),
            ready: false,
            log,
            node,
        }
    }

    /// A message of another shard, a reply of the object store or more of its own waits.
    pub(crate) fn has_work(&self) -> bool {
        self.mailbox.has_work()
            || self.tiers.has_replies()
            || self.reads.checking.is_some()
            || self.offload_goes_on()
    }

    /// Takes in what other shards and the object store sent.
    pub(crate) fn take_in(&mut self) {
        self.poll_store();
        while let Some(message) = self.mailbox.receive() {
            self.metrics.add(Metric::ShardMessages, 1);
            match message {
                Message::Image(image) => self.install_image(image),
                Message::Request { origin, request } => self.serve_part(origin, request),
                Message::Answer { origin, answer } => api::answered(self, origin, answer),
                Message::Prefer { groups } => self.prefer(groups),
                Message::Load { core, load } => self.hear_load(core, load),
                Message::Cancel { call } => self.reads.watches.cancel(call),
            }
        }
    }

    /// Asks for a part of a call: here, or on the shard that owns it.
    pub(crate) fn ask(&mut self, to: ShardId, origin: Origin, request: PartRequest) {
        if to == self.id {
            self.serve_part(origin, request);
        } else {
            self.mailbox.send(to, Message::Request { origin, request });
        }
    }

    /// Answers a part of a call, on whichever shard the call is.
    pub(crate) fn answer(&mut self, origin: Origin, answer: PartAnswer) {
        if origin.call.shard() == self.id {
            api::answered(self, origin, answer);
        } else {
            self.mailbox.send(origin.call.shard(), Message::Answer { origin, answer });
        }
    }

    /// Tells a shard that a call waits for nothing any more.
    pub(crate) fn cancel(&mut self, at: ShardId, call: CallId) {
        if at == self.id {
            self.reads.watches.cancel(call);
        } else {
            self.mailbox.send(at, Message::Cancel { call });
        }
    }

    fn serve_part(&mut self, origin: Origin, request: PartRequest) {
        match request {
            PartRequest::Append(append) => self.append_in_turn(origin, append),
            PartRequest::Read(read) => self.read(origin, read),
            PartRequest::FindOffset { partition, query } => {
                self.find_offset(origin, partition, query);
            }
            PartRequest::EpochEnd { partition, current, asked } => {
                self.epoch_end(origin, partition, current, asked);
            }
            PartRequest::Group(request) => self.serve_group(origin, *request),
            PartRequest::Command(command) => self.propose_command(origin, &command),
            PartRequest::DeleteRecords { partition, before } => {
                self.delete_records(origin, partition, before);
            }
            PartRequest::DescribeLog => self.describe_log(origin),
            PartRequest::Adopt(adoption) => self.adopt(adoption),
        }
    }

    /// A device read or write finished.
    pub(crate) fn disk_done(&mut self, disk: &mut impl Disk, done: DiskDone) {
        self.log.disk_done(disk, done);
    }

    /// Lets raft and the WAL move on until nothing changes, and answers what became durable.
    pub(crate) fn settle(&mut self, disk: &mut impl Disk) {
        self.fire_deadlines();
        self.start_metadata();
        self.offload_on();
        self.hear_peers();
        loop {
            self.log.pump(disk, self.now.instant, &self.metrics);
            let mut moved = false;
            while let Some(event) = self.log.next_event() {
                self.apply_event(event);
                moved = true;
            }
            moved |= self.serve_unblocked() | self.drain_group_output() | self.moves_on();
            moved |= self.append_held();
            self.send_to_peers();
            if !moved {
                break;
            }
        }
        self.read_on(disk);
        self.become_ready();
    }

    fn apply_event(&mut self, event: LogEvent) {
        match event {
            LogEvent::Committed { group, index } => self.committed(group, index),
            LogEvent::Apply { group, entries } => self.apply(group, entries),
            LogEvent::Truncated { group, from } => self.truncated(group, from),
            LogEvent::Appended { group, index, term, descriptor, payload } => {
                self.appended_elsewhere(group, (index, term), &descriptor, payload);
            }
            LogEvent::Installed { group, index, snapshot } => {
                self.installed(group, index, &snapshot);
            }
            LogEvent::RoleChanged { group, term, leader, .. } => {
                self.role_changed(group, term, leader.and_then(node_of));
            }
            LogEvent::Read { token, payload } => self.read_done(token, payload),
        }
    }

    /// What the operator should know, one line each.
    pub(crate) fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Hands out what is to be done to sockets.
    pub(crate) fn take_actions(&mut self) -> Vec<NetAction> {
        std::mem::take(&mut self.actions)
    }

    /// When this shard has to be called although nothing happened.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.calls.next_deadline(),
            self.connections.next_deadline(),
            self.groups.next_deadline(),
            self.log.next_tick(),
            self.peers.next_deadline(),
            self.unled.next_deadline(),
            self.held.next_deadline(),
            Some(self.upkeep.next_deadline()),
        ];
        deadlines.into_iter().flatten().min()
    }

    fn fire_deadlines(&mut self) {
        let now = self.now.instant;
        self.end_mutes();
        if self.log.tick_if_due(now) {
            self.publish_gauges();
            self.keep_tiers();
            self.register();
            self.repeat_metadata_stored();
            self.control_flow();
            self.keep_leaders();
            self.count_in_sync();
            self.keep_members();
            self.look_for_leaderless();
            self.tell_others();
            self.balance();
            self.share_load();
            self.unseal_what_stays();
        }
        self.tell_unled_in_time();
        self.peers.keep_up(now);
        self.groups_deadline();
        self.keep_up();
        while let Some(call) = self.calls.pop_overdue(now) {
            api::overdue(self, call);
        }
    }

    /// The WAL's failure, after which this shard must stop: nothing more becomes durable.
    pub(crate) fn failure(&self) -> Option<String> {
        self.log.failure()
    }

    /// Has every client of this shard got its answers? Asked when the broker stops.
    pub(crate) fn is_quiet(&self) -> bool {
        self.calls.len() == 0 && self.unsent.is_empty()
    }

    /// Closes the listening side of every connection that owes nothing; for the broker's stop.
    pub(crate) fn close_idle_connections(&mut self) {
        for conn in self.connections.ids() {
            self.actions.push(NetAction::CloseAfterSend { conn });
            self.closed(conn);
        }
    }

    /// Starts the WAL's clean shutdown; true when it is complete.
    pub(crate) fn shut_down(&mut self, disk: &mut impl Disk) -> bool {
        self.log.shut_down(disk)
    }

    fn become_ready(&mut self) {
        let registered = || self.metadata.image().node(self.node.id).is_some();
        if !self.ready && self.metadata.is_ready() && registered() && self.log.all_led() {
            self.ready = true;
            self.node.shard_is_ready();
        }
    }

    fn describe_log(&mut self, origin: Origin) {
        let (capacity, free) = self.log.capacity_and_free();
        let partitions = self.hosting.local_sizes().collect();
        self.answer(origin, PartAnswer::Log(LogUse { capacity, free, partitions }));
    }

    fn publish_gauges(&mut self) {
        let metrics = &self.metrics;
        metrics.set(Metric::RequestsInFlight, self.connections.request_count() as u64);
        metrics.set(Metric::RequestMemoryBytes, self.connections.request_bytes() as u64);
        metrics.set(Metric::Partitions, self.hosting.len() as u64);
        metrics.set(Metric::TailCacheBytes, self.hosting.tail_cache_bytes() as u64);
        self.log.publish_gauges(metrics, self.now.instant);
        self.tiers.publish_gauges(metrics, self.now.instant);
    }
}

/// How a shard meets those of its number on the other brokers.
fn peers(node: &Node, shard: ShardId, log: &ReplicatedLog, now: Instant) -> Peers {
    let own = Hello {
        cluster_id: node.cluster_id,
        from: node.id,
        incarnation: node.incarnation,
        is_new: !log.has_taken_part(),
        process: node.process,
        unix_ms: 0,
        to: node.id,
        shard,
        shard_count: node.shard_count,
        versions: node.peer_versions,
    };
    // Those of the configuration, until the metadata says who is there.
    let others = node.founders().into_iter().filter(|it| *it != node.id);
    let peers = Peers::new(own, others, frame_size_max(log.entry_size_max()), now);
    peers.with_tls(node.peer_tls.clone())
}
