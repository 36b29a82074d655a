//! What clients know: which batches were acknowledged where, and what readers have seen.

use std::collections::{BTreeMap, BTreeSet};

use kafka_wire::batch::{self, BatchHeader};

use super::Topic;
use super::violation::Violation;
use crate::random::mix;

/// What the broker changes in a batch lies before: base offset, length, leader epoch.
const CLIENT_PART: usize = 17;

/// Names a batch by the bytes that are the client's alone. No two of a run are alike.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    pub(crate) fn of(batch: &[u8]) -> Self {
        Self(hash_of(&batch[CLIENT_PART..]))
    }
}

/// All partitions, by their number.
pub(crate) struct History(Vec<PartitionHistory>);

struct PartitionHistory {
    topic: Topic,
    name: String,
    /// By base offset.
    batches: BTreeMap<i64, Batch>,
    placed: BTreeSet<Fingerprint>,
    /// Sent, and nobody knows where they are, if anywhere; with their sizes.
    open: BTreeMap<Fingerprint, u64>,
    high_watermark: i64,
    log_start: i64,
    /// Where a client asked the log to begin at most.
    asked_start: i64,
}

struct Batch {
    fingerprint: Fingerprint,
    end: i64,
    size: u64,
    acknowledged: bool,
    /// Of all its bytes, as readers saw them.
    seen: Option<u64>,
}

/// What one reply of a read gave.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Read {
    pub(crate) batches: usize,
    /// Where the last batch ends; where the read began if there was none.
    pub(crate) end: i64,
}

impl History {
    /// Of partitions by their number: topic, and index in it.
    pub(crate) fn new(partitions: Vec<(Topic, i32)>) -> Self {
        let of = |(topic, index): (Topic, i32)| PartitionHistory {
            topic,
            name: format!("{}-{index}", topic.name),
            batches: BTreeMap::new(),
            placed: BTreeSet::new(),
            open: BTreeMap::new(),
            high_watermark: 0,
            log_start: 0,
            asked_start: 0,
        };
        Self(partitions.into_iter().map(of).collect())
    }

    pub(crate) fn name(&self, partition: usize) -> String {
        self.0[partition].name.clone()
    }

    pub(crate) fn high_watermark(&self, partition: usize) -> i64 {
        self.0[partition].high_watermark
    }

    pub(crate) fn log_start(&self, partition: usize) -> i64 {
        self.0[partition].log_start
    }

    pub(crate) fn sent(&mut self, partition: usize, batch: &[u8]) {
        let of = &mut self.0[partition];
        let fingerprint = Fingerprint::of(batch);
        if !of.placed.contains(&fingerprint) {
            of.open.insert(fingerprint, batch.len() as u64);
        }
    }

    /// The broker said that nothing was written.
    pub(crate) fn refused(&mut self, partition: usize, fingerprint: Fingerprint) {
        self.0[partition].open.remove(&fingerprint);
    }

    pub(crate) fn acknowledged(
        &mut self,
        partition: usize,
        fingerprint: Fingerprint,
        base: i64,
        count: i64,
    ) -> Result<(), Violation> {
        let of = &mut self.0[partition];
        of.place(fingerprint, base, base + count)?;
        of.batches.get_mut(&base).expect("just placed").acknowledged = true;
        Ok(())
    }

    /// A client asks that the log begin at `offset`.
    pub(crate) fn asks_start(&mut self, partition: usize, offset: i64) {
        let of = &mut self.0[partition];
        of.asked_start = of.asked_start.max(offset);
    }

    /// A client was told that the log begins at `offset`.
    pub(crate) fn told_start(&mut self, partition: usize, offset: i64) {
        let of = &mut self.0[partition];
        of.log_start = of.log_start.max(offset);
    }

    /// A reader who asked for `from` received these batches.
    pub(crate) fn read(
        &mut self,
        partition: usize,
        from: i64,
        mut bytes: &[u8],
    ) -> Result<Read, Violation> {
        let of = &mut self.0[partition];
        let mut read = Read { batches: 0, end: from };
        while !bytes.is_empty() {
            let header = BatchHeader::read(bytes);
            let size = header.and_then(BatchHeader::size).filter(|size| *size <= bytes.len());
            let (Some(header), Some(size)) = (header, size) else {
                return Err(of.unreadable(read.end, "half a batch"));
            };
            let (base, end) = (header.base_offset(), header.last_offset() + 1);
            if base > read.end || end <= read.end || (read.batches > 0 && base != read.end) {
                let (partition, expected) = (of.name.clone(), read.end);
                return Err(Violation::Gap { partition, expected, found: base });
            }
            let (batch, rest) = bytes.split_at(size);
            if !batch::crc_is_valid(batch) {
                return Err(of.unreadable(base, "a wrong checksum"));
            }
            of.see(base, end, batch)?;
            read = Read { batches: read.batches + 1, end };
            bytes = rest;
        }
        Ok(read)
    }

