//! The end of every run: nothing fails any more, so every group must elect, commit and agree, and after one more
//! power loss everything acknowledged must still be there.

use model::RaftGroupId;
use replication::Role;

use crate::checker::Violation;
use crate::cluster::Cluster;
use crate::scenario::workload;
use crate::{NODES, position};

/// Microseconds that a healed cluster has to elect leaders and catch up.
const SETTLE: u64 = 3_000_000;
/// Microseconds that one more entry has to reach everybody.
const COMMIT: u64 = 1_000_000;

pub(crate) fn come_together(cluster: &mut Cluster) -> Result<(), Violation> {
    cluster.heal()?;
    pass(cluster, SETTLE)?;
    let mut expected = Vec::new();
    for group in cluster.groups.clone() {
        let leader = leader_of(cluster, group).ok_or(Violation::NoLeader { group: group.get() })?;
        let index = workload::propose(cluster, leader, group)?;
        let index = index.ok_or(Violation::NoLeader { group: group.get() })?;
        cluster.with(leader, |node, world, out| node.handle(world, out, |_| ()))?;
        expected.push((group.get(), index));
    }
    pass(cluster, COMMIT)?;
    for (group, expected) in expected {
        for node in NODES {
            let applied = cluster.world.agreement.position(node, group);
            if applied < expected {
                return Err(Violation::Stuck { node, group, applied, expected });
            }
        }
    }
    cluster.world.durability.all_there()?;
    NODES.iter().for_each(|node| cluster.crash(*node));
    NODES.iter().try_for_each(|node| cluster.start(*node))
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
