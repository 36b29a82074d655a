//! What objects are kept in: a bucket, or a folder that stands for one. Both pass one suite
//! (`tests/store_suite`).
//!
//! Every request goes through [`Requests`], which bounds and counts it. Nothing is ever
//! overwritten but by [`Store::put_if_match`]: fencing rests on that.

mod blocking;
mod claim;
mod error;
#[cfg(any(test, feature = "faults"))]
mod fault;
mod file;
mod key;
#[cfg(any(test, feature = "faults"))]
mod memory;
mod s3;
mod url;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Bytes, BytesMut};

pub use self::blocking::BlockingStore;
pub(crate) use self::claim::CLUSTER_KEY;
pub use self::claim::{ClaimError, PROBE_PREFIX, open_claimed};
pub(crate) use self::error::one_line;
pub use self::error::{StoreError, Verb};
#[cfg(any(test, feature = "faults"))]
pub use self::fault::{Fault, Faults, Injected, Weather};
use self::file::FileStore;
use self::key::{check_key, check_prefix};
#[cfg(any(test, feature = "faults"))]
use self::memory::MemoryStore;
#[cfg(any(test, feature = "faults"))]
pub use self::memory::{Bucket, Change};
use self::s3::S3Store;
pub use self::url::{S3Url, StoreUrl, StoreUrlError};
use crate::hedge::Hedge;
use crate::metrics::StoreMetrics;
use crate::retry::{Requests, RetryPolicy};

/// Keys of one [`Page`] at most; S3's own bound.
const PAGE_KEYS_MAX: usize = 1000;

/// How a store is used; the default suits production.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    pub retry: RetryPolicy,
    /// Objects larger than this are uploaded in parts, several at a time.
    pub multipart_above: u64,
    /// S3 takes no part, but the last, below 5 MiB.
    pub part_size: usize,
    /// Of jitter and temporary names; taken from the system if not given.
    pub seed: Option<u64>,
    #[cfg(any(test, feature = "faults"))]
    pub faults: Faults,
    /// Access key and secret, instead of those that the environment gives.
    #[cfg(any(test, feature = "faults"))]
    pub credentials: Option<(String, String)>,
    /// Objects are kept in this instead of where the address says, under the address as a prefix.
    #[cfg(any(test, feature = "faults"))]
    pub bucket: Option<Bucket>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            retry: RetryPolicy::default(),
            multipart_above: 16 << 20,
            part_size: 8 << 20,
            seed: None,
            #[cfg(any(test, feature = "faults"))]
            faults: Faults::default(),
            #[cfg(any(test, feature = "faults"))]
            credentials: None,
            #[cfg(any(test, feature = "faults"))]
            bucket: None,
        }
    }
}

/// What became of a write under a new name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Put {
    Created,
    /// The name was taken, perhaps by an earlier attempt whose reply was lost; nothing changed.
    Exists,
}

/// A state of an object, to be compared and not read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Etag(String);

/// One object of a listing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listed {
    pub key: String,
    pub size: u64,
    /// By the store's clock.
    pub modified_ms: i64,
}

/// A part of a listing, in ascending order of the keys' bytes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Page {
    pub objects: Vec<Listed>,
    /// There are more after the last of these.
    pub more: bool,
}

/// An open store. It may be moved to another thread but not shared: what it keeps of the store's
/// health has no locks.
#[derive(Debug)]
pub struct Store {
    url: StoreUrl,
    options: StoreOptions,
    backing: Backing,
    requests: Requests,
    hedge: Hedge,
}

#[derive(Debug)]
enum Backing {
    File(FileStore),
    S3(Box<S3Store>),
    #[cfg(any(test, feature = "faults"))]
    Memory(MemoryStore),
}

