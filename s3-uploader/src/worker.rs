//! The offload thread: all requests of a broker to its store, made away from the shards' cores.
//!
//! Shards hand in jobs and fetch replies through bounded queues, one pair for each, and never wait.
//! A write is tried until it is done, however long the store is slow or away; a read has a
//! deadline.

mod client;
mod jobs;
mod merge;
#[cfg(any(test, feature = "faults"))]
mod stepped;
#[cfg(test)]
mod tests;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::Release};
use std::thread::JoinHandle;
use std::time::Duration;

use model::{Offset, PartitionId, RaftGroupId};
use tokio::sync::Notify;
use tokio::task::LocalSet;
use uuid::Uuid;

pub use self::client::Client;
use self::client::{Port, pair};
use self::jobs::Jobs;
#[cfg(any(test, feature = "faults"))]
pub use self::stepped::SteppedWorker;
use crate::fetcher::FetchConfig;
use crate::manifest_file::ManifestFile;
use crate::metrics::StoreMetrics;
use crate::object::{BuiltObject, Extent, LooseObject};
use crate::object_name::ObjectName;
use crate::pieces::Pieces;
use crate::plan::MergePlan;
use crate::store::{Page, Store, StoreError};

/// Called from the offload thread once a reply waits for that client.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// Called from the offload thread with a line for the operator.
pub(crate) type Note = Box<dyn Fn(String)>;

/// For file stores, and for name look-ups of S3.
const BLOCKING_THREADS_MAX: usize = 16;
/// Added to the niceness of the store's threads: where there are more threads than cores, a shard
/// that has work is to find its core free.
const NICENESS: i32 = 10;
/// A blocked file system must not keep a broker from ending.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Bounds of the offload thread.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WorkerConfig {
    pub fetch: FetchConfig,
    /// Jobs of one client that are not answered yet.
    pub jobs_max: usize,
    /// Writes at a time, of all clients. Each may need memory for four parts of an upload.
    pub uploads_max: usize,
    /// For all attempts of a read together.
    pub read_deadline: Duration,
    /// The most that is waited between two rounds of attempts of a write.
    pub put_delay_max: Duration,
    /// The cluster whose the store must be before anything is written.
    pub cluster_id: Option<Uuid>,
    /// Whether its threads are less urgent to the system than others: they share cores with shards.
    pub gives_way: bool,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            fetch: FetchConfig::default(),
            jobs_max: 1024,
            uploads_max: 4,
            read_deadline: Duration::from_secs(20),
            put_delay_max: Duration::from_secs(10),
            cluster_id: None,
            gives_way: false,
        }
    }
}

/// A job with the number by which its client knows it.
#[derive(Debug)]
pub struct Request {
    pub token: u64,
    pub job: Job,
}

/// What the store is wanted for.
#[derive(Debug)]
pub enum Job {
    /// Build an object of a group's batches and store it.
    Seal(LooseObject),
    PutObject(BuiltObject),
    PutManifest(ManifestFile),
    Read {
        extent: Extent,
        next: Option<Extent>,
        from: Offset,
        max_bytes: u32,
    },
    /// The first interval with a batch of at least that timestamp.
    Find {
        extent: Extent,
        timestamp: i64,
    },
    /// Let go of what is cached of an extent, before the jobs that are sent after this: it is
    /// damaged, here or in the store.
    Forget(Extent),
    /// Keys of the bucket.
    Delete(Vec<String>),
    /// Build an object of what the plan names and store it.
    Merge {
        object: ObjectName,
        plan: MergePlan,
    },
    /// A page of a listing: to find what nothing refers to.
    List {
        prefix: String,
        after: Option<String>,
    },
    /// The manifest file of a group that counts: to see what another group still needs.
    NewestManifest {
        group: RaftGroupId,
    },
}

/// The answer to the request with the same token.
#[derive(Debug, Eq, PartialEq)]
pub struct Reply {
    pub token: u64,
    pub outcome: Outcome,
}

