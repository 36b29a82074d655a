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
    let result = commit_everywhere(cluster);
    if result.is_err() {
        cluster.tell_state();
    }
    result?;
    cluster.world.durability.all_there()?;
    NODES.iter().for_each(|node| cluster.crash(*node));
    NODES.iter().try_for_each(|node| cluster.start(*node))
}

/// Every group commits one more entry, and every node applies it.
fn commit_everywhere(cluster: &mut Cluster) -> Result<(), Violation> {
    let mut expected = Vec::new();
    for group in cluster.groups.clone() {
        let end = cluster.world.now + ELECTION;
        let index = loop {
            // One whose WAL is being relieved takes nothing for a moment.
            if let Some(index) = propose(cluster, group)? {
                break index;
            } else if cluster.world.now >= end {
                return Err(Violation::NoLeader { group: group.get() });
            }
            pass(cluster, STEP)?;
        };
        expected.push((group.get(), index));
    }
    let end = cluster.world.now + CATCH_UP_MAX;
    while let Some(behind) = behind(cluster, &expected) {
        if cluster.world.now >= end {
            return Err(behind);
        }
        pass(cluster, STEP)?;
    }
    Ok(())
}

/// Has the leader of a group, if there is one, write an entry.
fn propose(cluster: &mut Cluster, group: RaftGroupId) -> Result<Option<u64>, Violation> {
    let Some(leader) = leader_of(cluster, group) else { return Ok(None) };
    let index = workload::propose(cluster, leader, group)?;
    cluster.with(leader, |node, world, out| node.handle(world, out, |_| ()))?;
    Ok(index)
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
