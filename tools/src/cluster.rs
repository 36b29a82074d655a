//! `tailrace cluster status|add|drain|remove|rebalance|move`: administers a cluster over the Kafka
//! protocol, by what any of its brokers answers. How Kafka's APIs are read for that stands in
//! `broker/src/api/membership.rs` and `reassignments.rs`.

mod client;
mod drain;
mod moves;
mod overview;

use std::io::{self, Write};

use kafka_wire::client::ClientError;
use kafka_wire::messages as m;
use kafka_wire::messages::add_raft_voter_request::Listener;
use kafka_wire::{ApiKey, ErrorCode, FrameError, StrBytes};
use model::NodeId;

use self::client::{Client, code_name};
use self::overview::Overview;
use crate::host_port::{HostPort, NodeAddress};

pub use self::drain::{DrainArgs, RemoveArgs};
pub use self::moves::MoveArgs;

/// What a broker gets for a change, in milliseconds; to elect all leaders takes the longest.
const CHANGE_TIMEOUT_MS: i32 = 30_000;

#[derive(Clone, Debug, clap::Subcommand)]
pub enum ClusterCommand {
    /// Show the brokers, what each leads and holds, and partitions that lack something or move.
    Status(ClusterArgs),
    /// Let a broker join.
    Add(AddArgs),
    /// Have the other brokers take over all copies that a broker has, and wait until they did.
    Drain(DrainArgs),
    /// Drain a broker, then take it out of the cluster for good.
    Remove(RemoveArgs),
    /// Have the first replica of each partition lead it, now.
    Rebalance(ClusterArgs),
    /// Have a partition move to other brokers.
    Move(MoveArgs),
}

#[derive(Clone, Debug, clap::Args)]
pub struct ClusterArgs {
    /// A broker of the cluster, where Kafka clients connect.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub bootstrap: HostPort,
}

#[derive(Clone, Debug, clap::Args)]
pub struct AddArgs {
    /// The new broker's number, and where its first core will listen to the other brokers; the
    /// next cores listen on the next ports.
    #[arg(value_name = "ID@HOST:PORT")]
    pub broker: NodeAddress,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Why a cluster was not looked at, or not changed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("cannot reach a broker at {address}: {source}")]
    Unreachable { address: HostPort, source: io::Error },
    #[error("{address} gave no answer: {source}")]
    Silent { address: HostPort, source: io::Error },
    #[error(
        "{address} closed the connection: it is no broker, or has no majority of its cluster to \
         decide that with (`tailrace cluster status` says what it knows)"
    )]
    Closed { address: HostPort },
    #[error("{address} does not answer as a broker does: {source}")]
    Unframed { address: HostPort, source: FrameError },
    #[error("{address} does not answer as a broker does: {source}")]
    Undecodable { address: HostPort, source: ClientError },
    #[error("{address} does not answer as a broker does: to another request than was sent")]
    OutOfOrder { address: HostPort },
    #[error("{address} does not serve {api_key}: it is no broker of Tailrace, or an older one")]
    Unserved { address: HostPort, api_key: ApiKey },
    #[error("cannot {action}: {code}: {message}")]
    Refused { action: String, code: String, message: String },
    #[error("broker {node} is part of the cluster; `drain {node} --cancel` ends a drain")]
    Present { node: NodeId },
    #[error("the cluster has no broker {node}")]
    Unknown { node: NodeId },
    #[error("broker {node} does not drain")]
    NotDraining { node: NodeId },
    #[error("{name} does not move")]
    NotMoving { name: String },
    #[error("no broker but {node} answers: one has to go on without it")]
    Last { node: NodeId },
    #[error("broker {node} drains still: {left}")]
    Undrained { node: NodeId, left: String },
    #[error("{count} partition(s) stay with another leader than their first replica: {reason}")]
    Unbalanced { count: usize, reason: String },
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// A request that the broker did not carry out.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Refusal {
    code: i16,
    message: String,
}