impl Backing {
    async fn open(url: &StoreUrl, options: &StoreOptions, seed: u64) -> Result<Self, StoreError> {
        #[cfg(any(test, feature = "faults"))]
        if let Some(bucket) = &options.bucket {
            return Ok(Self::Memory(MemoryStore::new(bucket.clone(), url)));
        }
        Ok(match url {
            StoreUrl::File(path) => Self::File(FileStore::open(path, seed).await?),
            StoreUrl::S3(url) => Self::S3(Box::new(S3Store::open(url, options).await?)),
        })
    }
}

impl Store {
    /// # Errors
    ///
    /// A folder that cannot be made or written, or a setting without which S3 cannot be asked. S3
    /// itself is asked by the first request only.
    pub async fn open(url: &StoreUrl, options: StoreOptions) -> Result<Self, StoreError> {
        Self::open_with(url, options, Arc::default()).await
    }

    /// The same store with the same counters and connections of its own: those of S3 belong to the
    /// runtime that they were made on, and end with it.
    ///
    /// # Errors
    ///
    /// As for [`Self::open`].
    pub async fn reopen(&self) -> Result<Self, StoreError> {
        Self::open_with(&self.url, self.options.clone(), self.metrics().clone()).await
    }

    /// A store that is there, for those who only read.
    pub(crate) async fn open_to_read(
        url: &StoreUrl,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let StoreUrl::File(path) = url else { return Self::open(url, options).await };
        let seed = options.seed.map_or_else(seed_of_system, Ok)?;
        let backing = Backing::File(FileStore::to_read(path, seed));
        Ok(Self::new(url, options, backing, seed, Arc::default()))
    }

    async fn open_with(
        url: &StoreUrl,
        options: StoreOptions,
        metrics: Arc<StoreMetrics>,
    ) -> Result<Self, StoreError> {
        let seed = options.seed.map_or_else(seed_of_system, Ok)?;
        let backing = Backing::open(url, &options, seed).await?;
        Ok(Self::new(url, options, backing, seed, metrics))
    }

    fn new(
        url: &StoreUrl,
        options: StoreOptions,
        backing: Backing,
        seed: u64,
        metrics: Arc<StoreMetrics>,
    ) -> Self {
        let requests = Requests::new(options.retry, seed, metrics.clone());
        Self { url: url.clone(), options, backing, requests, hedge: Hedge::new(metrics) }
    }

    pub fn url(&self) -> &StoreUrl {
        &self.url
    }

    pub fn metrics(&self) -> &Arc<StoreMetrics> {
        self.requests.metrics()
    }

    pub(crate) fn policy(&self) -> RetryPolicy {
        self.options.retry
    }

    pub(crate) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Writes an object under a name that must be new. Once this returns the object is durable,
    /// whoever wrote it.
    ///
    /// # Errors
    ///
    /// The store failed for longer than the retries last, or needs somebody to set it right.
    pub async fn put_new(&self, key: &str, parts: Vec<Bytes>) -> Result<Put, StoreError> {
        check_key(key)?;
        let size = size_of(&parts);
        let put = match &self.backing {
            Backing::File(store) => {
                let attempt = async || {
                    self.before(Verb::Put).await?;
                    let put = store.put_new(key, parts.clone()).await?;
                    self.after(Verb::Put).await.map(|()| put)
                };
                self.requests.run(Verb::Put, size, attempt).await?
            }
            #[cfg(any(test, feature = "faults"))]
            Backing::Memory(store) => {
                let attempt = async || {
                    self.before(Verb::Put).await?;
                    let put = store.put_new(key, &parts);
                    self.after(Verb::Put).await.map(|()| put)
                };
                self.requests.run(Verb::Put, size, attempt).await?
            }
            Backing::S3(store) => store.put_new(self, key, &parts).await?,
        };
        if put == Put::Created {
            self.metrics().bytes_up.fetch_add(size, Relaxed);
        }
        Ok(put)
    }

