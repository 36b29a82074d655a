use std::sync::Arc;

use model::{LogIndex, RaftGroupId};
use uuid::Uuid;

use super::*;
use crate::cluster::{Cluster, Command, NewTopic};

const LOG_DIR: &str = "/data/wal";

/// Topics `a` with partitions 1 to 3, of which the second is elsewhere, `b` with 4, which is
/// elsewhere, and `c` with 5.
fn ask(topics: Option<&[(&'static str, &[i32])]>) -> DescribeLogDirsResponse {
    let mut cluster = Cluster::new(Arc::default());
    for (index, (name, count)) in (1..).zip([("a", 3), ("b", 1), ("c", 1)]) {
        cluster.apply(
            LogIndex::new(index),
            Command::CreateTopic(NewTopic {
                name: name.into(),
                topic_id: Uuid::from_u128(u128::from(index)),
                internal: false,
                placement: vec![RaftGroupId::new(1); count],
                configs: BTreeMap::new(),
            }),
        );
    }
    let topic = |(name, indexes): &(&'static str, &[i32])| {
        DescribableLogDirTopic::default()
            .with_topic(StrBytes::from_static_str(name).into())
            .with_partitions(indexes.to_vec())
    };
    let asked = topics.map(|topics| topics.iter().map(topic).collect());
    let request = DescribeLogDirsRequest::default().with_topics(asked);
    // Partition 9 is of a topic that was deleted.
    let here = [(1, 100), (3, 0), (5, 7), (9, 1)];
    let partitions = here.map(|(id, size)| (PartitionId::new(id), size)).to_vec();
    let all = LogUse { capacity: 1 << 30, free: 5000, partitions };
    response(&cluster.image(), LOG_DIR, &request, &all)
}

/// Topic, index and size of each partition.
fn sizes(response: &DescribeLogDirsResponse) -> Vec<(String, i32, i64)> {
    let topics = response.results.iter().flat_map(|result| &result.topics);
    let mut all = Vec::new();
    for topic in topics {
        assert!(!topic.partitions.is_empty());
        for it in &topic.partitions {
            assert!(!it.is_future_key && it.offset_lag == 0);
            all.push((topic.name.to_string(), it.partition_index, it.partition_size));
        }
    }
    all
}

#[test]
fn the_wal_is_the_only_log_directory_and_tells_its_room() {
    let response = ask(None);
    assert_eq!((response.error_code, response.results.len()), (0, 1));
    let result = &response.results[0];
    assert_eq!((result.error_code, result.log_dir.as_str()), (0, LOG_DIR));
    assert_eq!((result.total_bytes, result.usable_bytes), (1 << 30, 5000));
}

#[test]
fn partitions_that_are_here_tell_their_size() {
    let row = |topic: &str, index, size| (topic.to_owned(), index, size);
    assert_eq!(sizes(&ask(None)), [row("a", 0, 100), row("a", 2, 0), row("c", 0, 7)]);
    let some = ask(Some(&[("c", &[0, 1]), ("a", &[2, -1, 1]), ("x", &[0]), ("b", &[0])]));
    assert_eq!(sizes(&some), [row("a", 2, 0), row("c", 0, 7)]);
    let twice = ask(Some(&[("a", &[0, 0]), ("a", &[2, 0])]));
    assert_eq!(sizes(&twice), [row("a", 0, 100), row("a", 2, 0)]);
    assert_eq!(sizes(&ask(Some(&[]))), []);
}