/// What became of a job.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Created now, or an identical one was there already.
    Stored,
    /// The same of an object that was built here, by `Seal` or `Merge`.
    Sealed {
        object: ObjectName,
        size: u64,
        extents: Vec<(PartitionId, Extent)>,
    },
    /// Another content is there under that name: somebody else leads.
    Conflict,
    Data(Pieces),
    /// No batch has a timestamp as wanted, or there was nothing to answer.
    Nothing,
    Deleted,
    Listed(Page),
    /// Nothing if the group has never stored one.
    Manifest(Option<Box<ManifestFile>>),
    /// A write fails only for good: somebody has to change a setting or a permission.
    Failed(StoreError),
}

/// The running thread; it ends when this is dropped, whatever jobs it has.
#[derive(Debug)]
pub struct Worker {
    signals: Arc<Signals>,
    metrics: Arc<StoreMetrics>,
    thread: Option<JoinHandle<()>>,
}

/// From any thread to the offload thread.
#[derive(Debug, Default)]
struct Signals {
    jobs: Notify,
    stop: AtomicBool,
}

impl Worker {
    /// One client for each of `wake`, which are as many as `clients`. `note` is told when writes
    /// begin to fail and when they are done again.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub fn start(
        store: Store,
        config: WorkerConfig,
        clients: usize,
        wake: Vec<Wake>,
        note: impl Fn(String) + Send + 'static,
    ) -> io::Result<(Self, Vec<Client>)> {
        assert_eq!(clients, wake.len(), "each client is woken in its own way");
        let signals = Arc::new(Signals::default());
        let metrics = store.metrics().clone();
        let pairs = wake.into_iter().map(|wake| pair(config.jobs_max, wake, signals.clone()));
        let (clients, ports): (Vec<_>, Vec<_>) = pairs.unzip();
        let enter = if config.gives_way { give_way } else { || () };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("offload-file")
            .on_thread_start(enter)
            .build()?;
        let of_thread = signals.clone();
        let thread = std::thread::Builder::new().name("offload".to_owned()).spawn(move || {
            enter();
            LocalSet::new()
                .block_on(&runtime, serve(store, config, ports, Box::new(note), &of_thread));
            runtime.shutdown_timeout(STOP_TIMEOUT);
        })?;
        Ok((Self { signals, metrics, thread: Some(thread) }, clients))
    }

    pub fn metrics(&self) -> Arc<StoreMetrics> {
        self.metrics.clone()
    }

    /// Whether the thread has ended although nobody stopped it, which only a fault of its own does.
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.signals.stop.store(true, Release);
        self.signals.jobs.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported where it happened.
            let _ = thread.join();
        }
    }
}

/// Makes this thread one that others go before.
fn give_way() {
    // Where it is not allowed nothing is lost but smoothness.
    let _ = rustix::process::nice(NICENESS);
}

/// Until the worker is dropped.
async fn serve(
    store: Store,
    config: WorkerConfig,
    ports: Vec<Port>,
    note: Note,
    signals: &Signals,
) {
    // The store's connections were made on the runtime of whoever opened it.
    let store = store.reopen().await.unwrap_or(store);
    let metrics = store.metrics().clone();
    let jobs = Rc::new(Jobs::new(Rc::new(store), config, note));
    let ports: Vec<_> = ports.into_iter().map(Rc::new).collect();
    while !signals.stop.load(Relaxed) {
        for port in &ports {
            while let Some(Request { token, job }) = port.take() {
                metrics.queue_depth.fetch_add(1, Relaxed);
                let (port, jobs, metrics) = (port.clone(), jobs.clone(), metrics.clone());
                tokio::task::spawn_local(async move {
                    let outcome = Box::pin(jobs.run(job, &port)).await;
                    metrics.queue_depth.fetch_sub(1, Relaxed);
                    port.answer(Reply { token, outcome });
                });
            }
        }
        signals.jobs.notified().await;
    }
}
