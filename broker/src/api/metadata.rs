//! Metadata: brokers, topics, and who leads each partition.

use std::collections::BTreeSet;

use kafka_wire::messages::metadata_request::MetadataRequestTopic;
use kafka_wire::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_wire::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_wire::{ErrorCode, StrBytes};
use model::{LeaderEpoch, NodeId};
use uuid::Uuid;

use crate::cluster::{Image, Partition, Topic, check_topic_name, is_internal};
use crate::partition::raised;

/// First version in which a topic may be asked for by id.
const TOPIC_ID_VERSION_MIN: i16 = 12;
/// First version whose topics carry ids; those before 12 have the field and may not use it.
const TOPIC_ID_FIELD_VERSION_MIN: i16 = 10;

/// Without an authorizer a client may do everything with a topic: Kafka's bits for read, write,
/// create, delete, alter, describe, describe configs and alter configs.
const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// The same with the cluster: create, alter, describe, cluster action, describe and alter configs,
/// idempotent write.
pub(crate) const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;

/// What one client sees of the cluster: the listener it is connected to, and who leads now.
#[derive(Clone, Copy)]
pub(crate) struct ClientView<'a> {
    /// The broker id of the listener, as Metadata lists it.
    pub broker: NodeId,
    /// Unknown topics are created when a request allows it (`auto.create.topics.enable`).
    pub auto_create: bool,
    /// None while a partition's group has no leader.
    pub leader: &'a dyn Fn(&Partition) -> Option<Leader>,
    /// Whether a process of the cluster is there, for all that this one knows.
    pub is_up: &'a dyn Fn(NodeId) -> bool,
}

/// The leader of a partition's group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Leader {
    /// The process that leads; not the broker id, of which it may have several.
    pub node: NodeId,
    pub epoch: LeaderEpoch,
}

impl ClientView<'_> {
    /// The broker that administrative requests are sent to. Any takes them: the one that the client
    /// has reached is as good as another, and there.
    pub(crate) fn controller(&self, image: &Image) -> NodeId {
        let alone = image.nodes().len() == 1;
        image.controller().filter(|_| alone).unwrap_or(self.broker)
    }

    /// The broker id under which this client reaches a partition's leader, and the leader's epoch.
    pub(crate) fn leader_of(
        &self,
        image: &Image,
        partition: &Partition,
    ) -> Option<(NodeId, LeaderEpoch)> {
        let leader = (self.leader)(partition)?;
        let replica = image.replica_on(partition.group, leader.node)?;
        Some((image.broker_of(replica)?, raised(leader.epoch, partition.epoch_base)))
    }
}

/// The reply, and the names of unknown topics that are to be created. Those are answered with
/// LEADER_NOT_AVAILABLE, on which every client asks again.
pub(crate) fn respond(
    image: &Image,
    view: &ClientView<'_>,
    version: i16,
    request: &MetadataRequest,
) -> (MetadataResponse, Vec<TopicName>) {
    let mut answer = Answer {
        image,
        view,
        with_operations: request.include_topic_authorized_operations,
        auto_create: view.auto_create && request.allow_auto_topic_creation,
        topics: Vec::new(),
        to_create: Vec::new(),
    };
    match asked_topics(version, request) {
        Asked::All => answer.all(),
        Asked::These(topics) => answer.these(topics),
        Asked::Wrongly(topics) => answer.refuse(topics),
    }
    let (topics, to_create) = (answer.topics, answer.to_create);
    let operations = if request.include_cluster_authorized_operations && (8..=10).contains(&version)
    {
        CLUSTER_OPERATIONS
    } else {
        i32::MIN
    };
    let response = MetadataResponse::default()
        .with_brokers(brokers(image))
        .with_cluster_id(image.cluster_id().map(|_| StrBytes::from_string(image.cluster_id_text())))
        .with_controller_id(BrokerId(view.controller(image).get()))
        .with_cluster_authorized_operations(operations)
        .with_topics(topics);
    (response, to_create)
}

enum Asked<'a> {
    All,
    These(&'a [MetadataRequestTopic]),
    /// Ids or missing names in a version that has the fields but no meaning for them.
    Wrongly(&'a [MetadataRequestTopic]),
}

/// No list means all topics; in version 0, which cannot say "no list", an empty one does.
fn asked_topics(version: i16, request: &MetadataRequest) -> Asked<'_> {
    let Some(topics) = &request.topics else { return Asked::All };
    if version == 0 && topics.is_empty() {
        return Asked::All;
    }
    let wrong = |topic: &MetadataRequestTopic| topic.name.is_none() || !topic.topic_id.is_nil();
    let no_ids = (TOPIC_ID_FIELD_VERSION_MIN..TOPIC_ID_VERSION_MIN).contains(&version);
    if no_ids && topics.iter().any(wrong) {
        return Asked::Wrongly(topics);
    }
    Asked::These(topics)
}

