//! Reading a bucket from a command: what of it is whole, what is gone, what is damaged.

use bytes::Bytes;
use uuid::Uuid;

use crate::manifest_file::{ManifestFile, ManifestName};
use crate::object::{Directory, ObjectError, TRAILER_SIZE};
use crate::object_name::ObjectName;
use crate::store::{BlockingStore, ClaimError, StoreError, StoreOptions, StoreUrl};

/// A store that some cluster has written to; nothing is written here.
#[derive(Debug)]
pub struct BucketReader {
    pub store: BlockingStore,
    pub url: StoreUrl,
    pub cluster_id: Uuid,
}

/// Why a bucket cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    #[error("cannot read the object store {url}: {source}")]
    Store { url: Box<StoreUrl>, source: StoreError },
    #[error("cannot use the object store {url}: {source}")]
    Claim { url: Box<StoreUrl>, source: ClaimError },
    #[error("no cluster has written to the object store {url}: was the right one given?")]
    Nobody { url: Box<StoreUrl> },
}

/// Why a part of a bucket cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unsound {
    /// It is not there, or not any more.
    #[error("{0}")]
    Gone(String),
    #[error("{0}")]
    Damaged(String),
}

/// A part of a bucket, or why it is not what it should be.
pub type Sound<T> = Result<T, Unsound>;

impl BucketReader {
    /// # Errors
    ///
    /// The store cannot be read, or is no cluster's.
    pub fn open(url: &StoreUrl) -> Result<Self, BucketError> {
        let boxed = || Box::new(url.clone());
        let store = BlockingStore::open(url, StoreOptions::default())
            .map_err(|source| BucketError::Store { url: boxed(), source })?;
        Self::of(url, store)
    }

    /// # Errors
    ///
    /// The store cannot be read, or is no cluster's.
    pub fn of(url: &StoreUrl, store: BlockingStore) -> Result<Self, BucketError> {
        let boxed = || Box::new(url.clone());
        let owner = store.owner().map_err(|source| BucketError::Claim { url: boxed(), source })?;
        let cluster_id = owner.ok_or_else(|| BucketError::Nobody { url: boxed() })?;
        Ok(Self { store, url: url.clone(), cluster_id })
    }

    /// A manifest file of this cluster.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub fn manifest_file(&self, name: ManifestName) -> Result<Sound<ManifestFile>, BucketError> {
        let bytes = self.sound(self.store.get(&name.to_string()))?;
        Ok(bytes.and_then(|bytes: Bytes| {
            ManifestFile::decode_as(&bytes, name, Some(self.cluster_id)).map_err(damaged)
        }))
    }

    /// What an object of that size says about itself.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub fn directory(&self, name: ObjectName, size: u64) -> Result<Sound<Directory>, BucketError> {
        let mut wanted = TRAILER_SIZE as u64;
        loop {
            let start = size.saturating_sub(wanted);
            let tail = self.sound(self.store.get_range(&name.to_string(), start..size))?;
            let decoded = match tail {
                Ok(tail) => Directory::decode(&tail),
                Err(unsound) => return Ok(Err(unsound)),
            };
            return Ok(match decoded {
                Err(ObjectError::ShortTail { wanted: more, .. })
                    if more > wanted && more <= size =>
                {
                    wanted = more;
                    continue;
                }
                Ok(found) if found.name != name || found.size != size => {
                    let reason = format!("it is {} of {} bytes", found.name, found.size);
                    Err(Unsound::Damaged(reason))
                }
                decoded => decoded.map_err(damaged),
            });
        }
    }

    /// # Errors
    ///
    /// What the store's is, with its address.
    pub fn answered<T>(&self, result: Result<T, StoreError>) -> Result<T, BucketError> {
        result.map_err(|source| BucketError::Store { url: self.url.clone().into(), source })
    }

    /// Tells a part that is gone or damaged from a store that does not answer.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub fn sound<T>(&self, result: Result<T, StoreError>) -> Result<Sound<T>, BucketError> {
        match result {
            Err(error @ StoreError::NotFound { .. }) => Ok(Err(Unsound::Gone(error.to_string()))),
            Err(error @ (StoreError::Truncated { .. } | StoreError::Checksum { .. })) => {
                Ok(Err(damaged(error)))
            }
            result => self.answered(result).map(Ok),
        }
    }
}

fn damaged(error: impl std::fmt::Display) -> Unsound {
    Unsound::Damaged(error.to_string())
}
