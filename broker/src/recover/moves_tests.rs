use std::sync::Arc;

use model::{NodeId, Offset, Term};
use s3_uploader::ObjectName;
use uuid::Uuid;

use super::super::Rebuild;
use super::super::tests::{CLUSTER, Folder, NOW_MS};
use super::*;
use crate::cluster::{Cluster, Command, NewTopic, Node, Shape, bootstrap};
use crate::shard::group_snapshot::{GroupSnapshot, encode_snapshot};

const FROM: RaftGroupId = RaftGroupId::new(1);
const TO: RaftGroupId = RaftGroupId::new(2);
const TOPIC: Uuid = Uuid::from_u128(8);
/// The partition that moves; the other one of its topic stays.
const MOVING: PartitionId = PartitionId::new(1);
const EPOCH_BASE: u32 = 1000;
/// The index of the entry that adopts it.
const ARRIVED: LogIndex = LogIndex::new(20);

/// A bucket of one broker with two data groups, and what group 0 has decided.
struct World {
    folder: Folder,
    cluster: Cluster,
}

impl World {
    /// `t-0` is in the first group, with 10 records in an object.
    fn new(name: &str) -> Self {
        let mut cluster = Cluster::new(Arc::default());
        let id = NodeId::new(0);
        let own = Node { id, endpoints: Vec::new(), rack: None };
        let shape = Shape { shard_count: 1, groups_per_shard: 2 };
        let mut commands = bootstrap(CLUSTER, own, &[id], shape);
        commands.push(Command::CreateTopic(NewTopic {
            name: "t".to_owned(),
            topic_id: TOPIC,
            internal: false,
            placement: vec![FROM, TO],
            configs: BTreeMap::new(),
        }));
        for (index, command) in (1..).zip(commands) {
            cluster.apply(LogIndex::new(index), command);
        }
        let world = Self { folder: Folder::with(&format!("moves-{name}"), &cluster), cluster };
        world.object(FROM, 1, 5, 2, &[(0, 0, 10)]);
        world
    }

    fn object(
        &self,
        group: RaftGroupId,
        first: u64,
        last: u64,
        epoch: i32,
        of: &[(u64, i64, i64)],
    ) {
        let (first, last) = (LogIndex::new(first), LogIndex::new(last));
        let name = ObjectName::range(group, Term::new(2), first, last).expect("a range");
        self.folder.store(name, epoch, of);
    }

    /// Group 0 decides; the bucket does not know it yet.
    fn apply(&mut self, command: Command) -> LogIndex {
        let index = self.cluster.image().version().next();
        self.cluster.apply(index, command);
        index
    }

    /// Has the partition move; returns the number of the move.
    fn move_it(&mut self, to: RaftGroupId) -> LogIndex {
        let (topic_id, index, replaces) = (TOPIC, 0, LogIndex::default());
        self.apply(Command::MovePartition { topic_id, index, to, replaces })
    }

    fn arrive(&mut self, id: LogIndex) {
        let (topic_id, index, epoch_base, arrived) = (TOPIC, 0, EPOCH_BASE, ARRIVED);
        self.apply(Command::PartitionArrived { topic_id, index, id, epoch_base, arrived });
    }

    fn store_metadata(&self) {
        self.folder.metadata(&self.cluster);
    }

    fn rebuild(&self) -> Rebuild {
        self.folder.try_rebuild().expect("rebuilt")
    }

    /// Stores the file of the second group, which has adopted the partition as it is now.
    fn store_adoption(&self, id: LogIndex) {
        let found = snapshot_of(&self.rebuild(), FROM);
        let log = found.partitions.iter().find(|log| log.id() == MOVING).expect("it is there");
        let arrival = Arrival { id, epoch_base: EPOCH_BASE };
        let state = log.encode_whole().expect("whole").into();
        let adoption = found.stored.manifest.adoption(MOVING, TO, arrival, state);
        let origin = Origin { index: ARRIVED, id, epoch_base: EPOCH_BASE };
        let there = Partition::adopted(&adoption.state, origin).expect("a partition");
        self.store_file(TO, &[Edit::Adopted(Box::new(adoption))], &[&there]);
    }

    fn store_file(&self, group: RaftGroupId, edits: &[Edit], partitions: &[&Partition]) {
        let mut manifest = Manifest::default();
        for edit in edits {
            manifest.apply(edit, NOW_MS).expect("it fits");
        }
        let state = encode_snapshot(ARRIVED, &manifest, partitions, &[], LogIndex::default());
        self.folder.manifest(group, 2, ARRIVED.get(), state);
    }
}

fn snapshot_of(rebuild: &Rebuild, group: RaftGroupId) -> GroupSnapshot {
    let found = rebuild.groups.iter().find(|it| it.group == group).expect("a group");
    GroupSnapshot::decode(&found.state).expect("a snapshot")
}

fn range_of(rebuild: &Rebuild) -> (i64, i64) {
    let (start, end) = rebuild.ranges[&MOVING];
    (start.get(), end.get())
}

