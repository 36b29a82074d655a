//! What the brokers of a cluster have, by its metadata.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use kafka_wire::messages as m;
use kafka_wire::messages::metadata_response::{MetadataResponseBroker, MetadataResponsePartition};
use model::NodeId;

use crate::host_port::HostPort;

/// In place of a leader's number.
const NOBODY: i32 = -1;

#[derive(Debug, Default)]
pub(super) struct Overview {
    brokers: BTreeMap<NodeId, Broker>,
    partition_count: usize,
    /// By name, in order.
    leaderless: BTreeSet<String>,
    /// By name, with the replicas that are away.
    reduced: BTreeMap<String, Vec<NodeId>>,
    /// By name, with the brokers that it goes to.
    moving: BTreeMap<String, Vec<NodeId>>,
}

#[derive(Debug)]
struct Broker {
    address: HostPort,
    rack: Option<String>,
    led: usize,
    held: usize,
}

impl Overview {
    pub(super) fn of(metadata: &m::MetadataResponse) -> Self {
        let brokers = metadata.brokers.iter().map(|it| (node(it.node_id), Broker::of(it)));
        let mut overview = Self { brokers: brokers.collect(), ..Self::default() };
        for topic in &metadata.topics {
            let name = topic.name.as_ref().map_or("", |name| name.as_str());
            for partition in &topic.partitions {
                overview.count(format!("{name}-{}", partition.partition_index), partition);
            }
        }
        overview
    }

    /// The same, with the partitions that move.
    pub(super) fn with_moves(self, moving: BTreeMap<String, Vec<NodeId>>) -> Self {
        Self { moving, ..self }
    }

    fn count(&mut self, name: String, partition: &MetadataResponsePartition) {
        self.partition_count += 1;
        if let Some(leader) = self.brokers.get_mut(&node(partition.leader_id)) {
            leader.led += 1;
        }
        for replica in &partition.replica_nodes {
            if let Some(broker) = self.brokers.get_mut(&node(*replica)) {
                broker.held += 1;
            }
        }
        if partition.leader_id.0 == NOBODY {
            self.leaderless.insert(name.clone());
        }
        if !partition.offline_replicas.is_empty() {
            let away = partition.offline_replicas.iter().copied().map(node).collect();
            self.reduced.insert(name, away);
        }
    }

    /// Is a broker registered?
    pub(super) fn has(&self, node: NodeId) -> bool {
        self.brokers.contains_key(&node)
    }

    /// How many partitions have a replica on a broker.
    pub(super) fn held_by(&self, node: NodeId) -> usize {
        self.brokers.get(&node).map_or(0, |broker| broker.held)
    }

    /// Where the others are.
    pub(super) fn others(&self, node: NodeId) -> impl Iterator<Item = &HostPort> {
        let others = self.brokers.iter().filter(move |(id, _)| **id != node);
        others.map(|(_, broker)| &broker.address)
    }

    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let titles = ["broker", "address", "rack", "leads", "holds"].map(str::to_owned);
        let rows: Vec<_> = std::iter::once(titles)
            .chain(self.brokers.iter().map(|(node, broker)| broker.row(*node)))
            .collect();
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths = [0, 1, 2, 3, 4].map(width);
        for [node, address, rack, led, held] in &rows {
            let [a, b, c, d, e] = widths;
            writeln!(out, "{node:>a$}  {address:b$}  {rack:c$}  {led:>d$}  {held:>e$}")?;
        }
        writeln!(
            out,
            "{} partitions, {} without a leader, {} with replicas that are away, {} that move",
            self.partition_count,
            self.leaderless.len(),
            self.reduced.len(),
            self.moving.len()
        )?;
        for name in &self.leaderless {
            writeln!(out, "{name}: no leader")?;
        }
        for (name, away) in &self.reduced {
            writeln!(out, "{name}: away are {}", listed(away))?;
        }
        for (name, brokers) in &self.moving {
            writeln!(out, "{name}: goes to {}", listed(brokers))?;
        }
        Ok(())
    }
}

impl Broker {
    fn of(listed: &MetadataResponseBroker) -> Self {
        Self {
            address: HostPort::new(
                listed.host.to_string(),
                u16::try_from(listed.port).unwrap_or(0),
            ),
            rack: listed.rack.as_ref().map(|rack| rack.to_string()),
            led: 0,
            held: 0,
        }
    }

    fn row(&self, node: NodeId) -> [String; 5] {
        let rack = self.rack.clone().unwrap_or_else(|| "-".to_owned());
        [
            node.to_string(),
            self.address.to_string(),
            rack,
            self.led.to_string(),
            self.held.to_string(),
        ]
    }
}

fn listed(nodes: &[NodeId]) -> String {
    let nodes: Vec<_> = nodes.iter().map(NodeId::to_string).collect();
    nodes.join(", ")
}

fn node(id: m::BrokerId) -> NodeId {
    NodeId::new(id.0)
}
