//! Tailrace's broker: Kafka's protocol over partitions that live in raft groups, one shard a core.
//!
//! The life of a produce request, in ten steps:
//!
//! 1. `core.rs`: the reactor hands received bytes to the shard of that core.
//! 2. `shard/connections.rs`: whole frames become requests; each opens its place in the order of
//!    replies.
//! 3. `api/produce.rs`: batches are checked, and asked of the shards that own the partitions.
//! 4. `shard/mailbox.rs`: what another core owns crosses by message.
//! 5. `shard/append.rs`: the partition assigns offsets; the batch is patched in place and proposed.
//! 6. `shard/replicated_log.rs`: raft takes the entry and asks for it to be persisted.
//! 7. `wal_uring`: the batch is copied into the open frame; one device write commits all that is
//!    pending.
//! 8. `shard/replicated_log.rs`: the write completed; raft hears of it, and commits with a
//!    majority.
//! 9. `shard/hosted.rs`: the high watermark moves; readers wake, and the part of the request is
//!    answered.
//! 10. `shard/connections.rs`: the last part completes the reply, which leaves in its turn.

mod admin;
mod api;
pub mod cluster;
pub mod codec;
pub mod config;
mod core;
mod data_dir;
pub mod group;
mod local_cluster;
mod metrics;
mod net;
mod node;
pub mod partition;
mod peer;
mod random;
mod recover;
mod shard;
mod shard_thread;
#[cfg(feature = "simulation")]
pub mod simulation;
mod start;
mod voter;

pub use local_cluster::{LocalClusterError, serve_nodes};
pub use recover::{RecoverError, RecoverSettings, recover};
pub use start::{StartError, serve};
