//! Changes to the cluster, as entries of raft group 0.
//! Normative: `docs/formats/metadata-command.md`.
//!
//! A command carries everything that was decided when it was proposed (ids, placement), so that
//! applying it needs no clock, no randomness and no settings.

use std::collections::BTreeMap;

use model::{LogIndex, NodeId, RaftGroupId, ShardId};
use uuid::Uuid;

use super::membership::NodeState;
use crate::codec::{DecodeError, Reader, Writer};
use crate::config::HostPort;

const VERSION: u8 = 1;
/// Of a registration that names a rack; one that names none is of version 1, as all else is.
const VERSION_WITH_RACK: u8 = 2;

/// A change to the cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    /// Names the cluster, once; later ones change nothing.
    InitializeCluster {
        cluster_id: Uuid,
    },
    /// Tells how a node is reached; replaces what it told before.
    RegisterBroker {
        node: NodeId,
        endpoints: Vec<Endpoint>,
        /// Where it stands, if that was said.
        rack: Option<String>,
    },
    /// Adds a raft group.
    CreateGroup {
        group: RaftGroupId,
        replicas: Vec<Replica>,
    },
    /// Adds a raft group with the next free number, unless there is one with these replicas.
    EnsureGroup {
        replicas: Vec<Replica>,
    },
    CreateTopic(NewTopic),
    DeleteTopic {
        topic_id: Uuid,
    },
    /// Reserves a block of producer ids for one node.
    AllocateProducerIds {
        node: NodeId,
        count: u32,
    },
    /// A node has lost its disk and has another: the one before never counts again.
    ReplaceDisk {
        node: NodeId,
        incarnation: u32,
    },
    /// A broker that the cluster did not begin with may join it.
    AddNode {
        node: NodeId,
        /// Where its first shard listens to the others; the next shards listen on the next ports.
        address: HostPort,
    },
    SetNodeState {
        node: NodeId,
        state: NodeState,
    },
    /// Says who is to have the copies of a group, the preferred leader first.
    SetReplicas {
        group: RaftGroupId,
        replicas: Vec<Replica>,
    },
    /// The members of a group are those that were asked for: who has left may forget it.
    GroupSettled {
        group: RaftGroupId,
        /// The entry of group 0 that asked for them: another one may have followed.
        asked: LogIndex,
    },
    /// A partition is to move to another group; to the one that has it, to stay there.
    MovePartition {
        topic_id: Uuid,
        index: u32,
        to: RaftGroupId,
        /// Only in place of the move that this entry of group 0 asked for; 0: whatever is under
        /// way.
        replaces: LogIndex,
    },
    /// The group that a partition moves to has adopted it.
    PartitionArrived {
        topic_id: Uuid,
        index: u32,
        /// The entry of group 0 that asked for the move: another one may have followed.
        id: LogIndex,
        /// What is added to that group's term: the partition's leader epochs never go back.
        epoch_base: u32,
        /// The entry of that group's log that adopted it.
        arrived: LogIndex,
    },
    /// What is set on a topic is to be something else.
    SetTopicConfigs {
        topic_id: Uuid,
        /// Only if this is what is set: of two that change it at once, the second one starts anew
        /// from what the first one made of it, and neither is lost.
        from: BTreeMap<String, String>,
        to: BTreeMap<String, String>,
    },
}

/// An address that clients connect to, listed as a broker of its own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// The broker id that Metadata lists.
    pub broker: NodeId,
    pub host: String,
    pub port: u16,
    /// With shard listeners, the shard that is reached; None is all shards of the node.
    pub shard: Option<ShardId>,
}

/// A copy of a raft group: the node and the shard that run it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Replica {
    pub node: NodeId,
    pub shard: ShardId,
}

/// A topic to create; made by a `Planner`, which has checked it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewTopic {
    pub name: String,
    pub topic_id: Uuid,
    /// The broker keeps its own state in it.
    pub internal: bool,
    /// The raft group of each partition, partition 0 first.
    pub placement: Vec<RaftGroupId>,
    /// What was set on the topic, as given.
    pub configs: BTreeMap<String, String>,
}

