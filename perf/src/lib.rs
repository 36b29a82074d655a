//! Compares two benchmark runs, and tells on what machine they ran.

pub mod compare;
pub mod host;
