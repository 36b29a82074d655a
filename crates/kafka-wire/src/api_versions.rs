//! ApiVersions, written by hand: the one API whose reply depends on versions we do not know
//! (KIP-35, KIP-511, KIP-584, KIP-1242).

use kafka_protocol::protocol::StrBytes;

use crate::api::{APIS, ApiKey};
use crate::error_code::ErrorCode;
use crate::reader::{Fault, Reader};
use crate::writer::{TooLong, Writer};

/// An ApiVersions request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ApiVersionsRequest {
    /// v3+.
    pub client_software_name: StrBytes,
    /// v3+.
    pub client_software_version: StrBytes,
    /// v5+: the cluster that the client believes to talk to.
    pub cluster_id: Option<StrBytes>,
    /// v5+: the node that the client believes to talk to; -1 for none.
    pub node_id: i32,
}

/// What is wrong with a request that was decoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ApiVersionsFault {
    #[error("the client's software name is not allowed")]
    SoftwareName,
    #[error("the client's software version is not allowed")]
    SoftwareVersion,
    #[error("cluster id and node id must come together")]
    HalfIdentity,
    /// The client must bootstrap again.
    #[error("the client looks for another cluster or node")]
    OtherBroker,
}

impl Default for ApiVersionsRequest {
    fn default() -> Self {
        Self {
            client_software_name: StrBytes::new(),
            client_software_version: StrBytes::new(),
            cluster_id: None,
            node_id: -1,
        }
    }
}

impl ApiVersionsRequest {
    /// Judges the request of this version on a broker with this identity.
    pub fn check(
        &self,
        version: i16,
        cluster_id: &str,
        node_id: i32,
    ) -> Result<(), ApiVersionsFault> {
        if version >= 3 && !is_software_word(&self.client_software_name) {
            return Err(ApiVersionsFault::SoftwareName);
        }
        if version >= 3 && !is_software_word(&self.client_software_version) {
            return Err(ApiVersionsFault::SoftwareVersion);
        }
        match (&self.cluster_id, self.node_id) {
            (None, -1) => Ok(()),
            (None, _) | (Some(_), -1) => Err(ApiVersionsFault::HalfIdentity),
            (Some(theirs), id) if **theirs == *cluster_id && id == node_id => Ok(()),
            _ => Err(ApiVersionsFault::OtherBroker),
        }
    }

    pub(crate) fn read(mut reader: Reader, version: i16) -> Result<Self, Fault> {
        let mut request = Self::default();
        if version >= 3 {
            request.client_software_name = reader.string()?;
            request.client_software_version = reader.string()?;
        }
        if version >= 5 {
            request.cluster_id = reader.nullable_string()?;
            request.node_id = reader.i32()?;
        }
        reader.skip_tags()?;
        Ok(request)
    }

    pub(crate) fn write(&self, writer: &mut Writer, version: i16) -> Result<(), TooLong> {
        if version >= 3 {
            writer.string(&self.client_software_name)?;
            writer.string(&self.client_software_version)?;
        }
        if version >= 5 {
            writer.nullable_string(self.cluster_id.as_ref())?;
            writer.i32(self.node_id);
        }
        writer.no_tags();
        Ok(())
    }
}

/// The reply to an ApiVersions request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ApiVersionsResponse {
    pub error_code: ErrorCode,
    pub api_keys: Vec<VersionRange>,
    /// v1+.
    pub throttle_time_ms: i32,
    /// v3+. One whose minimum is 0 is left out of replies to v3 (KAFKA-17492).
    pub supported_features: Vec<SupportedFeature>,
    /// v3+; grows with every change, -1 for unknown.
    pub finalized_features_epoch: i64,
    /// v3+.
    pub finalized_features: Vec<FinalizedFeature>,
}

/// Versions of an API, inclusive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VersionRange {
    pub api_key: i16,
    pub min_version: i16,
    pub max_version: i16,
}

/// Levels of a feature that the broker can take.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SupportedFeature {
    pub name: StrBytes,
    pub min_version: i16,
    pub max_version: i16,
}

/// The level of a feature that the cluster is at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FinalizedFeature {
    pub name: StrBytes,
    pub max_version_level: i16,
    pub min_version_level: i16,
}

impl ApiVersionsResponse {
    /// The table of served APIs, without features.
    pub fn supported() -> Self {
        let range = |api: &crate::api::Api| VersionRange {
            api_key: api.key.code(),
            min_version: api.advertised_min,
            max_version: api.max,
        };
        Self { api_keys: APIS.iter().map(range).collect(), ..Self::failed(ErrorCode::None) }
    }

    /// The reply to a version above ours: exactly one entry, or franz-go does not try again.
    pub fn unsupported_version() -> Self {
        let api = ApiKey::ApiVersions.api();
        let range = VersionRange {
            api_key: api.key.code(),
            min_version: api.advertised_min,
            max_version: api.max,
        };
        Self { api_keys: vec![range], ..Self::failed(ErrorCode::UnsupportedVersion) }
    }

    /// A reply that only carries an error.
    pub fn failed(error_code: ErrorCode) -> Self {
        Self {
            error_code,
            api_keys: Vec::new(),
            throttle_time_ms: 0,
            supported_features: Vec::new(),
            finalized_features_epoch: -1,
            finalized_features: Vec::new(),
        }
    }

    /// A version above ours is answered in the layout of v0.
    pub(crate) fn layout_version(version: i16) -> i16 {
        if ApiKey::ApiVersions.serves(version) { version } else { 0 }
    }

