//! Group 0's state machine: what the cluster is, and the image of it that every core reads.
//!
//! A change is a `Command` proposed to raft group 0; once committed, every node applies it to its
//! `Cluster`, which yields an `Outcome` and a new `Image`. Applying never fails and depends on
//! nothing but the commands before it, so all nodes agree.

mod balance;
mod command;
mod creation;
mod image;
mod membership;
mod moves;
mod placement;
mod rebuilt;
mod relief;
mod snapshot;
mod state;
mod topic_name;

pub use balance::Balance;
pub use command::{Command, Endpoint, NewTopic, Replica};
pub use creation::{ManualAssignment, NewTopicError, NewTopicSpec, Planner, Shape, bootstrap};
pub(crate) use creation::{nodes_of, shards_of};
pub use image::{Group, Image, Node, Partition, Topic};
pub use membership::{GROUPS_MAX, NodeState, Standing};
pub use moves::Move;
pub use placement::Placement;
pub use rebuilt::Arrived;
pub use relief::{Core, CoreLoad, relieve};
pub use state::{Cluster, Outcome};
pub use topic_name::{
    CONSUMER_OFFSETS, TOPIC_NAME_BYTES_MAX, TopicNameError, check_topic_name, is_internal,
};

/// Decodes arbitrary bytes as a command and as a snapshot; for the fuzz target.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    if let Ok(command) = Command::decode(bytes) {
        let again = Command::decode(&command.encode());
        assert_eq!(again.as_ref(), Ok(&command), "a decoded command survives a round trip");
    }
    let settings = std::sync::Arc::new(crate::config::BrokerSettings::default());
    if let Ok(cluster) = Cluster::decode_snapshot(bytes, settings) {
        assert_eq!(cluster.encode_snapshot(), bytes, "a snapshot has one encoding");
    }
}
