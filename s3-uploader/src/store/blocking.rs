//! A store for commands that have nothing else to do than to wait for it.

use std::ops::Range;

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

#[cfg(feature = "faults")]
use crate::store::Bucket;
use crate::store::{ClaimError, Listed, Store, StoreError, StoreOptions, StoreUrl};

/// Reads a store from a thread without a runtime; it has one of its own.
#[derive(Debug)]
pub struct BlockingStore {
    store: Store,
    runtime: Runtime,
}

impl BlockingStore {
    /// Opens a store that is there; nothing is written to it, or made.
    ///
    /// # Errors
    ///
    /// As for [`Store::open`].
    pub fn open(url: &StoreUrl, options: StoreOptions) -> Result<Self, StoreError> {
        if let StoreUrl::File(path) = url
            && !path.is_dir()
        {
            let advice = format!("{} is not a folder", path.display());
            return Err(StoreError::Config { advice });
        }
        let runtime = runtime()?;
        let store = runtime.block_on(Store::open_to_read(url, options))?;
        Ok(Self { store, runtime })
    }

    /// Opens the part of a bucket in memory that the address stands for.
    ///
    /// # Errors
    ///
    /// As for [`Store::open`].
    #[cfg(feature = "faults")]
    pub fn of_bucket(url: &StoreUrl, bucket: &Bucket) -> Result<Self, StoreError> {
        let options = StoreOptions { bucket: Some(bucket.clone()), ..StoreOptions::default() };
        let runtime = runtime()?;
        let store = runtime.block_on(Store::open(url, options))?;
        Ok(Self { store, runtime })
    }

    /// # Errors
    ///
    /// As for [`Store::owner`].
    pub fn owner(&self) -> Result<Option<Uuid>, ClaimError> {
        self.runtime.block_on(self.store.owner())
    }

    /// # Errors
    ///
    /// `NotFound` among others.
    pub fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.runtime.block_on(self.store.get(key)).map(|(bytes, _)| bytes)
    }

    /// # Errors
    ///
    /// As for [`Store::get_range`].
    pub fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.runtime.block_on(self.store.get_range(key, range))
    }

    /// # Errors
    ///
    /// `NotFound` among others.
    pub fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.runtime.block_on(self.store.size(key))
    }

    /// # Errors
    ///
    /// As for [`Store::list`].
    pub fn list_all(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.runtime.block_on(self.store.list_all(prefix))
    }
}

fn runtime() -> Result<Runtime, StoreError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| StoreError::Config { advice: error.to_string() })
}

/// Opening, listing and reading what is there; a store that is not there stays so.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_is_refused_and_not_made() {
        let path = std::env::temp_dir().join(format!("blocking-{}", std::process::id()));
        let url = StoreUrl::folder(&path);
        let error = BlockingStore::open(&url, StoreOptions::default()).expect_err("no folder");
        assert!(error.is_permanent());
        assert!(!path.exists());
        std::fs::create_dir(&path).expect("a folder");
        let store = BlockingStore::open(&url, StoreOptions::default()).expect("a folder");
        assert_eq!(store.owner(), Ok(None));
        std::fs::create_dir(path.join("a")).expect("a folder");
        std::fs::write(path.join("a/b"), b"content").expect("written");
        assert_eq!(store.get("a/b").expect("read"), "content");
        assert_eq!(store.get_range("a/b", 1..3).expect("read"), "on");
        assert_eq!(store.size("a/b"), Ok(7));
        assert_eq!(store.list_all("a/").expect("listed").len(), 1);
        assert_eq!(std::fs::read_dir(&path).expect("a folder").count(), 1, "nothing was made");
        std::fs::remove_dir_all(&path).expect("removed");
    }
}
