//! `tailrace cluster move`: a partition goes to other brokers. What is under way, for `status`.

use std::collections::BTreeMap;
use std::io::Write;

use kafka_wire::messages as m;
use kafka_wire::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_wire::{ErrorCode, StrBytes};
use model::NodeId;

use super::client::{Client, Verdict};
use super::{CHANGE_TIMEOUT_MS, ClusterArgs, ClusterError, Refusal};

#[derive(Clone, Debug, clap::Args)]
pub struct MoveArgs {
    /// The partition's topic.
    #[arg(value_name = "TOPIC")]
    pub topic: String,
    /// The partition's number in its topic.
    #[arg(value_name = "PARTITION")]
    pub partition: u16,
    /// The brokers that are to have its replicas, the preferred leader first: all those of a raft
    /// group, and no others.
    #[arg(
        value_name = "BROKER[,BROKER...]",
        action = clap::ArgAction::Set,
        num_args = 1,
        value_delimiter = ',',
        value_parser = clap::value_parser!(i32).range(0..),
        required_unless_present = "cancel"
    )]
    pub brokers: Vec<i32>,
    /// The partition is to stay where it is after all.
    #[arg(long, conflicts_with = "brokers")]
    pub cancel: bool,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

impl MoveArgs {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<(), ClusterError> {
        let name = format!("{}-{}", self.topic, self.partition);
        let mut client = Client::connect(&self.cluster.bootstrap)?;
        let changed = client.change(&self.request())?;
        if self.cancel {
            changed.map_err(|refusal| {
                if refusal.is(ErrorCode::NoReassignmentInProgress) {
                    ClusterError::NotMoving { name: name.clone() }
                } else {
                    refusal.of(format!("call off the move of {name}"))
                }
            })?;
            return Ok(writeln!(out, "{name} stays")?);
        }
        changed.map_err(|refusal| refusal.of(format!("move {name}")))?;
        let brokers: Vec<_> = self.brokers.iter().map(i32::to_string).collect();
        Ok(writeln!(
            out,
            "{name} goes to {}; `status` lists it until it is there",
            brokers.join(", ")
        )?)
    }

    fn request(&self) -> m::AlterPartitionReassignmentsRequest {
        let brokers = || self.brokers.iter().map(|id| m::BrokerId(*id)).collect();
        let partition = ReassignablePartition::default()
            .with_partition_index(i32::from(self.partition))
            .with_replicas((!self.cancel).then(brokers));
        let topic = ReassignableTopic::default()
            .with_name(StrBytes::from_string(self.topic.clone()).into())
            .with_partitions(vec![partition]);
        m::AlterPartitionReassignmentsRequest::default()
            .with_timeout_ms(CHANGE_TIMEOUT_MS)
            .with_topics(vec![topic])
    }
}

/// That of one partition.
impl Verdict for m::AlterPartitionReassignmentsResponse {
    fn verdict(&self) -> (i16, Option<&StrBytes>) {
        let partition = self.responses.iter().flat_map(|topic| &topic.partitions).next();
        match partition.filter(|_| self.error_code == ErrorCode::None.code()) {
            Some(partition) => (partition.error_code, partition.error_message.as_ref()),
            None => (self.error_code, self.error_message.as_ref()),
        }
    }
}

/// The partitions that move, by name, each with the brokers that it goes to. An older broker moves
/// none.
pub(super) fn under_way(
    client: &mut Client,
) -> Result<BTreeMap<String, Vec<NodeId>>, ClusterError> {
    let request = m::ListPartitionReassignmentsRequest::default().with_topics(None);
    let reply = match client.call(&request) {
        Err(ClusterError::Unserved { .. }) => return Ok(BTreeMap::new()),
        reply => reply?,
    };
    if reply.error_code != ErrorCode::None.code() {
        let message = reply.error_message.map(|text| text.to_string()).unwrap_or_default();
        return Err(Refusal { code: reply.error_code, message }.of("list what moves"));
    }
    let mut moving = BTreeMap::new();
    for topic in &reply.topics {
        for partition in &topic.partitions {
            let stays = |id: &&m::BrokerId| !partition.removing_replicas.contains(id);
            let brokers = partition.replicas.iter().filter(stays).map(|id| NodeId::new(id.0));
            let name = format!("{}-{}", topic.name.as_str(), partition.partition_index);
            moving.insert(name, brokers.collect());
        }
    }
    Ok(moving)
}
