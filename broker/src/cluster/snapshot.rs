//! The whole state as bytes, for raft snapshots. Normative: `docs/formats/metadata-command.md`.
//!
//! A state has exactly one encoding, so that two nodes can be compared by their snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{LogIndex, NodeId, PartitionId, RaftGroupId};

use super::command::{
    Replica, read_address, read_configs, read_endpoints, read_rack, read_replicas, read_state,
    write_address, write_configs, write_endpoints, write_replicas,
};
use super::image::{Group, Image, Node, Partition, Topic};
use super::membership::Standing;
use super::state::Cluster;
use crate::codec::{DecodeError, Reader, Writer};
use crate::config::{BrokerSettings, TopicConfig};

/// Of a state in which no disk was replaced and no broker is in a rack. The next one ends with the
/// disks that were replaced, the third one with those and with the racks. The fourth one has what
/// was decided of brokers and of the copies of groups as well, since the cluster began. The last
/// one has the partitions that moved, too.
const VERSION: u8 = 1;
const VERSION_WITH_DISKS: u8 = 2;
const VERSION_WITH_RACKS: u8 = 3;
const VERSION_WITH_CHANGES: u8 = 4;
const VERSION_WITH_MOVES: u8 = 5;

impl Cluster {
    pub fn encode_snapshot(&self) -> Vec<u8> {
        let image = &self.image;
        let mut writer = Writer::default();
        let has_racks = image.nodes.values().any(|node| node.rack.is_some());
        let is_changed =
            |group: &Arc<Group>| !group.leaving.is_empty() || !group.founders.is_empty();
        let has_changes = !image.standings.is_empty() || image.groups.values().any(is_changed);
        let version = match (has_racks, image.disks.is_empty()) {
            _ if image.has_moves() => VERSION_WITH_MOVES,
            _ if has_changes => VERSION_WITH_CHANGES,
            (true, _) => VERSION_WITH_RACKS,
            (false, false) => VERSION_WITH_DISKS,
            (false, true) => VERSION,
        };
        writer.u8(version);
        writer.u64(image.version.get());
        writer.flag(image.cluster_id.is_some());
        if let Some(cluster_id) = image.cluster_id {
            writer.uuid(cluster_id);
        }
        writer.u64(image.next_partition.get());
        writer.i64(self.next_producer_id);
        writer.count(image.nodes.len());
        for node in image.nodes.values() {
            writer.i32(node.id.get());
            write_endpoints(&mut writer, &node.endpoints);
        }
        writer.count(image.groups.len());
        for group in image.groups.values() {
            writer.u64(group.id.get());
            write_replicas(&mut writer, &group.replicas);
        }
        writer.count(image.topics.len());
        for topic in image.topics.values() {
            write_topic(&mut writer, topic);
        }
        if version >= VERSION_WITH_DISKS {
            write_disks(&mut writer, &image.disks);
        }
        if version >= VERSION_WITH_RACKS {
            write_racks(&mut writer, image);
        }
        if version >= VERSION_WITH_CHANGES {
            write_standings(&mut writer, &image.standings);
            write_changes(&mut writer, image.groups.values());
        }
        if version >= VERSION_WITH_MOVES {
            image.write_moves(&mut writer);
        }
        writer.finish()
    }