    /// Replaces an object that is still as `etag` says.
    ///
    /// # Errors
    ///
    /// `PreconditionFailed` if it is not, which an earlier attempt may itself have caused.
    pub async fn put_if_match(
        &self,
        key: &str,
        etag: &Etag,
        bytes: Bytes,
    ) -> Result<Etag, StoreError> {
        check_key(key)?;
        let size = size_of(std::slice::from_ref(&bytes));
        let attempt = async || {
            self.before(Verb::Put).await?;
            let etag = match &self.backing {
                Backing::File(store) => store.put_if_match(key, etag, bytes.clone()).await?,
                Backing::S3(store) => store.put_if_match(key, etag, bytes.clone()).await?,
                #[cfg(any(test, feature = "faults"))]
                Backing::Memory(store) => store.put_if_match(key, etag, bytes.clone())?,
            };
            self.after(Verb::Put).await.map(|()| etag)
        };
        let etag = Box::pin(self.requests.run(Verb::Put, size, attempt)).await?;
        self.metrics().bytes_up.fetch_add(size, Relaxed);
        Ok(etag)
    }

    /// # Errors
    ///
    /// `NotFound` among others.
    pub async fn get(&self, key: &str) -> Result<(Bytes, Etag), StoreError> {
        check_key(key)?;
        let attempt = async || {
            self.before(Verb::Get).await?;
            let found = match &self.backing {
                Backing::File(store) => store.get(key).await?,
                Backing::S3(store) => store.get(key).await?,
                #[cfg(any(test, feature = "faults"))]
                Backing::Memory(store) => store.get(key)?,
            };
            self.after(Verb::Get).await.map(|()| found)
        };
        let (bytes, etag) = Box::pin(self.requests.run(Verb::Get, 0, attempt)).await?;
        self.count_down(&bytes);
        Ok((bytes, etag))
    }

