use kafka_wire::StrBytes;
use kafka_wire::messages::BrokerId;
use kafka_wire::messages::add_raft_voter_request::Listener;
use model::{LogIndex, RaftGroupId, ShardId};
use uuid::Uuid;

use super::*;
use crate::cluster::{Cluster, Endpoint, Node, Replica, Shape, bootstrap};

const NODES: [NodeId; 3] = [NodeId::new(1), NodeId::new(2), NodeId::new(3)];
const SHARD_COUNT: u16 = 2;

/// A cluster of brokers 1 to 3, each with a copy of all groups.
struct World(Cluster, LogIndex);

impl World {
    fn new() -> Self {
        let mut world = Self(Cluster::new(std::sync::Arc::default()), LogIndex::default());
        let shape = Shape { shard_count: SHARD_COUNT, groups_per_shard: 1 };
        let own = Node { id: NODES[0], endpoints: Vec::new(), rack: None };
        for command in bootstrap(Uuid::from_u128(1), own, &NODES, shape) {
            world.apply(command);
        }
        NODES.into_iter().for_each(|node| world.register(node));
        world
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.1 = self.1.next();
        self.0.apply(self.1, command)
    }

    fn register(&mut self, node: NodeId) {
        let endpoint = Endpoint { broker: node, host: "h".into(), port: 9092, shard: None };
        self.apply(Command::RegisterBroker { node, endpoints: vec![endpoint], rack: None });
    }

    /// Serves a request: the code and the message of its reply.
    fn serve(&mut self, request: &Request) -> (ErrorCode, String) {
        self.serve_by(Some(SHARD_COUNT), request)
    }

    fn serve_by(&mut self, shard_count: Option<u16>, request: &Request) -> (ErrorCode, String) {
        let mut plan = plan(&self.0.image(), shard_count, request);
        for (_, command) in plan.commands() {
            let outcome = self.apply(command);
            plan.settle(Ok(&outcome));
        }
        read(plan.response())
    }

    fn add(&mut self, id: i32, address: (&'static str, u16)) -> (ErrorCode, String) {
        self.serve(&add_request(id, Some(address)))
    }

    fn remove(&mut self, id: i32) -> (ErrorCode, String) {
        self.serve(&remove_request(id))
    }

    fn unregister(&mut self, id: i32) -> (ErrorCode, String) {
        let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(id));
        self.serve(&Request::UnregisterBroker(request))
    }

    fn state(&self, id: i32) -> NodeState {
        self.0.image().state_of(NodeId::new(id))
    }

    /// The groups are to be on these brokers, and are.
    fn settle_on(&mut self, ids: [i32; 3]) {
        for (group, shard) in [(0, 0), (1, 0), (2, 1)] {
            let group = RaftGroupId::new(group);
            let on = |id| Replica { node: NodeId::new(id), shard: ShardId::new(shard) };
            let replicas = ids.map(on).to_vec();
            let set = self.apply(Command::SetReplicas { group, replicas });
            assert_eq!(set, Outcome::ReplicasSet { group });
            let asked = self.0.image().version();
            self.apply(Command::GroupSettled { group, asked });
        }
    }
}