    /// The state of which these are the bytes, with the topic defaults of this node.
    pub fn decode_snapshot(
        bytes: &[u8],
        settings: Arc<BrokerSettings>,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("version")?;
        if !(VERSION..=VERSION_WITH_MOVES).contains(&version) {
            return Err(DecodeError::Version { found: version });
        }
        let mut image =
            Image { version: LogIndex::new(reader.u64("image version")?), ..Image::default() };
        if reader.flag("has cluster id")? {
            image.cluster_id = Some(reader.uuid("cluster id")?);
        }
        image.next_partition = PartitionId::new(reader.u64("next partition id")?);
        let next_producer_id = reader.i64("next producer id")?;
        if next_producer_id < 0 {
            return Err(DecodeError::Range { field: "next producer id" });
        }
        image.nodes = reader.map("nodes", read_node)?;
        image.groups = reader.map("groups", read_group)?;
        let topics: BTreeMap<Arc<str>, Arc<Topic>> = reader.map("topics", |reader| {
            let topic = read_topic(reader, image.next_partition, &settings)?;
            Ok((Arc::clone(&topic.name), topic))
        })?;
        for topic in topics.values() {
            if image.topics_by_id.contains_key(&topic.id) {
                return Err(DecodeError::Order { field: "topic ids" });
            }
            image.insert_topic(topic);
        }
        if version >= VERSION_WITH_DISKS {
            image.disks = read_disks(&mut reader, version > VERSION_WITH_DISKS)?;
        }
        if version >= VERSION_WITH_RACKS {
            read_racks(&mut reader, version > VERSION_WITH_RACKS, &mut image)?;
        }
        if version >= VERSION_WITH_CHANGES {
            image.standings = reader.map("standings", read_standing)?;
            read_changes(&mut reader, version > VERSION_WITH_CHANGES, &mut image)?;
        }
        if version >= VERSION_WITH_MOVES {
            image.read_moves(&mut reader)?;
        }
        reader.finish()?;
        Ok(Self { image: Arc::new(image), next_producer_id, settings })
    }
}

fn write_disks(writer: &mut Writer, disks: &BTreeMap<NodeId, Vec<u32>>) {
    writer.count(disks.len());
    for (node, incarnations) in disks {
        writer.i32(node.get());
        writer.count(incarnations.len());
        incarnations.iter().for_each(|incarnation| writer.u32(*incarnation));
    }
}

/// No list is empty, so that a state has one encoding; but for the first, where racks follow.
fn read_disks(
    reader: &mut Reader<'_>,
    may_be_empty: bool,
) -> Result<BTreeMap<NodeId, Vec<u32>>, DecodeError> {
    let disks: BTreeMap<_, Vec<u32>> = reader.map("replaced disks", |reader| {
        let node = NodeId::new(reader.i32("node")?);
        Ok((node, reader.list("incarnations", |reader| reader.u32("incarnation"))?))
    })?;
    if (disks.is_empty() && !may_be_empty) || disks.values().any(Vec::is_empty) {
        return Err(DecodeError::Range { field: "replaced disks" });
    }
    Ok(disks)
}

fn write_racks(writer: &mut Writer, image: &Image) {
    let in_racks = image.nodes.values().filter_map(|node| Some((node.id, node.rack.as_ref()?)));
    writer.count(in_racks.clone().count());
    for (node, rack) in in_racks {
        writer.i32(node.get());
        writer.text(rack);
    }
}

/// Racks of nodes that are there; of one at least, but where more follows.
fn read_racks(
    reader: &mut Reader<'_>,
    may_be_empty: bool,
    image: &mut Image,
) -> Result<(), DecodeError> {
    let racks: BTreeMap<_, String> =
        reader.map("racks", |reader| Ok((NodeId::new(reader.i32("node")?), read_rack(reader)?)))?;
    let wrong = DecodeError::Range { field: "racks" };
    if racks.is_empty() && !may_be_empty {
        return Err(wrong);
    }
    for (id, rack) in racks {
        let node = image.nodes.get_mut(&id).ok_or(wrong)?;
        Arc::make_mut(node).rack = Some(rack);
    }
    Ok(())
}

fn write_standings(writer: &mut Writer, standings: &BTreeMap<NodeId, Standing>) {
    writer.count(standings.len());
    for (node, standing) in standings {
        writer.i32(node.get());
        writer.u8(standing.state.code());
        writer.flag(standing.address.is_some());
        standing.address.iter().for_each(|address| write_address(writer, address));
    }
}

