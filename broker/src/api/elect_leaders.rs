//! ElectLeaders: has the first replicas of partitions lead them (KIP-183, KIP-460).
//!
//! Leadership moves by groups, and any broker takes the request: what it leads itself it hands
//! over, of the rest the leaders hear. Then the call looks at the leader table now and then, and
//! says it again, until the first replicas lead or the time is over.
//!
//! An unclean election is refused: it would make a leader of one that lacks acknowledged records,
//! and what is acknowledged is never lost here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka_wire::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_wire::messages::{ElectLeadersRequest, ElectLeadersResponse, TopicName};
use kafka_wire::{ErrorCode, RequestHeader, Response, StrBytes};
use model::{NodeId, RaftGroupId};

use super::parts::Place;
use super::{CallState, commands, open};
use crate::cluster::Image;
use crate::shard::Shard;
use crate::shard::call::ReplyTo;

/// The election type of a request: the first replica is to lead.
const PREFERRED: i8 = 0;

/// Between two looks at who leads.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Between two words to the leaders: what was said may be lost, or the first replica was not ready.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// Said of a first replica.
const ABSENT: &str = "The first replica is not there.";

/// A request that waits for the first replicas to lead.
pub(crate) struct ElectionCall {
    response: ElectLeadersResponse,
    /// By group, the partitions in the response that wait for its leader.
    awaited: BTreeMap<RaftGroupId, Vec<Place>>,
    deadline: Instant,
    asked: Instant,
}

/// Who leads, and who is there, for all that this broker knows.
struct View<'a> {
    image: &'a Image,
    leader: &'a dyn Fn(RaftGroupId) -> Option<NodeId>,
    is_up: &'a dyn Fn(NodeId) -> bool,
}

pub(crate) fn serve(
    shard: &mut Shard,
    reply_to: ReplyTo,
    header: RequestHeader,
    request: &ElectLeadersRequest,
) {
    if request.election_type != PREFERRED {
        let code = ErrorCode::InvalidRequest.code();
        let response = ElectLeadersResponse::default().with_error_code(code);
        return shard.respond(reply_to, &header, Response::ElectLeaders(response));
    }
    let now = shard.now.instant;
    let (response, awaited) = with_view(shard, |view| view.begin(request));
    if awaited.is_empty() {
        return shard.respond(reply_to, &header, Response::ElectLeaders(response));
    }
    shard.want_first_replicas(awaited.keys().copied());
    let deadline = commands::deadline(now, Some(request.timeout_ms));
    let call = ElectionCall { response, awaited, deadline, asked: now };
    let next = call.next_look(now);
    open(shard, reply_to, header, CallState::Election(Box::new(call)), Some(next), Vec::new());
}

impl ElectionCall {
    /// Looks who leads. When to look again, unless the response is whole.
    pub(crate) fn look(&mut self, shard: &mut Shard) -> Option<Instant> {
        let now = shard.now.instant;
        with_view(shard, |view| self.settle(view, now >= self.deadline));
        if self.awaited.is_empty() {
            return None;
        }
        if now.saturating_duration_since(self.asked) >= ASK_INTERVAL {
            self.asked = now;
            shard.want_first_replicas(self.awaited.keys().copied());
        }
        Some(self.next_look(now))
    }

    pub(crate) fn response(&mut self) -> Response {
        Response::ElectLeaders(std::mem::take(&mut self.response))
    }

    fn next_look(&self, now: Instant) -> Instant {
        self.deadline.min(now + LOOK_INTERVAL)
    }

    /// Answers for the groups that their first replicas lead; for all of them if the time is over.
    fn settle(&mut self, view: &View<'_>, is_over: bool) {
        let results = &mut self.response.replica_election_results;
        self.awaited.retain(|group, places| {
            let state = view.state_of(*group);
            let (code, message) = match state {
                Election::Led => (ErrorCode::None, None),
                Election::Possible if !is_over => return true,
                Election::Possible => {
                    let message = "The first replica did not lead in time.";
                    (ErrorCode::PreferredLeaderNotAvailable, Some(message))
                }
                Election::Impossible => (ErrorCode::PreferredLeaderNotAvailable, Some(ABSENT)),
            };
            for (topic, partition) in places {
                let result = &mut results[*topic].partition_result[*partition];
                result.error_code = code.code();
                result.error_message = message.map(StrBytes::from_static_str);
            }
            false
        });
    }
}

