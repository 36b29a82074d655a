//! The metrics catalogue: every metric's name, kind, help and unit in one place, one instance of
//! all of them for each shard. Only the owning shard writes; the admin thread reads at any time.

mod histogram;
mod store;

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use s3_uploader::StoreMetrics;

pub(crate) use histogram::Histogram;

/// How Prometheus is told to read a metric.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Counter,
    Gauge,
}

/// Declares the single-number metrics: variant, kind, name, help.
macro_rules! catalogue {
    ($($variant:ident $kind:ident $name:literal $help:literal;)*) => {
        /// A metric that is one number.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(crate) enum Metric { $($variant),* }

        impl Metric {
            const ALL: &'static [(Self, Kind, &'static str, &'static str)] =
                &[$((Self::$variant, Kind::$kind, $name, $help)),*];
        }
    };
}

catalogue! {
    ConnectionsOpen Gauge "tailrace_net_connections"
        "Client connections that are open.";
    ConnectionsAccepted Counter "tailrace_net_connections_accepted_total"
        "Client connections accepted.";
    ConnectionsRefused Counter "tailrace_net_protocol_errors_total"
        "Connections closed for bytes that were no valid request.";
    ConnectionsLetGo Counter "tailrace_net_connections_let_go_total"
        "Connections closed since this broker knew no leader: the client may find one elsewhere.";
    RequestBytes Counter "tailrace_net_received_bytes_total"
        "Bytes received from clients.";
    Requests Counter "tailrace_net_requests_total"
        "Requests decoded.";
    RequestsInFlight Gauge "tailrace_net_requests_in_flight"
        "Requests received and not answered.";
    ProduceRecords Counter "tailrace_produce_records_total"
        "Records appended.";
    ProduceBytes Counter "tailrace_produce_bytes_total"
        "Bytes of record batches appended.";
    ProduceRefused Counter "tailrace_produce_refused_total"
        "Batches refused, whatever the reason.";
    ProduceHeld Counter "tailrace_produce_held_total"
        "Batches that waited until less of their raft group was not committed.";
    Throttles Counter "tailrace_produce_throttles_total"
        "Produce replies that carried a throttle time.";
    FetchBytes Counter "tailrace_fetch_bytes_total"
        "Bytes of record batches sent to consumers.";
    FetchFollowerBytes Counter "tailrace_fetch_follower_bytes_total"
        "Of those, bytes that consumers read here while another broker led.";
    FetchesSentOn Counter "tailrace_fetch_sent_to_followers_total"
        "Partitions of fetches whose consumers were told to read from a replica in their rack.";
    FetchStoredBytes Counter "tailrace_fetch_wal_bytes_total"
        "Bytes of record batches read back from the WAL for consumers.";
    FetchRemoteBytes Counter "tailrace_fetch_object_bytes_total"
        "Bytes of record batches read from the object tier for consumers.";
    FetchRemoteFailures Counter "tailrace_fetch_object_failures_total"
        "Reads of the object tier that failed, or gave back what was not written.";
    OffloadObjects Counter "tailrace_offload_objects_total"
        "Objects of committed records stored.";
    OffloadBytes Counter "tailrace_offload_bytes_total"
        "Bytes of those objects.";
    OffloadFailures Counter "tailrace_offload_failures_total"
        "Attempts to offload that have to be made again.";
    OffloadLagBytes Gauge "tailrace_offload_lag_bytes"
        "Bytes of committed batches that are in no object yet.";
    OffloadLagAge Gauge "tailrace_offload_lag_milliseconds"
        "Time since the oldest of them was committed.";
    SnapshotBytes Gauge "tailrace_raft_snapshot_bytes"
        "Size of the last snapshot of a data group.";
    SnapshotsInstalled Counter "tailrace_raft_snapshots_installed_total"
        "Snapshots of leaders that took the place of a log that was too far behind.";
    HandOvers Counter "tailrace_raft_hand_overs_total"
        "Times that this shard had another broker lead: the preferred one, or for a slow disk.";
    FollowerLag Gauge "tailrace_raft_follower_lag_entries"
        "Entries of logs led here that the voter which is furthest behind does not have durably.";
    CoreBusy Gauge "tailrace_core_busy_thousandths"
        "How much of its time a core worked in the last five seconds: neither slept nor spun.";
    BalancerChanges Counter "tailrace_cluster_balancer_changes_total"
        "Changes of copies and leaders of groups, and moves of partitions, that the balancer made.";
    GroupMoves Counter "tailrace_cluster_group_moves_total"
        "Groups that have the copies that were asked for, counted where group 0 is led.";
    GroupMoveMillis Counter "tailrace_cluster_group_move_milliseconds_total"
        "Time from the request of those until the new members served.";
    PartitionMoves Counter "tailrace_cluster_partition_moves_total"
        "Partitions that came from another group to one that this shard leads.";
    PartitionMovesPutOff Counter "tailrace_cluster_partition_moves_put_off_total"
        "Moves of partitions that took too long, and are tried again.";
    MemberChanges Counter "tailrace_raft_member_changes_total"
        "Changes of who takes part in a raft group, proposed by this shard.";
    LeaderlessGroups Gauge "tailrace_raft_leaderless_groups"
        "Raft groups that nobody leads, for all this broker knows: their partitions take nothing.";
    LearnerGroups Gauge "tailrace_raft_learner_groups"
        "Raft groups in which a disk that replaces a lost one has not its place yet.";
    CatchUpBytes Counter "tailrace_raft_catch_up_bytes_total"
        "Bytes of snapshots and entries received for those groups: what a replacement moves.";
    TierObjects Gauge "tailrace_object_count"
        "Objects that the manifest names, those on their way out included.";
    TierBytes Gauge "tailrace_object_stored_bytes"
        "Bytes of the objects that the manifest names.";
    TierRetired Gauge "tailrace_object_retired_count"
        "Of those objects, the ones that nothing refers to any more: they are deleted in time.";
    TierRetiredBytes Gauge "tailrace_object_retired_bytes"
        "Bytes of the objects that nothing refers to any more.";
    TierObjectsDeleted Counter "tailrace_object_deleted_total"
        "Objects deleted after nothing referred to them.";
    TierOrphansDeleted Counter "tailrace_object_orphans_deleted_total"
        "Objects and manifest files deleted that no manifest, or only an old one, knew of.";
    Merges Counter "tailrace_merge_objects_total"
        "Objects put together from smaller ones.";
    MergedBytes Counter "tailrace_merge_bytes_total"
        "Bytes of record batches in them.";
    MergeFailures Counter "tailrace_merge_failures_total"
        "Merges that could not be made.";
    MergeDebt Gauge "tailrace_merge_debt_bytes"
        "Bytes in extents that are due for a merge.";
    TierEditsVoid Counter "tailrace_object_edits_void_total"
        "Changes of the manifest that another one had made void.";
    Partitions Gauge "tailrace_partition_count"
        "Partitions that this shard owns.";
    TailCacheBytes Gauge "tailrace_memory_tail_cache_bytes"
        "Memory that holds recent batches.";
    RequestMemoryBytes Gauge "tailrace_memory_requests_bytes"
        "Memory that holds requests received and not answered.";
    WalSizeBytes Gauge "tailrace_wal_size_bytes"
        "Bytes that the WAL's ring can hold.";
    WalUsedBytes Gauge "tailrace_wal_used_bytes"
        "Bytes of the WAL's ring that are in use.";
    WalReserveBytes Gauge "tailrace_wal_reserve_bytes"
        "Bytes of the WAL that are kept for when the object store is away.";
    WalReserveFree Gauge "tailrace_wal_reserve_free_bytes"
        "What is left of them.";
    WalReserveSeconds Gauge "tailrace_wal_reserve_seconds"
        "Time until producers are slowed down if nothing is offloaded, at the present rate.";
    WalWriteRate Gauge "tailrace_wal_write_rate_bytes"
        "Bytes a second written to the WAL, as a decaying average of a minute.";
    WalDurableLsn Gauge "tailrace_wal_durable_lsn_bytes"
        "Position up to which the WAL is durable.";
    WalFrames Counter "tailrace_wal_frames_total"
        "Group commits written.";
    WalBytes Counter "tailrace_wal_written_bytes_total"
        "Bytes written to the device, headers and padding included.";
    WalRecords Counter "tailrace_wal_records_total"
        "Records (log entries and states) written.";
    WalVolatileCache Gauge "tailrace_wal_device_volatile_cache_state"
        "1 if group commits carry RWF_DSYNC: the device's write cache is volatile.";
    Elections Counter "tailrace_raft_elections_total"
        "Raft groups that got this shard as their leader.";
    GroupLoadFaults Gauge "tailrace_group_unreadable_records_count"
        "Records of __consumer_offsets that were not understood at start; they change nothing.";
    MetadataVersion Gauge "tailrace_metadata_version_index"
        "Index of the metadata image in use.";
    ShardMessages Counter "tailrace_shard_messages_total"
        "Messages received from other shards.";
}