/// The partition is in a group, by the metadata and by what is stored of that group.
fn is_at(rebuild: &Rebuild, group: RaftGroupId, id: LogIndex) {
    let image = rebuild.metadata.image();
    let (_, _, there) = image.partitions().find(|(_, _, it)| it.id == MOVING).expect("known");
    assert_eq!((there.group, there.moved, there.moving), (group, id, None));
    let found = snapshot_of(rebuild, group);
    let arrived = found.stored.manifest.arrival(MOVING).map(|it| it.id).unwrap_or_default();
    assert_eq!(arrived, id);
    for of in [FROM, TO] {
        let found = snapshot_of(rebuild, of);
        let has = found.partitions.iter().any(|log| log.id() == MOVING);
        assert_eq!(has, of == group, "group {of}");
    }
    assert!(rebuild.groups[0].index > id, "the next move has a later number");
}

#[test]
fn what_came_since_is_put_on_top_of_what_the_group_before_has() {
    let mut world = World::new("known");
    let id = world.move_it(TO);
    world.store_adoption(id);
    world.arrive(id);
    world.store_metadata();
    world.object(TO, 1, 30, 1002, &[(0, 10, 15)]);
    let rebuild = world.rebuild();
    assert_eq!(rebuild.bucket.damage, [""; 0]);
    is_at(&rebuild, TO, id);
    assert_eq!(range_of(&rebuild), (0, 25));
    let [from, to] = [FROM, TO].map(|group| snapshot_of(&rebuild, group).stored.manifest);
    let groups = to.extents(MOVING).iter().map(|it| it.object.group());
    assert_eq!(groups.collect::<Vec<_>>(), [FROM, TO]);
    // The group before lends it when the new one has stored that it names it; until then it does.
    assert_eq!(from.extents(MOVING).len(), 1);
    // Epochs go on above those of both groups.
    let log = snapshot_of(&rebuild, TO).partitions.remove(0);
    assert_eq!(log.latest_leader_epoch().map(|it| it.get()), Some(1002));
    let term = rebuild.groups.iter().find(|it| it.group == TO).expect("a group").term;
    assert!(term.get() < 10_000 && log.epoch_of(term).get() > 1002, "{term}");
}

#[test]
fn the_file_may_be_from_before_the_partition_came() {
    let mut world = World::new("older");
    let id = world.move_it(TO);
    world.arrive(id);
    world.store_metadata();
    world.object(TO, 1, 9, 2, &[(1, 0, 4)]);
    let rebuild = world.rebuild();
    assert_eq!(rebuild.bucket.damage, [""; 0]);
    is_at(&rebuild, TO, id);
    assert_eq!(range_of(&rebuild), (0, 10));
    let manifest = snapshot_of(&rebuild, TO).stored.manifest;
    assert_eq!(manifest.extents(MOVING).len(), 1);
    assert!(rebuild.groups.iter().any(|it| it.group == TO && it.index > ARRIVED));
    // Only where a newer file is damaged the group has objects with it: that is told.
    world.object(TO, 10, 30, 1002, &[(0, 10, 15)]);
    let rebuild = world.rebuild();
    let [damage] = &rebuild.bucket.damage[..] else { panic!("{:?}", rebuild.bucket.damage) };
    assert!(damage.contains("t-0: ends at offset 0") && damage.contains("before 10"), "{damage}");
    assert_eq!(range_of(&rebuild), (0, 10));
}

#[test]
fn a_group_that_lends_a_partition_knows_better_than_older_metadata() {
    let mut world = World::new("lent");
    let id = world.move_it(TO);
    world.store_adoption(id);
    let found = snapshot_of(&world.rebuild(), FROM).stored.manifest;
    let extents = found.extents(MOVING).iter().map(|it| (MOVING, it.clone())).collect();
    let (object, object_size) = found.objects_of(MOVING)[0];
    let upto = LogIndex::new(5);
    let offloaded = Edit::Offloaded { upto, object, object_size, extents };
    let lent = Edit::Lent { partition: MOVING, to: TO, since: ARRIVED.get() };
    world.store_file(FROM, &[offloaded, lent], &[]);
    let rebuild = world.rebuild();
    assert_eq!(rebuild.bucket.damage, [""; 0]);
    is_at(&rebuild, TO, id);
    assert_eq!(range_of(&rebuild), (0, 10));
}

#[test]
fn a_group_that_took_a_partition_for_nothing_does_not_count() {
    let mut world = World::new("off");
    let first = world.move_it(TO);
    world.store_adoption(first);
    world.move_it(FROM); // It is called off.
    world.store_metadata();
    world.object(FROM, 6, 9, 2, &[(0, 10, 5)]);
    let rebuild = world.rebuild();
    assert_eq!(rebuild.bucket.damage, [""; 0]);
    is_at(&rebuild, FROM, LogIndex::default());
    assert_eq!(range_of(&rebuild), (0, 15));
    let manifest = snapshot_of(&rebuild, TO).stored.manifest;
    assert_eq!(manifest.offloaded_end(MOVING), Some(Offset::new(10)), "it lends that on");
    assert!(rebuild.groups[0].index > first, "the next move has a later number");
    // It goes there after all, and the file does not know that: what counts is who has more.
    let second = world.move_it(TO);
    world.arrive(second);
    world.store_metadata();
    let rebuild = world.rebuild();
    is_at(&rebuild, TO, second);
    assert_eq!(range_of(&rebuild), (0, 15));
}