/// Could the first replica of a group lead?
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Election {
    Led,
    Possible,
    Impossible,
}

/// A topic, and the groups of the partitions that are asked about; none where there is no such one.
type Asked = (TopicName, Vec<(i32, Option<RaftGroupId>)>);

impl View<'_> {
    fn state_of(&self, group: RaftGroupId) -> Election {
        match self.image.preferred_leader(group) {
            Some(first) if (self.leader)(group) == Some(first) => Election::Led,
            Some(first) if (self.is_up)(first) => Election::Possible,
            _ => Election::Impossible,
        }
    }

    /// The response, and what is to be awaited of it.
    fn begin(
        &self,
        request: &ElectLeadersRequest,
    ) -> (ElectLeadersResponse, BTreeMap<RaftGroupId, Vec<Place>>) {
        let mut results = Vec::new();
        let mut awaited: BTreeMap<_, Vec<Place>> = BTreeMap::new();
        for (name, partitions) in self.asked(request) {
            let mut result = ReplicaElectionResult::default().with_topic(name);
            for (index, group) in partitions {
                let (code, message) = match group.map(|group| self.state_of(group)) {
                    None => (ErrorCode::UnknownTopicOrPartition, None),
                    Some(Election::Led) => (ErrorCode::ElectionNotNeeded, None),
                    Some(Election::Possible) => (ErrorCode::None, None),
                    Some(Election::Impossible) => {
                        (ErrorCode::PreferredLeaderNotAvailable, Some(ABSENT))
                    }
                };
                // As Kafka does it: who asks for all hears of what there was to do.
                if code == ErrorCode::ElectionNotNeeded && request.topic_partitions.is_none() {
                    continue;
                }
                if let Some(group) = group.filter(|_| code == ErrorCode::None) {
                    let place = (results.len(), result.partition_result.len());
                    awaited.entry(group).or_default().push(place);
                }
                let partition = PartitionResult::default()
                    .with_partition_id(index)
                    .with_error_code(code.code())
                    .with_error_message(message.map(StrBytes::from_static_str));
                result.partition_result.push(partition);
            }
            if !result.partition_result.is_empty() {
                results.push(result);
            }
        }
        (ElectLeadersResponse::default().with_replica_election_results(results), awaited)
    }

    fn asked(&self, request: &ElectLeadersRequest) -> Vec<Asked> {
        let Some(topics) = &request.topic_partitions else {
            let all = self.image.topics().map(|topic| {
                let groups = topic.partitions.iter().map(|partition| Some(partition.group));
                let name = StrBytes::from_string(topic.name.to_string());
                (name.into(), (0..).zip(groups).collect())
            });
            return all.collect();
        };
        let asked = topics.iter().map(|asked| {
            let topic = self.image.topic(&asked.topic);
            let group = |index: &i32| {
                (*index, topic.and_then(|topic| topic.partition(*index)).map(|it| it.group))
            };
            (asked.topic.clone(), asked.partitions.iter().map(group).collect())
        });
        asked.collect()
    }
}

