//! What the clients of a simulated broker send, what they know, and the promises that they hold it
//! to.

pub(crate) mod history;
pub(crate) mod requests;
pub(crate) mod violation;

/// A topic of a run and how much of each of its partitions is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Topic {
    pub(crate) name: &'static str,
    pub(crate) partition_count: i32,
    pub(crate) retention_bytes: Option<u64>,
}

impl Topic {
    /// Every partition of some topics, in order: the place of each is its number.
    pub(crate) fn partitions(topics: &[Self]) -> Vec<(Self, i32)> {
        let of = |topic: Self| (0..topic.partition_count).map(move |index| (topic, index));
        topics.iter().copied().flat_map(of).collect()
    }
}
