//! Kafka's wire protocol: bytes to typed requests and back, and record batches v2.
//!
//! No I/O, no clock, no threads. A connection's bytes go through [`FrameReader`]; each frame
//! through [`decode`], which gives a [`RequestHeader`] and a [`Request`]; the broker answers
//! with a [`Response`], which [`encode`] turns into pieces for one vectored write.
//!
//! Hostile bytes are refused with an error: nothing here panics on them, allocates by a length
//! prefix, or lets a frame cost more than a fixed multiple of its size (see [`DecodeError`] and
//! [`Compression`]).
//!
//! Messages that are not hand-written are the types of `proto-kafka`, re-exported as
//! [`messages`]. All of its decoding on the broker's side happens in one module, behind a
//! structural check (`guard.rs`).
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod api;
pub mod api_versions;
pub mod batch;
pub mod client;
pub mod compression;
mod error_code;
pub mod fetch;
pub mod frame;
#[doc(hidden)]
pub mod fuzz;
mod guard;
mod layout;
mod offset_ids;
pub mod produce;
mod reader;
pub mod records;
pub mod request;
pub mod response;
mod scan;
pub mod validate;
mod varint;
mod writer;

pub use bytes::{Bytes, BytesMut};
pub use kafka_protocol::messages;
pub use kafka_protocol::protocol::StrBytes;
pub use uuid::Uuid;

pub use api::ApiKey;
pub use compression::Compression;
pub use error_code::ErrorCode;
pub use frame::{FrameError, FrameLimits, FrameReader};
pub use request::{DecodeError, Request, RequestHeader, decode};
pub use response::{EncodeError, Response, encode};
