//! Replication of a shard: one driver for all of its raft groups, synchronous and without I/O.
//!
//! ```text
//! propose, handle_message, handle_tick ─► Driver ─► poll_action
//!     Persist          ─► the WAL ─► placed, handle_persisted
//!     Send             ─► other nodes
//!     Committed, Apply ─► the partitions
//! ```
//!
//! - **Invariant**: nothing is acknowledged, to a client or to another node, before it is durable
//!   here or on a majority.
//! - **Invariant**: an entry's descriptor and payload become durable together; raft never sees one
//!   without the other.
//! - **Invariant**: no byte from the network or the disk reaches the protobuf decoder that raft-rs
//!   brings along (`docs/adr/0002-raft-library.md`).
//! - There is no clock, thread, socket or source of randomness in this crate.

mod action;
mod clock;
mod descriptor;
mod driver;
mod group;
mod group_map;
mod heartbeats;
mod held;
mod idle;
mod members;
mod message;
mod payload;
mod recovery;
mod restored;
mod state;
mod storage;

pub use action::{Action, CommittedEntry, PersistEntry, Role, Ticket};
pub use descriptor::{APP_SIZE_MAX, AppBytes, DESCRIPTOR_SIZE_MAX, Descriptor, DescriptorError};
pub use driver::{CompactError, Driver, DriverConfig, LogEntry, ProposeError, SNAPSHOT_SIZE_MAX};
pub use group_map::GroupMap;
pub use heartbeats::Heartbeats;
pub use members::{MemberChange, Members};
#[doc(hidden)]
pub use message::fuzz;
pub use message::{Message, MessageError};
pub use recovery::RecoverError;
pub use restored::RestoredGroup;
pub use state::StateError;
