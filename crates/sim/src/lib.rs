//! Deterministic simulation, in three scenarios: three voters, the real driver over the real WAL,
//! on disks and a network that fail; one whole broker that offloads to a store that misbehaves
//! (`offload`); and three whole brokers that do, and replicate (`brokers`).
//!
//! One thread, one seed, one clock that only this crate moves: a seed is the whole run, and a
//! repeated run has the same trace. `scenario` says what happens, `checker` what must hold whatever
//! happens.

pub mod brokers;
mod checker;
mod cluster;
pub mod cost;
mod counts;
mod hardware;
mod journal;
mod kafka;
mod log;
mod network;
mod node;
pub mod offload;
mod random;
mod scenario;
mod trace;
mod weather;
mod world;

pub use checker::{Applied, Violation};
pub use scenario::{Failure, Report, run, run_readable};

/// Nodes of a cluster.
const NODE_COUNT: usize = 3;
/// The voters of every group.
const NODES: [u64; NODE_COUNT] = [1, 2, 3];
/// How many copies an acknowledgement stands for.
const MAJORITY: usize = NODE_COUNT / 2 + 1;

/// A planted fault, to show that the checkers see it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bug {
    /// A write is reported as durable when it is handed to the disk.
    EarlyAck,
    /// Hard state reaches the disk before the entries whose commit index it names.
    StateFirst,
    /// An entry's descriptor becomes durable before its payload.
    DescriptorAlone,
}

/// Place of a node in an array.
fn position(node: u64) -> usize {
    usize::try_from(node - 1).expect("nodes are 1, 2 and 3")
}
