use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use kafka_wire::records::RecordBatchBuilder;
use model::{NodeId, ShardId};
use s3_uploader::{BatchMeta, BucketError, LooseObject, Manifest, ManifestFile, ObjectName};
use uuid::Uuid;

use super::*;
use crate::cluster::{Cluster, Command, NewTopic, Node, Shape, bootstrap};
use crate::config::BrokerSettings;
use crate::shard::group_snapshot::{GroupSnapshot, encode_snapshot};

pub(super) const CLUSTER: Uuid = Uuid::from_u128(7);
const GROUP: RaftGroupId = RaftGroupId::new(1);
pub(super) const NOW_MS: i64 = 1_700_000_000_000;
/// The incarnation of the disk that is made.
pub(super) const NEW_DISK: u32 = 77;
const LOGS: [PartitionId; 2] = [PartitionId::new(1), PartitionId::new(2)];

/// A bucket of one cluster with the topic `t` of two partitions, in a folder of its own.
pub(super) struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        Self::with(name, &metadata())
    }

    pub(super) fn with(name: &str, metadata: &Cluster) -> Self {
        let path = std::env::temp_dir().join(format!("recover-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        let folder = Self(path);
        folder.put("cluster", format!("tailrace cluster 1\n{CLUSTER}\n").as_bytes());
        folder.metadata(metadata);
        folder
    }

    /// A newer file of the metadata.
    pub(super) fn metadata(&self, cluster: &Cluster) {
        let version = cluster.image().version().get();
        self.manifest(RaftGroupId::METADATA, 1, version, cluster.encode_snapshot());
    }

    fn path(&self, key: &str) -> PathBuf {
        self.0.join("objects").join(key)
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        let path = self.path(key);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, bytes).expect("written");
    }

    fn url(&self) -> StoreUrl {
        StoreUrl::folder(&self.0.join("objects"))
    }

    pub(super) fn manifest(
        &self,
        group: RaftGroupId,
        term: u64,
        index: u64,
        state: Vec<u8>,
    ) -> String {
        let (term, index) = (Term::new(term), LogIndex::new(index));
        let sequence = index.get();
        let file =
            ManifestFile { cluster_id: CLUSTER, group, term, index, sequence, state: state.into() };
        self.put(&file.name().to_string(), &file.encode());
        file.name().to_string()
    }

    /// An object of entries `first` to `last` with batches of (partition of `t`, base offset,
    /// records).
    fn object(&self, term: u64, first: u64, last: u64, batches: &[(u64, i64, i64)]) -> String {
        self.store(name(term, first, last), i32::try_from(term).expect("small"), batches)
    }

    /// The same, by its name and the leader epoch of all batches.
    pub(super) fn store(
        &self,
        name: ObjectName,
        epoch: i32,
        batches: &[(u64, i64, i64)],
    ) -> String {
        let batches = batches.iter().map(|(partition, base, count)| {
            let mut batch = RecordBatchBuilder::new().base_offset(*base).leader_epoch(epoch);
            (0..*count).for_each(|_| {
                batch.append(NOW_MS, Some(b"key"), Some(b"value"), &[]);
            });
            let meta = BatchMeta {
                base_offset: Offset::new(*base),
                end_offset: Offset::new(base + count),
                max_timestamp: NOW_MS,
            };
            (PartitionId::new(partition + 1), meta, batch.build().freeze())
        });
        let built = LooseObject { name, batches: batches.collect() }.build();
        self.put(&name.to_string(), &built.parts.concat());
        name.to_string()
    }

    fn flip(&self, key: &str, at: usize) {
        let mut bytes = fs::read(self.path(key)).expect("an object");
        bytes[at] ^= 1;
        fs::write(self.path(key), bytes).expect("written");
    }

    pub(super) fn try_rebuild(&self) -> Result<Rebuild, RecoverError> {
        Rebuild::of(Bucket::new(BucketReader::open(&self.url())?), None, NEW_DISK, NOW_MS)
    }

    fn rebuild(&self) -> Outcome {
        let Rebuild { bucket, metadata, groups, ranges } = self.try_rebuild().expect("rebuilt");
        assert_eq!(metadata.shard_count(), 1);
        let [_, rebuilt] = &groups[..] else { panic!("one data group") };
        let snapshot = GroupSnapshot::decode(&rebuilt.state).expect("a snapshot");
        let manifest = snapshot.stored.manifest;
        assert_eq!(manifest.offloaded_upto(), rebuilt.index);
        assert_eq!(snapshot.stored.edited, rebuilt.index);
        let (index, term) = (rebuilt.index.get(), rebuilt.term.get());
        let ranges = LOGS.map(|id| ranges[&id]).map(|(start, end)| (start.get(), end.get()));
        let topicless = bucket.topicless.len();
        Outcome { ranges, damage: bucket.damage, topicless, index, term, manifest }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Outcome {
    ranges: [(i64, i64); 2],
    damage: Vec<String>,
    topicless: usize,
    index: u64,
    term: u64,
    manifest: Manifest,
}

impl Outcome {
    fn damage(&self, expected: &[&str]) {
        assert_eq!(self.damage.len(), expected.len(), "{:#?}", self.damage);
        for (found, expected) in self.damage.iter().zip(expected) {
            assert!(found.contains(expected), "{found}: {expected}");
        }
    }
}

fn name(term: u64, first: u64, last: u64) -> ObjectName {
    let (first, last) = (LogIndex::new(first), LogIndex::new(last));
    ObjectName::range(GROUP, Term::new(term), first, last).expect("a range")
}

fn metadata() -> Cluster {
    let mut cluster = Cluster::new(Arc::new(BrokerSettings::default()));
    let topic = Command::CreateTopic(NewTopic {
        name: "t".to_owned(),
        topic_id: Uuid::from_u128(8),
        internal: false,
        placement: vec![GROUP, GROUP],
        configs: BTreeMap::new(),
    });
    let id = NodeId::new(0);
    let own = Node { id, endpoints: Vec::new(), rack: None };
    let shape = Shape { shard_count: 1, groups_per_shard: 1 };
    let commands = bootstrap(CLUSTER, own, &[id], shape);
    for (index, command) in (1..).zip(commands.into_iter().chain([topic])) {
        cluster.apply(LogIndex::new(index), command);
    }
    assert_eq!(cluster.image().shard_of(GROUP, NodeId::new(0)), Some(ShardId::new(0)));
    cluster
}

#[test]
fn objects_without_a_manifest_file_are_taken_in_order() {
    let folder = Folder::new("objects");
    folder.object(2, 1, 5, &[(0, 0, 10), (1, 0, 3), (0, 10, 5)]);
    folder.object(3, 6, 9, &[(0, 15, 5), (9, 0, 4)]);
    let outcome = folder.rebuild();
    outcome.damage(&[]);
    assert_eq!(outcome.ranges, [(0, 20), (0, 3)]);
    assert!(outcome.index > 9 && outcome.term == 3 + TERMS_SKIPPED);
    assert_eq!(outcome.manifest.extents(LOGS[0]).len(), 2);
    assert_eq!(outcome.manifest.extents(PartitionId::new(10)).len(), 0);
    assert_eq!(outcome.topicless, 1);
}

#[test]
fn an_object_that_an_earlier_leader_could_not_record_gives_way() {
    let folder = Folder::new("leaders");
    folder.object(1, 1, 8, &[(0, 0, 10)]);
    folder.object(2, 1, 5, &[(0, 0, 6)]);
    folder.object(2, 6, 12, &[(0, 6, 14)]);
    let outcome = folder.rebuild();
    outcome.damage(&[]);
    assert_eq!(outcome.ranges[0], (0, 20));
    assert!(!outcome.manifest.contains(&name(1, 1, 8)));
}

#[test]
fn a_gap_in_a_whole_log_is_a_deletion() {
    let folder = Folder::new("deletion");
    folder.object(1, 1, 5, &[(0, 0, 10), (0, 15, 5), (1, 0, 3)]);
    folder.object(1, 6, 9, &[(0, 30, 5), (1, 3, 1)]);
    let outcome = folder.rebuild();
    outcome.damage(&[]);
    assert_eq!(outcome.ranges, [(30, 35), (0, 4)]);
    assert_eq!(outcome.manifest.log_start(LOGS[0]), Offset::new(30));
}

#[test]
fn a_missing_object_ends_the_partitions_that_were_in_it() {
    let folder = Folder::new("missing");
    folder.object(1, 1, 5, &[(0, 0, 10), (1, 0, 3)]);
    folder.object(1, 8, 9, &[(0, 20, 5), (1, 3, 1)]);
    let outcome = folder.rebuild();
    outcome.damage(&["no object has entries 6 to 7", "t-0: ends at offset 10"]);
    assert_eq!(outcome.ranges, [(0, 10), (0, 4)]);
    assert!(outcome.index > 9);
}

#[test]
fn a_damaged_section_ends_its_partition_and_no_other() {
    let folder = Folder::new("section");
    let first = folder.object(1, 1, 5, &[(0, 0, 10), (1, 0, 3)]);
    folder.object(1, 6, 9, &[(0, 10, 5), (1, 3, 1)]);
    folder.flip(&first, 100);
    let outcome = folder.rebuild();
    outcome.damage(&["t-0: ends at offset 0"]);
    assert_eq!(outcome.ranges, [(0, 0), (0, 4)]);
}

#[test]
fn an_object_without_a_directory_is_left_out() {
    let folder = Folder::new("directory");
    folder.object(1, 1, 5, &[(0, 0, 10)]);
    let second = folder.object(1, 6, 9, &[(0, 10, 5)]);
    folder.object(1, 10, 12, &[(0, 15, 5), (1, 0, 2)]);
    let end = fs::metadata(folder.path(&second)).expect("an object").len();
    folder.flip(&second, usize::try_from(end).expect("small") - 5);
    let outcome = folder.rebuild();
    outcome.damage(&["it is left out", "t-0: ends at offset 10"]);
    assert_eq!(outcome.ranges, [(0, 10), (0, 2)]);
    // Another leader's object of the same entries takes its place.
    folder.object(2, 6, 9, &[(0, 10, 5)]);
    folder.object(3, 10, 12, &[(0, 15, 5), (1, 0, 2)]);
    let outcome = folder.rebuild();
    outcome.damage(&[]);
    assert_eq!(outcome.ranges, [(0, 20), (0, 2)]);
}

#[test]
fn a_damaged_manifest_file_falls_back_to_the_one_before() {
    let folder = Folder::new("manifest");
    let first = folder.object(1, 1, 5, &[(0, 0, 10)]);
    let empty = encode_snapshot(LogIndex::new(3), &Manifest::default(), &[], &[], LogIndex::new(3));
    folder.manifest(GROUP, 1, 3, empty.clone());
    let newest = folder.manifest(GROUP, 5, 70, empty);
    folder.flip(&newest, 80);
    let outcome = folder.rebuild();
    outcome.damage(&["the one before it is used"]);
    assert_eq!(outcome.ranges[0], (0, 10));
    assert!(outcome.index > 70, "the damaged file's name is taken");
    // What a manifest names and the bucket lacks is told, too.
    let state = encode_snapshot(LogIndex::new(80), &outcome.manifest, &[], &[], LogIndex::new(80));
    folder.manifest(GROUP, 6, 80, state);
    fs::remove_file(folder.path(&first)).expect("removed");
    folder.rebuild().damage(&["t-0: offsets 0 to 10: no object group/"]);
}

#[test]
fn the_data_directory_is_made_once() {
    let folder = Folder::new("whole");
    folder.object(1, 1, 5, &[(0, 0, 10)]);
    let settings = RecoverSettings {
        object_store: folder.url(),
        data_dir: folder.0.join("new"),
        wal: None,
        wal_size: Size::mib(64),
        node_id: None,
    };
    let mut out = Vec::new();
    recover(&settings, &mut out).expect("recovered");
    let text = String::from_utf8(out).expect("text");
    assert!(text.contains("t-0: offsets 0 to 10\nt-1: offsets 0 to 0\n"), "{text}");
    assert!(text.contains("recovered 1 topics, 2 partitions, 10 offsets; 0 damaged"), "{text}");
    let error = recover(&settings, &mut Vec::new()).expect_err("it is there");
    assert!(matches!(error, RecoverError::Exists { .. }));
    let wal = folder.0.join("new/wal");
    tools_verify(&wal);
}

fn tools_verify(wal: &Path) {
    let command = tools::wal::WalCommand::Verify(tools::wal::PathArgs { path: wal.to_owned() });
    command.run(&mut Vec::new()).expect("a sound WAL");
}

#[test]
fn a_broker_without_a_vote_on_the_metadata_is_refused() {
    let folder = Folder::new("voter");
    let settings = RecoverSettings {
        object_store: folder.url(),
        data_dir: folder.0.join("new"),
        wal: None,
        wal_size: Size::mib(64),
        node_id: Some(NodeId::new(4)),
    };
    let error = recover(&settings, &mut Vec::new()).expect_err("no voter").to_string();
    assert_eq!(error, "--node-id 4: name a broker that has a vote on the metadata: 0");
    assert!(!folder.0.join("new/wal").exists());
}

#[test]
fn a_store_of_nobody_is_refused() {
    let folder = Folder::new("nobody");
    fs::remove_file(folder.path("cluster")).expect("removed");
    let settings = RecoverSettings {
        object_store: folder.url(),
        data_dir: folder.0.join("new"),
        wal: None,
        wal_size: Size::mib(64),
        node_id: None,
    };
    let error = recover(&settings, &mut Vec::new()).expect_err("nobody's");
    assert!(matches!(error, RecoverError::Bucket(BucketError::Nobody { .. })));
    assert!(!folder.0.join("new/wal").exists());
}
