//! What goes wrong: power, network, leadership that moves, logs that are cut short behind a
//! follower's back.

use bytes::Bytes;
use model::LogIndex;

use crate::checker::Violation;
use crate::cluster::{Cluster, Event};
use crate::{NODE_COUNT, NODES, position};

/// Microseconds that a node without power stays down at most.
const OUTAGE_MAX: u64 = 400_000;
/// Entries that compaction leaves behind what is applied at most.
const KEPT_MAX: u64 = 30;

/// One fault; how many nodes lost power.
pub(crate) fn strike(cluster: &mut Cluster) -> Result<usize, Violation> {
    let at = cluster.world.now + cluster.random.between(5_000, cluster.settings.fault_interval_max);
    cluster.plan(at, Event::Fault);
    let node = NODES[cluster.random.index(NODE_COUNT)];
    match cluster.random.below(12) {
        0..=2 => return Ok(outage(cluster, &[node])),
        3 => {
            let struck: Vec<u64> =
                NODES.into_iter().filter(|_| cluster.random.chance(600)).collect();
            return Ok(outage(cluster, &struck));
        }
        4..=5 => {
            cluster.network.partition(250);
            cluster.world.note(0, &[11], || "the network is cut anew".to_owned());
        }
        6 => cluster.network.reconnect(),
        7..=8 => transfer(cluster, node)?,
        _ => compact(cluster, node)?,
    }
    Ok(0)
}

fn outage(cluster: &mut Cluster, nodes: &[u64]) -> usize {
    let mut crashes = 0;
    for node in nodes {
        if cluster.nodes[position(*node)].is_up() {
            cluster.crash(*node);
            crashes += 1;
            let at = cluster.world.now + cluster.random.between(1_000, OUTAGE_MAX);
            cluster.plan(at, Event::Restart { node: *node });
        }
    }
    crashes
}

/// Moves leadership of every group that `to` does not lead.
fn transfer(cluster: &mut Cluster, to: u64) -> Result<(), Violation> {
    for group in cluster.groups.clone() {
        for node in NODES {
            cluster.with(node, |node, world, out| {
                node.handle(world, out, |driver| driver.transfer_leader(group, to))
            })?;
        }
    }
    Ok(())
}

/// Cuts a group's log short on one node.
fn compact(cluster: &mut Cluster, node: u64) -> Result<(), Violation> {
    let group = cluster.groups[cluster.random.index(cluster.groups.len())];
    let kept = cluster.random.below(KEPT_MAX);
    let applied = cluster.world.agreement.position(node, group.get());
    let Some(index) = applied.checked_sub(kept).filter(|index| *index > 0) else { return Ok(()) };
    let snapshot = Bytes::from(cluster.world.snapshot(group.get(), index));
    cluster.with(node, |node, world, out| {
        node.handle(world, out, |driver| {
            // What is already compacted so far is refused, which is as good.
            let _ = driver.compact(group, LogIndex::new(index), snapshot);
        })
    })
}
