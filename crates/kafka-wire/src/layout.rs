//! Where the fields of each request body are: what the guard needs to walk one before decoding.
//!
//! A row says from which to which version a field is there and how its size is found. Whether
//! lengths are compact and structs end in tagged fields follows from the API's first flexible
//! version. Tests walk every encoding that the codec produces, so a wrong row cannot stay.

use std::mem::size_of;

use kafka_protocol::messages as m;
use kafka_protocol::protocol::StrBytes;

use crate::api::ApiKey;
use crate::produce::{ProducePartition, ProduceTopic};

/// A struct of a message.
pub(crate) struct Layout {
    pub(crate) fields: &'static [Field],
    /// Tagged fields that the codec decodes; others are skipped.
    pub(crate) tags: &'static [Tag],
    /// Bytes of one decoded element, for arrays of it.
    pub(crate) memory: usize,
}

pub(crate) struct Field {
    pub(crate) from: i16,
    pub(crate) to: i16,
    pub(crate) kind: Kind,
}

pub(crate) struct Tag {
    pub(crate) tag: u32,
    pub(crate) from: i16,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    Fixed(usize),
    String,
    Bytes,
    Array(&'static Layout),
    /// Integers of `size` bytes, no larger in memory.
    FixedArray {
        size: usize,
    },
    StringArray {
        memory: usize,
    },
    Struct(&'static Layout),
}

use Kind::{Array, Bytes, Fixed, FixedArray, String, Struct};

const BOOL: Kind = Fixed(1);
const I8: Kind = Fixed(1);
const I16: Kind = Fixed(2);
const I32: Kind = Fixed(4);
const I64: Kind = Fixed(8);
const UUID: Kind = Fixed(16);
const I32S: Kind = FixedArray { size: 4 };
const STRINGS: Kind = Kind::StringArray { memory: size_of::<StrBytes>() };

/// The layout of an API's request body, over all versions.
pub(crate) fn of(api_key: ApiKey) -> &'static Layout {
    match api_key {
        ApiKey::Produce => &PRODUCE,
        ApiKey::Fetch => &FETCH,
        ApiKey::ListOffsets => &LIST_OFFSETS,
        ApiKey::Metadata => &METADATA,
        ApiKey::OffsetCommit => &OFFSET_COMMIT,
        ApiKey::OffsetFetch => &OFFSET_FETCH,
        ApiKey::FindCoordinator => &FIND_COORDINATOR,
        ApiKey::JoinGroup => &JOIN_GROUP,
        ApiKey::Heartbeat => &HEARTBEAT,
        ApiKey::LeaveGroup => &LEAVE_GROUP,
        ApiKey::SyncGroup => &SYNC_GROUP,
        ApiKey::ApiVersions => &API_VERSIONS,
        ApiKey::CreateTopics => &CREATE_TOPICS,
        ApiKey::DeleteTopics => &DELETE_TOPICS,
        ApiKey::DeleteRecords => &DELETE_RECORDS,
        ApiKey::InitProducerId => &INIT_PRODUCER_ID,
        ApiKey::OffsetForLeaderEpoch => &OFFSET_FOR_LEADER_EPOCH,
        ApiKey::DescribeConfigs => &DESCRIBE_CONFIGS,
        ApiKey::AlterConfigs => &ALTER_CONFIGS,
        ApiKey::DescribeLogDirs => &DESCRIBE_LOG_DIRS,
        ApiKey::ElectLeaders => &ELECT_LEADERS,
        ApiKey::IncrementalAlterConfigs => &INCREMENTAL_ALTER_CONFIGS,
        ApiKey::AlterPartitionReassignments => &ALTER_REASSIGNMENTS,
        ApiKey::ListPartitionReassignments => &LIST_REASSIGNMENTS,
        ApiKey::DescribeCluster => &DESCRIBE_CLUSTER,
        ApiKey::UnregisterBroker => &UNREGISTER_BROKER,
        ApiKey::AddRaftVoter => &ADD_RAFT_VOTER,
        ApiKey::RemoveRaftVoter => &REMOVE_RAFT_VOTER,
    }
}

const fn since(from: i16, kind: Kind) -> Field {
    Field { from, to: i16::MAX, kind }
}

const fn until(to: i16, kind: Kind) -> Field {
    Field { from: 0, to, kind }
}

const fn all(kind: Kind) -> Field {
    since(0, kind)
}

/// A request body: decoded once, so its own size does not count.
const fn body(fields: &'static [Field]) -> Layout {
    Layout { fields, tags: &[], memory: 0 }
}

const fn element<T>(fields: &'static [Field]) -> Layout {
    Layout { fields, tags: &[], memory: size_of::<T>() }
}

static API_VERSIONS: Layout =
    body(&[since(3, String), since(3, String), since(5, String), since(5, I32)]);

static PRODUCE: Layout = body(&[all(String), all(I16), all(I32), all(Array(&PRODUCE_TOPIC))]);
static PRODUCE_TOPIC: Layout =
    element::<ProduceTopic>(&[until(12, String), since(13, UUID), all(Array(&PRODUCE_PARTITION))]);
static PRODUCE_PARTITION: Layout = element::<ProducePartition>(&[all(I32), all(Bytes)]);

static FETCH: Layout = Layout {
    fields: &[
        until(14, I32), // replica id
        all(I32),       // max wait
        all(I32),       // min bytes
        all(I32),       // max bytes
        all(I8),        // isolation level
        since(7, I32),  // session id
        since(7, I32),  // session epoch
        all(Array(&FETCH_TOPIC)),
        since(7, Array(&FORGOTTEN_TOPIC)),
        since(11, String), // rack
    ],
    tags: &[
        Tag { tag: 0, from: 12, kind: String },
        Tag { tag: 1, from: 15, kind: Struct(&REPLICA_STATE) },
    ],
    memory: 0,
};
static REPLICA_STATE: Layout = body(&[all(I32), all(I64)]);
static FETCH_TOPIC: Layout = element::<m::fetch_request::FetchTopic>(&[
    until(12, String),
    since(13, UUID),
    all(Array(&FETCH_PARTITION)),
]);
static FETCH_PARTITION: Layout = Layout {
    fields: &[
        all(I32),       // partition
        since(9, I32),  // current leader epoch
        all(I64),       // fetch offset
        since(12, I32), // last fetched epoch
        since(5, I64),  // log start offset
        all(I32),       // max bytes
    ],
    tags: &[Tag { tag: 0, from: 17, kind: UUID }, Tag { tag: 1, from: 18, kind: I64 }],
    memory: size_of::<m::fetch_request::FetchPartition>(),
};
static FORGOTTEN_TOPIC: Layout =
    element::<m::fetch_request::ForgottenTopic>(&[until(12, String), since(13, UUID), all(I32S)]);

static LIST_OFFSETS: Layout = body(&[
    all(I32),
    since(2, I8),
    all(Array(&LIST_OFFSETS_TOPIC)),
    since(10, I32), // timeout
]);
static LIST_OFFSETS_TOPIC: Layout = element::<m::list_offsets_request::ListOffsetsTopic>(&[
    all(String),
    all(Array(&LIST_OFFSETS_PARTITION)),
]);
static LIST_OFFSETS_PARTITION: Layout =
    element::<m::list_offsets_request::ListOffsetsPartition>(&[all(I32), since(4, I32), all(I64)]);

static METADATA: Layout = body(&[
    all(Array(&METADATA_TOPIC)),
    since(4, BOOL),
    Field { from: 8, to: 10, kind: BOOL },
    since(8, BOOL),
]);
static METADATA_TOPIC: Layout =
    element::<m::metadata_request::MetadataRequestTopic>(&[since(10, UUID), all(String)]);

static OFFSET_COMMIT: Layout = body(&[
    all(String),
    all(I32),
    all(String),
    since(7, String),
    until(4, I64), // retention
    all(Array(&OFFSET_COMMIT_TOPIC)),
]);
static OFFSET_COMMIT_TOPIC: Layout =
    element::<m::offset_commit_request::OffsetCommitRequestTopic>(&[
        until(9, String),
        since(10, UUID),
        all(Array(&OFFSET_COMMIT_PARTITION)),
    ]);
static OFFSET_COMMIT_PARTITION: Layout = element::<
    m::offset_commit_request::OffsetCommitRequestPartition,
>(&[all(I32), all(I64), since(6, I32), all(String)]);

static OFFSET_FETCH: Layout = body(&[
    until(7, String),
    until(7, Array(&OFFSET_FETCH_TOPIC)),
    since(8, Array(&OFFSET_FETCH_GROUP)),
    since(7, BOOL),
]);
static OFFSET_FETCH_TOPIC: Layout =
    element::<m::offset_fetch_request::OffsetFetchRequestTopic>(&[all(String), all(I32S)]);
static OFFSET_FETCH_GROUP: Layout = element::<m::offset_fetch_request::OffsetFetchRequestGroup>(&[
    all(String),
    since(9, String),
    since(9, I32),
    all(Array(&OFFSET_FETCH_GROUP_TOPIC)),
]);
static OFFSET_FETCH_GROUP_TOPIC: Layout = element::<
    m::offset_fetch_request::OffsetFetchRequestTopics,
>(&[until(9, String), since(10, UUID), all(I32S)]);

static FIND_COORDINATOR: Layout = body(&[until(3, String), since(1, I8), since(4, STRINGS)]);

static JOIN_GROUP: Layout = body(&[
    all(String),
    all(I32),
    since(1, I32),
    all(String),
    since(5, String),
    all(String),
    all(Array(&JOIN_GROUP_PROTOCOL)),
    since(8, String),
]);
static JOIN_GROUP_PROTOCOL: Layout =
    element::<m::join_group_request::JoinGroupRequestProtocol>(&[all(String), all(Bytes)]);

static HEARTBEAT: Layout = body(&[all(String), all(I32), all(String), since(3, String)]);

static LEAVE_GROUP: Layout =
    body(&[all(String), until(2, String), since(3, Array(&LEAVE_GROUP_MEMBER))]);
static LEAVE_GROUP_MEMBER: Layout = element::<m::leave_group_request::MemberIdentity>(&[
    all(String),
    all(String),
    since(5, String),
]);

static SYNC_GROUP: Layout = body(&[
    all(String),
    all(I32),
    all(String),
    since(3, String),
    since(5, String),
    since(5, String),
    all(Array(&SYNC_GROUP_ASSIGNMENT)),
]);
static SYNC_GROUP_ASSIGNMENT: Layout =
    element::<m::sync_group_request::SyncGroupRequestAssignment>(&[all(String), all(Bytes)]);

static CREATE_TOPICS: Layout = body(&[all(Array(&CREATABLE_TOPIC)), all(I32), all(BOOL)]);
static CREATABLE_TOPIC: Layout = element::<m::create_topics_request::CreatableTopic>(&[
    all(String),
    all(I32),
    all(I16),
    all(Array(&CREATABLE_ASSIGNMENT)),
    all(Array(&CREATABLE_CONFIG)),
]);
static CREATABLE_ASSIGNMENT: Layout =
    element::<m::create_topics_request::CreatableReplicaAssignment>(&[all(I32), all(I32S)]);
static CREATABLE_CONFIG: Layout =
    element::<m::create_topics_request::CreatableTopicConfig>(&[all(String), all(String)]);

static DELETE_TOPICS: Layout = body(&[since(6, Array(&DELETE_TOPIC)), until(5, STRINGS), all(I32)]);
static DELETE_TOPIC: Layout =
    element::<m::delete_topics_request::DeleteTopicState>(&[all(String), all(UUID)]);

static DELETE_RECORDS: Layout = body(&[all(Array(&DELETE_RECORDS_TOPIC)), all(I32)]);
static DELETE_RECORDS_TOPIC: Layout = element::<m::delete_records_request::DeleteRecordsTopic>(&[
    all(String),
    all(Array(&DELETE_RECORDS_PARTITION)),
]);
static DELETE_RECORDS_PARTITION: Layout =
    element::<m::delete_records_request::DeleteRecordsPartition>(&[all(I32), all(I64)]);

static INIT_PRODUCER_ID: Layout = body(&[all(String), all(I32), since(3, I64), since(3, I16)]);

static OFFSET_FOR_LEADER_EPOCH: Layout = body(&[since(3, I32), all(Array(&EPOCH_TOPIC))]);
static EPOCH_TOPIC: Layout =
    element::<m::offset_for_leader_epoch_request::OffsetForLeaderTopic>(&[
        all(String),
        all(Array(&EPOCH_PARTITION)),
    ]);
static EPOCH_PARTITION: Layout = element::<
    m::offset_for_leader_epoch_request::OffsetForLeaderPartition,
>(&[all(I32), all(I32), all(I32)]);

static DESCRIBE_CONFIGS: Layout = body(&[all(Array(&CONFIG_RESOURCE)), all(BOOL), since(3, BOOL)]);
static CONFIG_RESOURCE: Layout =
    element::<m::describe_configs_request::DescribeConfigsResource>(&[
        all(I8),
        all(String),
        all(STRINGS),
    ]);

static ALTER_CONFIGS: Layout = body(&[all(Array(&ALTERED_RESOURCE)), all(BOOL)]);
static ALTERED_RESOURCE: Layout = element::<m::alter_configs_request::AlterConfigsResource>(&[
    all(I8),
    all(String),
    all(Array(&ALTERED_CONFIG)),
]);
static ALTERED_CONFIG: Layout =
    element::<m::alter_configs_request::AlterableConfig>(&[all(String), all(String)]);

static DESCRIBE_LOG_DIRS: Layout = body(&[all(Array(&LOG_DIR_TOPIC))]);
static LOG_DIR_TOPIC: Layout =
    element::<m::describe_log_dirs_request::DescribableLogDirTopic>(&[all(String), all(I32S)]);

static ELECT_LEADERS: Layout = body(&[since(1, I8), all(Array(&ELECTION_TOPIC)), all(I32)]);
static ELECTION_TOPIC: Layout =
    element::<m::elect_leaders_request::TopicPartitions>(&[all(String), all(I32S)]);

static INCREMENTAL_ALTER_CONFIGS: Layout = body(&[all(Array(&INCREMENTAL_RESOURCE)), all(BOOL)]);
static INCREMENTAL_RESOURCE: Layout = element::<
    m::incremental_alter_configs_request::AlterConfigsResource,
>(&[all(I8), all(String), all(Array(&INCREMENTAL_CONFIG))]);
static INCREMENTAL_CONFIG: Layout =
    element::<m::incremental_alter_configs_request::AlterableConfig>(&[
        all(String),
        all(I8),
        all(String),
    ]);

static ALTER_REASSIGNMENTS: Layout =
    body(&[all(I32), since(1, BOOL), all(Array(&REASSIGNABLE_TOPIC))]);
static REASSIGNABLE_TOPIC: Layout = element::<
    m::alter_partition_reassignments_request::ReassignableTopic,
>(&[all(String), all(Array(&REASSIGNABLE_PARTITION))]);
static REASSIGNABLE_PARTITION: Layout = element::<
    m::alter_partition_reassignments_request::ReassignablePartition,
>(&[all(I32), all(I32S)]);

static LIST_REASSIGNMENTS: Layout = body(&[all(I32), all(Array(&REASSIGNED_TOPIC))]);
static REASSIGNED_TOPIC: Layout = element::<
    m::list_partition_reassignments_request::ListPartitionReassignmentsTopics,
>(&[all(String), all(I32S)]);

static DESCRIBE_CLUSTER: Layout = body(&[all(BOOL), since(1, I8), since(2, BOOL)]);

static UNREGISTER_BROKER: Layout = body(&[all(I32)]);

static ADD_RAFT_VOTER: Layout =
    body(&[all(String), all(I32), all(I32), all(UUID), all(Array(&VOTER_LISTENER))]);
static VOTER_LISTENER: Layout =
    element::<m::add_raft_voter_request::Listener>(&[all(String), all(String), all(I16)]);

static REMOVE_RAFT_VOTER: Layout = body(&[all(String), all(I32), all(UUID)]);
