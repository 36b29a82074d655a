//! Brokers that come and go, by the APIs that Kafka has for the voters of its metadata (KIP-853)
//! and for its brokers:
//!
//! ```text
//! AddRaftVoter      a broker may join; or one that drains is to stay
//! RemoveRaftVoter   a broker drains: others take over its copies of groups, of all of them
//! UnregisterBroker  a broker that has no copies belongs to the cluster no more
//! ```
//!
//! In Kafka a voter is a controller, which has a copy of one log; here a broker votes in every
//! group that it has a copy of, and with the first of these calls nothing is copied yet. The first
//! listener is where the first shard of the new broker listens to the other brokers, not where
//! clients connect, which it tells itself when it has joined. Directory ids are not looked at: a
//! broker says which disk it has, and group 0 which of them count (ADR 0011). Any broker takes the
//! calls.
//!
//! A broker that drains and has no copies left is no voter: to remove it is VOTER_NOT_FOUND. So a
//! caller hears that it is done, also of groups that have no partitions yet.

use kafka_wire::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, RemoveRaftVoterRequest, RemoveRaftVoterResponse,
    UnregisterBrokerRequest, UnregisterBrokerResponse,
};
use kafka_wire::{ApiKey, ErrorCode, Request, Response};
use model::NodeId;

use super::topic::Refusal;
use crate::cluster::{Command, Image, NodeState, Outcome};
use crate::config::HostPort;

/// What becomes of one request: refused at once, or one command for group 0.
#[derive(Clone, Debug)]
pub(crate) struct MemberPlan {
    api_key: ApiKey,
    node: NodeId,
    command: Option<Command>,
    /// A command that was never settled has timed out.
    result: Result<(), Refusal>,
}

/// `shard_count`: of each broker, which listens at as many ports; `None` if this one talks to no
/// others.
pub(crate) fn plan(image: &Image, shard_count: Option<u16>, request: &Request) -> MemberPlan {
    let (api_key, node, command) = match request {
        Request::AddRaftVoter(request) => {
            let node = NodeId::new(request.voter_id);
            (ApiKey::AddRaftVoter, node, add(image, shard_count, request))
        }
        Request::RemoveRaftVoter(request) => {
            let node = NodeId::new(request.voter_id);
            (ApiKey::RemoveRaftVoter, node, remove(image, request))
        }
        Request::UnregisterBroker(request) => {
            let node = NodeId::new(request.broker_id.0);
            (ApiKey::UnregisterBroker, node, Ok(unregister(request)))
        }
        _ => unreachable!("the dispatcher sends only requests about members"),
    };
    let (command, result) = match command {
        Ok(command) => (Some(command), Err(Refusal::not_committed(ErrorCode::RequestTimedOut))),
        Err(refusal) => (None, Err(refusal)),
    };
    MemberPlan { api_key, node, command, result }
}

fn add(
    image: &Image,
    shard_count: Option<u16>,
    request: &AddRaftVoterRequest,
) -> Result<Command, Refusal> {
    check_cluster(image, request.cluster_id.as_deref())?;
    let id = u16::try_from(request.voter_id).map_err(|_| {
        Refusal::new(ErrorCode::InvalidRequest, "A broker's number is from 0 to 65535.")
    })?;
    let node = NodeId::new(i32::from(id));
    if image.state_of(node) == NodeState::Draining {
        return Ok(Command::SetNodeState { node, state: NodeState::Serving });
    }
    if image.members().contains(&node) {
        return Err(duplicate(node));
    }
    let shard_count = shard_count.ok_or_else(|| {
        let message = "This broker was started without `nodes`: it talks to no others.";
        Refusal::new(ErrorCode::InvalidRequest, message)
    })?;
    let address = address_in(request, shard_count).ok_or_else(|| {
        let message = "The first listener must be where the first core of the new broker listens \
                       to the other brokers; the next cores listen on the next ports.";
        Refusal::new(ErrorCode::InvalidRequest, message)
    })?;
    Ok(Command::AddNode { node, address })
}

