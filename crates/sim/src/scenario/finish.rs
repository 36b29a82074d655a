//! The end of every run: nothing fails any more, so every group must elect, commit and agree, and
//! after one more power loss everything acknowledged must still be there.

use model::RaftGroupId;
use replication::Role;

use crate::checker::Violation;
use crate::cluster::Cluster;
use crate::scenario::workload;
use crate::{NODES, position};

/// Microseconds in which a healed cluster elects leaders.
const ELECTION: u64 = 3_000_000;
/// Microseconds in which it also brings the last of its nodes up to date: its disk may be slow, and
/// far behind.
const CATCH_UP_MAX: u64 = 60_000_000;
/// Microseconds from one look to the next.
const STEP: u64 = 250_000;

pub(crate) fn come_together(cluster: &mut Cluster) -> Result<(), Violation> {
    cluster.heal()?;
    pass(cluster, ELECTION)?;
    let mut expected = Vec::new();
    for group in cluster.groups.clone() {
        let leader =
            leader_of(cluster, group).ok_or_else(|| Violation::NoLeader { group: group.get() })?;
        let index = workload::propose(cluster, leader, group)?;
        let index = index.ok_or_else(|| Violation::NoLeader { group: group.get() })?;
        cluster.with(leader, |node, world, out| node.handle(world, out, |_| ()))?;
        expected.push((group.get(), index));
    }
    let end = cluster.world.now + CATCH_UP_MAX;
    while let Some(behind) = behind(cluster, &expected) {
        if cluster.world.now >= end {
            return Err(behind);
        }
        pass(cluster, STEP)?;
    }
    cluster.world.durability.all_there()?;
    NODES.iter().for_each(|node| cluster.crash(*node));
    NODES.iter().try_for_each(|node| cluster.start(*node))
}

/// The first node that has not applied what was proposed last.
fn behind(cluster: &Cluster, expected: &[(u64, u64)]) -> Option<Violation> {
    for (group, expected) in expected.iter().copied() {
        for node in NODES {
            let applied = cluster.world.agreement.position(node, group);
            if applied < expected {
                return Some(Violation::Stuck { node, group, applied, expected });
            }
        }
    }
    None
}

/// Lets everything happen that is due within `duration` microseconds.
fn pass(cluster: &mut Cluster, duration: u64) -> Result<(), Violation> {
    let end = cluster.world.now + duration;
    while let Some(event) = cluster.next(end) {
        cluster.handle(event)?;
    }
    cluster.world.now = end;
    Ok(())
}

fn leader_of(cluster: &Cluster, group: RaftGroupId) -> Option<u64> {
    NODES.into_iter().find(|node| {
        let driver = cluster.nodes[position(*node)].driver();
        driver.is_some_and(|driver| driver.role(group) == Role::Leader)
    })
}
