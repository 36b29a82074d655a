//! Being built.
pub mod partition;
