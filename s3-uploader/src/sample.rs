//! Stores and objects for tests.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use model::{LogIndex, Offset, PartitionId, RaftGroupId, Term};

use crate::object::{BatchMeta, BuiltObject, ObjectBuilder};
use crate::object_name::ObjectName;
use crate::retry::RetryPolicy;
use crate::store::{Faults, Store, StoreOptions, StoreUrl};

/// A folder of the test's own, removed with this.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(test: &str) -> Self {
        let name = format!("s3-uploader-{}-{test}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    pub(crate) fn url(&self) -> StoreUrl {
        StoreUrl::folder(&self.0)
    }

    /// A store in it that is patient in milliseconds where others are in seconds.
    pub(crate) async fn store(&self, faults: &Faults) -> Store {
        let retry = RetryPolicy {
            delay: Duration::from_millis(1),
            delay_max: Duration::from_millis(5),
            open: Duration::from_millis(2),
            open_max: Duration::from_millis(10),
            ..RetryPolicy::default()
        };
        let (seed, faults) = (Some(1), faults.clone());
        let options = StoreOptions { retry, seed, faults, ..StoreOptions::default() };
        Store::open(&self.url(), options).await.expect("a store")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("the folder goes");
    }
}

/// An object of group 1 from that index on: partitions 0, 1, ... each with a batch for each of
/// `sizes`. A batch has ten records, whose timestamps are a hundred times their offsets.
pub(crate) fn object(first: u64, partitions: u64, base: i64, sizes: &[usize]) -> BuiltObject {
    let (group, term) = (RaftGroupId::new(1), Term::new(1));
    let first = LogIndex::new(first);
    let name = ObjectName::range(group, term, first, first).expect("a range");
    let mut builder = ObjectBuilder::new(name);
    for partition in 0..partitions {
        builder.section(PartitionId::new(partition));
        let mut offset = base;
        for size in sizes {
            let mut bytes = vec![0; *size];
            let seed = partition * 1_000_000 + offset.unsigned_abs();
            fastrand::Rng::with_seed(seed).fill(&mut bytes);
            let batch = BatchMeta {
                base_offset: Offset::new(offset),
                end_offset: Offset::new(offset + 10),
                max_timestamp: (offset + 9) * 100,
            };
            builder.push(batch, Bytes::from(bytes));
            offset += 10;
        }
    }
    builder.finish()
}