impl Command {
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        let has_rack = matches!(self, Self::RegisterBroker { rack: Some(_), .. });
        writer.u8(if has_rack { VERSION_WITH_RACK } else { VERSION });
        writer.u8(self.kind());
        match self {
            Self::InitializeCluster { cluster_id } => writer.uuid(*cluster_id),
            Self::RegisterBroker { node, endpoints, rack } => {
                writer.i32(node.get());
                write_endpoints(&mut writer, endpoints);
                rack.iter().for_each(|rack| writer.text(rack));
            }
            Self::CreateGroup { group, replicas } | Self::SetReplicas { group, replicas } => {
                writer.u64(group.get());
                write_replicas(&mut writer, replicas);
            }
            Self::EnsureGroup { replicas } => write_replicas(&mut writer, replicas),
            Self::CreateTopic(topic) => write_topic(&mut writer, topic),
            Self::DeleteTopic { topic_id } => writer.uuid(*topic_id),
            Self::AllocateProducerIds { node, count } => {
                writer.i32(node.get());
                writer.u32(*count);
            }
            Self::ReplaceDisk { node, incarnation } => {
                writer.i32(node.get());
                writer.u32(*incarnation);
            }
            Self::AddNode { node, address } => {
                writer.i32(node.get());
                write_address(&mut writer, address);
            }
            Self::SetNodeState { node, state } => {
                writer.i32(node.get());
                writer.u8(state.code());
            }
            Self::GroupSettled { group, asked } => {
                writer.u64(group.get());
                writer.u64(asked.get());
            }
            Self::MovePartition { topic_id, index, to, replaces } => {
                writer.uuid(*topic_id);
                writer.u32(*index);
                writer.u64(to.get());
                writer.u64(replaces.get());
            }
            Self::PartitionArrived { topic_id, index, id, epoch_base, arrived } => {
                writer.uuid(*topic_id);
                writer.u32(*index);
                writer.u64(id.get());
                writer.u32(*epoch_base);
                writer.u64(arrived.get());
            }
            Self::SetTopicConfigs { topic_id, from, to } => {
                writer.uuid(*topic_id);
                write_configs(&mut writer, from);
                write_configs(&mut writer, to);
            }
        }
        writer.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("version")?;
        if ![VERSION, VERSION_WITH_RACK].contains(&version) {
            return Err(DecodeError::Version { found: version });
        }
        let command = match reader.u8("kind")? {
            kind if version == VERSION_WITH_RACK && kind != 2 => {
                return Err(DecodeError::Version { found: version });
            }
            1 => Self::InitializeCluster { cluster_id: reader.uuid("cluster id")? },
            2 => Self::RegisterBroker {
                node: NodeId::new(reader.i32("node")?),
                endpoints: read_endpoints(&mut reader)?,
                rack: match version {
                    VERSION_WITH_RACK => Some(read_rack(&mut reader)?),
                    _ => None,
                },
            },
            3 => Self::CreateGroup {
                group: RaftGroupId::new(reader.u64("group")?),
                replicas: read_replicas(&mut reader)?,
            },
            4 => Self::CreateTopic(read_topic(&mut reader)?),
            5 => Self::DeleteTopic { topic_id: reader.uuid("topic id")? },
            6 => Self::AllocateProducerIds {
                node: NodeId::new(reader.i32("node")?),
                count: reader.u32("count")?,
            },
            7 => Self::ReplaceDisk {
                node: NodeId::new(reader.i32("node")?),
                incarnation: reader.u32("incarnation")?,
            },
            kind => Self::decode_change(kind, &mut reader)?,
        };
        reader.finish()?;
        Ok(command)
    }

    /// What changes while the cluster runs: who belongs to it, where copies and partitions are, and
    /// what topics are set to.
    fn decode_change(kind: u8, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match kind {
            8 => Self::AddNode {
                node: NodeId::new(reader.i32("node")?),
                address: read_address(reader)?,
            },
            9 => Self::SetNodeState {
                node: NodeId::new(reader.i32("node")?),
                state: read_state(reader)?,
            },
            10 => Self::SetReplicas {
                group: RaftGroupId::new(reader.u64("group")?),
                replicas: read_replicas(reader)?,
            },
            11 => Self::GroupSettled {
                group: RaftGroupId::new(reader.u64("group")?),
                asked: LogIndex::new(reader.u64("asked")?),
            },
            12 => Self::MovePartition {
                topic_id: reader.uuid("topic id")?,
                index: reader.u32("partition's index")?,
                to: RaftGroupId::new(reader.u64("group")?),
                replaces: LogIndex::new(reader.u64("replaced move")?),
            },
            13 => Self::PartitionArrived {
                topic_id: reader.uuid("topic id")?,
                index: reader.u32("partition's index")?,
                id: LogIndex::new(reader.u64("move")?),
                epoch_base: reader.u32("epoch base")?,
                arrived: LogIndex::new(reader.u64("arrived")?),
            },
            14 => Self::SetTopicConfigs {
                topic_id: reader.uuid("topic id")?,
                from: read_configs(reader)?,
                to: read_configs(reader)?,
            },
            15 => Self::EnsureGroup { replicas: read_replicas(reader)? },
            found => return Err(DecodeError::Kind { found }),
        })
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::InitializeCluster { .. } => 1,
            Self::RegisterBroker { .. } => 2,
            Self::CreateGroup { .. } => 3,
            Self::CreateTopic(_) => 4,
            Self::DeleteTopic { .. } => 5,
            Self::AllocateProducerIds { .. } => 6,
            Self::ReplaceDisk { .. } => 7,
            Self::AddNode { .. } => 8,
            Self::SetNodeState { .. } => 9,
            Self::SetReplicas { .. } => 10,
            Self::GroupSettled { .. } => 11,
            Self::MovePartition { .. } => 12,
            Self::PartitionArrived { .. } => 13,
            Self::SetTopicConfigs { .. } => 14,
            Self::EnsureGroup { .. } => 15,
        }
    }
}

