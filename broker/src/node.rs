//! What all shards of a broker share: settings that never change while it runs, and numbers that
//! are read without waiting.

use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use model::{LeaderEpoch, LogIndex, NodeId, RaftGroupId, ShardId, Term};
use s3_uploader::StoreMetrics;
use uuid::Uuid;

use crate::cluster::{Endpoint, GROUPS_MAX, Shape};
use crate::config::NodeSettings;
use crate::data_dir::wal_path;
use crate::metrics::ShardMetrics;
use crate::partition::leader_epoch;
use crate::peer::dialer::Dialer;
use crate::peer::hello::VERSIONS;
use crate::peer::tls::credentials::Credentials;
use crate::shard::mailbox::Switchboard;
use crate::voter::voter;

/// Who a broker is, as it stands in its WAL.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) cluster_id: Uuid,
    pub(crate) node: NodeId,
    /// Of its disk: 0 for its first, another number for each that replaces a lost one.
    pub(crate) incarnation: u32,
}

/// One broker process.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// See [`Identity`].
    pub(crate) incarnation: u32,
    pub(crate) settings: NodeSettings,
    pub(crate) cluster_id: Uuid,
    pub(crate) shard_count: u16,
    /// The WAL's file or device, by its absolute path: what Kafka's tools call a log directory.
    pub(crate) log_dir: String,
    /// One for the whole broker, or one for each shard with `--shard-listeners`.
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) switchboard: Arc<Switchboard>,
    /// By shard.
    pub(crate) metrics: Vec<Arc<ShardMetrics>>,
    /// By raft group: who leads it in which term, as [`pack`] has it; 0 if nobody is known to.
    leaders: Vec<AtomicU64>,
    /// By chance: tells this process from another one that says it is the same node.
    pub(crate) process: u64,
    /// The oldest and the newest version of the protocol between brokers that this one speaks.
    pub(crate) peer_versions: (u16, u16),
    /// For TLS on the connections to other brokers, which are plain without.
    pub(crate) peer_tls: Option<Arc<Credentials>>,
    /// Connects to the other brokers, where there are some.
    dialer: OnceLock<Dialer>,
    /// The metadata in the object store contains the commands up to here.
    metadata_stored: AtomicU64,
    /// Of the object store's thread, once it runs.
    store_metrics: OnceLock<(Arc<StoreMetrics>, Instant)>,
    ready_count: AtomicUsize,
    stopping: AtomicBool,
}

impl Node {
    pub(crate) fn new(
        identity: Identity,
        settings: NodeSettings,
        shard_count: u16,
        endpoints: Vec<Endpoint>,
        process: u64,
    ) -> Self {
        Self {
            id: identity.node,
            incarnation: identity.incarnation,
            log_dir: log_dir(&settings),
            settings,
            cluster_id: identity.cluster_id,
            shard_count,
            endpoints,
            switchboard: Switchboard::new(shard_count),
            metrics: (0..shard_count).map(|_| Arc::new(ShardMetrics::new())).collect(),
            leaders: (0..GROUPS_MAX).map(|_| AtomicU64::new(0)).collect(),
            process,
            peer_versions: VERSIONS,
            peer_tls: None,
            dialer: OnceLock::new(),
            metadata_stored: AtomicU64::new(0),
            store_metrics: OnceLock::new(),
            ready_count: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        }
    }

    /// This broker's number among the members of its groups.
    pub(crate) fn voter(&self) -> u64 {
        voter(self.id, self.incarnation)
    }

    /// The data groups of a shard whose WAL is new: one for each broker that may lead it, unless it
    /// was set otherwise.
    pub(crate) fn new_groups(&self, shard: ShardId) -> Vec<RaftGroupId> {
        let by_default = || u16::try_from(self.founders().len()).unwrap_or(1);
        let set = self.settings.data_groups_per_core.map(NonZeroU16::get);
        let groups_per_shard = set.unwrap_or_else(by_default);
        Shape { shard_count: self.shard_count, groups_per_shard }.groups_of(shard)
    }

    /// The broker id that a shard's clients are connected to.
    pub(crate) fn broker_of(&self, shard: ShardId) -> NodeId {
        let own = self.endpoints.iter().find(|endpoint| endpoint.shard == Some(shard));
        own.or_else(|| self.endpoints.first()).map_or(self.id, |endpoint| endpoint.broker)
    }