/// Declares the latency histograms: field, name, help.
macro_rules! latencies {
    ($($field:ident $name:literal $help:literal;)*) => {
        /// All metrics of one shard.
        pub(crate) struct ShardMetrics {
            numbers: [AtomicU64; Metric::ALL.len()],
            $(#[doc = $help] pub(crate) $field: Histogram,)*
        }

        impl ShardMetrics {
            pub(crate) fn new() -> Self {
                Self {
                    numbers: std::array::from_fn(|_| AtomicU64::new(0)),
                    $($field: Histogram::new(),)*
                }
            }

            fn histograms(&self) -> Vec<(&'static str, &'static str, &Histogram)> {
                vec![$(($name, $help, &self.$field)),*]
            }
        }
    };
}

latencies! {
    produce "tailrace_produce_latency_seconds"
        "From a produce request's last byte to its reply, acks=0 left out.";
    fetch "tailrace_fetch_latency_seconds"
        "From a fetch request's last byte to its reply, waiting included.";
    commit "tailrace_raft_commit_latency_seconds"
        "From proposing an entry to its commit.";
    wal_append "tailrace_wal_append_latency_seconds"
        "From giving entries to the WAL to their durability: queue and device.";
    wal_write "tailrace_wal_write_latency_seconds"
        "From handing a frame to the device to its durability.";
    pass "tailrace_core_pass_latency_seconds"
        "What a core takes for what one look at its ring brought, and all that follows from it.";
    moves "tailrace_cluster_partition_move_seconds"
        "From the request that a partition moves to another group until that serves it.";
    sealed "tailrace_cluster_partition_sealed_seconds"
        "Of those moves, how long the partition took no records.";
    metadata "tailrace_metadata_command_latency_seconds"
        "From proposing a metadata command to its application.";
}

impl ShardMetrics {
    pub(crate) fn add(&self, metric: Metric, amount: u64) {
        // One writer: a plain load and store is enough, and costs no locked instruction.
        let cell = &self.numbers[metric as usize];
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    pub(crate) fn set(&self, metric: Metric, value: u64) {
        self.numbers[metric as usize].store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self, metric: Metric) -> u64 {
        self.numbers[metric as usize].load(Ordering::Relaxed)
    }
}

/// The text that Prometheus scrapes (exposition format 0.0.4); `store` with the time since start.
pub(crate) fn render(
    shards: &[impl AsRef<ShardMetrics>],
    store: Option<(&StoreMetrics, Duration)>,
) -> String {
    let mut text = String::new();
    for &(metric, kind, name, help) in Metric::ALL {
        let kind = if kind == Kind::Counter { "counter" } else { "gauge" };
        header(&mut text, name, kind, help);
        for (shard, metrics) in shards.iter().enumerate() {
            let value = metrics.as_ref().get(metric);
            line(&mut text, format_args!("{name}{{shard=\"{shard}\"}} {value}"));
        }
    }
    if let Some((metrics, uptime)) = store {
        store::render(&mut text, metrics, uptime);
    }
    let by_shard: Vec<_> = shards.iter().map(|metrics| metrics.as_ref().histograms()).collect();
    let Some(first) = by_shard.first() else { return text };
    for (position, &(name, help, _)) in first.iter().enumerate() {
        header(&mut text, name, "histogram", help);
        for (shard, histograms) in by_shard.iter().enumerate() {
            histograms[position].2.render(&mut text, name, shard);
        }
    }
    text
}

fn header(text: &mut String, name: &str, kind: &str, help: &str) {
    line(text, format_args!("# HELP {name} {help}"));
    line(text, format_args!("# TYPE {name} {kind}"));
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a string takes any text");
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn catalogue_is_in_order_unique_and_follows_the_naming_rule() {
        let mut names = BTreeSet::new();
        let metrics = ShardMetrics::new();
        let latencies = metrics.histograms();
        let all = Metric::ALL.iter().map(|entry| (entry.2, entry.3));
        for (name, help) in all.chain(latencies.iter().map(|entry| (entry.0, entry.1))) {
            assert!(name.starts_with("tailrace_"), "{name}");
            assert!(help.ends_with('.'), "{name}: help is a sentence");
            assert!(names.insert(name), "{name} twice");
        }
        for (position, entry) in Metric::ALL.iter().enumerate() {
            assert_eq!(entry.0 as usize, position);
            assert_eq!(entry.1 == Kind::Counter, entry.2.ends_with("_total"), "{}", entry.2);
        }
    }

    #[test]
    fn text_has_each_shards_numbers() {
        let shards = [Arc::new(ShardMetrics::new()), Arc::new(ShardMetrics::new())];
        shards[1].add(Metric::ProduceRecords, 7);
        shards[0].produce.record(Duration::from_micros(300));
        let text = render(&shards, None);
        assert!(text.contains("tailrace_produce_records_total{shard=\"1\"} 7\n"), "{text}");
        assert!(text.contains("tailrace_produce_latency_seconds_count{shard=\"0\"} 1\n"), "{text}");
    }
}
