//! Which faults a simulated disk has, and what it did.

/// Chances per request, each 0.0 to 1.0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// A write fails with EIO; any of its sectors may have been written.
    pub write_error: f64,
    /// A write stops early and says so.
    pub short_write: f64,
    /// A write completes but was never done.
    pub lost_write: f64,
    /// A write completes but went to another place.
    pub misdirected_write: f64,
    /// A read fails with EIO.
    pub read_error: f64,
}

impl Faults {
    pub const NONE: Self = Self {
        write_error: 0.0,
        short_write: 0.0,
        lost_write: 0.0,
        misdirected_write: 0.0,
        read_error: 0.0,
    };
}

/// What was injected: counts, and where writes that lied should have gone.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Injected {
    pub write_errors: u64,
    pub short_writes: u64,
    pub read_errors: u64,
    pub rotten: u64,
    /// Offset and bytes of each lost write.
    pub lost: Vec<(u64, u64)>,
    /// Offset, where it went instead, and bytes of each misdirected write.
    pub misdirected: Vec<(u64, u64, u64)>,
}
