//! `tailrace cluster drain|remove`: a broker gives up its copies, and leaves.

use std::io::Write;
use std::time::{Duration, Instant};

use kafka_wire::ErrorCode;
use kafka_wire::messages as m;
use model::NodeId;

use super::client::{Client, sleep};
use super::overview::Overview;
use super::{CHANGE_TIMEOUT_MS, ClusterArgs, ClusterError};

/// Between two looks at what is left.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, clap::Args)]
pub struct DrainArgs {
    /// The broker's number.
    #[arg(value_name = "ID")]
    pub broker: u16,
    /// The broker is to stay after all: it may get copies again.
    #[arg(long, conflicts_with = "timeout")]
    pub cancel: bool,
    #[command(flatten)]
    pub patience: PatienceArgs,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub struct RemoveArgs {
    /// The broker's number.
    #[arg(value_name = "ID")]
    pub broker: u16,
    #[command(flatten)]
    pub patience: PatienceArgs,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub struct PatienceArgs {
    /// How long to wait; the broker goes on draining.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout: u32,
}

/// What was known of a broker when it was asked to drain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asked {
    /// It drains.
    Drains,
    /// It has no copies, or is not there.
    HasNothing,
}

impl DrainArgs {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<(), ClusterError> {
        let node = NodeId::new(i32::from(self.broker));
        let mut client = Client::connect(&self.cluster.bootstrap)?;
        if self.cancel {
            cancel(&mut client, node)?;
            return Ok(writeln!(out, "broker {node} stays")?);
        }
        if ask(&mut client, node)? == Asked::Drains {
            wait(&mut client, node, self.patience.timeout, out)?;
        } else if !Overview::of(&client.metadata()?).has(node) {
            return Err(ClusterError::Unknown { node });
        }
        Ok(writeln!(out, "broker {node} has no copies; `remove {node}` takes it out")?)
    }
}

impl RemoveArgs {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<(), ClusterError> {
        let node = NodeId::new(i32::from(self.broker));
        let mut client = Client::connect(&self.cluster.bootstrap)?;
        if ask(&mut client, node)? == Asked::Drains {
            wait(&mut client, node, self.patience.timeout, out)?;
        }
        // A broker that is taken out hears no more of the metadata: another one is asked.
        let metadata = client.metadata()?;
        if metadata.controller_id.0 == node.get() {
            let overview = Overview::of(&metadata);
            let other = overview.others(node).find_map(|address| Client::connect(address).ok());
            client = other.ok_or(ClusterError::Last { node })?;
        }
        let request = m::UnregisterBrokerRequest::default().with_broker_id(node.get().into());
        client.change(&request)?.map_err(|refusal| refusal.of(format!("remove broker {node}")))?;
        Ok(writeln!(out, "broker {node} is not part of the cluster any more: stop it")?)
    }
}

fn cancel(client: &mut Client, node: NodeId) -> Result<(), ClusterError> {
    // No listener: a broker that is not there is not added by this.
    let request = m::AddRaftVoterRequest::default()
        .with_cluster_id(None)
        .with_timeout_ms(CHANGE_TIMEOUT_MS)
        .with_voter_id(node.get());
    client.change(&request)?.map_err(|refusal| {
        if refusal.is(ErrorCode::DuplicateVoter) || refusal.is(ErrorCode::InvalidRequest) {
            ClusterError::NotDraining { node }
        } else {
            refusal.of(format!("end the drain of broker {node}"))
        }
    })
}

fn ask(client: &mut Client, node: NodeId) -> Result<Asked, ClusterError> {
    let request =
        m::RemoveRaftVoterRequest::default().with_cluster_id(None).with_voter_id(node.get());
    match client.change(&request)? {
        Ok(()) => Ok(Asked::Drains),
        Err(refusal) if refusal.is(ErrorCode::VoterNotFound) => Ok(Asked::HasNothing),
        Err(refusal) => Err(refusal.of(format!("drain broker {node}"))),
    }
}

/// Waits until a broker that drains has no copies, and says how many partitions are left.
fn wait(
    client: &mut Client,
    node: NodeId,
    timeout_seconds: u32,
    out: &mut dyn Write,
) -> Result<(), ClusterError> {
    let deadline = now() + Duration::from_secs(u64::from(timeout_seconds));
    let mut shown = None;
    loop {
        let left = Overview::of(&client.metadata()?).held_by(node);
        if shown != Some(left) {
            writeln!(out, "broker {node}: {left} partition(s) have a copy there")?;
            out.flush()?;
            shown = Some(left);
        }
        // Asked only then: who ends the drain meanwhile is not to be overruled.
        if left == 0 && ask(client, node)? == Asked::HasNothing {
            return Ok(());
        }
        if now() >= deadline {
            let left = match left {
                0 => "copies of groups without partitions are left".to_owned(),
                left => format!("{left} partition(s) have a copy there"),
            };
            return Err(ClusterError::Undrained { node, left });
        }
        sleep(LOOK_INTERVAL);
    }
}

#[expect(clippy::disallowed_methods, reason = "what waits for people has the time of its own")]
fn now() -> Instant {
    Instant::now()
}
