//! Clients: a few records at a time to whoever says that it leads.

use bytes::Bytes;
use model::RaftGroupId;

use crate::checker::Violation;
use crate::cluster::{Cluster, Event};
use crate::{NODES, position};

/// Records that clients send at once at most.
const BURST_MAX: u64 = 5;

pub(crate) fn write(cluster: &mut Cluster) -> Result<(), Violation> {
    let at = cluster.world.now + cluster.random.between(200, cluster.settings.write_interval_max);
    cluster.plan(at, Event::Clients);
    let group = cluster.groups[cluster.random.index(cluster.groups.len())];
    for node in NODES {
        // More than one may believe that it leads; then more than one is asked.
        for _ in 0..cluster.random.between(1, BURST_MAX) {
            propose(cluster, node, group)?;
        }
        cluster.with(node, |node, world, out| node.handle(world, out, |_| ()))?;
    }
    Ok(())
}

/// One record; its index if the node took it. What follows from it is left for the node's next
/// turn.
pub(crate) fn propose(
    cluster: &mut Cluster,
    node: u64,
    group: RaftGroupId,
) -> Result<Option<u64>, Violation> {
    let size = cluster.random.below(cluster.settings.payload_size_max);
    let resident = cluster.random.chance(250);
    let payload = payload(cluster.random.next(), size);
    Ok(cluster.nodes[position(node)].propose(group, resident, payload))
}

/// Bytes that no other record has.
fn payload(unique: u64, size: u64) -> Bytes {
    let length = usize::try_from(size).expect("small").max(size_of::<u64>());
    unique.to_le_bytes().into_iter().cycle().take(length).collect()
}