fn add_request(id: i32, address: Option<(&'static str, u16)>) -> Request {
    let listener = |(host, port)| {
        Listener::default().with_host(StrBytes::from_static_str(host)).with_port(port)
    };
    let request = AddRaftVoterRequest::default().with_cluster_id(None).with_voter_id(id);
    Request::AddRaftVoter(request.with_listeners(address.map(listener).into_iter().collect()))
}

fn remove_request(id: i32) -> Request {
    let request = RemoveRaftVoterRequest::default().with_cluster_id(None).with_voter_id(id);
    Request::RemoveRaftVoter(request)
}

fn read(response: Response) -> (ErrorCode, String) {
    let (code, message) = match response {
        Response::AddRaftVoter(reply) => (reply.error_code, reply.error_message),
        Response::RemoveRaftVoter(reply) => (reply.error_code, reply.error_message),
        Response::UnregisterBroker(reply) => (reply.error_code, reply.error_message),
        other => panic!("{other:?}"),
    };
    let message = message.map(|text| text.to_string()).unwrap_or_default();
    (ErrorCode::from_code(code).expect("one of ours"), message)
}

fn done() -> (ErrorCode, String) {
    (ErrorCode::None, String::new())
}

#[test]
fn a_broker_joins_drains_and_leaves() {
    let mut world = World::new();
    assert_eq!(world.add(4, ("h4", 10092)), done());
    let address = HostPort::new("h4", 10092);
    assert_eq!(world.0.image().address_of(NodeId::new(4)), Some(&address));
    world.register(NodeId::new(4));
    world.settle_on([2, 3, 4]);
    world.settle_on([1, 2, 3]);
    assert_eq!(world.remove(4), done(), "it has no copies, but is to get some");
    assert_eq!(world.state(4), NodeState::Draining);
    assert_eq!(world.unregister(4), done());
    assert_eq!(world.state(4), NodeState::Removed);
    assert_eq!(world.add(4, ("h5", 10092)), done(), "another one of that number");
}

#[test]
fn a_broker_with_copies_is_drained_before_it_leaves() {
    let mut world = World::new();
    world.add(4, ("h4", 10092));
    world.register(NodeId::new(4));
    let (code, message) = world.unregister(1);
    assert_eq!(code, ErrorCode::InvalidRequest);
    assert!(message.contains("copies of groups: drain it first"), "{message}");
    assert_eq!(world.remove(1), done());
    assert_eq!(world.remove(1), done(), "it has copies still");
    world.settle_on([2, 3, 4]);
    let (code, message) = world.remove(1);
    assert_eq!(code, ErrorCode::VoterNotFound);
    assert!(message.contains("no copies"), "{message}");
    assert_eq!(world.unregister(1), done());
    for gone in [1, 9] {
        assert_eq!(world.remove(gone).0, ErrorCode::VoterNotFound);
        assert_eq!(world.unregister(gone).0, ErrorCode::BrokerIdNotRegistered);
    }
}

#[test]
fn one_that_drains_may_stay_after_all() {
    let mut world = World::new();
    assert_eq!(world.remove(2), done());
    assert_eq!(world.serve(&add_request(2, None)), done(), "its address is known");
    assert_eq!(world.state(2), NodeState::Serving);
    assert_eq!(world.add(2, ("h2", 10092)).0, ErrorCode::DuplicateVoter);
    assert_eq!(world.add(4, ("h4", 10092)), done());
    assert_eq!(world.add(4, ("h4", 10092)).0, ErrorCode::DuplicateVoter, "it was not there yet");
}

#[test]
fn an_address_has_a_port_for_each_core() {
    let mut world = World::new();
    for address in
        [None, Some(("", 1)), Some(("a b", 1)), Some(("h", 0)), Some(("h", 65535)), Some((":", 1))]
    {
        let (code, message) = world.serve(&add_request(4, address));
        assert_eq!(code, ErrorCode::InvalidRequest, "{address:?}");
        assert!(message.contains("listener"), "{message}");
    }
    for id in [-1, 65536] {
        assert_eq!(world.add(id, ("h", 1)).0, ErrorCode::InvalidRequest);
    }
    assert_eq!(world.add(4, ("::1", 65534)), done());
    let (code, message) = world.serve_by(None, &add_request(5, Some(("h", 1))));
    assert_eq!(code, ErrorCode::InvalidRequest);
    assert!(message.contains("`nodes`"), "{message}");
}

#[test]
fn another_cluster_is_not_meant() {
    let mut world = World::new();
    let own = StrBytes::from_string(world.0.image().cluster_id_text());
    let other = StrBytes::from_static_str("another");
    for (cluster, expected) in [(own, ErrorCode::None), (other, ErrorCode::InconsistentClusterId)] {
        let (mut add, mut remove) = (add_request(4, Some(("h", 1))), remove_request(1));
        if let (Request::AddRaftVoter(add), Request::RemoveRaftVoter(remove)) =
            (&mut add, &mut remove)
        {
            (add.cluster_id, remove.cluster_id) = (Some(cluster.clone()), Some(cluster.clone()));
        }
        assert_eq!(world.serve(&add).0, expected);
        assert_eq!(world.serve(&remove).0, expected);
    }
}

#[test]
fn what_was_not_committed_is_said() {
    let world = World::new();
    let mut plan = plan(&world.0.image(), Some(SHARD_COUNT), &remove_request(1));
    assert_eq!(read(plan.response()).0, ErrorCode::RequestTimedOut);
    plan.settle(Err(ErrorCode::NotController));
    assert_eq!(read(plan.response()).0, ErrorCode::NotController);
}