    pub(crate) fn write(&self, writer: &mut Writer, version: i16) -> Result<(), TooLong> {
        writer.i16(self.error_code.code());
        writer.length(self.api_keys.len())?;
        for range in &self.api_keys {
            writer.i16(range.api_key);
            writer.i16(range.min_version);
            writer.i16(range.max_version);
            writer.no_tags();
        }
        if version >= 1 {
            writer.i32(self.throttle_time_ms);
        }
        if version >= 3 { self.write_features(writer, version) } else { Ok(()) }
    }

    fn write_features(&self, writer: &mut Writer, version: i16) -> Result<(), TooLong> {
        let shown = |feature: &&SupportedFeature| version > 3 || feature.min_version > 0;
        let supported: Vec<_> = self.supported_features.iter().filter(shown).collect();
        let known_epoch = self.finalized_features_epoch != -1;
        let tags = [!supported.is_empty(), known_epoch, !self.finalized_features.is_empty()];
        let count = tags.iter().filter(|present| **present).count();
        writer.tag_count(u32::try_from(count).map_err(|_| TooLong)?);
        if !supported.is_empty() {
            writer.tag(0, |writer| {
                writer.length(supported.len())?;
                for feature in supported {
                    writer.string(&feature.name)?;
                    writer.i16(feature.min_version);
                    writer.i16(feature.max_version);
                    writer.no_tags();
                }
                Ok(())
            })?;
        }
        if known_epoch {
            writer.tag(1, |writer| {
                writer.i64(self.finalized_features_epoch);
                Ok(())
            })?;
        }
        if self.finalized_features.is_empty() {
            return Ok(());
        }
        writer.tag(2, |writer| {
            writer.length(self.finalized_features.len())?;
            for feature in &self.finalized_features {
                writer.string(&feature.name)?;
                writer.i16(feature.max_version_level);
                writer.i16(feature.min_version_level);
                writer.no_tags();
            }
            Ok(())
        })
    }
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`
fn is_software_word(word: &str) -> bool {
    let bytes = word.as_bytes();
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RequestHeader, Response, encode};

    fn encoded(version: i16, response: ApiVersionsResponse) -> Vec<u8> {
        let header = RequestHeader {
            api_key: ApiKey::ApiVersions,
            api_version: version,
            correlation_id: 9,
            client_id: None,
        };
        encode(&header, Response::ApiVersions(response)).expect("short").concat()
    }

    #[test]
    fn a_version_above_ours_gets_one_entry_in_the_layout_of_v0() {
        let expected = [0, 0, 0, 16, 0, 0, 0, 9, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 5];
        for version in [6, 99, i16::MAX] {
            assert_eq!(encoded(version, ApiVersionsResponse::unsupported_version()), expected);
        }
    }

    #[test]
    fn produce_and_join_group_are_advertised_from_0() {
        let response = ApiVersionsResponse::supported();
        let range = |key: ApiKey| {
            let range = response.api_keys.iter().find(|range| range.api_key == key.code());
            range.map(|range| (range.min_version, range.max_version))
        };
        assert_eq!(range(ApiKey::Produce), Some((0, 13)));
        assert_eq!(range(ApiKey::JoinGroup), Some((0, 9)));
        assert_eq!(range(ApiKey::Fetch), Some((4, 18)));
        assert_eq!(response.api_keys.len(), APIS.len());
    }

    #[test]
    fn features_from_0_are_not_shown_to_v3() {
        let feature = |min_version| SupportedFeature {
            name: StrBytes::from_static_str("transaction.version"),
            min_version,
            max_version: 2,
        };
        let response = |features| ApiVersionsResponse {
            supported_features: features,
            ..ApiVersionsResponse::failed(ErrorCode::None)
        };
        let none = encoded(3, response(Vec::new()));
        assert_eq!(encoded(3, response(vec![feature(0)])), none);
        assert_ne!(encoded(3, response(vec![feature(1)])), none);
        assert_ne!(encoded(4, response(vec![feature(0)])), encoded(4, response(Vec::new())));
    }

    #[test]
    fn software_names_follow_kafkas_pattern() {
        for good in ["a", "9", "apache-kafka-java", "librdkafka", "a.b-c.1", "a--b"] {
            assert!(is_software_word(good), "{good}");
        }
        for bad in ["", "-", "a-", ".a", "a b", "a_b", "é", "a\n"] {
            assert!(!is_software_word(bad), "{bad}");
        }
    }

    #[test]
    fn identity_comes_whole_and_is_ours() {
        let request = |cluster_id: Option<&'static str>, node_id| ApiVersionsRequest {
            client_software_name: StrBytes::from_static_str("java"),
            client_software_version: StrBytes::from_static_str("4.4.0"),
            cluster_id: cluster_id.map(StrBytes::from_static_str),
            node_id,
        };
        let check = |request: ApiVersionsRequest| request.check(5, "ours", 3);
        assert_eq!(check(request(None, -1)), Ok(()));
        assert_eq!(check(request(Some("ours"), 3)), Ok(()));
        assert_eq!(check(request(Some("ours"), -1)), Err(ApiVersionsFault::HalfIdentity));
        assert_eq!(check(request(None, 3)), Err(ApiVersionsFault::HalfIdentity));
        assert_eq!(check(request(Some("theirs"), 3)), Err(ApiVersionsFault::OtherBroker));
        assert_eq!(check(request(Some("ours"), 4)), Err(ApiVersionsFault::OtherBroker));
        let unnamed = ApiVersionsRequest::default();
        assert_eq!(unnamed.check(2, "ours", 3), Ok(()));
        assert_eq!(unnamed.check(3, "ours", 3), Err(ApiVersionsFault::SoftwareName));
    }
}
