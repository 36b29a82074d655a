//! Commits and fetches by version: layout, order, and the codes beside each partition.

use kafka_wire::messages::offset_commit_request::OffsetCommitRequestTopic;
use kafka_wire::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_wire::{ApiKey, RequestHeader, Response};

use super::*;
use crate::group::OffsetCommitted;

const ID: Uuid = Uuid::from_u128(7);

/// One topic "t" with two partitions.
struct OneTopic;

impl TopicLookup for OneTopic {
    fn by_name(&self, name: &str) -> Option<KnownTopic> {
        (name == "t").then(|| KnownTopic { name: "t".into(), id: ID, partition_count: 2 })
    }

    fn by_id(&self, id: Uuid) -> Option<KnownTopic> {
        if id == ID { self.by_name("t") } else { None }
    }
}

fn encodes(api_key: ApiKey, api_version: i16, response: Response) -> bool {
    let header = RequestHeader { api_key, api_version, correlation_id: 1, client_id: None };
    kafka_wire::encode(&header, response).is_ok()
}

fn commit_topic(version: i16, known: bool, partitions: &[i32]) -> OffsetCommitRequestTopic {
    let mut topic = OffsetCommitRequestTopic::default();
    if version >= 10 {
        topic.topic_id = if known { ID } else { Uuid::from_u128(8) };
    } else {
        topic.name = TopicName(StrBytes::from_static_str(if known { "t" } else { "u" }));
    }
    let partition = |index: &i32| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(*index)
            .with_committed_offset(40 + i64::from(*index))
    };
    topic.with_partitions(partitions.iter().map(partition).collect())
}

fn commit_codes(response: &OffsetCommitResponse) -> Vec<i16> {
    let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|partition| partition.error_code).collect()
}

#[test]
fn commits_ask_only_for_partitions_that_exist() {
    for version in 2..=10 {
        let topics =
            vec![commit_topic(version, false, &[0]), commit_topic(version, true, &[1, 2, 0])];
        let request = OffsetCommitRequest::default().with_topics(topics);
        let (plan, ask) = CommitPlan::new(version, request, &OneTopic);
        let ask = ask.expect("two partitions exist");
        let Operation::CommitOffsets(commit) = &ask.operation else { panic!("not a commit") };
        let asked: Vec<_> = commit.offsets.iter().map(|o| (o.partition, o.offset)).collect();
        assert_eq!(asked, [(1, 41), (0, 40)]);
        assert!(commit.offsets.iter().all(|o| o.topic_id == ID && &*o.topic == "t"));
        let outcome = |partition, result| OffsetCommitted {
            topic: "t".into(),
            topic_id: ID,
            partition,
            result,
        };
        let answer = GroupResponse::CommitOffsets(vec![
            outcome(1, Err(GroupError::OffsetMetadataTooLarge)),
            outcome(0, Ok(())),
        ]);
        let response = plan.respond(version, Some(&answer));
        let unknown = if version >= 10 { 100 } else { 3 };
        assert_eq!(commit_codes(&response), [unknown, 12, 3, 0]);
        assert!(encodes(ApiKey::OffsetCommit, version, Response::OffsetCommit(response)));
    }
}

#[test]
fn a_group_that_does_not_exist_has_a_code_of_its_own_from_version_9() {
    for version in 2..=10 {
        let request =
            OffsetCommitRequest::default().with_topics(vec![commit_topic(version, true, &[0])]);
        let (plan, ask) = CommitPlan::new(version, request, &OneTopic);
        let answer = ask.expect("exists").refused(GroupError::GroupNotFound);
        let response = plan.respond(version, Some(&answer));
        assert_eq!(commit_codes(&response), [if version >= 9 { 69 } else { 22 }]);
    }
}

#[test]
fn a_commit_of_nothing_that_exists_asks_nobody() {
    let request = OffsetCommitRequest::default().with_topics(vec![commit_topic(9, false, &[0])]);
    let (plan, ask) = CommitPlan::new(9, request, &OneTopic);
    assert_eq!(ask, None);
    assert_eq!(commit_codes(&plan.respond(9, None)), [3]);
}