pub(super) fn write_endpoints(writer: &mut Writer, endpoints: &[Endpoint]) {
    writer.count(endpoints.len());
    for endpoint in endpoints {
        writer.i32(endpoint.broker.get());
        writer.text(&endpoint.host);
        writer.u16(endpoint.port);
        writer.flag(endpoint.shard.is_some());
        if let Some(shard) = endpoint.shard {
            writer.u16(shard.get());
        }
    }
}

pub(super) fn read_endpoints(reader: &mut Reader<'_>) -> Result<Vec<Endpoint>, DecodeError> {
    reader.list("endpoints", |reader| {
        Ok(Endpoint {
            broker: NodeId::new(reader.i32("broker")?),
            host: reader.text("host")?.to_owned(),
            port: reader.u16("port")?,
            shard: if reader.flag("has shard")? {
                Some(ShardId::new(reader.u16("shard")?))
            } else {
                None
            },
        })
    })
}

/// Never empty: that would be another encoding of no rack.
pub(super) fn read_rack(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    let rack = reader.text("rack")?;
    if rack.is_empty() {
        return Err(DecodeError::Range { field: "rack" });
    }
    Ok(rack.to_owned())
}

pub(super) fn write_address(writer: &mut Writer, address: &HostPort) {
    writer.text(&address.host);
    writer.u16(address.port);
}

/// Never without a host: that would be no address.
pub(super) fn read_address(reader: &mut Reader<'_>) -> Result<HostPort, DecodeError> {
    let host = reader.text("host")?;
    if host.is_empty() {
        return Err(DecodeError::Range { field: "host" });
    }
    Ok(HostPort::new(host, reader.u16("port")?))
}

pub(super) fn read_state(reader: &mut Reader<'_>) -> Result<NodeState, DecodeError> {
    NodeState::from_code(reader.u8("state")?).ok_or(DecodeError::Range { field: "state" })
}

pub(super) fn write_replicas(writer: &mut Writer, replicas: &[Replica]) {
    writer.count(replicas.len());
    for replica in replicas {
        writer.i32(replica.node.get());
        writer.u16(replica.shard.get());
    }
}

pub(super) fn read_replicas(reader: &mut Reader<'_>) -> Result<Vec<Replica>, DecodeError> {
    reader.list("replicas", |reader| {
        Ok(Replica {
            node: NodeId::new(reader.i32("replica's node")?),
            shard: ShardId::new(reader.u16("replica's shard")?),
        })
    })
}

fn write_topic(writer: &mut Writer, topic: &NewTopic) {
    writer.text(&topic.name);
    writer.uuid(topic.topic_id);
    writer.flag(topic.internal);
    writer.count(topic.placement.len());
    for group in &topic.placement {
        writer.u64(group.get());
    }
    write_configs(writer, &topic.configs);
}

