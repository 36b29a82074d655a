//! The offline commands of `tailrace`: prepare a device, look into a WAL or an object store.

pub mod format;
pub mod object;
pub mod size;
pub mod wal;
