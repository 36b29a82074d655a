//! Commands of `tailrace` beside the broker: prepare a device, look into a WAL or an object store,
//! administer a cluster.

pub mod cluster;
pub mod format;
pub mod host_port;
pub mod object;
pub mod size;
pub mod wal;
