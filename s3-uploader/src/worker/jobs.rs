//! How each job is done.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use model::RaftGroupId;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::client::Port;
use super::{Job, Note, Outcome, WorkerConfig, merge};
use crate::fail_point::{FailPoint, fail_point};
use crate::fetcher::{FetchError, Fetcher};
use crate::manifest_file::{ManifestFile, ManifestName};
use crate::object::BuiltObject;
use crate::object_name::ObjectName;
use crate::pieces::Pieces;
use crate::plan::MergePlan;
use crate::retry::RetryPolicy;
use crate::store::{ClaimError, Put, Store, StoreError, Verb};

/// The end of an object that is compared with a stored one: trailer and directory, which has a
/// checksum of each section.
const TAIL_SIZE: usize = 64 * 1024;
/// How often the operator is told that writes still fail.
const NOTE_INTERVAL: Duration = Duration::from_secs(60);

/// What differs may have been damaged on its way: a conflict is one that is seen again and again.
const COMPARISONS_MAX: u32 = 3;

pub(super) struct Jobs {
    store: Rc<Store>,
    fetcher: Fetcher,
    uploads: Semaphore,
    merges: Semaphore,
    config: WorkerConfig,
    claimed: Cell<bool>,
    note: Note,
    /// Since when no write is done.
    failing: Cell<Option<Failing>>,
}

#[derive(Clone, Copy, Debug)]
struct Failing {
    since: Instant,
    noted: Instant,
}

impl Jobs {
    pub(super) fn new(store: Rc<Store>, config: WorkerConfig, note: Note) -> Self {
        let fetcher = Fetcher::new(store.clone(), config.fetch);
        let uploads = Semaphore::new(config.uploads_max.max(1));
        let merges = Semaphore::new(1);
        let (claimed, failing) = (Cell::new(false), Cell::new(None));
        Self { store, fetcher, uploads, merges, config, claimed, note, failing }
    }

    pub(super) async fn run(&self, job: Job, port: &Port) -> Outcome {
        match job {
            Job::Seal(loose) => self.seal(loose.build(), port).await,
            Job::PutObject(object) => {
                self.put(object.name.to_string(), object.parts, Compared::Tail, port).await
            }
            Job::PutManifest(file) => {
                let (key, bytes) = (file.name().to_string(), file.encode());
                self.put(key, vec![bytes], Compared::Whole, port).await
            }
            Job::Read { extent, next, from, max_bytes } => {
                let read = self.fetcher.read(&extent, next.as_ref(), from, max_bytes);
                data(self.in_time(read).await)
            }
            Job::Find { extent, timestamp } => {
                match self.in_time(self.fetcher.find(&extent, timestamp)).await {
                    Ok(Some(pieces)) => Outcome::Data(pieces),
                    Ok(None) => Outcome::Nothing,
                    Err(error) => Outcome::Failed(error),
                }
            }
            Job::Forget(extent) => {
                self.fetcher.forget_extent(&extent);
                Outcome::Nothing
            }
            Job::Delete(keys) => {
                let deleted = self.store.delete(&keys).await;
                deleted.map_or_else(Outcome::Failed, |()| Outcome::Deleted)
            }
            Job::Merge { object, plan } => self.merge(object, &plan, port).await,
            Job::List { prefix, after } => {
                let listed = self.store.list(&prefix, after.as_deref()).await;
                listed.map_or_else(Outcome::Failed, Outcome::Listed)
            }
            Job::NewestManifest { group } => {
                let newest = Box::pin(self.newest_manifest(group)).await;
                newest.map_or_else(Outcome::Failed, |file| Outcome::Manifest(file.map(Box::new)))
            }
        }
    }

    async fn seal(&self, object: BuiltObject, port: &Port) -> Outcome {
        let BuiltObject { name, parts, size, extents } = object;
        match self.put(name.to_string(), parts, Compared::Tail, port).await {
            Outcome::Stored => Outcome::Sealed { object: name, size, extents },
            other => other,
        }
    }

    async fn merge(&self, object: ObjectName, plan: &MergePlan, port: &Port) -> Outcome {
        // The merged data is in memory.
        let _one_at_a_time = self.merges.acquire().await.expect("it is never closed");
        match Box::pin(merge::build(&self.store, object, plan)).await {
            Ok(merged) => {
                fail_point(FailPoint::MergeRead);
                self.seal(merged, port).await
            }
            Err(error) => Outcome::Failed(error.into()),
        }
    }

    /// The file with the highest number and no other: what an older one says may not hold any more.
    async fn newest_manifest(
        &self,
        group: RaftGroupId,
    ) -> Result<Option<ManifestFile>, StoreError> {
        let listed = self.store.list_all(&ManifestName::prefix(group)).await?;
        let names = listed.iter().filter_map(|listed| listed.key.parse::<ManifestName>().ok());
        let Some(name) = names.max() else { return Ok(None) };
        let key = name.to_string();
        let (bytes, _) = self.store.get(&key).await?;
        match ManifestFile::decode_as(&bytes, name, self.config.cluster_id) {
            Ok(file) => Ok(Some(file)),
            Err(error) => Err(StoreError::Checksum { key, reason: error.to_string() }),
        }
    }

