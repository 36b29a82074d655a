//! A broker of one shard without threads, sockets or clock, for `crates/sim`: the real shard on a
//! simulated disk. What `core.rs` is to a reactor this is to a simulation.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{NodeId, ShardId};
use s3_uploader::{Client, Manifest, ManifestFile};
use uring::ConnId;
use uuid::Uuid;
use wal_uring::WalOptions;
use wal_uring::sim::SimDisk;

use crate::cluster::Endpoint;
use crate::config::{BrokerSettings, NodeSettings};
use crate::net::NetAction;
use crate::node::Node;
use crate::shard::group_snapshot::GroupSnapshot;
use crate::shard::{Now, Shard};
use crate::shard_thread::{Seeds, recover};

pub use crate::shard::inspect::{Counters, PartitionState};

/// The node id that the disk must be formatted for; it has one slice.
pub const NODE: i32 = 0;
const SHARD: ShardId = ShardId::new(0);

/// What a broker starts from, beside its disk and its store.
#[derive(Clone, Debug)]
pub struct Start {
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
        let Start { cluster_id, settings, wal, seeds: [election, high, low] } = start;
        let settings = NodeSettings { broker: settings, ..NodeSettings::default() };
        let (broker, host) = (NodeId::new(NODE), "simulated".to_owned());
        let endpoints = vec![Endpoint { broker, host, port: 9092, shard: None }];
        let node = Arc::new(Node::new(broker, settings, cluster_id, 1, endpoints));
        let seeds = Seeds { election, ids: [high, low] };
        let recovered = recover(&mut disk, SHARD, &node, wal, seeds);
        let (recovery, mut wal, _) = recovered.map_err(|error| error.to_string())?;
        // The disk's time begins anew with each start.
        assert!(disk.poll(now.micros).is_none(), "nothing is in flight before the first request");
        wal.prepare(&mut disk);
        let epoch = Instant::now();
        let now = at(epoch, now);
        let shard = Shard::new(recovery.into_parts(SHARD, node, store, wal, now), now);
        Ok(Self { shard, disk, epoch, paused: BTreeMap::new(), replies: Vec::new() })
    }

    /// A client connects.
    pub fn connect(&mut self, conn: u32) {
        self.shard.accepted(ConnId::simulated(conn), IpAddr::V4(Ipv4Addr::LOCALHOST));
    }

    /// Bytes of a client arrive.
    pub fn receive(&mut self, conn: u32, bytes: Bytes) {
        match self.paused.get_mut(&conn) {
            Some(waiting) => waiting.push_back(bytes),
            None => self.shard.received(ConnId::simulated(conn), &bytes),
        }
    }

    /// Does all that can be done at this moment; returns what the clients received, in order.
    pub fn turn(&mut self, now: Moment) -> Vec<(u32, Vec<Bytes>)> {
        self.shard.now = at(self.epoch, now);
        loop {
            while let Some(done) = self.disk.poll(now.micros) {
                self.shard.disk_done(&mut self.disk, done);
            }
            self.shard.take_in();
            self.shard.settle(&mut self.disk);
            let actions = self.shard.take_actions();
            let acted = !actions.is_empty();
            for (conn, action) in actions.into_iter().filter_map(by_connection) {
                self.carry_out(conn, action);
            }
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

    /// Leads its groups, with all applied that is in its logs.
    pub fn is_ready(&self) -> bool {
        self.shard.node.all_ready()
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

    pub fn manifest(&self) -> &Manifest {
        self.shard.manifest()
    }

    /// The partitions of all topics, in order.
    pub fn partitions(&self) -> Vec<PartitionState> {
        self.shard.partition_states()
    }

    pub fn counters(&self) -> Counters {
        self.shard.counters()
    }

    /// A planted bug: gives up the log of an object that is stored, before the entry that names it
    /// is committed.
    pub fn trim_early(&mut self) {
        self.shard.trim_early();
    }

    /// A planted bug: deletes what nothing refers to at once, without asking whether the bucket's
    /// newest manifest still names it.
    pub fn delete_unasked(&mut self) {
        self.shard.delete_unasked();
    }

    fn carry_out(&mut self, conn: u32, action: NetAction) {
        match action {
            NetAction::Send { pieces, .. } => {
                self.replies.push((conn, pieces));
                self.shard.sent(ConnId::simulated(conn));
            }
            NetAction::Pause { .. } => {
                self.paused.entry(conn).or_default();
            }
            NetAction::Resume { .. } => {
                for bytes in self.paused.remove(&conn).into_iter().flatten() {
                    self.receive(conn, bytes);
                }
            }
            NetAction::CloseAfterSend { .. } | NetAction::Close { .. } => {
                self.replies.push((conn, Vec::new()));
            }
            NetAction::Dial { .. } => unreachable!("it is alone"),
        }
    }
}

/// The manifest in a file of the bucket, if the file is a data group's.
///
/// # Errors
///
/// The file is damaged.
pub fn manifest_of(file: &ManifestFile) -> Result<Option<Manifest>, String> {
    if file.group != Node::data_group(SHARD) {
        return Ok(None);
    }
    let snapshot = GroupSnapshot::decode(&file.state).map_err(|error| error.to_string())?;
    Ok(Some(snapshot.stored.manifest))
}

fn at(epoch: Instant, moment: Moment) -> Now {
    let instant = epoch + Duration::from_micros(moment.micros);
    Now { instant, unix_ms: moment.unix_ms }
}

fn by_connection(action: NetAction) -> Option<(u32, NetAction)> {
    let conn = match &action {
        NetAction::Send { conn, .. }
        | NetAction::Pause { conn }
        | NetAction::Resume { conn }
        | NetAction::CloseAfterSend { conn }
        | NetAction::Close { conn } => *conn,
        NetAction::Dial { .. } => return None,
    };
    Some((conn.simulated_index()?, action))
}
