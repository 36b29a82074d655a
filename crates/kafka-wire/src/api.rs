//! The table of served APIs: key, versions served, versions advertised, first flexible version.

use std::fmt;

/// An API that the broker serves.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(i16)]
pub enum ApiKey {
    Produce = 0,
    Fetch = 1,
    ListOffsets = 2,
    Metadata = 3,
    OffsetCommit = 8,
    OffsetFetch = 9,
    FindCoordinator = 10,
    JoinGroup = 11,
    Heartbeat = 12,
    LeaveGroup = 13,
    SyncGroup = 14,
    ApiVersions = 18,
    CreateTopics = 19,
    DeleteTopics = 20,
    DeleteRecords = 21,
    InitProducerId = 22,
    OffsetForLeaderEpoch = 23,
    DescribeConfigs = 32,
    AlterConfigs = 33,
    DescribeLogDirs = 35,
    ElectLeaders = 43,
    IncrementalAlterConfigs = 44,
    AlterPartitionReassignments = 45,
    ListPartitionReassignments = 46,
    DescribeCluster = 60,
    UnregisterBroker = 64,
    AddRaftVoter = 80,
    RemoveRaftVoter = 81,
}

/// One row of the table. Version bounds are inclusive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Api {
    pub key: ApiKey,
    /// Lowest version that is decoded.
    pub min: i16,
    /// Highest version that is decoded.
    pub max: i16,
    /// Lowest version that ApiVersions lists; below `min` where clients derive features from it.
    pub advertised_min: i16,
    /// Lowest version with compact lengths and tagged fields (KIP-482).
    pub flexible_min: i16,
}

/// Every served API, by ascending key.
///
/// Produce is advertised from 0 (KAFKA-18659): librdkafka before the fix turns compression off
/// when the minimum is 3. ApiVersions lists the advertised range, never more than is served above.
/// DescribeLogDirs ends where the codec does: v5 only adds whether a directory takes no more
/// replicas.
pub const APIS: &[Api] = &[
    Api { advertised_min: 0, ..row(ApiKey::Produce, 3, 13, 9) },
    row(ApiKey::Fetch, 4, 18, 12),
    row(ApiKey::ListOffsets, 1, 11, 6),
    row(ApiKey::Metadata, 0, 13, 9),
    row(ApiKey::OffsetCommit, 2, 10, 8),
    row(ApiKey::OffsetFetch, 1, 10, 6),
    row(ApiKey::FindCoordinator, 0, 6, 3),
    row(ApiKey::JoinGroup, 0, 9, 6),
    row(ApiKey::Heartbeat, 0, 4, 4),
    row(ApiKey::LeaveGroup, 0, 5, 4),
    row(ApiKey::SyncGroup, 0, 5, 4),
    row(ApiKey::ApiVersions, 0, 5, 3),
    row(ApiKey::CreateTopics, 2, 7, 5),
    row(ApiKey::DeleteTopics, 1, 6, 4),
    row(ApiKey::DeleteRecords, 0, 2, 2),
    row(ApiKey::InitProducerId, 0, 5, 2),
    row(ApiKey::OffsetForLeaderEpoch, 2, 4, 4),
    row(ApiKey::DescribeConfigs, 1, 4, 4),
    row(ApiKey::AlterConfigs, 0, 2, 2),
    row(ApiKey::DescribeLogDirs, 1, 4, 2),
    row(ApiKey::ElectLeaders, 0, 2, 2),
    row(ApiKey::IncrementalAlterConfigs, 0, 1, 1),
    row(ApiKey::AlterPartitionReassignments, 0, 1, 0),
    row(ApiKey::ListPartitionReassignments, 0, 0, 0),
    row(ApiKey::DescribeCluster, 0, 2, 0),
    row(ApiKey::UnregisterBroker, 0, 0, 0),
    row(ApiKey::AddRaftVoter, 0, 0, 0),
    row(ApiKey::RemoveRaftVoter, 0, 0, 0),
];

impl ApiKey {
    /// The number on the wire.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// The served API with this number.
    pub fn from_code(code: i16) -> Option<Self> {
        APIS.iter().map(|api| api.key).find(|key| key.code() == code)
    }

    /// This API's row of the table.
    pub fn api(self) -> &'static Api {
        APIS.iter().find(|api| api.key == self).expect("a test checks that every key has a row")
    }

    /// Whether this version is decoded.
    pub fn serves(self, version: i16) -> bool {
        (self.api().min..=self.api().max).contains(&version)
    }

    /// Whether this version has compact lengths and tagged fields.
    pub fn is_flexible(self, version: i16) -> bool {
        version >= self.api().flexible_min
    }

    /// Version of the response header: 1 has a tag section. ApiVersions stays at 0, so that a
    /// client can read the reply before it knows what the broker speaks.
    pub fn response_header_version(self, version: i16) -> i16 {
        i16::from(self != Self::ApiVersions && self.is_flexible(version))
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}({})", self.code())
    }
}

const fn row(key: ApiKey, min: i16, max: i16, flexible_min: i16) -> Api {
    Api { key, min, max, advertised_min: min, flexible_min }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_ascend_and_ranges_are_sane() {
        for pair in APIS.windows(2) {
            assert!(pair[0].key.code() < pair[1].key.code());
        }
        for api in APIS {
            assert!(api.min <= api.max && api.advertised_min <= api.min && api.advertised_min >= 0);
            assert_eq!(ApiKey::from_code(api.key.code()), Some(api.key));
            assert_eq!(api.key.api().key, api.key);
            assert!(api.key.serves(api.max) && !api.key.serves(api.max + 1));
        }
        assert_eq!(ApiKey::from_code(999), None);
        assert_eq!(APIS.len(), 28);
    }

    /// The first flexible version must be the codec's, which is generated from Kafka's sources.
    #[test]
    fn header_versions_agree_with_the_codec() {
        for api in APIS {
            let theirs = kafka_protocol::messages::ApiKey::try_from(api.key.code()).expect("known");
            for version in api.min..=api.max {
                let flexible = theirs.request_header_version(version) == 2;
                assert_eq!(flexible, api.key.is_flexible(version), "{} v{version}", api.key);
                let header = theirs.response_header_version(version);
                assert_eq!(header, api.key.response_header_version(version), "{}", api.key);
            }
        }
    }
}
