//! InitProducerId: a fresh producer id from this shard's block.
//!
//! Every shard answers by itself from a block that group 0 reserved for it, so a producer's start
//! costs a metadata commit only once in `BLOCK_SIZE` times. Ids of a block that a crash cut short
//! are never given out; there are enough.

use kafka_wire::ErrorCode;
use kafka_wire::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use model::NodeId;

use crate::cluster::Command;

/// Producer ids in one block, as many as Kafka's brokers reserve.
const BLOCK_SIZE: u32 = 1000;

/// Producer ids reserved for a shard and not yet given out.
#[derive(Debug, Default)]
pub(crate) struct ProducerIds {
    next: i64,
    end: i64,
}

/// What to do about a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Reply(InitProducerIdResponse),
    /// The block is used up: propose `refill_command`, give the block to `refill`, and ask again.
    Refill,
}

impl ProducerIds {
    /// The next id, or None if the block is used up.
    pub(crate) fn take(&mut self) -> Option<i64> {
        let id = (self.next < self.end).then_some(self.next)?;
        self.next += 1;
        Some(id)
    }

    /// Takes over a block (`Outcome::ProducerIdBlock`). What was left of the old one is dropped.
    pub(crate) fn refill(&mut self, start: i64, count: u32) {
        self.next = start;
        self.end = start.saturating_add(i64::from(count));
    }
}

/// Reserves the next block for a node.
pub(crate) fn refill_command(node: NodeId) -> Command {
    Command::AllocateProducerIds { node, count: BLOCK_SIZE }
}

pub(crate) fn respond(ids: &mut ProducerIds, request: &InitProducerIdRequest) -> Answer {
    if (request.producer_id.0 == -1) != (request.producer_epoch == -1) {
        return Answer::Reply(refused(ErrorCode::InvalidRequest));
    }
    match request.transactional_id.as_ref().map(|id| id.as_str()) {
        // An idempotent producer that knows an id gets a fresh one all the same, as in Kafka.
        None => match ids.take() {
            Some(id) => Answer::Reply(fresh(id)),
            None => Answer::Refill,
        },
        Some("") => Answer::Reply(refused(ErrorCode::InvalidRequest)),
        // Transactions are not served yet. A retriable code would let a client try until its
        // timeout, an authorization code would blame its credentials: on this one Java's producer
        // and librdkafka fail at once and say that the broker does not support it.
        Some(_) => Answer::Reply(refused(ErrorCode::UnsupportedVersion)),
    }
}

/// A reply without an id: producer id and epoch -1.
pub(crate) fn refused(code: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse::default()
        .with_error_code(code.code())
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
}

fn fresh(id: i64) -> InitProducerIdResponse {
    InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0)
}

#[cfg(test)]
mod tests {
    use kafka_wire::StrBytes;
    use kafka_wire::messages::TransactionalId;

    use super::*;

    fn idempotent() -> InitProducerIdRequest {
        InitProducerIdRequest::default().with_transactional_id(None)
    }

    fn code(answer: Answer) -> (i16, i64, i16) {
        match answer {
            Answer::Reply(reply) => (reply.error_code, reply.producer_id.0, reply.producer_epoch),
            Answer::Refill => panic!("no reply"),
        }
    }

    #[test]
    fn ids_come_from_the_block_until_it_is_used_up() {
        let mut ids = ProducerIds::default();
        let request = idempotent();
        assert_eq!(respond(&mut ids, &request), Answer::Refill);
        ids.refill(5000, 2);
        assert_eq!(code(respond(&mut ids, &request)), (0, 5000, 0));
        assert_eq!(code(respond(&mut ids, &request)), (0, 5001, 0));
        assert_eq!(respond(&mut ids, &request), Answer::Refill);
    }

    #[test]
    fn a_transactional_id_never_gets_a_producer_id() {
        let mut ids = ProducerIds::default();
        ids.refill(0, 1);
        for (id, expected) in
            [("t", ErrorCode::UnsupportedVersion), ("", ErrorCode::InvalidRequest)]
        {
            let id = TransactionalId(StrBytes::from_static_str(id));
            let request = InitProducerIdRequest::default().with_transactional_id(Some(id));
            assert_eq!(code(respond(&mut ids, &request)), (expected.code(), -1, -1));
        }
        assert_eq!(ids.take(), Some(0));
    }

    #[test]
    fn half_an_identity_is_invalid() {
        let mut ids = ProducerIds::default();
        ids.refill(0, 10);
        let request = idempotent();
        for (id, epoch, expected) in
            [(7, -1, ErrorCode::InvalidRequest), (-1, 3, ErrorCode::InvalidRequest)]
        {
            let half = request.clone().with_producer_id(ProducerId(id)).with_producer_epoch(epoch);
            assert_eq!(code(respond(&mut ids, &half)), (expected.code(), -1, -1));
        }
        let whole = request.with_producer_id(ProducerId(7)).with_producer_epoch(3);
        assert_eq!(code(respond(&mut ids, &whole)), (0, 0, 0));
    }
}
