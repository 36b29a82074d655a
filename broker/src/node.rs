//! What all shards of a broker share: settings that never change while it runs, and numbers that
//! are read without waiting.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use model::{LeaderEpoch, LogIndex, NodeId, RaftGroupId, ShardId};
use s3_uploader::StoreMetrics;
use uuid::Uuid;

use crate::cluster::Endpoint;
use crate::config::NodeSettings;
use crate::metrics::ShardMetrics;
use crate::shard::mailbox::Switchboard;

/// One broker process.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) settings: NodeSettings,
    pub(crate) cluster_id: Uuid,
    pub(crate) shard_count: u16,
    /// One for the whole broker, or one for each shard with `--shard-listeners`.
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) switchboard: Arc<Switchboard>,
    /// By shard.
    pub(crate) metrics: Vec<Arc<ShardMetrics>>,
    /// By raft group: the term in which this broker leads it, or -1.
    leader_epochs: Vec<AtomicI32>,
    /// The metadata in the object store contains the commands up to here.
    metadata_stored: AtomicU64,
    /// Of the object store's thread, once it runs.
    store_metrics: OnceLock<(Arc<StoreMetrics>, Instant)>,
    ready_count: AtomicUsize,
    stopping: AtomicBool,
}

impl Node {
    pub(crate) fn new(
        id: NodeId,
        settings: NodeSettings,
        cluster_id: Uuid,
        shard_count: u16,
        endpoints: Vec<Endpoint>,
    ) -> Self {
        Self {
            id,
            settings,
            cluster_id,
            shard_count,
            endpoints,
            switchboard: Switchboard::new(shard_count),
            metrics: (0..shard_count).map(|_| Arc::new(ShardMetrics::new())).collect(),
            leader_epochs: (0..=shard_count).map(|_| AtomicI32::new(-1)).collect(),
            metadata_stored: AtomicU64::new(0),
            store_metrics: OnceLock::new(),
            ready_count: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        }
    }

    /// The data group that a shard hosts. Group 0 is the metadata group, on shard 0.
    pub(crate) fn data_group(shard: ShardId) -> RaftGroupId {
        RaftGroupId::new(u64::from(shard.get()) + 1)
    }

    /// The broker id that a shard's clients are connected to.
    pub(crate) fn broker_of(&self, shard: ShardId) -> NodeId {
        let own = self.endpoints.iter().find(|endpoint| endpoint.shard == Some(shard));
        own.or_else(|| self.endpoints.first()).map_or(self.id, |endpoint| endpoint.broker)
    }

    /// Kafka's leader epoch of a group's partitions, which is the raft term (DESIGN, section 5).
    pub(crate) fn leader_epoch(&self, group: RaftGroupId) -> LeaderEpoch {
        let cell = usize::try_from(group.get()).ok().and_then(|at| self.leader_epochs.get(at));
        cell.map_or(LeaderEpoch::NONE, |cell| LeaderEpoch::new(cell.load(Ordering::Acquire)))
    }

    /// Written by the shard that hosts the group.
    pub(crate) fn set_leader_epoch(&self, group: RaftGroupId, epoch: LeaderEpoch) {
        if let Some(cell) =
            usize::try_from(group.get()).ok().and_then(|at| self.leader_epochs.get(at))
        {
            cell.store(epoch.get(), Ordering::Release);
        }
    }

    /// The metadata in the object store contains the commands up to here.
    pub(crate) fn metadata_stored(&self) -> LogIndex {
        LogIndex::new(self.metadata_stored.load(Ordering::Acquire))
    }

    /// Written by the shard that hosts group 0.
    pub(crate) fn set_metadata_stored(&self, upto: LogIndex) {
        self.metadata_stored.store(upto.get(), Ordering::Release);
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
