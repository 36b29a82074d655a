//! The same without a disk and a network of its own, for `crates/sim`.

use std::collections::BTreeMap;

use model::{Offset, PartitionId};
use s3_uploader::{BlockingStore, BucketReader, StoreUrl};
use uuid::Uuid;
use wal_uring::sim::SimDisk;
use wal_uring::{Identity, Wal, WalOptions};

use super::Rebuild;
use super::bucket::Bucket;
use super::wal::Beginning;

/// What a bucket alone gives back.
pub struct SimRebuild(Rebuild);

impl SimRebuild {
    /// # Errors
    ///
    /// What stops `tailrace recover`.
    pub fn of(
        url: &StoreUrl,
        bucket: &s3_uploader::Bucket,
        incarnation: u32,
        now_ms: i64,
    ) -> Result<Self, String> {
        let store = BlockingStore::of_bucket(url, bucket).map_err(|error| error.to_string())?;
        let reader = BucketReader::of(url, store).map_err(|error| error.to_string())?;
        let rebuild = Rebuild::of(Bucket::new(reader), None, incarnation, now_ms);
        rebuild.map(Self).map_err(|error| error.to_string())
    }

    /// The broker that has all of it.
    pub fn node(&self) -> i32 {
        self.0.metadata.node.get()
    }

    /// Where each partition ends, by its name too.
    pub fn ends(&self) -> BTreeMap<PartitionId, (String, Offset)> {
        let image = self.0.metadata.image();
        let ends = self.0.ranges.iter().map(|(id, (_, end))| (*id, (image.name_of(*id), *end)));
        ends.collect()
    }

    /// What could not be used.
    pub fn damage(&self) -> &[String] {
        &self.0.bucket.damage
    }

    /// Writes it to a disk of one slice that is formatted for the broker.
    ///
    /// # Errors
    ///
    /// The disk failed, or is too small.
    pub fn write(
        &self,
        disk: &mut SimDisk,
        cluster_id: Uuid,
        options: WalOptions,
    ) -> Result<(), String> {
        let (node_id, slice_index, slice_count) = (self.node(), 0, 1);
        let identity = Identity { cluster_id, node_id, slice_index, slice_count };
        let opened = Wal::open(disk, &identity, options, &mut |_| {});
        let (mut wal, _) = opened.map_err(|error| error.to_string())?;
        assert!(disk.poll(0).is_none(), "nothing is in flight before the first request");
        wal.prepare(disk);
        let mut beginning = Beginning::new(wal);
        for rebuilt in &self.0.groups {
            let pushed = beginning.push(self.0.metadata.voter(), rebuilt);
            pushed.map_err(|error| error.to_string())?;
        }
        while !beginning.write_on(disk)? {
            let at = disk.next_due().ok_or("nothing is under way")?;
            while let Some(done) = disk.poll(at) {
                beginning.wal.complete(disk, done);
            }
        }
        Ok(())
    }
}