    /// What the broker says of itself: its positions never go back, whatever happened to it. True
    /// if the log start moved although no client asked for it.
    pub(crate) fn positions(
        &mut self,
        partition: usize,
        log_start: i64,
        high_watermark: i64,
    ) -> Result<bool, Violation> {
        let of = &mut self.0[partition];
        let went_back = |what, from, to| {
            Err(Violation::WentBack { partition: of.name.clone(), what, from, to })
        };
        if high_watermark < of.high_watermark {
            return went_back("the high watermark", of.high_watermark, high_watermark);
        }
        if log_start < of.log_start {
            return went_back("the log start", of.log_start, log_start);
        }
        of.high_watermark = high_watermark;
        if log_start == of.log_start {
            return Ok(false);
        }
        of.log_start = log_start;
        of.check_trimmed()
    }

    /// All records were read from the log start to `end`: everything acknowledged was among them.
    pub(crate) fn read_through(&self, partition: usize, end: i64) -> Result<(), Violation> {
        let of = &self.0[partition];
        let lost = |(base, batch): (&i64, &Batch)| {
            batch.acknowledged && batch.end > of.log_start && (batch.seen.is_none() || *base >= end)
        };
        match of.batches.iter().find(|(base, batch)| lost((base, batch))) {
            Some((offset, _)) => {
                Err(Violation::Lost { partition: of.name.clone(), offset: *offset })
            }
            None => Ok(()),
        }
    }

    pub(crate) fn acknowledgements(&self) -> usize {
        self.0.iter().flat_map(|of| of.batches.values()).filter(|it| it.acknowledged).count()
    }
}

impl PartitionHistory {
    /// A batch is at these offsets, as its producer or a reader learned.
    fn place(&mut self, fingerprint: Fingerprint, base: i64, end: i64) -> Result<(), Violation> {
        if let Some(known) = self.batches.get(&base) {
            if known.fingerprint == fingerprint && known.end == end {
                return Ok(());
            }
            return Err(Violation::Lost { partition: self.name.clone(), offset: base });
        }
        let before = self.batches.range(..base).next_back().map_or(0, |(_, batch)| batch.end);
        let after = self.batches.range(base..).next().map_or(i64::MAX, |(base, _)| *base);
        if before > base || after < end {
            return Err(Violation::Lost { partition: self.name.clone(), offset: base });
        }
        let Some(size) = self.open.remove(&fingerprint) else {
            return Err(Violation::Foreign { partition: self.name.clone(), offset: base });
        };
        let batch = Batch { fingerprint, end, size, acknowledged: false, seen: None };
        self.batches.insert(base, batch);
        self.placed.insert(fingerprint);
        Ok(())
    }

    fn see(&mut self, base: i64, end: i64, bytes: &[u8]) -> Result<(), Violation> {
        self.place(Fingerprint::of(bytes), base, end)?;
        let hash = hash_of(bytes);
        let batch = self.batches.get_mut(&base).expect("just placed");
        if *batch.seen.get_or_insert(hash) != hash {
            return Err(Violation::Changed { partition: self.name.clone(), offset: base });
        }
        Ok(())
    }

    /// The log start moved: a client asked for it, or what is left is as much as is kept. What is
    /// left is counted generously, so that no broker is blamed for what nobody knows.
    fn check_trimmed(&self) -> Result<bool, Violation> {
        let left = self.batches.range(self.log_start..).map(|(_, batch)| batch.size);
        let left = left.sum::<u64>() + self.open.values().sum::<u64>();
        let is_kept = self.topic.retention_bytes.is_some_and(|kept| left >= kept);
        let is_asked = self.log_start <= self.asked_start;
        if is_asked || is_kept {
            return Ok(!is_asked);
        }
        Err(Violation::Trimmed { partition: self.name.clone(), log_start: self.log_start })
    }

    fn unreadable(&self, offset: i64, reason: &str) -> Violation {
        let (partition, reason) = (self.name.clone(), reason.to_owned());
        Violation::Unreadable { partition, offset, reason }
    }
}

pub(crate) fn hash_of(bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = mix(hash ^ u64::from_le_bytes(word));
    }
    hash
}
