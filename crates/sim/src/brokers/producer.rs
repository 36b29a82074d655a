//! One producer as clients are: batches in order, several under way, each sent again until it is
//! acknowledged if the producer is idempotent.

use std::collections::VecDeque;

use bytes::Bytes;
use kafka_wire::ErrorCode;
use kafka_wire::records::RecordBatchBuilder;

use super::report::Report;
use super::settings::Settings;
use crate::kafka::violation::Violation;
use crate::random::Random;

/// As the clients have it that are idempotent.
const IN_FLIGHT_MAX: usize = 5;
const RECORDS_MAX: u64 = 5;

pub(crate) struct Producer {
    pub(crate) partition: usize,
    is_idempotent: bool,
    /// Id and epoch.
    id: Option<(i64, i16)>,
    /// Of the next new batch.
    sequence: i32,
    /// Batches that are not acknowledged, in order; the first `in_flight` are under way.
    open: VecDeque<Sent>,
    in_flight: usize,
    /// Answers to those under way that have come.
    answered: usize,
    /// What the first of them failed with: those after it may fail, too.
    failed: Option<ErrorCode>,
    record_size_max: u64,
    batch_next: u64,
}

#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) batch: Bytes,
    pub(crate) count: i32,
    number: u64,
    /// It may be in the log: an attempt got no answer.
    is_uncertain: bool,
    is_done: bool,
}

/// What an answer says of a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Heard {
    Done,
    /// It is in no log, unless it is sent again.
    NotWritten,
    Again,
}

impl Producer {
    pub(crate) fn new(partition: usize, is_idempotent: bool, settings: &Settings) -> Self {
        Self {
            partition,
            is_idempotent,
            id: None,
            sequence: 0,
            open: VecDeque::new(),
            in_flight: 0,
            answered: 0,
            failed: None,
            record_size_max: settings.record_size_max,
            batch_next: 0,
        }
    }

    pub(crate) fn wants_id(&self) -> bool {
        self.is_idempotent && self.id.is_none()
    }

    pub(crate) fn set_id(&mut self, id: Option<(i64, i16)>) {
        self.id = id;
    }

    pub(crate) fn is_all_answered(&self) -> bool {
        self.open.iter().all(|sent| sent.is_done) || !self.is_idempotent
    }

    /// What it sends next, if it may now.
    pub(crate) fn next_batch(
        &mut self,
        fresh: bool,
        now_ms: i64,
        random: &mut Random,
    ) -> Option<Sent> {
        if self.failed.is_some() || self.in_flight >= IN_FLIGHT_MAX {
            return None;
        }
        while self.open.get(self.in_flight).is_some_and(|sent| sent.is_done) {
            self.open.remove(self.in_flight);
        }
        if self.in_flight == self.open.len() {
            if !fresh {
                return None;
            }
            let sent = self.new_batch(now_ms, random);
            self.open.push_back(sent);
        }
        let sent = self.open.get(self.in_flight)?.clone();
        self.in_flight += 1;
        Some(sent)
    }

    /// An answer: they come in the order of the batches.
    pub(crate) fn answered(
        &mut self,
        sent: Sent,
        error: ErrorCode,
        report: &mut Report,
    ) -> Result<Heard, Violation> {
        // Behind one that was refused for want of room they get the same answer.
        let may_not_follow = self.failed.is_some_and(|first| first != ErrorCode::NotEnoughReplicas);
        self.answered += 1;
        let heard = match error {
            ErrorCode::None => {
                report.repeats += usize::from(sent.is_uncertain);
                Heard::Done
            }
            ErrorCode::NotLeaderOrFollower | ErrorCode::UnknownTopicOrPartition => {
                // One that led when it took the batch may say so of what is in the log after all.
                report.not_leader += 1;
                Heard::Again
            }
            ErrorCode::NotEnoughReplicas => {
                report.refused += 1;
                if sent.is_uncertain { Heard::Again } else { Heard::NotWritten }
            }
            ErrorCode::RequestTimedOut => {
                report.timed_out += 1;
                Heard::Again
            }
            ErrorCode::OutOfOrderSequenceNumber if may_not_follow => Heard::Again,
            error => return Err(Violation::Refused { reason: error.to_string() }),
        };
        if heard != Heard::Done {
            self.failed.get_or_insert(error);
        }
        if let Some(known) = self.open.iter_mut().find(|it| it.number == sent.number) {
            known.is_done = heard == Heard::Done || !self.is_idempotent;
            known.is_uncertain |= heard == Heard::Again;
        }
        if self.answered == self.in_flight {
            self.disconnected();
        } else if heard == Heard::Done && self.failed.is_none() {
            self.open.pop_front();
            self.in_flight -= 1;
            self.answered -= 1;
        }
        Ok(heard)
    }

    /// Nobody knows what became of a batch.
    pub(crate) fn lost(&mut self, sent: Sent) {
        let number = sent.number;
        if let Some(known) = self.open.iter_mut().find(|it| it.number == number) {
            known.is_uncertain = true;
            known.is_done = !self.is_idempotent;
        }
    }

    /// Nothing is under way any more: what is not acknowledged is sent again, in order.
    pub(crate) fn disconnected(&mut self) {
        self.open.retain(|sent| !sent.is_done);
        (self.in_flight, self.answered, self.failed) = (0, 0, None);
    }

    fn new_batch(&mut self, now_ms: i64, random: &mut Random) -> Sent {
        let mut builder = RecordBatchBuilder::new();
        if let Some((id, epoch)) = self.id {
            builder = builder.producer(id, epoch, self.sequence);
        }
        self.batch_next += 1;
        // No two batches of a run are alike.
        let key = random.next().to_le_bytes();
        for _ in 0..random.between(1, RECORDS_MAX + 1) {
            let size = usize::try_from(random.below(self.record_size_max)).expect("small");
            let mut value = vec![0; size];
            value.chunks_mut(8).for_each(|chunk| {
                chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
            });
            builder.append(now_ms, Some(&key), Some(&value), &[]);
        }
        let (count, batch) = (builder.record_count(), builder.build().freeze());
        self.sequence += count;
        let number = self.batch_next;
        Sent { batch, count, number, is_uncertain: false, is_done: false }
    }
}
