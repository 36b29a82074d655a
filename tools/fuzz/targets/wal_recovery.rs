//! Any bytes that a device may hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wal_uring::fuzz_recovery(bytes));
