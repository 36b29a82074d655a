use std::path::PathBuf;

use kafka_wire::records::RecordBatchBuilder;
use model::{LogIndex, Offset, PartitionId, RaftGroupId, Term};
use s3_uploader::{
    BatchMeta, BuiltObject, Edit, GroupHead, LooseObject, Manifest, ManifestFile, ObjectName,
};
use uuid::Uuid;

use super::*;

const CLUSTER: Uuid = Uuid::from_u128(7);
const GROUP: RaftGroupId = RaftGroupId::new(1);

/// A bucket of a cluster with the topic `t` of two partitions: two live objects in a manifest, and
/// one that came after it.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("object-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        let folder = Self(path);
        folder.put("cluster", format!("tailrace cluster 1\n{CLUSTER}\n").as_bytes());
        folder.manifest(RaftGroupId::METADATA, 5, metadata());
        let mut manifest = Manifest::default();
        folder.file(&manifest, 2);
        folder.offload(&mut manifest, 1, 5, &[(0, 0, 10), (1, 0, 3), (0, 10, 5)]);
        folder.offload(&mut manifest, 6, 9, &[(0, 15, 5), (1, 3, 4)]);
        folder.file(&manifest, 10);
        folder.offload(&mut manifest, 10, 12, &[(1, 7, 2)]);
        folder
    }

    fn path(&self, key: &str) -> PathBuf {
        self.0.join(key)
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        let path = self.path(key);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, bytes).expect("written");
    }

    fn manifest(&self, group: RaftGroupId, sequence: u64, state: Vec<u8>) {
        let (term, index) = (Term::new(1), LogIndex::new(sequence));
        let cluster_id = CLUSTER;
        let file = ManifestFile { cluster_id, group, term, index, sequence, state: state.into() };
        self.put(&file.name().to_string(), &file.encode());
    }

    fn file(&self, manifest: &Manifest, sequence: u64) {
        let mut state = GroupHead::encode(LogIndex::new(sequence), manifest);
        state.extend_from_slice(b"the broker's part");
        self.manifest(GROUP, sequence, state);
    }

    /// Stores an object of batches: partition of `t`, base offset, records.
    fn offload(&self, to: &mut Manifest, first: u64, last: u64, batches: &[(u64, i64, i64)]) {
        let built = object(first, last, batches);
        self.put(&built.name.to_string(), &built.parts.concat());
        let BuiltObject { name: object, size: object_size, extents, .. } = built;
        let upto = LogIndex::new(last);
        to.apply(&Edit::Offloaded { upto, object, object_size, extents }, 0).expect("fits");
    }

    fn flip(&self, key: &str, at: usize) {
        let mut bytes = std::fs::read(self.path(key)).expect("there");
        bytes[at] ^= 1;
        std::fs::write(self.path(key), bytes).expect("written");
    }

    fn cut(&self, key: &str) {
        let bytes = std::fs::read(self.path(key)).expect("there");
        std::fs::write(self.path(key), &bytes[..bytes.len() - 10]).expect("written");
    }

    fn run(&self, command: &ObjectCommand) -> (String, Result<(), ObjectError>) {
        let mut out = Vec::new();
        let result = command.run(&mut out, &mut Vec::new());
        (String::from_utf8(out).expect("text"), result)
    }

    fn url(&self) -> StoreUrl {
        StoreUrl::folder(&self.0)
    }

    fn verify(&self, quick: bool, strict: bool) -> (String, Result<(), ObjectError>) {
        let object_store = self.url();
        self.run(&ObjectCommand::Verify(VerifyArgs { object_store, quick, strict }))
    }

    /// The lines of errors of a verification that must find that many.
    fn errors(&self, quick: bool) -> Vec<String> {
        let (text, result) = self.verify(quick, false);
        let errors: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
        let expected = errors.len() as u64;
        match result {
            Ok(()) => assert_eq!(expected, 0, "{text}"),
            Err(ObjectError::Damaged { count, .. }) => assert_eq!(count, expected, "{text}"),
            Err(error) => panic!("{error}"),
        }
        errors.into_iter().map(str::to_owned).collect()
    }

    fn found(&self, quick: bool, expected: &[&[&str]]) {
        let errors = self.errors(quick);
        assert_eq!(errors.len(), expected.len(), "{errors:#?}");
        for (error, words) in errors.iter().zip(expected) {
            for word in *words {
                assert!(error.contains(word), "{error}: {word}");
            }
        }
    }

    fn ls(&self, topic: Option<&str>, prefix: &str) -> (String, Result<(), ObjectError>) {
        let (topic, prefix) = (topic.map(str::to_owned), prefix.to_owned());
        self.run(&ObjectCommand::Ls(LsArgs { object_store: self.url(), topic, prefix }))
    }

    fn dump(&self, key: &str) -> (String, Result<(), ObjectError>) {
        let key = key.to_owned();
        self.run(&ObjectCommand::Dump(DumpArgs { object_store: self.url(), key }))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn key(first: u64, last: u64) -> String {
    object(first, last, &[(0, 0, 1)]).name.to_string()
}

fn file_key(sequence: u64) -> String {
    s3_uploader::ManifestName { group: GROUP, sequence }.to_string()
}

fn object(first: u64, last: u64, batches: &[(u64, i64, i64)]) -> BuiltObject {
    let (first, last) = (LogIndex::new(first), LogIndex::new(last));
    let name = ObjectName::range(GROUP, Term::new(1), first, last).expect("a range");
    let batches = batches.iter().map(|(partition, base, count)| {
        let mut batch = RecordBatchBuilder::new().base_offset(*base).leader_epoch(1);
        (0..*count).for_each(|_| {
            batch.append(1_700_000_000_000, Some(b"key"), Some(b"value"), &[]);
        });
        let meta = BatchMeta {
            base_offset: Offset::new(*base),
            end_offset: Offset::new(base + count),
            max_timestamp: 1_700_000_000_000,
        };
        (PartitionId::new(partition + 1), meta, batch.build().freeze())
    });
    LooseObject { name, batches: batches.collect() }.build()
}

/// A state of group 0 without nodes and groups, and with the topic `t`: partitions 1 and 2.
fn metadata() -> Vec<u8> {
    let mut state = vec![1];
    state.extend([0; 8 + 1 + 8 + 8 + 4 + 4]);
    state.extend(1_u32.to_le_bytes()); // topics
    state.extend(1_u32.to_le_bytes());
    state.push(b't');
    state.extend([0; 16 + 1]);
    state.extend(2_u32.to_le_bytes()); // partitions
    for id in [1_u64, 2] {
        state.extend(id.to_le_bytes());
        state.extend(GROUP.get().to_le_bytes());
    }
    state.extend(0_u32.to_le_bytes()); // configs
    state
}

#[test]
fn a_bucket_in_order_is_listed_and_verified() {
    let folder = Folder::new("order");
    let before = std::fs::read_dir(&folder.0).expect("there").count();
    let (text, result) = folder.verify(false, true);
    result.expect(&text);
    assert!(text.contains("3 objects, "), "{text}");
    assert!(text.contains("2 live, 1 newer than the manifests, 0 retired (0 bytes)"), "{text}");
    assert!(text.contains("2 partitions, 4 extents, 3 manifest files; all of it read; 0 error(s)"));
    assert_eq!(std::fs::read_dir(&folder.0).expect("there").count(), before, "read-only");
    let (text, result) = folder.ls(None, "");
    result.expect(&text);
    assert_eq!(text.lines().filter(|line| line.starts_with("live ")).count(), 2, "{text}");
    assert!(text.contains("group 1 term 1 entries 10 to 12, 0 extents"), "{text}");
    assert!(text.contains(&format!("{} group 1 term 1 entries 1 to 5, 2 extents", key(1, 5))));
    assert_eq!(text.lines().filter(|line| line.starts_with("manifest ")).count(), 3, "{text}");
    let (text, _) = folder.ls(Some("t"), &key(6, 9));
    assert!(text.ends_with("2 extents\n  t-0 offsets 15 to 20\n  t-1 offsets 3 to 7\n"), "{text}");
    assert!(matches!(folder.ls(Some("u"), "").1, Err(ObjectError::Topic { .. })));
}

#[test]
fn what_is_not_in_use_is_named_and_fails_only_if_asked() {
    let folder = Folder::new("unused");
    folder.put("beach.jpg", b"sand");
    let orphan = object(3, 4, &[(0, 0, 1)]);
    folder.put(&orphan.name.to_string(), &orphan.parts.concat());
    let (text, result) = folder.verify(false, false);
    result.expect(&text);
    assert!(text.contains("note: beach.jpg: not written by Tailrace"), "{text}");
    assert!(text.contains(&format!("1 orphans ({} bytes)", orphan.size)), "{text}");
    let (text, result) = folder.verify(true, true);
    assert!(matches!(result, Err(ObjectError::Damaged { count: 2, .. })), "{text}");
    assert!(text.contains(&format!("error: {}: no manifest lists it", orphan.name)), "{text}");
    let (text, _) = folder.ls(None, "");
    assert!(text.contains("unknown             4 beach.jpg\n"), "{text}");
    assert!(text.contains("orphan "), "{text}");
}

#[test]
fn missing_and_shortened_objects_are_found_by_their_sizes() {
    let folder = Folder::new("missing");
    std::fs::remove_file(folder.path(&key(1, 5))).expect("removed");
    let ranges = "t-0 offsets 0 to 15, t-1 offsets 0 to 3: there is no such object";
    folder.found(true, &[&[&key(1, 5), ranges, "restore the object"]]);
    assert!(folder.ls(None, "").0.contains(&format!("missing             - {}", key(1, 5))));
    folder.cut(&key(6, 9));
    let size = "t-0 offsets 15 to 20, t-1 offsets 3 to 7: it has ";
    folder.found(false, &[&[&key(1, 5), ranges], &[&key(6, 9), size]]);
    // What came after the manifest is found by names alone.
    let folder = Folder::new("entries");
    folder.offload(&mut Manifest::default(), 13, 14, &[(1, 9, 2)]);
    folder.found(true, &[]);
    std::fs::remove_file(folder.path(&key(10, 12))).expect("removed");
    folder.found(true, &[&["group 1: no object has its entries 10 to 12"]]);
}

#[test]
fn a_flipped_byte_is_found_wherever_it_is() {
    let folder = Folder::new("flips");
    let key = key(1, 5);
    let size = object(1, 5, &[(0, 0, 10), (1, 0, 3), (0, 10, 5)]).size;
    for at in 0..usize::try_from(size).expect("small") {
        folder.flip(&key, at);
        let errors = folder.errors(false);
        assert!(!errors.is_empty(), "byte {at}");
        assert!(errors.iter().all(|error| error.starts_with(&key)), "byte {at}: {errors:#?}");
        assert!(errors.iter().any(|error| error.contains("offsets")), "byte {at}: {errors:#?}");
        assert!(folder.dump(&key).1.is_err(), "byte {at}");
        folder.flip(&key, at);
    }
    folder.found(false, &[]);
}

#[test]
fn a_damaged_batch_is_named_by_its_offsets() {
    let folder = Folder::new("batch");
    let first = usize::try_from(batch_size(10)).expect("small");
    folder.flip(&key(1, 5), first + 70);
    folder.found(false, &[&[&key(1, 5), ": t-0 offsets 10 to 15: the batch at byte", "restore"]]);
    let (text, result) = folder.dump(&key(1, 5));
    assert!(matches!(result, Err(ObjectError::Damaged { count: 2, .. })), "{text}");
    assert!(text.contains("offsets 0 to 10 epoch 1 records 10"), "{text}");
    assert_eq!(text.matches("crc ok").count(), 2, "{text}");
    assert_eq!(text.matches("error: crc is wrong").count(), 1, "{text}");
    assert_eq!(text.matches("error: data checksum").count(), 1, "{text}");
}

fn batch_size(count: i64) -> u64 {
    object(1, 1, &[(0, 0, count)]).extents[0].1.size
}

#[test]
fn an_object_in_anothers_place_is_found() {
    let folder = Folder::new("place");
    // As large as the one in its place, and sound: only its directory tells.
    let other = object(1, 5, &[(0, 1, 10), (1, 0, 3), (0, 11, 5)]);
    folder.put(&key(1, 5), &other.parts.concat());
    let named = "t-0 offsets 0 to 15: its directory does not have them";
    let walked = "t-0 offsets 11 to 15: the batch at byte";
    folder.found(false, &[&[&key(1, 5), named], &[&key(1, 5), walked]]);
}

#[test]
fn damaged_manifest_files_are_named_and_the_one_before_is_used() {
    let folder = Folder::new("manifests");
    folder.flip(&file_key(2), 70);
    folder.found(true, &[]);
    folder.found(false, &[&[&file_key(2), "checksum", "a newer one is in use"]]);
    folder.flip(&file_key(2), 70);
    folder.flip(&file_key(10), 100);
    folder.found(false, &[&[&file_key(10), "checksum", "`tailrace recover` uses the one before"]]);
    let (text, _) = folder.verify(false, false);
    assert!(text.contains("0 live, 3 newer than the manifests"), "{text}");
    assert!(matches!(folder.dump(&file_key(10)).1, Err(ObjectError::Damaged { .. })));
    folder.flip(&file_key(10), 100);
    folder.put(&file_key(11), &std::fs::read(folder.path(&file_key(10))).expect("there"));
    folder.found(true, &[&[&file_key(11), &format!("it is {}", file_key(10))]]);
}

#[test]
fn objects_and_manifest_files_are_dumped() {
    let folder = Folder::new("dump");
    let (text, result) = folder.dump(&key(6, 9));
    result.expect(&text);
    assert!(text.contains("2 sections; trailer and directory ok"), "{text}");
    assert!(text.contains("section partition 2 offsets 3 to 7, youngest 1700000000000"), "{text}");
    assert!(text.contains("offsets 15 to 20 epoch 1 records 5 times 1700000000000"), "{text}");
    let (text, result) = folder.dump(&file_key(10));
    result.expect(&text);
    assert!(text.starts_with(&format!("manifest file 10 of group 1: cluster {CLUSTER}")), "{text}");
    assert!(text.contains("edits up to entry 10, offloaded up to entry 9\n"), "{text}");
    assert!(text.contains("partition 1 log start 0 end 20\n  extent offsets 0 to 15,"), "{text}");
    let zero = s3_uploader::ManifestName { group: RaftGroupId::METADATA, sequence: 5 };
    assert!(folder.dump(&zero.to_string()).0.ends_with("partition 1 is t-0\npartition 2 is t-1\n"));
    assert!(matches!(folder.dump("beach.jpg").1, Err(ObjectError::Key { .. })));
    assert!(matches!(folder.dump(&file_key(99)).1, Err(ObjectError::Absent { .. })));
    std::fs::remove_file(folder.path("cluster")).expect("removed");
    assert!(matches!(
        folder.verify(false, false).1,
        Err(ObjectError::Bucket(BucketError::Nobody { .. }))
    ));
}
