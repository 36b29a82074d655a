//! Fetches that wait for records: which calls to wake when a partition's visible end moves.

use std::collections::{BTreeMap, BTreeSet};

use model::PartitionId;

use super::call::{CallId, Origin};

/// Waiting fetches by partition, and the partitions by fetch so that a finished one leaves nothing.
#[derive(Default)]
pub(crate) struct Watches {
    by_partition: BTreeMap<PartitionId, BTreeSet<CallId>>,
    by_call: BTreeMap<CallId, (Origin, Vec<PartitionId>)>,
}

impl Watches {
    /// Wakes the call of `origin` once, at the next change of any of the partitions.
    pub(crate) fn add(&mut self, origin: Origin, partitions: Vec<PartitionId>) {
        self.cancel(origin.call);
        for partition in &partitions {
            self.by_partition.entry(*partition).or_default().insert(origin.call);
        }
        self.by_call.insert(origin.call, (origin, partitions));
    }

    /// Forgets a call.
    pub(crate) fn cancel(&mut self, call: CallId) {
        let Some((_, partitions)) = self.by_call.remove(&call) else { return };
        for partition in partitions {
            if let Some(calls) = self.by_partition.get_mut(&partition) {
                calls.remove(&call);
                if calls.is_empty() {
                    self.by_partition.remove(&partition);
                }
            }
        }
    }

    /// Takes out the calls that watch a partition: each is woken once.
    pub(crate) fn changed(&mut self, partition: PartitionId) -> Vec<Origin> {
        let Some(calls) = self.by_partition.remove(&partition) else { return Vec::new() };
        let origins =
            calls.iter().filter_map(|call| self.by_call.get(call).map(|watch| watch.0)).collect();
        for call in calls {
            self.cancel(call);
        }
        origins
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.by_call.is_empty() && self.by_partition.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use model::ShardId;

    use super::*;

    fn origin(number: u64) -> Origin {
        Origin { call: CallId::new(ShardId::new(0), number), part: 3 }
    }

    #[test]
    fn a_call_is_woken_once_and_leaves_nothing() {
        let mut watches = Watches::default();
        let (a, b) = (PartitionId::new(1), PartitionId::new(2));
        watches.add(origin(1), vec![a, b]);
        watches.add(origin(2), vec![b]);
        assert_eq!(watches.changed(a), [origin(1)]);
        assert_eq!(watches.changed(a), []);
        assert_eq!(watches.changed(b), [origin(2)]);
        assert!(watches.is_empty());
    }

    #[test]
    fn a_cancelled_call_is_not_woken() {
        let mut watches = Watches::default();
        watches.add(origin(1), vec![PartitionId::new(1)]);
        watches.cancel(origin(1).call);
        assert_eq!(watches.changed(PartitionId::new(1)), []);
        assert!(watches.is_empty());
    }
}