impl ClusterCommand {
    pub fn run(&self, out: &mut dyn Write) -> Result<(), ClusterError> {
        match self {
            Self::Status(args) => status(args, out),
            Self::Add(args) => add(args, out),
            Self::Drain(args) => args.run(out),
            Self::Remove(args) => args.run(out),
            Self::Rebalance(args) => rebalance(args, out),
            Self::Move(args) => args.run(out),
        }
    }
}

impl Refusal {
    fn is(&self, code: ErrorCode) -> bool {
        self.code == code.code()
    }

    fn of(self, action: impl Into<String>) -> ClusterError {
        let code = code_name(self.code);
        ClusterError::Refused { action: action.into(), code, message: self.message }
    }
}

fn status(args: &ClusterArgs, out: &mut dyn Write) -> Result<(), ClusterError> {
    let mut client = Client::connect(&args.bootstrap)?;
    let overview = Overview::of(&client.metadata()?).with_moves(moves::under_way(&mut client)?);
    Ok(overview.print(out)?)
}

fn add(args: &AddArgs, out: &mut dyn Write) -> Result<(), ClusterError> {
    let NodeAddress { node, address } = &args.broker;
    let mut client = Client::connect(&args.cluster.bootstrap)?;
    // The call would end its drain, and that is not what was said.
    if Overview::of(&client.metadata()?).has(*node) {
        return Err(ClusterError::Present { node: *node });
    }
    let listener = Listener::default()
        .with_name(StrBytes::from_static_str("PEER"))
        .with_host(StrBytes::from_string(address.host.clone()))
        .with_port(address.port);
    let request = m::AddRaftVoterRequest::default()
        .with_cluster_id(None)
        .with_timeout_ms(CHANGE_TIMEOUT_MS)
        .with_voter_id(node.get())
        .with_listeners(vec![listener]);
    client.change(&request)?.map_err(|refusal| refusal.of(format!("add broker {node}")))?;
    Ok(writeln!(
        out,
        "broker {node} may join. Its configuration file needs `node-id = {node}`, the `cluster-id` \
         of the others, and `nodes` with all of them and \"{}\"; then start it with\n    tailrace \
         broker --config FILE --join",
        args.broker
    )?)
}

fn rebalance(args: &ClusterArgs, out: &mut dyn Write) -> Result<(), ClusterError> {
    let mut client = Client::connect(&args.bootstrap)?;
    let request = m::ElectLeadersRequest::default()
        .with_topic_partitions(None)
        .with_timeout_ms(CHANGE_TIMEOUT_MS);
    let reply = client.call(&request)?;
    if reply.error_code != ErrorCode::None.code() {
        let refusal = Refusal { code: reply.error_code, message: String::new() };
        return Err(refusal.of("elect leaders"));
    }
    let (moved, stayed) = outcome(&reply);
    writeln!(out, "{moved} partition(s) are led by their first replica now")?;
    match stayed {
        Some((count, reason)) => Err(ClusterError::Unbalanced { count, reason }),
        None => Ok(()),
    }
}

/// How many partitions have another leader than before, and how many should have one, and why the
/// first of these has not.
fn outcome(reply: &m::ElectLeadersResponse) -> (usize, Option<(usize, String)>) {
    let topics = &reply.replica_election_results;
    let results = || topics.iter().flat_map(|topic| &topic.partition_result);
    let is = |code: i16, wanted: ErrorCode| code == wanted.code();
    let moved = results().filter(|it| is(it.error_code, ErrorCode::None)).count();
    let stayed = || {
        results().filter(|it| {
            !is(it.error_code, ErrorCode::None) && !is(it.error_code, ErrorCode::ElectionNotNeeded)
        })
    };
    let reason = stayed().next().map(|first| {
        let message = first.error_message.as_deref().unwrap_or_default();
        format!("{}: {message}", code_name(first.error_code))
    });
    (moved, reason.map(|reason| (stayed().count(), reason)))
}

#[cfg(test)]
mod tests;
