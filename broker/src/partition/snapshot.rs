//! A partition as bytes, for the snapshots of its raft group. Normative:
//! `docs/formats/partition-snapshot.md`.
//!
//! A snapshot stands for the entries up to an index. Their records are in the object store; here is
//! what else they left behind. A state has exactly one encoding.

use std::collections::BTreeMap;

use model::{LeaderEpoch, LogIndex, Offset, PartitionId};

use super::batch_index::{BatchEntry, BatchIndex};
use super::epoch_cache::{EpochCache, EpochStart};
use super::producer_state::{BATCHES_KEPT, ProducedBatch, Producers};
use super::tail_cache::TailCache;
use super::{Origin, Partition};
use crate::codec::{DecodeError, Reader, Writer};

const VERSION: u8 = 1;

impl Partition {
    /// Appends the state that the entries up to `upto` left, without any of the later ones. Where
    /// batches of later entries were trimmed or released since, it is the state after those: they
    /// are committed, and the restored log passes over their entries when they are replayed.
    ///
    /// Two replicas may write different bytes for the same index: one may know less of batches that
    /// no rule will ask for. Both come to the same state with the entries that are committed by
    /// then.
    ///
    /// # Panics
    ///
    /// If the entries up to `upto` are not all committed.
    pub fn encode_snapshot(&self, upto: LogIndex, writer: &mut Writer) {
        let upto = upto.max(self.dropped_index);
        let last = self.batches.at_or_before(upto);
        let last_index = last.map_or(self.dropped_index, |entry| entry.index);
        let end = last.map_or_else(|| self.local_base(), BatchEntry::end_offset);
        let high_watermark = self.high_watermark;
        assert!(end <= high_watermark, "snapshot to {end}, but {high_watermark} is committed");
        // A trim into the middle of a later batch is done again when its entry is replayed.
        let log_start = self.log_start.min(end);

        writer.u8(VERSION);
        writer.u64(self.id.get());
        writer.i64(log_start.get());
        writer.i64(end.get());
        writer.u64(last_index.get());
        let epochs = self.epochs.as_of(log_start, end);
        writer.count(epochs.len());
        for epoch in epochs {
            writer.i32(epoch.epoch.get());
            writer.i64(epoch.start.get());
        }
        let producers = self.producers.as_of(upto);
        writer.count(producers.len());
        for (id, batches) in &producers {
            write_producer(writer, *id, batches);
        }
    }

    /// The log of which these are the bytes: nothing of it is local, and the next entry of it goes
    /// where it ends.
    pub fn decode_snapshot(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = reader.u8("version")?;
        if version != VERSION {
            return Err(DecodeError::Version { found: version });
        }
        let id = PartitionId::new(reader.u64("partition")?);
        let log_start = Offset::new(reader.i64("log start")?);
        let log_end = Offset::new(reader.i64("local start")?);
        if log_start < Offset::ZERO || log_end < log_start {
            return Err(DecodeError::Range { field: "log start" });
        }
        let last_index = LogIndex::new(reader.u64("last index")?);
        let epochs = read_epochs(reader, log_start, log_end)?;
        let producers: BTreeMap<_, _> =
            reader.map("producers", |reader| read_producer(reader, last_index, log_end))?;
        Ok(Self {
            id,
            log_start,
            high_watermark: log_end,
            log_end,
            committed_index: last_index,
            last_index,
            dropped_index: last_index,
            batches: BatchIndex::default(),
            producers: Producers::restored(producers),
            epochs: EpochCache::restored(epochs),
            tail: TailCache::default(),
            origin: Origin::default(),
            sealed: false,
            written: 0,
        })
    }
}

fn read_epochs(
    reader: &mut Reader<'_>,
    log_start: Offset,
    log_end: Offset,
) -> Result<Vec<EpochStart>, DecodeError> {
    let mut last: Option<EpochStart> = None;
    reader.list("epochs", |reader| {
        let epoch = LeaderEpoch::new(reader.i32("epoch")?);
        let start = Offset::new(reader.i64("epoch's start")?);
        let has_records = start < log_end || start == log_start;
        if epoch < LeaderEpoch::new(0) || start < log_start || !has_records {
            return Err(DecodeError::Range { field: "epoch" });
        }
        if last.is_some_and(|last| last.epoch >= epoch || last.start >= start) {
            return Err(DecodeError::Order { field: "epochs" });
        }
        Ok(*last.insert(EpochStart { epoch, start }))
    })
}

/// The batches are of one epoch, at least one, oldest first.
fn write_producer(writer: &mut Writer, id: i64, batches: &[ProducedBatch]) {
    writer.i64(id);
    writer.i16(batches.first().map_or(0, |batch| batch.epoch));
    writer.count(batches.len());
    for batch in batches {
        writer.u64(batch.index.get());
        writer.i64(batch.base_offset.get());
        writer.i64(batch.appended_at);
        writer.i32(batch.base_sequence);
        writer.u32(batch.record_count);
        writer.i16(batch.attributes);
    }
}

fn read_producer(
    reader: &mut Reader<'_>,
    last_index: LogIndex,
    log_end: Offset,
) -> Result<(i64, Vec<ProducedBatch>), DecodeError> {
    let id = reader.i64("producer")?;
    let epoch = reader.i16("producer epoch")?;
    if id < 0 || epoch < 0 {
        return Err(DecodeError::Range { field: "producer" });
    }
    // Those that came with the partition from another group have the entry that adopted it.
    let (mut index_min, mut offset_min) = (LogIndex::new(1), Offset::ZERO);
    let batches: Vec<_> = reader.list("producer's batches", |reader| {
        let batch = read_batch(reader, epoch)?;
        let end = batch.base_offset.plus(i64::from(batch.record_count));
        if batch.index < index_min || batch.base_offset < offset_min {
            return Err(DecodeError::Order { field: "producer's batches" });
        }
        if batch.index > last_index || end > log_end {
            return Err(DecodeError::Range { field: "producer's batch" });
        }
        (index_min, offset_min) = (batch.index, end);
        Ok(batch)
    })?;
    if batches.is_empty() || batches.len() > BATCHES_KEPT {
        return Err(DecodeError::Range { field: "producer's batches" });
    }
    Ok((id, batches))
}

fn read_batch(reader: &mut Reader<'_>, epoch: i16) -> Result<ProducedBatch, DecodeError> {
    let batch = ProducedBatch {
        index: LogIndex::new(reader.u64("batch's index")?),
        base_offset: Offset::new(reader.i64("batch's offset")?),
        appended_at: reader.i64("batch's time")?,
        base_sequence: reader.i32("batch's sequence")?,
        record_count: reader.u32("batch's records")?,
        epoch,
        attributes: reader.i16("batch's attributes")?,
    };
    let records_max = i32::MAX.unsigned_abs();
    if batch.base_sequence < 0 || !(1..=records_max).contains(&batch.record_count) {
        return Err(DecodeError::Range { field: "producer's batch" });
    }
    Ok(batch)
}
