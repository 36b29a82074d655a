//! Each rule of idempotent producers (`docs/kafka-api.md` 5.1) by name.

use super::*;

const TRANSACTIONAL: i16 = 1 << 4;
const LOG_APPEND_TIME: i16 = 1 << 3;

/// One record of producer 1.
fn batch(epoch: i16, base_sequence: i32) -> Submission {
    batch_of(epoch, base_sequence, 1)
}

fn batch_of(epoch: i16, base_sequence: i32, record_count: i32) -> Submission {
    let producer = Some(ProducerStamp { id: 1, epoch, base_sequence });
    Submission { producer, ..plain(record_count, 0) }
}

fn duplicate(log: &mut Log, batch: Submission) -> Duplicate {
    match log.offer(batch) {
        Ok(Prepared::Duplicate(duplicate)) => duplicate,
        other => panic!("not a duplicate: {other:?}"),
    }
}

fn refused(log: &mut Log, batch: Submission) -> ProducerError {
    match log.offer(batch) {
        Err(AppendError::Producer(error)) => error,
        other => panic!("not refused: {other:?}"),
    }
}

fn out_of_order(expected: i32, found: i32) -> ProducerError {
    ProducerError::OutOfOrderSequence { producer_id: 1, expected, found }
}

fn invalid_epoch(known: i16, found: i16) -> ProducerError {
    ProducerError::InvalidProducerEpoch { producer_id: 1, known, found }
}

#[test]
fn a_repeat_of_any_of_the_last_five_batches_is_the_first_append_again() {
    let mut log = Log::new();
    for number in 0..7 {
        log.append(batch_of(0, number * 3, 3));
    }
    log.commit(5);
    for number in 2..7_i32 {
        let expected = Duplicate {
            base_offset: Offset::new(i64::from(number) * 3),
            last_offset: Offset::new(i64::from(number) * 3 + 2),
            log_append_time: None,
            index: LogIndex::new(u64::from(number.unsigned_abs()) + 1),
            committed: number < 5,
        };
        assert_eq!(duplicate(&mut log, batch_of(0, number * 3, 3)), expected);
    }
    assert_eq!(log.ends().2, 21, "nothing was written");
}

#[test]
fn a_repeat_of_an_older_batch_is_out_of_order() {
    let mut log = Log::new();
    for number in 0..6 {
        log.append(batch(0, number));
    }
    assert_eq!(refused(&mut log, batch(0, 0)), out_of_order(6, 0));
}

#[test]
fn a_batch_that_only_overlaps_is_no_repeat() {
    let mut log = Log::new();
    log.append(batch_of(0, 0, 4));
    assert_eq!(refused(&mut log, batch_of(0, 0, 3)), out_of_order(4, 0));
    assert_eq!(refused(&mut log, batch_of(0, 1, 3)), out_of_order(4, 1));
}

#[test]
fn a_repeat_reports_the_time_the_broker_stamped() {
    let mut log = Log::new();
    let stamped = Submission { attributes: LOG_APPEND_TIME, max_timestamp: NOW + 7, ..batch(0, 0) };
    log.append(stamped);
    let again = Submission { max_timestamp: NOW + 99, ..stamped };
    assert_eq!(duplicate(&mut log, again).log_append_time, Some(NOW + 7));
}

#[test]
fn a_repeat_is_recognized_before_its_epoch_and_order_are_checked() {
    let mut log = Log::new();
    log.append(Submission { attributes: TRANSACTIONAL, ..batch(3, 0) });
    // As a new batch it would be out of order, and outside the open transaction.
    assert_eq!(duplicate(&mut log, batch(3, 0)).base_offset, Offset::ZERO);
}

#[test]
fn an_older_epoch_is_refused_even_for_a_batch_it_wrote() {
    let mut log = Log::new();
    log.append(batch(4, 0));
    log.append(batch(5, 0));
    assert_eq!(refused(&mut log, batch(4, 0)), invalid_epoch(5, 4));
    assert_eq!(refused(&mut log, batch(4, 1)), invalid_epoch(5, 4));
}

#[test]
fn a_newer_epoch_begins_at_sequence_zero() {
    let mut log = Log::new();
    log.append(batch(4, 0));
    assert_eq!(refused(&mut log, batch(5, 1)), out_of_order(0, 1));
    assert_eq!(log.append(batch(5, 0)), 1);
    assert_eq!(log.append(batch(5, 1)), 2);
}

#[test]
fn within_an_epoch_sequences_follow_without_a_gap() {
    let mut log = Log::new();
    log.append(batch_of(0, 0, 10));
    assert_eq!(refused(&mut log, batch(0, 11)), out_of_order(10, 11));
    assert_eq!(refused(&mut log, batch(0, 9)), out_of_order(10, 9));
    assert_eq!(log.append(batch(0, 10)), 10);
}

#[test]
fn sequences_wrap_from_the_largest_to_zero() {
    let mut log = Log::new();
    log.append(batch(0, i32::MAX));
    assert_eq!(refused(&mut log, batch(0, 1)), out_of_order(0, 1));
    log.append(batch(0, 0));
    assert_eq!(duplicate(&mut log, batch(0, i32::MAX)).base_offset, Offset::ZERO);
}

#[test]
fn a_batch_may_span_the_wrap() {
    let mut log = Log::new();
    log.append(batch_of(0, i32::MAX - 1, 5));
    assert_eq!(refused(&mut log, batch(0, 4)), out_of_order(3, 4));
    assert_eq!(log.append(batch(0, 3)), 5);
}