fn address_in(request: &AddRaftVoterRequest, shard_count: u16) -> Option<HostPort> {
    let listener = request.listeners.first()?;
    let given = HostPort::new(&*listener.host, listener.port);
    let address = given.to_string().parse::<HostPort>().ok().filter(|it| it.port > 0)?;
    address.port_plus(shard_count.saturating_sub(1)).map(|_| address)
}

fn remove(image: &Image, request: &RemoveRaftVoterRequest) -> Result<Command, Refusal> {
    check_cluster(image, request.cluster_id.as_deref())?;
    let node = NodeId::new(request.voter_id);
    if image.state_of(node) == NodeState::Draining && !image.has_copies(node) {
        let message = format!("Broker {node} has no copies any more.");
        return Err(Refusal::new(ErrorCode::VoterNotFound, message));
    }
    Ok(Command::SetNodeState { node, state: NodeState::Draining })
}

fn unregister(request: &UnregisterBrokerRequest) -> Command {
    let node = NodeId::new(request.broker_id.0);
    Command::SetNodeState { node, state: NodeState::Removed }
}

fn check_cluster(image: &Image, wanted: Option<&str>) -> Result<(), Refusal> {
    let own = image.cluster_id_text();
    if wanted.is_none_or(|wanted| wanted == own) {
        return Ok(());
    }
    let message = format!("This is cluster {own}.");
    Err(Refusal::new(ErrorCode::InconsistentClusterId, message))
}

fn duplicate(node: NodeId) -> Refusal {
    let message = format!("Broker {node} belongs to the cluster.");
    Refusal::new(ErrorCode::DuplicateVoter, message)
}

impl MemberPlan {
    /// The command to propose, unless the request was refused.
    pub(crate) fn commands(&self) -> Vec<(usize, Command)> {
        self.command.iter().map(|command| (0, command.clone())).collect()
    }

    /// Notes what became of the command, or why it was not proposed or committed.
    pub(crate) fn settle(&mut self, result: Result<&Outcome, ErrorCode>) {
        let node = self.node;
        self.result = match result {
            Ok(Outcome::NodeAdded { .. } | Outcome::NodeStateSet { .. }) => Ok(()),
            Ok(Outcome::NodeExists { .. }) => Err(duplicate(node)),
            Ok(Outcome::NodeUnknown { .. }) => {
                let code = match self.api_key {
                    ApiKey::UnregisterBroker => ErrorCode::BrokerIdNotRegistered,
                    _ => ErrorCode::VoterNotFound,
                };
                Err(Refusal::new(code, format!("The cluster has no broker {node}.")))
            }
            Ok(Outcome::NodeInUse { .. }) => {
                let message = format!("Broker {node} has copies of groups: drain it first.");
                Err(Refusal::new(ErrorCode::InvalidRequest, message))
            }
            Ok(_) => Err(Refusal::unexpected()),
            Err(code) => Err(Refusal::not_committed(code)),
        };
    }

    /// The reply as things stand.
    pub(crate) fn response(&self) -> Response {
        let refusal = self.result.as_ref().err();
        let code = refusal.map_or(ErrorCode::None, |refusal| refusal.code).code();
        let message = refusal.map(Refusal::text);
        match self.api_key {
            ApiKey::AddRaftVoter => Response::AddRaftVoter(
                AddRaftVoterResponse::default().with_error_code(code).with_error_message(message),
            ),
            ApiKey::RemoveRaftVoter => Response::RemoveRaftVoter(
                RemoveRaftVoterResponse::default()
                    .with_error_code(code)
                    .with_error_message(message),
            ),
            _ => Response::UnregisterBroker(
                UnregisterBrokerResponse::default()
                    .with_error_code(code)
                    .with_error_message(message),
            ),
        }
    }
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
