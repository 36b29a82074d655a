//! The search for evidence that the log was durable past a position.
//!
//! Where it can lie follows from the window rule: a frame that ends at Y is written only while
//! Y - durable LSN <= WINDOW. Let X be the start of a frame that became durable while the writer
//! lived on, and F the first frame written after the writer knew: the first that says "durable past
//! X". Until then the durable LSN was at most X, so F starts at X + WINDOW at the latest (a block
//! later if that is a segment's start). A look at each block up to there finds F, however many
//! frames between are damaged too.
//!
//! But F may have been in flight when the power failed. One seed of the suite did just this:
//!
//! 1. The frame at X was acknowledged by a device that lost it. The durable LSN moved to D > X.
//! 2. F and G behind it were in flight, both saying "durable to D". F was lost, G was not.
//! 3. G lies past X + WINDOW. A look-ahead of one window ends the log at X, silently.
//!
//! If F never became durable, the durable LSN never passed F, so nothing written ends past
//! X + 2 * WINDOW: a look-ahead of two windows sees every frame there is. If F did become durable,
//! it is found unless it is damaged as well as X. Segment headers and the superblock are looked at
//! besides: they may survive when the frames do not.

use std::fmt;

use super::{LogReader, OpenError};
use crate::device::BlockDevice;
use crate::frame::FrameHeader;
use crate::segment::SegmentHeader;
use crate::superblock::Superblock;
use crate::{Lsn, ring::RingLayout};

/// Where a durable LSN was read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EvidenceSource {
    Superblock,
    Frame,
    SegmentHeader,
}

/// A statement that the log was durable up to `durable_lsn`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Evidence {
    pub source: EvidenceSource,
    pub durable_lsn: Lsn,
    /// Device offset of the statement, bytes.
    pub offset: u64,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.source {
            EvidenceSource::Superblock => "the superblock",
            EvidenceSource::Frame => "a frame",
            EvidenceSource::SegmentHeader => "a segment header",
        };
        let Self { durable_lsn, offset, .. } = self;
        write!(f, "{source} at device offset {offset} says durable to LSN {durable_lsn}")
    }
}

/// The first evidence found that the log was durable past `position`.
pub(super) fn find<D: BlockDevice>(
    reader: &mut LogReader<'_, D>,
    superblock: &Superblock,
    position: Lsn,
) -> Result<Option<Evidence>, OpenError> {
    let durable_lsn = superblock.durable_lsn_hint;
    if durable_lsn > position {
        let offset = superblock.layout.slice_offset;
        return Ok(Some(Evidence { source: EvidenceSource::Superblock, durable_lsn, offset }));
    }
    if let Some(evidence) = in_frames(reader, superblock, position)? {
        return Ok(Some(evidence));
    }
    in_segment_headers(reader, superblock, position)
}

fn in_frames<D: BlockDevice>(
    reader: &mut LogReader<'_, D>,
    superblock: &Superblock,
    position: Lsn,
) -> Result<Option<Evidence>, OpenError> {
    let layout = superblock.layout;
    let ring_end = superblock.trimmed_lsn.advance(layout.capacity());
    let block_size = u64::from(layout.block_size);
    let last = position.advance(2 * layout.window_size + block_size);
    let mut lsn = layout.header_lsn(position);
    while lsn <= last && lsn < ring_end {
        let block = reader.view(lsn, layout.block())?;
        if let Ok(header) = FrameHeader::decode_block(block)
            && header.ring_id() == superblock.ring_id
            // At the position itself, a later frame that was misdirected to here is a witness too.
            && (header.lsn() == lsn || lsn == layout.header_lsn(position))
            && header.durable_lsn() > position
        {
            return Ok(Some(Evidence {
                source: EvidenceSource::Frame,
                durable_lsn: header.durable_lsn(),
                offset: layout.device_offset(lsn),
            }));
        }
        lsn = layout.header_lsn(lsn.advance(block_size));
    }
    Ok(None)
}

fn in_segment_headers<D: BlockDevice>(
    reader: &mut LogReader<'_, D>,
    superblock: &Superblock,
    position: Lsn,
) -> Result<Option<Evidence>, OpenError> {
    let layout: RingLayout = superblock.layout;
    let first = layout.segment_of(superblock.trimmed_lsn);
    for number in first..first + u64::from(layout.segment_count) {
        let lsn = layout.segment_start(number);
        let header = reader.peek(lsn)?;
        // A later lap than the trim point allows is a witness as well: the trim point went back.
        if let Ok(header) = header
            && header.ring_id == superblock.ring_id
            && header.segment_number % u64::from(layout.segment_count)
                == number % u64::from(layout.segment_count)
            && header.durable_lsn > position
        {
            return Ok(Some(Evidence {
                source: EvidenceSource::SegmentHeader,
                durable_lsn: header.durable_lsn,
                offset: layout.device_offset(lsn),
            }));
        }
    }
    Ok(None)
}

impl<D: BlockDevice> LogReader<'_, D> {
    /// The segment header at `lsn`, read by itself: headers are far apart.
    fn peek(
        &mut self,
        lsn: Lsn,
    ) -> Result<Result<SegmentHeader, crate::segment::SegmentError>, OpenError> {
        let offset = self.layout.device_offset(lsn);
        let block = crate::device::read_vec(self.device, offset, self.layout.block())
            .map_err(|source| OpenError::Read { offset, source })?;
        Ok(SegmentHeader::decode_block(&block))
    }
}