#[test]
fn an_unknown_producer_may_begin_anywhere() {
    let mut log = Log::new();
    assert_eq!(log.append(batch(7, 1234)), 0);
    assert_eq!(log.append(batch(7, 1235)), 1);
}

#[test]
fn an_unknown_producer_of_transaction_version_2_begins_at_zero() {
    let mut log = Log::new();
    let first = |sequence| {
        let first_sequence = FirstSequence::Zero;
        Submission { first_sequence, ..batch(7, sequence) }
    };
    assert_eq!(refused(&mut log, first(1)), out_of_order(0, 1));
    assert_eq!(log.append(first(0)), 0);
}

#[test]
fn a_batch_outside_the_open_transaction_is_refused() {
    let mut log = Log::new();
    let inside = |sequence| Submission { attributes: TRANSACTIONAL, ..batch(0, sequence) };
    log.append(inside(0));
    let error = ProducerError::OpenTransaction { producer_id: 1 };
    assert_eq!(refused(&mut log, batch(0, 1)), error);
    assert_eq!(log.append(inside(1)), 1);
}

#[test]
fn a_producer_needs_a_sequence_and_an_epoch() {
    let mut log = Log::new();
    assert_eq!(refused(&mut log, batch(0, -1)), ProducerError::NoSequence { producer_id: 1 });
    assert_eq!(refused(&mut log, batch(-1, 0)), invalid_epoch(0, -1));
    log.append(batch(0, 0));
    assert_eq!(refused(&mut log, batch(-1, 0)), invalid_epoch(0, -1));
    let producer = Some(ProducerStamp { id: -2, epoch: 0, base_sequence: 0 });
    let result = log.offer(Submission { producer, ..plain(1, 0) });
    assert!(matches!(result, Err(AppendError::NotABatch { .. })), "{result:?}");
}

#[test]
fn producers_do_not_touch_each_other() {
    let mut log = Log::new();
    log.append(batch(0, 0));
    let producer = Some(ProducerStamp { id: 2, epoch: 0, base_sequence: 50 });
    log.append(Submission { producer, ..plain(1, 0) });
    log.append(batch(0, 1));
    assert_eq!(log.partition.producer_count(), 2);
}

#[test]
fn a_failed_append_does_not_advance_the_sequence() {
    let mut log = Log::new();
    log.append(batch(0, 0));
    // Prepared, but raft refuses it: `appended` is never called.
    assert!(matches!(log.partition.prepare(&batch(0, 1), NOW), Ok(Prepared::New(_))));
    assert_eq!(refused(&mut log, batch(0, 2)), out_of_order(1, 2));
    assert_eq!(log.append(batch(0, 1)), 1);
}

#[test]
fn truncation_takes_back_sequences_and_epochs_exactly() {
    let mut log = Log::new();
    for sequence in 0..7 {
        log.append(batch(0, sequence));
    }
    log.commit(7);
    log.append(batch(0, 7));
    log.append(batch(1, 0));
    for sequence in 1..8 {
        log.append(batch(1, sequence));
    }
    log.truncate(8);
    // As before entry 8: epoch 0 again, with sequences 2 to 6 as the last five.
    for sequence in 2..7 {
        assert_eq!(duplicate(&mut log, batch(0, sequence)).base_offset.get(), i64::from(sequence));
    }
    assert_eq!(refused(&mut log, batch(0, 1)), out_of_order(7, 1));
    assert_eq!(log.append(batch(0, 7)), 7);
}

#[test]
fn truncation_of_all_its_batches_makes_a_producer_unknown() {
    let mut log = Log::new();
    log.append(batch(3, 0));
    log.truncate(1);
    assert_eq!(log.partition.producer_count(), 0);
    assert_eq!(log.append(batch(0, 44)), 0);
}

#[test]
fn an_idle_producer_expires_and_may_then_begin_anywhere() {
    const DAY: i64 = 86_400_000;
    let mut log = Log::new();
    log.append(batch(3, 0));
    log.commit(1);
    assert_eq!(log.partition.expire_producers(NOW + DAY, DAY), 0);
    assert_eq!(log.partition.expire_producers(NOW + DAY + 1, DAY), 1);
    assert_eq!(log.append(batch(0, 44)), 1);
}

#[test]
fn a_producer_with_an_uncommitted_batch_or_an_open_transaction_does_not_expire() {
    let mut log = Log::new();
    log.append(batch(3, 0));
    assert_eq!(log.partition.expire_producers(i64::MAX, 0), 0);
    log.append(Submission { attributes: TRANSACTIONAL, ..batch(3, 1) });
    log.commit(2);
    assert_eq!(log.partition.expire_producers(i64::MAX, 0), 0);
}

#[test]
fn a_producer_of_old_records_does_not_expire_while_it_writes() {
    let mut log = Log::new();
    log.append(Submission { max_timestamp: 5, ..batch(0, 0) });
    log.commit(1);
    assert_eq!(log.partition.expire_producers(NOW + 10, 1000), 0);
}

#[test]
fn state_survives_the_trim_of_its_batches() {
    let mut log = Log::new();
    log.append(batch(0, 0));
    log.commit(1);
    log.trim(1).expect("committed");
    assert_eq!(duplicate(&mut log, batch(0, 0)).base_offset, Offset::ZERO);
    assert_eq!(refused(&mut log, batch(0, 2)), out_of_order(1, 2));
}
