//! Bytes of an object become batches again, each checked, some at a time: a producer that comes
//! meanwhile does not wait until a whole reply is through.

use std::ops::Range;

use bytes::{Buf, Bytes};
use kafka_wire::batch::{self, BatchHeader, HEADER_SIZE};
use model::{LeaderEpoch, Offset};
use s3_uploader::{Extent, Pieces};

/// Bytes that are checked at a time: some 5 us. One batch may be larger.
const BYTES_AT_A_TIME: usize = 32 << 10;

/// Tells what the log knows of an offset.
pub(super) type EpochAt<'a> = &'a dyn Fn(Offset) -> Option<LeaderEpoch>;

/// Finds whole batches from the one that contains `from`, up to `max_bytes` but one at least. A CRC
/// does not cover what is in front of it: the offsets must follow each other inside of the extent,
/// and the leader epoch be what the log says.
pub(super) struct Check {
    /// Not checked yet.
    rest: Pieces,
    offsets: Range<i64>,
    from: i64,
    max_bytes: usize,
    /// Base offset of the next batch, but for the first one.
    expected: Option<i64>,
    size: usize,
    batches: Vec<Bytes>,
    /// The batch after these is not what was written: it is never served.
    damaged: bool,
}

impl Check {
    pub(super) fn new(pieces: Pieces, extent: &Extent, from: Offset, max_bytes: u32) -> Self {
        // An interval of an index holds a batch at least.
        let damaged = !pieces.has_remaining();
        Self {
            rest: pieces,
            offsets: extent.base.get()..extent.end.get(),
            from: from.get(),
            max_bytes: max_bytes as usize,
            expected: None,
            size: 0,
            batches: Vec::new(),
            damaged,
        }
    }

    /// True when it is at its end.
    pub(super) fn go_on(&mut self, epoch_at: EpochAt<'_>) -> bool {
        let until = self.rest.remaining().saturating_sub(BYTES_AT_A_TIME);
        while self.rest.remaining() > until {
            if !self.next_batch(epoch_at) {
                return true;
            }
        }
        !self.rest.has_remaining()
    }

    pub(super) fn batches(&self) -> &[Bytes] {
        &self.batches
    }

    pub(super) fn into_batches(self) -> Vec<Bytes> {
        self.batches
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// False if no batch after it is looked at.
    fn next_batch(&mut self, epoch_at: EpochAt<'_>) -> bool {
        let head = self.rest.peek::<HEADER_SIZE>();
        let header = head.as_ref().and_then(|head| BatchHeader::read(head));
        let whole = header.and_then(|header| Some((header, header.size()?)));
        let Some((header, size)) = whole.filter(|(_, size)| *size <= self.rest.remaining()) else {
            self.damaged = true;
            return false;
        };
        let batch = self.rest.copy_to_bytes(size);
        let (base, last) = (header.base_offset(), header.last_offset());
        let inside = self.offsets.start <= base && base <= last && last < self.offsets.end;
        if !inside || self.expected.is_some_and(|expected| expected != base) {
            // This one or the one before it has wrong offsets.
            self.batches.pop();
            self.damaged = true;
            return false;
        }
        self.expected = Some(last + 1);
        if last < self.from {
            return true;
        }
        self.size += batch.len();
        if self.size > self.max_bytes && !self.batches.is_empty() {
            return false;
        }
        let epoch = epoch_at(Offset::new(base)).map(LeaderEpoch::get);
        let is_sound = header.magic() == batch::MAGIC
            && epoch == Some(header.partition_leader_epoch())
            && batch::crc_is_valid(&batch);
        // One that begins after what is asked for would pass over records.
        if !is_sound || self.batches.is_empty() && base > self.from {
            self.damaged = true;
            return false;
        }
        self.batches.push(batch);
        true
    }
}