fn with_view<T>(shard: &Shard, work: impl FnOnce(&View<'_>) -> T) -> T {
    let leader = |group| Some(shard.node.leader(group)?.0);
    let is_up = |node| node == shard.node.id || shard.peers.is_up(node);
    work(&View { image: shard.metadata.image(), leader: &leader, is_up: &is_up })
}

#[cfg(test)]
mod tests {
    use kafka_wire::messages::elect_leaders_request::TopicPartitions;
    use model::{LogIndex, PartitionId, ShardId};
    use uuid::Uuid;

    use super::*;
    use crate::cluster::{Cluster, Command, NewTopic, Replica};

    const FIRST: NodeId = NodeId::new(1);
    const SECOND: NodeId = NodeId::new(2);

    /// Topic `t` with three partitions, one in each of three groups that broker 1 should lead.
    fn image() -> std::sync::Arc<Image> {
        let mut cluster = Cluster::new(std::sync::Arc::default());
        let on = |node| Replica { node, shard: ShardId::new(0) };
        let groups = [1, 2, 3].map(RaftGroupId::new);
        let create =
            |group| Command::CreateGroup { group, replicas: [FIRST, SECOND].map(on).into() };
        let topic = NewTopic {
            name: "t".into(),
            topic_id: Uuid::from_u128(1),
            internal: false,
            placement: groups.to_vec(),
            configs: BTreeMap::new(),
        };
        let commands = groups.map(create).into_iter().chain([Command::CreateTopic(topic)]);
        for (index, command) in (1..).zip(commands) {
            cluster.apply(LogIndex::new(index), command);
        }
        assert!(cluster.image().has_had(PartitionId::new(3)));
        cluster.image()
    }

    fn request(partitions: Option<&[i32]>) -> ElectLeadersRequest {
        let topic = |partitions: &[i32]| {
            let name = StrBytes::from_static_str("t").into();
            vec![TopicPartitions::default().with_topic(name).with_partitions(partitions.into())]
        };
        ElectLeadersRequest::default().with_topic_partitions(partitions.map(topic))
    }

    fn codes(response: &ElectLeadersResponse) -> Vec<(i32, ErrorCode)> {
        let results = response.replica_election_results.iter();
        let code = |it: &PartitionResult| {
            (it.partition_id, ErrorCode::from_code(it.error_code).expect("one of ours"))
        };
        results.flat_map(|topic| topic.partition_result.iter().map(code)).collect()
    }

    /// Broker 1 leads group 1.
    fn leader(group: RaftGroupId) -> Option<NodeId> {
        Some(if group.get() == 1 { FIRST } else { SECOND })
    }

    #[expect(clippy::disallowed_methods, reason = "a test's clock may be any")]
    fn call(view: &View<'_>, partitions: Option<&[i32]>) -> ElectionCall {
        let (response, awaited) = view.begin(&request(partitions));
        let now = Instant::now();
        ElectionCall { response, awaited, deadline: now, asked: now }
    }

    #[test]
    fn what_its_first_replica_leads_or_nobody_knows_is_not_awaited() {
        let image = image();
        let view = View { image: &image, leader: &leader, is_up: &|_| true };
        let call = call(&view, Some(&[0, 1, 3, -1]));
        let unknown = ErrorCode::UnknownTopicOrPartition;
        assert_eq!(
            codes(&call.response),
            [(0, ErrorCode::ElectionNotNeeded), (1, ErrorCode::None), (3, unknown), (-1, unknown)]
        );
        assert_eq!(call.awaited, [(RaftGroupId::new(2), vec![(0, 1)])].into());
    }

    #[test]
    fn who_asks_for_all_hears_of_what_was_done() {
        let image = image();
        let view = View { image: &image, leader: &leader, is_up: &|_| true };
        let mut all = call(&view, None);
        assert_eq!(all.awaited.len(), 2);
        all.settle(&view, false);
        assert_eq!(all.awaited.len(), 2, "they do not lead yet");
        let one_more = |group: RaftGroupId| (group.get() != 3).then_some(FIRST);
        all.settle(&View { leader: &one_more, ..view }, false);
        assert_eq!(all.awaited, [(RaftGroupId::new(3), vec![(0, 1)])].into());
        all.settle(&View { leader: &one_more, ..view }, true);
        assert!(all.awaited.is_empty());
        let not_available = ErrorCode::PreferredLeaderNotAvailable;
        assert_eq!(codes(&all.response), [(1, ErrorCode::None), (2, not_available)]);
        let nothing = call(&View { leader: &|_| Some(FIRST), ..view }, None);
        assert!(nothing.response.replica_election_results.is_empty());
    }

    #[test]
    fn one_that_is_not_there_is_not_waited_for() {
        let image = image();
        let view = View { image: &image, leader: &leader, is_up: &|node| node != FIRST };
        let not_available = ErrorCode::PreferredLeaderNotAvailable;
        let call_now = call(&view, Some(&[1]));
        assert_eq!(codes(&call_now.response), [(1, not_available)]);
        assert!(call_now.awaited.is_empty());
        let mut call = call(&View { is_up: &|_| true, ..view }, Some(&[1]));
        call.settle(&view, false);
        assert_eq!(codes(&call.response), [(1, not_available)], "it has gone meanwhile");
    }
}