    /// The brokers that the configuration names, this one included, in order: those that a new
    /// cluster begins with. Later the metadata image says who is there.
    pub(crate) fn founders(&self) -> Vec<NodeId> {
        let mut nodes: Vec<_> = self.settings.nodes.keys().copied().collect();
        if nodes.is_empty() {
            nodes.push(self.id);
        }
        nodes
    }

    /// May this broker be one of several? It listens to others then.
    pub(crate) fn has_peers(&self) -> bool {
        !self.settings.nodes.is_empty()
    }

    pub(crate) fn set_dialer(&self, dialer: Dialer) {
        assert!(self.dialer.set(dialer).is_ok(), "a broker has one dialer");
    }

    pub(crate) fn dialer(&self) -> Option<&Dialer> {
        self.dialer.get()
    }

    /// Who leads a group, and Kafka's leader epoch of its partitions, which is the raft term
    /// (DESIGN, section 5).
    pub(crate) fn leader(&self, group: RaftGroupId) -> Option<(NodeId, LeaderEpoch)> {
        let cell = usize::try_from(group.get()).ok().and_then(|at| self.leaders.get(at))?;
        unpack(cell.load(Ordering::Acquire))
    }

    /// The epoch of a group's leader; `NONE` if nobody is known to lead.
    pub(crate) fn leader_epoch(&self, group: RaftGroupId) -> LeaderEpoch {
        self.leader(group).map_or(LeaderEpoch::NONE, |(_, epoch)| epoch)
    }

    /// Written by the shard that hosts the group, or by that of its number if this broker has no
    /// copy.
    pub(crate) fn set_leader(&self, group: RaftGroupId, leader: Option<NodeId>, term: Term) {
        if let Some(cell) = usize::try_from(group.get()).ok().and_then(|at| self.leaders.get(at)) {
            cell.store(leader.map_or(0, |node| pack(node, leader_epoch(term))), Ordering::Release);
        }
    }

    /// The metadata in the object store contains the commands up to here.
    pub(crate) fn metadata_stored(&self) -> LogIndex {
        LogIndex::new(self.metadata_stored.load(Ordering::Acquire))
    }

    /// Written by the shard that hosts group 0.
    pub(crate) fn set_metadata_stored(&self, upto: LogIndex) {
        // The word of one that led before may be late.
        self.metadata_stored.fetch_max(upto.get(), Ordering::AcqRel);
    }

    /// What the object store was asked, and for how long it was.
    pub(crate) fn store_metrics(&self) -> Option<(&StoreMetrics, Duration)> {
        self.store_metrics.get().map(|(metrics, since)| (metrics.as_ref(), since.elapsed()))
    }

    pub(crate) fn set_store_metrics(&self, metrics: Arc<StoreMetrics>, now: Instant) {
        assert!(self.store_metrics.set((metrics, now)).is_ok(), "a broker has one store");
    }

    /// A shard serves: its groups lead and its log is applied.
    pub(crate) fn shard_is_ready(&self) {
        self.ready_count.fetch_add(1, Ordering::AcqRel);
        self.switchboard.wake_all();
    }

    pub(crate) fn all_ready(&self) -> bool {
        self.ready_count.load(Ordering::Acquire) >= usize::from(self.shard_count)
    }

    /// Asks every shard to finish what is under way and stop.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.switchboard.wake_all();
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(crate) fn healthy(&self) -> bool {
        self.all_ready() && !self.stopping()
    }
}

fn log_dir(settings: &NodeSettings) -> String {
    let path = wal_path(&settings.data_dir, settings.wal.as_deref());
    std::path::absolute(&path).unwrap_or(path).display().to_string()
}

/// A leader as one number: its node in the upper half, counted from 1, and the epoch in the lower.
fn pack(node: NodeId, epoch: LeaderEpoch) -> u64 {
    let half = |number: i32| u64::from(u32::try_from(number).unwrap_or_default());
    half(node.get().saturating_add(1)) << 32 | half(epoch.get())
}

fn unpack(packed: u64) -> Option<(NodeId, LeaderEpoch)> {
    let half = |bits: u64| i32::try_from(bits & u64::from(u32::MAX)).ok();
    let node = half(packed >> 32)?.checked_sub(1).filter(|node| *node >= 0)?;
    Some((NodeId::new(node), LeaderEpoch::new(half(packed)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_fits_into_one_number() {
        for (node, epoch) in [(0, 0), (0, i32::MAX), (7, 3), (i32::MAX - 1, i32::MAX)] {
            let leader = (NodeId::new(node), LeaderEpoch::new(epoch));
            assert_eq!(unpack(pack(leader.0, leader.1)), Some(leader));
        }
        assert_eq!(unpack(0), None);
    }
}
