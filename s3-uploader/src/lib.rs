//! The object tier: sealed ranges of a raft group's log as objects in a bucket.
//!
//! Names carry the fencing (`object_name.rs`), an object holds the batches of many partitions
//! (`object.rs`), a group's manifest says which object holds which offsets and changes only by
//! edits in the group's log (`manifest.rs`, `edit.rs`), small objects are merged by plan
//! (`plan.rs`), and a bucket's listing is compared with the manifests in it (`audit.rs`). All of
//! these are pure: no clock, no I/O.
//!
//! The rest is I/O. A bucket or a folder is a `Store` (`store.rs`), each of its requests is bounded
//! (`retry.rs`, `hedge.rs`), reads are cached and read ahead (`fetcher.rs`), and all of it runs on
//! a thread of its own that shards talk to by message (`worker.rs`).
//!
//! **Invariant:** an object that an extent refers to is never among those that may be deleted.

mod adoption;
mod audit;
mod bucket_reader;
mod codec;
mod edit;
mod fail_point;
mod fetcher;
mod group_head;
mod hedge;
mod manifest;
mod manifest_file;
mod metrics;
mod object;
mod object_name;
mod pieces;
mod plan;
mod retention;
mod retry;
#[cfg(test)]
mod sample;
mod store;
mod worker;

pub use adoption::Adoption;
pub use audit::{Audit, AuditReport, AuditedGroup, AuditedObject, Finding, OffsetRange, Standing};
pub use bucket_reader::{BucketError, BucketReader, Sound, Unsound};
pub use codec::DecodeError;
pub use edit::{Edit, EditError};
pub use fail_point::{Armed, FAIL_POINT_VARIABLE, FailPoint, FailPointError, arm, fail_point};
pub use fetcher::{FetchConfig, FetchError, Fetcher};
pub use group_head::GroupHead;
pub use manifest::{Arrival, Lent, Manifest, Totals};
pub use manifest_file::{ManifestFile, ManifestFileError, ManifestName};
pub use metrics::{BreakerState, LATENCY_BOUNDS, RequestCounts, StoreMetrics, VerbMetrics};
pub use object::{
    BatchMeta, BuiltObject, DataCheck, Directory, Extent, INDEX_INTERVAL, IndexPoint, LooseObject,
    ObjectBuilder, ObjectError, Section, TRAILER_SIZE, decode_index,
};
pub use object_name::{MergedName, ObjectName, ObjectNameError, RangeName};
pub use pieces::Pieces;
pub use plan::{MergePlan, Separable};
pub use retry::RetryPolicy;
pub use store::{
    BlockingStore, ClaimError, Etag, Listed, PROBE_PREFIX, Page, Put, S3Url, Store, StoreError,
    StoreOptions, StoreUrl, StoreUrlError, Verb, open_claimed,
};
#[cfg(any(test, feature = "faults"))]
pub use store::{Bucket, Change, Fault, Faults, Injected, Weather};
#[cfg(any(test, feature = "faults"))]
pub use worker::SteppedWorker;
pub use worker::{Client, Job, Outcome, Reply, Request, Wake, Worker, WorkerConfig};
