//! The WAL of a shard: many streams in one ring of segments, on one slice of a device.
//!
//! It knows bytes and stream ids, nothing of Kafka, raft or S3. Follow an append:
//!
//! 1. [`Wal::append`] copies a record into the open [`frame`], once (`group_commit.rs`).
//! 2. [`Wal::submit`] stamps the frame's headers and hands the buffer to the [`Disk`].
//! 3. [`Wal::complete`] takes completions in any order and moves the durable LSN in order.
//! 4. [`Wal::trim`] gives up a prefix; `superblock/` makes that durable; segments are used again.
//! 5. After a crash [`Wal::open`] walks the log (`recovery.rs`); what ends it and what is
//!    corruption is one table (`recovery/decision.rs`).
//!
//! **Invariants**, which the rest leans on:
//!
//! - Frames are never rewritten in place, and never straddle a segment.
//! - The durable LSN moves only over a prefix of completed writes; after a failed write, never.
//! - A frame that ends at Y is written only while Y - durable LSN <= the ring's window.
//! - A writer epoch, and a trim point, are durable in the superblock before anything relies on
//!   them.
//! - A position that any evidence shows to have been durable is never cut off.

mod catch_up;
pub mod checksum;
pub mod device;
pub mod format;
pub mod frame;
mod fuzz;
#[cfg(test)]
mod golden;
mod group_commit;
mod lsn;
pub mod recovery;
pub mod ring;
pub mod segment;
pub mod sim;
pub mod slice;
mod stats;
pub mod superblock;
mod token;
mod wal;

pub use catch_up::{ReadDone, ReadError};
pub use device::{BlockDevice, Disk, FileDevice, Geometry, ImageDevice, RingDisk};
pub use format::{FormatError, FormatOptions, format};
pub use frame::Part;
pub use fuzz::fuzz_recovery;
pub use lsn::{Location, Lsn, StreamId, WriterEpoch};
pub use recovery::{Corruption, OpenError, Recovered, ScanEvent, ScanReport, Tail, scan};
pub use stats::{SIZE_BUCKETS, WalStats};
pub use wal::{
    AppendError, Appended, FRAME_BUFFER_COUNT, FRAME_BUFFER_SIZE, Identity, Pressure, Record,
    RecoveryReport, Wal, WalFailure, WalOptions,
};

/// The finest block a device may have, bytes.
pub const BLOCK_SIZE_MIN: usize = 512;
/// The coarsest block a device may have, bytes.
pub const BLOCK_SIZE_MAX: usize = 4096;
/// The bit that a WAL's request tokens have set, and nobody else's.
pub const TOKEN_SPACE: u64 = 1 << 63;

/// Memory alignment of I/O buffers: satisfies all devices.
const BUFFER_ALIGN: usize = uring::BUFFER_ALIGNMENT;

const _: () = assert!(size_of::<usize>() == 8, "sizes of segments are held in a usize");

/// A size from the disk as a size in memory.
fn in_memory(size: u64) -> usize {
    usize::try_from(size).expect("usize has 64 bits")
}
