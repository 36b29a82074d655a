//! The engine room: one io_uring per core for sockets, disk and doorbells, and the memory it uses.
//!
//! A [`Reactor`] belongs to one thread. Its owner calls [`Reactor::turn`] in a loop; the reactor
//! calls the owner's [`Handler`]; the handler asks for more through [`Io`]. Nothing here knows what
//! the bytes mean.
//!
//! **Invariant**: this is the only crate with unsafe code, and no safe call into it can break
//! memory. What the kernel may touch is owned by [`Io`] from submission to completion, also when
//! a connection is closed, a handler panics or the reactor is dropped in between.
//!
//! The code that handles raw memory makes no system call, so its tests run under Miri:
//! `cargo +nightly miri test -p uring -- buffer:: provided:: connection:: token::`.

#[doc(hidden)]
pub mod bare;
mod buffer;
mod connection;
mod counting;
pub mod device;
mod doorbell;
mod error;
mod io;
mod mapped;
mod provided;
mod reactor;
mod read_ahead;
mod ring;
mod settle;
mod spin;
#[cfg(test)]
#[expect(clippy::disallowed_methods, clippy::cast_possible_truncation, reason = "tests drive it")]
mod tests;
mod thread;
mod token;

pub use buffer::{AlignedBuf, BUFFER_ALIGNMENT};
pub use connection::CloseReason;
#[doc(hidden)]
pub use counting::CountingAllocator;
pub use device::{DeviceError, DeviceFile, OpenMode, WriteCache};
pub use doorbell::Doorbell;
pub use error::SetupError;
pub use io::{ConnId, DiskDone, DiskOpKind, FileId, Io, ListenerId};
pub use mapped::{MappedFile, map_readonly};
pub use reactor::{Handler, Reactor, ReactorConfig};
pub use read_ahead::{ReadAhead, ReadAheadError};
pub use thread::{avoid_cores, core_count, pin_to_core, spawn_pinned};
