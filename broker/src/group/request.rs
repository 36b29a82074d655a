//! Requests and answers in the coordinator's own words; `api/` translates them from and to Kafka's.

use bytes::Bytes;
use uuid::Uuid;

use super::Name;

/// One request to one group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupRequest {
    pub group: Name,
    pub operation: Operation,
}

/// What is asked of the group.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    Join(JoinRequest),
    Sync(SyncRequest),
    Heartbeat(HeartbeatRequest),
    Leave(LeaveRequest),
    CommitOffsets(CommitOffsetsRequest),
    FetchOffsets(FetchOffsetsRequest),
}

/// The answer to the [`Operation`] of the same name.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupResponse {
    Join(Result<JoinedGroup, JoinRefused>),
    Sync(Result<SyncedGroup, GroupError>),
    Heartbeat(Result<(), GroupError>),
    Leave(Result<Vec<MemberLeft>, GroupError>),
    CommitOffsets(Vec<OffsetCommitted>),
    FetchOffsets(Result<Vec<OffsetFetched>, GroupError>),
}

/// Why a request, a member or an offset is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum GroupError {
    #[error("the group cannot be recorded now")]
    CoordinatorNotAvailable,
    #[error("this shard does not coordinate the group")]
    NotCoordinator,
    #[error("the group is still being read from the log")]
    LoadInProgress,
    #[error("the group id is empty")]
    InvalidGroupId,
    #[error("no such group")]
    GroupNotFound,
    #[error("no such member")]
    UnknownMember,
    #[error("the generation is not the group's")]
    IllegalGeneration,
    #[error("the protocols do not agree with the group's")]
    InconsistentProtocol,
    #[error("the session timeout is out of bounds")]
    InvalidSessionTimeout,
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    #[error("the member must join again with the id it was given")]
    MemberIdRequired,
    #[error("the group is full")]
    GroupFull,
    #[error("another member took over the instance id")]
    FencedInstance,
    #[error("the text beside the offset is too long")]
    OffsetMetadataTooLarge,
    #[error("no such topic or partition")]
    UnknownTopicOrPartition,
    #[error("no topic of this id")]
    UnknownTopicId,
    #[error("the record is larger than a batch may be")]
    RecordTooLarge,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JoinRequest {
    /// Empty if the member has none yet.
    pub member_id: Name,
    /// Given by static members.
    pub instance_id: Option<Name>,
    pub client_id: Name,
    pub client_host: Name,
    /// Whether a new dynamic member is told its id first and must join again with it.
    pub member_id_required: bool,
    /// Whether the member understands [`JoinedGroup::skip_assignment`].
    pub skip_assignment_known: bool,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocol_type: Name,
    /// In the member's order of preference.
    pub protocols: Vec<Protocol>,
}

/// One assignment protocol a member knows, and its subscription in this protocol's form.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Protocol {
    pub name: Name,
    pub metadata: Bytes,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JoinedGroup {
    pub generation: i32,
    pub protocol_type: Name,
    pub protocol: Name,
    pub leader_id: Name,
    pub member_id: Name,
    /// Tells the leader, a static member that came back, to assign nothing.
    pub skip_assignment: bool,
    /// All members for the leader, nobody for others.
    pub members: Vec<JoinedMember>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JoinedMember {
    pub member_id: Name,
    pub instance_id: Option<Name>,
    pub metadata: Bytes,
}

/// A refused join. The member id is the one to join again with, where there is one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JoinRefused {
    pub error: GroupError,
    pub member_id: Name,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SyncRequest {
    pub generation: i32,
    pub member_id: Name,
    pub instance_id: Option<Name>,
    /// Compared with the group's if given.
    pub protocol_type: Option<Name>,
    pub protocol: Option<Name>,
    /// Member id and assignment; from the leader only.
    pub assignments: Vec<(Name, Bytes)>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SyncedGroup {
    pub protocol_type: Name,
    pub protocol: Name,
    pub assignment: Bytes,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeartbeatRequest {
    pub generation: i32,
    pub member_id: Name,
    pub instance_id: Option<Name>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeaveRequest {
    pub members: Vec<LeavingMember>,
}

/// A member by id, by instance id with an empty id, or by both.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeavingMember {
    pub member_id: Name,
    pub instance_id: Option<Name>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MemberLeft {
    pub member: LeavingMember,
    pub result: Result<(), GroupError>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommitOffsetsRequest {
    /// Negative for consumers that use the group for its offsets only.
    pub generation: i32,
    pub member_id: Name,
    pub instance_id: Option<Name>,
    /// How long to keep the offsets, in place of the group's retention.
    pub retention_ms: Option<i64>,
    pub offsets: Vec<CommitOffset>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommitOffset {
    pub topic: Name,
    /// Nil if not known.
    pub topic_id: Uuid,
    pub partition: i32,
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: Name,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OffsetCommitted {
    pub topic: Name,
    pub topic_id: Uuid,
    pub partition: i32,
    pub result: Result<(), GroupError>,
}

impl OffsetCommitted {
    /// The same with this error, unless it has one of its own.
    pub(super) fn refused(&self, error: GroupError) -> Self {
        Self { result: self.result.and(Err(error)), ..self.clone() }
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FetchOffsetsRequest {
    /// All that are committed, if not given.
    pub topics: Option<Vec<TopicPartitions>>,
    /// Refuse offsets that an open transaction is about to change. There are no transactional
    /// commits yet, so nothing is unstable.
    pub require_stable: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TopicPartitions {
    pub topic: Name,
    /// Echoed in the answer; offsets committed for another id of that name are not returned.
    pub topic_id: Uuid,
    pub partitions: Vec<i32>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OffsetFetched {
    pub topic: Name,
    pub topic_id: Uuid,
    pub partition: i32,
    /// Nothing if no offset is committed.
    pub result: Result<Option<CommittedOffset>, GroupError>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommittedOffset {
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: Name,
}

impl GroupRequest {
    /// The answer where nobody can be asked.
    pub fn refused(&self, error: GroupError) -> GroupResponse {
        GroupResponse::refuse(&self.operation, error)
    }
}

impl GroupResponse {
    /// The refusal of a whole operation.
    pub(super) fn refuse(operation: &Operation, error: GroupError) -> Self {
        match operation {
            Operation::Join(join) => {
                Self::Join(Err(JoinRefused { error, member_id: join.member_id.clone() }))
            }
            Operation::Sync(_) => Self::Sync(Err(error)),
            Operation::Heartbeat(_) => Self::Heartbeat(Err(error)),
            Operation::Leave(_) => Self::Leave(Err(error)),
            Operation::CommitOffsets(commit) => {
                let refused = |offset: &CommitOffset| offset.outcome(Err(error));
                Self::CommitOffsets(commit.offsets.iter().map(refused).collect())
            }
            Operation::FetchOffsets(_) => Self::FetchOffsets(Err(error)),
        }
    }
}

impl CommitOffset {
    pub(super) fn outcome(&self, result: Result<(), GroupError>) -> OffsetCommitted {
        OffsetCommitted {
            topic: self.topic.clone(),
            topic_id: self.topic_id,
            partition: self.partition,
            result,
        }
    }
}
