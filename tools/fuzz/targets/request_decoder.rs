//! Any frame that a client may send.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kafka_wire::fuzz::fuzz_request(bytes));
