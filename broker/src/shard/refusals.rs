//! Batches that idempotent producers were refused for want of room, or of replicas in sync, or
//! since this broker did not lead, or a move was to take the partition away. What a producer had
//! under way behind such a batch does not follow what is in the log, which is no mistake of its: it
//! gets an answer on which it tries again until the refused batch has come, also where another
//! broker led meanwhile. For OUT_OF_ORDER_SEQUENCE_NUMBER librdkafka takes a new epoch and sends
//! again what it had no answer to, on other partitions too.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::PartitionId;

use crate::partition::ProducerStamp;

/// A producer that has not come again by then has given the batch up, and says so by a new epoch.
/// Longer than `delivery.timeout.ms` is by default.
const KEPT: Duration = Duration::from_secs(300);
/// Beyond that all are forgotten: what follows them is out of order, as it is for Kafka.
const COUNT_MAX: usize = 10_000;

/// By partition and producer id: the first batch that was refused and has not come again.
#[derive(Debug, Default)]
pub(crate) struct Refusals(BTreeMap<(PartitionId, i64), Refusal>);

#[derive(Clone, Copy, Debug)]
struct Refusal {
    epoch: i16,
    base_sequence: i32,
    at: Instant,
}

impl Refusals {
    /// A batch was refused that is to come again.
    pub(super) fn note(&mut self, partition: PartitionId, batch: ProducerStamp, now: Instant) {
        if self.explain(partition, batch, now) {
            return;
        }
        if self.0.len() >= COUNT_MAX {
            self.0.clear();
        }
        let ProducerStamp { id, epoch, base_sequence } = batch;
        self.0.insert((partition, id), Refusal { epoch, base_sequence, at: now });
    }

    /// Does a batch not follow the log since one before it was refused?
    pub(super) fn explain(
        &self,
        partition: PartitionId,
        batch: ProducerStamp,
        now: Instant,
    ) -> bool {
        self.0.get(&(partition, batch.id)).is_some_and(|refusal| {
            let is_fresh = now.saturating_duration_since(refusal.at) < KEPT;
            // Sequence numbers have 31 bits and go on at 0: the nearer way tells who is first.
            let ahead = batch.base_sequence.wrapping_sub(refusal.base_sequence) & i32::MAX;
            is_fresh && refusal.epoch == batch.epoch && (1..1 << 30).contains(&ahead)
        })
    }

    /// A producer's batch is in the log, whoever put it there.
    pub(super) fn forget(&mut self, partition: PartitionId, producer_id: i64) {
        if !self.0.is_empty() {
            self.0.remove(&(partition, producer_id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test's clock may be any")]
    fn what_comes_after_a_refused_batch_is_explained_until_that_comes_again() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let (one, two) = (PartitionId::new(1), PartitionId::new(2));
        let batch = |base_sequence| ProducerStamp { id: 7, epoch: 3, base_sequence };
        refusals.note(one, batch(10), now);
        refusals.note(one, batch(11), now);
        let explained = |it: &Refusals, at, batch| it.explain(at, batch, now);
        assert!(explained(&refusals, one, batch(11)) && explained(&refusals, one, batch(12)));
        assert!(!explained(&refusals, one, batch(10)), "that one is judged by itself");
        assert!(!explained(&refusals, two, batch(11)));
        assert!(!explained(&refusals, one, ProducerStamp { epoch: 4, ..batch(11) }));
        assert!(!explained(&refusals, one, ProducerStamp { id: 8, ..batch(11) }));
        assert!(!refusals.explain(one, batch(11), now + KEPT), "it was given up");
        // An earlier one is refused, too: from there on.
        refusals.note(one, batch(9), now);
        assert!(explained(&refusals, one, batch(10)));
        refusals.note(one, batch(i32::MAX), now + KEPT);
        assert!(refusals.explain(one, batch(0), now + KEPT), "they begin anew at 0");
        refusals.forget(one, 7);
        assert!(!explained(&refusals, one, batch(11)));
    }
}
