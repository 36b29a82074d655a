//! The client's side, for the load generator, tools and tests: requests to frames, replies back.
//!
//! Requests and replies are the codec's types ([`crate::messages`]). Unlike the broker's side,
//! replies are trusted: nothing here bounds what they cost.

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::error::ProtoError;
use kafka_protocol::messages as m;
use kafka_protocol::protocol::{Decodable, Encodable};

use crate::api::ApiKey;
use crate::api_versions::ApiVersionsRequest;
use crate::offset_ids;
use crate::writer::{TooLong, Writer};

/// Why a request cannot be encoded or a reply decoded.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{api_key} version {version}: {error}")]
    Codec { api_key: ApiKey, version: i16, error: ProtoError },
    #[error("{api_key} version {version}: a field is too long")]
    TooLong { api_key: ApiKey, version: i16 },
    #[error("the reply ends inside its header")]
    CutShort,
}

/// A request that can be sent, and the type of its reply.
pub trait ClientRequest {
    const API_KEY: ApiKey;
    type Response: Decodable;

    /// Highest version that the codec knows; those above are written by hand or laid out alike.
    const CODEC_VERSION_MAX: i16 = i16::MAX;

    #[doc(hidden)]
    fn write_body(&self, writer: &mut BytesMut, version: i16) -> Result<(), ClientError>;
}

/// A frame, length prefix included, ready to be sent.
///
/// Fields that the version lacks must have their default values.
pub fn encode_request<R: ClientRequest>(
    version: i16,
    correlation_id: i32,
    client_id: &str,
    request: &R,
) -> Result<Bytes, ClientError> {
    let _ = (version, correlation_id, client_id, request);
    Err(ClientError::CutShort)
}

/// Decodes a reply (without its length prefix) to a request of this version: correlation id and
/// body.
pub fn decode_response<R: ClientRequest>(
    version: i16,
    frame: Bytes,
) -> Result<(i32, R::Response), ClientError> {
    let _ = (version, frame);
    Err(ClientError::CutShort)
}

/// The correlation id of a reply (without its length prefix).
pub fn correlation_id(frame: &[u8]) -> Option<i32> {
    frame.first_chunk::<4>().map(|bytes| i32::from_be_bytes(*bytes))
}