fn fetched(partition: i32, offset: Option<i64>) -> OffsetFetched {
    let committed = |offset| CommittedOffset { offset, leader_epoch: 2, metadata: "m".into() };
    let result = Ok(offset.map(committed));
    OffsetFetched { topic: "t".into(), topic_id: ID, partition, result }
}

#[test]
fn one_group_by_name_up_to_version_7() {
    for version in 1..=7 {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(TopicName(StrBytes::from_static_str("t")))
            .with_partition_indexes(vec![1, 0]);
        let request = OffsetFetchRequest::default().with_topics(Some(vec![topic]));
        let (plan, asks) = FetchPlan::new(version, request.clone(), &OneTopic);
        assert_eq!(asks.len(), 1);
        let answer = GroupResponse::FetchOffsets(Ok(vec![fetched(1, Some(5)), fetched(0, None)]));
        let response = plan.respond(version, vec![answer], &OneTopic);
        let rows = &response.topics[0].partitions;
        assert_eq!((rows[0].committed_offset, rows[1].committed_offset), (5, -1));
        assert_eq!((rows[1].error_code, rows[1].metadata.as_ref().map(|m| m.len())), (0, Some(0)));
        assert!(encodes(ApiKey::OffsetFetch, version, Response::OffsetFetch(response)));

        let (plan, asks) = FetchPlan::new(version, request, &OneTopic);
        let answer = asks[0].refused(GroupError::NotCoordinator);
        let response = plan.respond(version, vec![answer], &OneTopic);
        let inside = response.topics.first().map(|topic| topic.partitions[0].error_code);
        let expected = if version == 1 { (0, Some(16)) } else { (16, None) };
        assert_eq!((response.error_code, inside), expected);
        assert!(encodes(ApiKey::OffsetFetch, version, Response::OffsetFetch(response)));
    }
}

#[test]
fn several_groups_from_version_8_and_topics_by_id_from_10() {
    for version in 8..=10 {
        let topic = |id| {
            let mut topic = OffsetFetchRequestTopics::default().with_partition_indexes(vec![1]);
            if version >= 10 {
                topic.topic_id = id;
            } else {
                topic.name = TopicName(StrBytes::from_static_str("t"));
            }
            topic
        };
        let group = |id: &'static str| {
            OffsetFetchRequestGroup::default().with_group_id(StrBytes::from_static_str(id).into())
        };
        let wanted = Some(vec![topic(Uuid::from_u128(8)), topic(ID)]);
        let request = OffsetFetchRequest::default().with_groups(vec![
            group("some").with_topics(wanted),
            group("all").with_topics(None),
            group("lost").with_topics(None),
        ]);
        let (plan, asks) = FetchPlan::new(version, request, &OneTopic);
        let names: Vec<_> = asks.iter().map(|ask| &*ask.group).collect();
        assert_eq!(names, ["some", "all", "lost"]);
        let some = if version >= 10 {
            vec![fetched(1, Some(6))]
        } else {
            vec![fetched(1, None), fetched(1, Some(6))]
        };
        let answers = vec![
            GroupResponse::FetchOffsets(Ok(some)),
            GroupResponse::FetchOffsets(Ok(vec![fetched(0, Some(3)), fetched(1, Some(4))])),
            asks[2].refused(GroupError::LoadInProgress),
        ];
        let response = plan.respond(version, answers, &OneTopic);
        let [some, all, lost] = &response.groups[..] else { panic!("{response:?}") };
        let first = &some.topics[0].partitions[0];
        let unknown = if version >= 10 { 100 } else { 0 };
        assert_eq!((first.committed_offset, first.error_code), (-1, unknown));
        assert_eq!(some.topics[1].partitions[0].committed_offset, 6);
        assert_eq!((all.topics.len(), all.topics[0].partitions.len()), (1, 2));
        assert_eq!(all.topics[0].topic_id, ID);
        assert_eq!((lost.error_code, lost.topics.len()), (14, 0));
        assert!(encodes(ApiKey::OffsetFetch, version, Response::OffsetFetch(response)));
    }
}