    /// Exactly these bytes of an object.
    ///
    /// # Errors
    ///
    /// `Truncated` if the object, or what arrived of it, ends before.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let expected = range.end.saturating_sub(range.start);
        let bytes = self.read(key, range, expected).await?;
        self.count_down(&bytes);
        Ok(bytes)
    }

    /// As many of these bytes as the object has, which is at least one.
    pub(crate) async fn get_upto(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let bytes = self.read(key, range, 1).await?;
        self.count_down(&bytes);
        Ok(bytes)
    }

    async fn read(&self, key: &str, range: Range<u64>, size_min: u64) -> Result<Bytes, StoreError> {
        check_key(key)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let size = range.end - range.start;
        let attempt = async || {
            self.before(Verb::Get).await?;
            let bytes = match &self.backing {
                Backing::File(store) => store.get_range(key, range.clone()).await?,
                Backing::S3(store) => store.get_range(key, range.clone()).await?,
                #[cfg(any(test, feature = "faults"))]
                Backing::Memory(store) => store.get_range(key, range.clone())?,
            };
            self.after(Verb::Get).await?;
            #[cfg(any(test, feature = "faults"))]
            let bytes = self.options.faults.damage(bytes);
            let found = size_of(std::slice::from_ref(&bytes));
            if found < size_min || found > size {
                let (key, expected) = (key.to_owned(), size);
                return Err(StoreError::Truncated { key, expected, found });
            }
            Ok(bytes)
        };
        // The hedge is around the retries: a first request that fails fast is tried again by them.
        let read = async || Box::pin(self.requests.run(Verb::Get, size, attempt)).await;
        Box::pin(self.hedge.run(read)).await
    }

    /// # Errors
    ///
    /// `NotFound` among others.
    pub async fn size(&self, key: &str) -> Result<u64, StoreError> {
        check_key(key)?;
        let attempt = async || {
            self.before(Verb::Get).await?;
            let size = match &self.backing {
                Backing::File(store) => store.size(key).await?,
                Backing::S3(store) => store.size(key).await?,
                #[cfg(any(test, feature = "faults"))]
                Backing::Memory(store) => store.size(key)?,
            };
            self.after(Verb::Get).await.map(|()| size)
        };
        Box::pin(self.requests.run(Verb::Get, 0, attempt)).await
    }

    /// # Errors
    ///
    /// The store could not say.
    pub async fn exists(&self, key: &str) -> Result<bool, StoreError> {
        match self.size(key).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The first objects whose keys begin with `prefix` and come after `after`.
    ///
    /// # Errors
    ///
    /// The store failed; an absent prefix is an empty page.
    pub async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, StoreError> {
        check_prefix(prefix)?;
        let attempt = async || {
            self.before(Verb::List).await?;
            let page = match &self.backing {
                Backing::File(store) => store.list(prefix, after).await?,
                Backing::S3(store) => store.list(prefix, after).await?,
                #[cfg(any(test, feature = "faults"))]
                Backing::Memory(store) => store.list(prefix, after),
            };
            self.after(Verb::List).await.map(|()| page)
        };
        Box::pin(self.requests.run(Verb::List, 0, attempt)).await
    }

    /// All pages of a listing, which the caller knows to be few.
    ///
    /// # Errors
    ///
    /// As for [`Self::list`].
    pub async fn list_all(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let mut all: Vec<Listed> = Vec::new();
        loop {
            let after = all.last().map(|last| last.key.as_str());
            let page = self.list(prefix, after).await?;
            all.extend(page.objects);
            if !page.more {
                return Ok(all);
            }
        }
    }

    /// Deletes what is there of these.
    ///
    /// # Errors
    ///
    /// Some may be deleted even so.
    pub async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        keys.iter().try_for_each(|key| check_key(key))?;
        for keys in keys.chunks(PAGE_KEYS_MAX) {
            let attempt = async || {
                self.before(Verb::Delete).await?;
                match &self.backing {
                    Backing::File(store) => store.delete(keys).await?,
                    Backing::S3(store) => store.delete(keys).await?,
                    #[cfg(any(test, feature = "faults"))]
                    Backing::Memory(store) => store.delete(keys),
                }
                self.after(Verb::Delete).await
            };
            Box::pin(self.requests.run(Verb::Delete, 0, attempt)).await?;
        }
        Ok(())
    }

    fn count_down(&self, bytes: &Bytes) {
        self.metrics().bytes_down.fetch_add(size_of(std::slice::from_ref(bytes)), Relaxed);
    }

    /// Where tests make a request slow or fail before it is made.
    #[cfg(any(test, feature = "faults"))]
    async fn before(&self, verb: Verb) -> Result<(), StoreError> {
        self.options.faults.before(verb).await
    }

    /// Where tests delay or lose the reply of a request that was carried out.
    #[cfg(any(test, feature = "faults"))]
    async fn after(&self, verb: Verb) -> Result<(), StoreError> {
        self.options.faults.after(verb).await
    }

    #[cfg(not(any(test, feature = "faults")))]
    #[expect(clippy::unused_async, reason = "the same call as with faults")]
    async fn before(&self, _: Verb) -> Result<(), StoreError> {
        Ok(())
    }

    #[cfg(not(any(test, feature = "faults")))]
    #[expect(clippy::unused_async, reason = "the same call as with faults")]
    async fn after(&self, _: Verb) -> Result<(), StoreError> {
        Ok(())
    }
}

fn size_of(parts: &[Bytes]) -> u64 {
    parts.iter().map(|part| u64::try_from(part.len()).expect("a length fits 64 bits")).sum()
}

/// One contiguous copy, or the part itself if it is alone.
fn joined(parts: &[Bytes]) -> Bytes {
    if let [part] = parts {
        return part.clone();
    }
    let mut joined = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| joined.extend_from_slice(part));
    joined.freeze()
}

fn seed_of_system() -> Result<u64, StoreError> {
    let mut seed = [0; 8];
    match rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => Ok(u64::from_ne_bytes(seed)),
        Ok(_) | Err(_) => {
            let advice = "the system gives no random bytes (getrandom)".to_owned();
            Err(StoreError::Config { advice })
        }
    }
}