fn read_standing(reader: &mut Reader<'_>) -> Result<(NodeId, Standing), DecodeError> {
    let node = NodeId::new(reader.i32("node")?);
    let state = read_state(reader)?;
    let address = if reader.flag("has address")? { Some(read_address(reader)?) } else { None };
    Ok((node, Standing { address, state }))
}

/// Of the groups that have any.
fn write_changes<'a>(writer: &mut Writer, groups: impl Iterator<Item = &'a Arc<Group>> + Clone) {
    let changed = groups.filter(|it| !it.leaving.is_empty() || !it.founders.is_empty());
    writer.count(changed.clone().count());
    for group in changed {
        writer.u64(group.id.get());
        write_replicas(writer, &group.leaving);
        writer.u64(group.asked.get());
        writer.count(group.founders.len());
        group.founders.iter().for_each(|founder| writer.u64(*founder));
    }
}

/// Of groups that are there; something of each. Where there are none, standings came before, or
/// more follows.
fn read_changes(
    reader: &mut Reader<'_>,
    may_be_empty: bool,
    image: &mut Image,
) -> Result<(), DecodeError> {
    let changes: BTreeMap<_, (Vec<Replica>, LogIndex, Vec<u64>)> =
        reader.map("changes", |reader| {
            let group = RaftGroupId::new(reader.u64("group")?);
            let (leaving, asked) = (read_replicas(reader)?, LogIndex::new(reader.u64("asked")?));
            let founders = reader.list("founders", |reader| reader.u64("founder"))?;
            Ok((group, (leaving, asked, founders)))
        })?;
    let wrong = DecodeError::Range { field: "changes" };
    if changes.is_empty() && image.standings.is_empty() && !may_be_empty {
        return Err(wrong);
    }
    for (id, (leaving, asked, founders)) in changes {
        let group = image.groups.get_mut(&id).ok_or(wrong)?;
        if leaving.is_empty() && (founders.is_empty() || asked > LogIndex::default()) {
            return Err(wrong);
        }
        let group = Arc::make_mut(group);
        (group.leaving, group.asked, group.founders) = (leaving, asked, founders);
    }
    Ok(())
}

fn read_node(reader: &mut Reader<'_>) -> Result<(NodeId, Arc<Node>), DecodeError> {
    let id = NodeId::new(reader.i32("node")?);
    Ok((id, Arc::new(Node { id, endpoints: read_endpoints(reader)?, rack: None })))
}

fn read_group(reader: &mut Reader<'_>) -> Result<(RaftGroupId, Arc<Group>), DecodeError> {
    let id = RaftGroupId::new(reader.u64("group")?);
    let replicas = read_replicas(reader)?;
    Ok((id, Arc::new(Group::settled(id, replicas))))
}

fn write_topic(writer: &mut Writer, topic: &Topic) {
    writer.text(&topic.name);
    writer.uuid(topic.id);
    writer.flag(topic.internal);
    writer.count(topic.partitions.len());
    for partition in &topic.partitions {
        writer.u64(partition.id.get());
        writer.u64(partition.group.get());
    }
    write_configs(writer, topic.config.overrides());
}

fn read_topic(
    reader: &mut Reader<'_>,
    next_partition: PartitionId,
    settings: &BrokerSettings,
) -> Result<Arc<Topic>, DecodeError> {
    let name = reader.text("topic name")?.into();
    let id = reader.uuid("topic id")?;
    let internal = reader.flag("internal")?;
    let partitions: Vec<Partition> = reader.list("partitions", |reader| {
        let id = PartitionId::new(reader.u64("partition id")?);
        // An id that the counter has not passed would be given to another partition later.
        if id >= next_partition {
            return Err(DecodeError::Range { field: "partition id" });
        }
        Ok(Partition::new(id, RaftGroupId::new(reader.u64("partition's group")?)))
    })?;
    let config = TopicConfig::lenient(read_configs(reader)?, settings);
    Ok(Arc::new(Topic { name, id, internal, partitions: partitions.into(), config }))
}
