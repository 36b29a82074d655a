//! Entries for fuzzing: they must return for any bytes.

use bytes::BytesMut;

use crate::validate::{ValidationRules, validate};

/// Feeds bytes to the request decoder.
pub fn fuzz_request(bytes: &[u8]) {
    let _ = crate::request::decode(BytesMut::from(bytes));
}

/// Feeds bytes to the batch validator.
pub fn fuzz_batch(bytes: &[u8]) {
    let _ = validate(&mut BytesMut::from(bytes), &ValidationRules::default());
}