    async fn in_time<T>(
        &self,
        read: impl Future<Output = Result<T, FetchError>>,
    ) -> Result<T, StoreError> {
        let after = self.config.read_deadline;
        match tokio::time::timeout(after, Box::pin(read)).await {
            Ok(outcome) => outcome.map_err(StoreError::from),
            Err(_) => Err(StoreError::Timeout { verb: Verb::Get, after }),
        }
    }

    /// Until it is done, refused for good, or nobody is there to be told.
    async fn put(
        &self,
        key: String,
        parts: Vec<Bytes>,
        compared: Compared,
        port: &Port,
    ) -> Outcome {
        let writing = async {
            let mut rounds = 0;
            loop {
                let upload = self.uploads.acquire().await.expect("it is never closed");
                let outcome = self.put_once(&key, &parts, compared).await;
                drop(upload);
                self.note_outcome(outcome.as_ref().err());
                match outcome {
                    Ok(outcome) => return outcome,
                    Err(error) if error.is_permanent() => return Outcome::Failed(error),
                    Err(_) => {
                        rounds += 1;
                        let delay = self.delay(rounds);
                        tokio::time::sleep(delay).await;
                    }
                }
            }
        };
        tokio::select! {
            biased;
            outcome = Box::pin(writing) => {
                fail_point(FailPoint::PutDone);
                outcome
            }
            () = port.closed() => Outcome::Nothing,
        }
    }

    /// Tells the operator when writes begin to fail, once a while that they still do, and when they
    /// are done again.
    fn note_outcome(&self, error: Option<&StoreError>) {
        let now = Instant::now();
        match (error, self.failing.get()) {
            (Some(error), before) => {
                let Failing { since, noted } = before.unwrap_or(Failing { since: now, noted: now });
                let told = before.is_some() && now.saturating_duration_since(noted) < NOTE_INTERVAL;
                if !told {
                    (self.note)(format!("the object store fails, offload waits for it: {error}"));
                }
                let noted = if told { noted } else { now };
                self.failing.set(Some(Failing { since, noted }));
            }
            (None, Some(Failing { since, .. })) => {
                let seconds = now.saturating_duration_since(since).as_secs();
                (self.note)(format!("the object store works again, after {seconds} s"));
                self.failing.set(None);
            }
            (None, None) => {}
        }
    }

    /// Makes sure, once, that the store is this cluster's.
    async fn claim(&self) -> Result<(), StoreError> {
        let Some(cluster_id) = self.config.cluster_id.filter(|_| !self.claimed.get()) else {
            return Ok(());
        };
        self.store.claim(cluster_id).await.map_err(|error| match error {
            ClaimError::Store(error) => error,
            other => StoreError::Config { advice: other.to_string() },
        })?;
        self.claimed.set(true);
        Ok(())
    }

    fn delay(&self, rounds: u32) -> Duration {
        let delay_max = self.config.put_delay_max;
        let policy = RetryPolicy { delay_max, ..self.store.policy() };
        let random: &RefCell<fastrand::Rng> = self.store.requests().random();
        policy.delay_before(rounds, &mut random.borrow_mut())
    }

    async fn put_once(
        &self,
        key: &str,
        parts: &[Bytes],
        compared: Compared,
    ) -> Result<Outcome, StoreError> {
        self.claim().await?;
        if self.store.put_new(key, parts.to_vec()).await? == Put::Created {
            return Ok(Outcome::Stored);
        }
        // Ours, if the reply to an earlier attempt was lost, or another leader's.
        let size: usize = parts.iter().map(Bytes::len).sum();
        let stored_size = self.store.size(key).await?;
        if u64::try_from(size) != Ok(stored_size) {
            return Ok(Outcome::Conflict);
        }
        let tail = tail_of(parts, compared.size(size));
        let start = stored_size - u64::try_from(tail.len()).unwrap_or(stored_size);
        for _ in 0..COMPARISONS_MAX {
            if self.store.get_range(key, start..stored_size).await? == tail {
                return Ok(Outcome::Stored);
            }
        }
        Ok(Outcome::Conflict)
    }
}

/// How much of a stored object is compared with what was to be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Compared {
    Whole,
    Tail,
}

impl Compared {
    fn size(self, size: usize) -> usize {
        match self {
            Self::Whole => size,
            Self::Tail => size.min(TAIL_SIZE),
        }
    }
}

/// The last `size` bytes of all parts together.
fn tail_of(parts: &[Bytes], size: usize) -> Bytes {
    let mut skipped = parts.iter().map(Bytes::len).sum::<usize>().saturating_sub(size);
    let mut tail = BytesMut::with_capacity(size);
    for part in parts {
        let skip = skipped.min(part.len());
        tail.extend_from_slice(&part[skip..]);
        skipped -= skip;
    }
    tail.freeze()
}

fn data(outcome: Result<Pieces, StoreError>) -> Outcome {
    outcome.map_or_else(Outcome::Failed, Outcome::Data)
}
