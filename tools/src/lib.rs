//! The offline commands of `tailrace`: prepare a device, look into a WAL.

pub mod format;
pub mod size;
pub mod wal;