/// A reply as it grows.
struct Answer<'a> {
    image: &'a Image,
    view: &'a ClientView<'a>,
    with_operations: bool,
    auto_create: bool,
    topics: Vec<MetadataResponseTopic>,
    to_create: Vec<TopicName>,
}

impl Answer<'_> {
    fn all(&mut self) {
        self.topics = self.image.topics().map(|topic| self.known(topic)).collect();
    }

    /// Each topic once, in the order of the request.
    fn these(&mut self, asked: &[MetadataRequestTopic]) {
        let mut names = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for topic in asked {
            if !topic.topic_id.is_nil() {
                if ids.insert(topic.topic_id) {
                    let entry = self.by_id(topic.topic_id);
                    self.topics.push(entry);
                }
            } else if let Some(name) = &topic.name
                && names.insert(name.as_str())
            {
                let entry = self.by_name(name);
                self.topics.push(entry);
            }
        }
    }

    fn refuse(&mut self, asked: &[MetadataRequestTopic]) {
        let entry = |topic: &MetadataRequestTopic| {
            let name = topic.name.clone().unwrap_or_default();
            refused(ErrorCode::InvalidRequest, Some(name)).with_topic_id(topic.topic_id)
        };
        self.topics = asked.iter().map(entry).collect();
    }

    fn by_id(&self, id: Uuid) -> MetadataResponseTopic {
        match self.image.topic_by_id(id) {
            Some(topic) => self.known(topic),
            None => refused(ErrorCode::UnknownTopicId, None).with_topic_id(id),
        }
    }

    fn by_name(&mut self, name: &TopicName) -> MetadataResponseTopic {
        if let Some(topic) = self.image.topic(name) {
            return self.known(topic);
        }
        if check_topic_name(name).is_err() {
            return refused(ErrorCode::InvalidTopicException, Some(name.clone()));
        }
        let code = if !self.auto_create {
            ErrorCode::UnknownTopicOrPartition
        } else if self.image.colliding_topic(name).is_some() {
            ErrorCode::InvalidTopicException
        } else {
            self.to_create.push(name.clone());
            ErrorCode::LeaderNotAvailable
        };
        refused(code, Some(name.clone())).with_is_internal(is_internal(name))
    }

    fn known(&self, topic: &Topic) -> MetadataResponseTopic {
        let partitions = (0_i32..).zip(&topic.partitions);
        let operations = if self.with_operations { TOPIC_OPERATIONS } else { i32::MIN };
        MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_string(topic.name.to_string()))))
            .with_topic_id(topic.id)
            .with_is_internal(topic.internal)
            .with_topic_authorized_operations(operations)
            .with_partitions(partitions.map(|(index, at)| self.partition(index, at)).collect())
    }

    fn partition(&self, index: i32, partition: &Partition) -> MetadataResponsePartition {
        let replicas = self.image.replicas(partition).iter();
        let known = replicas.filter_map(|it| Some((it.node, self.image.broker_of(*it)?)));
        let known: Vec<_> = known.map(|(node, broker)| (node, BrokerId(broker.get()))).collect();
        // Only the leader knows who is in sync. Who is there is so, but for a moment.
        let leader = (self.view.leader)(partition).map(|leader| leader.node);
        let is_up = |node| leader == Some(node) || (self.view.is_up)(node);
        let (up, down): (Vec<_>, Vec<_>) = known.iter().partition(|(node, _)| is_up(*node));
        let brokers = |them: Vec<(NodeId, BrokerId)>| them.into_iter().map(|it| it.1).collect();
        let entry = MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_isr_nodes(brokers(up))
            .with_offline_replicas(brokers(down))
            .with_replica_nodes(brokers(known));
        match self.view.leader_of(self.image, partition) {
            Some((broker, epoch)) => {
                entry.with_leader_id(BrokerId(broker.get())).with_leader_epoch(epoch.get())
            }
            None => entry
                .with_error_code(ErrorCode::LeaderNotAvailable.code())
                .with_leader_id(BrokerId(-1))
                .with_leader_epoch(LeaderEpoch::NONE.get()),
        }
    }
}

fn refused(code: ErrorCode, name: Option<TopicName>) -> MetadataResponseTopic {
    MetadataResponseTopic::default().with_error_code(code.code()).with_name(name)
}

fn brokers(image: &Image) -> Vec<MetadataResponseBroker> {
    image
        .brokers()
        .map(|(endpoint, rack)| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(endpoint.broker.get()))
                .with_host(StrBytes::from_string(endpoint.host.clone()))
                .with_port(i32::from(endpoint.port))
                .with_rack(rack.map(|rack| StrBytes::from_string(rack.to_owned())))
        })
        .collect()
}

#[cfg(test)]
#[path = "metadata_tests.rs"]
mod tests;