fn read_topic(reader: &mut Reader<'_>) -> Result<NewTopic, DecodeError> {
    Ok(NewTopic {
        name: reader.text("topic name")?.to_owned(),
        topic_id: reader.uuid("topic id")?,
        internal: reader.flag("internal")?,
        placement: reader
            .list("placement", |reader| Ok(RaftGroupId::new(reader.u64("partition's group")?)))?,
        configs: read_configs(reader)?,
    })
}

pub(super) fn write_configs(writer: &mut Writer, configs: &BTreeMap<String, String>) {
    writer.count(configs.len());
    for (name, value) in configs {
        writer.text(name);
        writer.text(value);
    }
}

/// Names ascend, so that a map has one encoding and none is given twice.
pub(super) fn read_configs(
    reader: &mut Reader<'_>,
) -> Result<BTreeMap<String, String>, DecodeError> {
    let mut last: Option<String> = None;
    reader.list("configs", |reader| {
        let name = reader.text("config name")?.to_owned();
        if last.as_ref().is_some_and(|last| *last >= name) {
            return Err(DecodeError::Order { field: "config names" });
        }
        last = Some(name.clone());
        Ok((name, reader.text("config value")?.to_owned()))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cluster) const CLUSTER_ID: Uuid =
        Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);

    macro_rules! golden {
        ($name:literal) => {
            golden!($name, "v1")
        };
        ($name:literal, $version:literal) => {
            include_bytes!(concat!(
                "../../testdata/metadata-command-",
                $name,
                ".",
                $version,
                ".bin"
            ))
            .as_slice()
        };
    }

    /// One command of each kind, with its bytes.
    pub(in crate::cluster) fn goldens() -> Vec<(Command, &'static [u8])> {
        let node = NodeId::new(0);
        let endpoint = |shard: u16| Endpoint {
            broker: NodeId::new(i32::from(shard)),
            host: "127.0.0.1".into(),
            port: 9092 + shard,
            shard: Some(ShardId::new(shard)),
        };
        let replicas = vec![Replica { node, shard: ShardId::new(1) }];
        let configs = [("cleanup.policy", "compact"), ("retention.ms", "-1")];
        let topic = NewTopic {
            name: "orders".into(),
            topic_id: Uuid::from_u128(7),
            internal: false,
            placement: [1, 2, 1].map(RaftGroupId::new).to_vec(),
            configs: configs.map(|(name, value)| (name.into(), value.into())).into(),
        };
        let endpoints = vec![endpoint(0), endpoint(1)];
        let register = Command::RegisterBroker { node, endpoints, rack: None };
        let initialize = Command::InitializeCluster { cluster_id: CLUSTER_ID };
        let create_group = Command::CreateGroup { group: RaftGroupId::new(2), replicas };
        let delete = Command::DeleteTopic { topic_id: Uuid::from_u128(7) };
        let allocate = Command::AllocateProducerIds { node, count: 1000 };
        let replace = Command::ReplaceDisk { node: NodeId::new(2), incarnation: 0x0a0b_0c0d };
        let address = HostPort::new("node-4.example", 9192);
        let add = Command::AddNode { node: NodeId::new(4), address };
        let drain = Command::SetNodeState { node, state: NodeState::Draining };
        let group = RaftGroupId::new(2);
        let others = vec![Replica { node: NodeId::new(4), shard: ShardId::new(1) }];
        let ensure = Command::EnsureGroup { replicas: others.clone() };
        let set = Command::SetReplicas { group, replicas: others };
        let settled = Command::GroupSettled { group, asked: LogIndex::new(40) };
        let topic_id = Uuid::from_u128(7);
        let (to, replaces) = (RaftGroupId::new(1), LogIndex::new(39));
        let moves = Command::MovePartition { topic_id, index: 1, to, replaces };
        let (id, arrived) = (LogIndex::new(41), LogIndex::new(9));
        let arrives = Command::PartitionArrived { topic_id, index: 1, id, epoch_base: 5, arrived };
        let (from, to) = (topic.configs.clone(), configs[1..].iter());
        let to = to.map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let sets = Command::SetTopicConfigs { topic_id, from, to };
        vec![
            (initialize, golden!("initialize-cluster")),
            (register, golden!("register-broker")),
            (create_group, golden!("create-group")),
            (Command::CreateTopic(topic), golden!("create-topic")),
            (delete, golden!("delete-topic")),
            (allocate, golden!("allocate-producer-ids")),
            (replace, golden!("replace-disk")),
            (add, golden!("add-node")),
            (drain, golden!("set-node-state")),
            (set, golden!("set-replicas")),
            (settled, golden!("group-settled")),
            (moves, golden!("move-partition")),
            (arrives, golden!("partition-arrived")),
            (sets, golden!("set-topic-configs")),
            (ensure, golden!("ensure-group")),
        ]
    }

    #[test]
    fn reads_and_writes_the_bytes_of_version_1() {
        for (command, bytes) in goldens() {
            assert_eq!(command.encode(), bytes, "{command:?}");
            assert_eq!(Command::decode(bytes), Ok(command));
        }
    }

    /// A registration in a rack, and its bytes.
    pub(in crate::cluster) fn golden_in_rack() -> (Command, &'static [u8]) {
        let mut register = goldens().into_iter().find_map(|(command, _)| match command {
            Command::RegisterBroker { .. } => Some(command),
            _ => None,
        });
        if let Some(Command::RegisterBroker { rack, .. }) = &mut register {
            *rack = Some("rack-b".into());
        }
        (register.expect("one of each kind"), golden!("register-broker", "v2"))
    }

    #[test]
    fn a_registration_in_a_rack_is_read_and_written_as_version_2() {
        let (command, bytes) = golden_in_rack();
        assert_eq!(command.encode(), bytes);
        assert_eq!(Command::decode(bytes), Ok(command));
        let before = &bytes[..bytes.len() - "rack-b".len() - 4];
        let none = [before, &[0; 4]].concat();
        assert_eq!(Command::decode(&none), Err(DecodeError::Range { field: "rack" }));
    }

    #[test]
    fn every_cut_and_every_extra_byte_is_refused() {
        for (command, bytes) in goldens().into_iter().chain([golden_in_rack()]) {
            for length in 0..bytes.len() {
                assert!(Command::decode(&bytes[..length]).is_err(), "{command:?} cut at {length}");
            }
            let longer = [bytes, &[0]].concat();
            assert_eq!(Command::decode(&longer), Err(DecodeError::LeftOver { count: 1 }));
        }
    }

    #[test]
    fn other_versions_and_kinds_are_refused() {
        assert_eq!(Command::decode(&[2, 1]), Err(DecodeError::Version { found: 2 }));
        for kind in [0, 16, 255] {
            assert_eq!(Command::decode(&[1, kind]), Err(DecodeError::Kind { found: kind }));
        }
    }

    /// A count of 2^32 - 1 in 14 bytes: fails at the first missing element, with nothing allocated.
    #[test]
    fn a_count_beyond_the_bytes_costs_nothing() {
        let bytes = [1, 2, 0, 0, 0, 0, 255, 255, 255, 255];
        let expected = DecodeError::Truncated { field: "broker", length: bytes.len() };
        assert_eq!(Command::decode(&bytes), Err(expected));
        let bytes = [1, 4, 255, 255, 255, 255, b'x'];
        let expected = DecodeError::Truncated { field: "topic name", length: bytes.len() };
        assert_eq!(Command::decode(&bytes), Err(expected));
    }

    #[test]
    fn a_config_given_twice_is_refused() {
        let new_topic = |writer: &mut Writer| {
            writer.text("t");
            writer.uuid(Uuid::from_u128(1));
            writer.flag(false);
            writer.count(0);
        };
        let other_configs = |writer: &mut Writer| {
            writer.uuid(Uuid::from_u128(1));
            writer.count(0);
        };
        for (kind, before) in [(4, &new_topic as &dyn Fn(&mut Writer)), (14, &other_configs)] {
            let mut writer = Writer::default();
            for byte in [VERSION, kind] {
                writer.u8(byte);
            }
            before(&mut writer);
            writer.count(2);
            for _ in 0..2 {
                writer.text("retention.ms");
                writer.text("1");
            }
            let expected = DecodeError::Order { field: "config names" };
            assert_eq!(Command::decode(&writer.finish()), Err(expected));
        }
    }
}
