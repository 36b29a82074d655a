//! Recovery: reads the log from the trim point, decides where it ends, delivers its records.
//! Normative: `docs/formats/wal-recovery.md`.

mod decision;
mod evidence;
mod reader;

use std::io;

use uuid::Uuid;

pub use decision::{
    Damage, EpochState, HeaderState, PayloadState, PositionState, Proof, RingState, Tail, Verdict,
    decide,
};
pub use evidence::{Evidence, EvidenceSource};

use crate::device::BlockDevice;
use crate::frame::{FRAME_HEADER_SIZE, FrameHeader, FrameKind, HeaderError, RecordIter, RecordKey};
use crate::segment::SegmentHeader;
use crate::superblock::{LoadError, Superblock};
use crate::{Location, Lsn, StreamId, WriterEpoch};
use reader::LogReader;

/// A record of the log, in LSN order. The data is borrowed for the call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Recovered<'a> {
    Entry { stream: StreamId, term: u64, index: u64, data: &'a [u8], at: Location },
    State { stream: StreamId, data: &'a [u8], at: Location },
}

/// What a scan comes across, in LSN order: each frame, then its records.
#[derive(Clone, Copy, Debug)]
pub enum ScanEvent<'a> {
    /// `offset`: device offset of the header, bytes.
    Frame {
        header: &'a FrameHeader,
        offset: u64,
    },
    Record(Recovered<'a>),
}

/// What a scan found, counted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ScanReport {
    /// Where the log ends and is written on.
    pub end: Lsn,
    /// How it ends; `None` if it fills the whole ring.
    pub tail: Option<Tail>,
    pub data_frames: u64,
    pub seal_frames: u64,
    pub mark_frames: u64,
    pub records: u64,
    /// Bytes of data in the records.
    pub data_bytes: u64,
    /// The highest durable LSN that any frame of the log states.
    pub recorded_durable_lsn: Lsn,
    /// Device offsets of segment headers that are damaged while the frames behind them are whole.
    pub damaged_segment_headers: Vec<u64>,
}

/// A position that was durable and cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Corruption {
    pub lsn: Lsn,
    /// Device offset of the position, bytes.
    pub offset: u64,
    pub damage: Damage,
    /// What shows that it was durable; `None` if the damage speaks for itself.
    pub evidence: Option<Evidence>,
}

impl std::fmt::Display for Corruption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at LSN {}, device offset {}", self.damage, self.lsn, self.offset)?;
        match &self.evidence {
            Some(evidence) => write!(f, " ({evidence})"),
            None => Ok(()),
        }
    }
}

/// Why a WAL cannot be opened. Nothing was changed on the device.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Superblock(#[from] LoadError),
    #[error("the WAL belongs to cluster {found}, this broker to {expected}")]
    OtherCluster { expected: Uuid, found: Uuid },
    #[error("the WAL belongs to node {found}, this broker is node {expected}")]
    OtherNode { expected: i32, found: i32 },
    #[error("the WAL is slice {found:?} (index, count), expected {expected:?}")]
    OtherSlice { expected: (u16, u16), found: (u16, u16) },
    #[error("the WAL has blocks of {wal} bytes, the device of {device}: not a multiple")]
    BlockSize { wal: u32, device: u32 },
    #[error("the WAL ends at device offset {end}, the device has {size} bytes")]
    DeviceTooSmall { end: u64, size: u64 },
    #[error("device read at offset {offset} failed: {source}; nothing was truncated")]
    Read { offset: u64, source: io::Error },
    #[error("device write or flush failed while opening: {source}")]
    Write { source: io::Error },
    #[error(
        "WAL is corrupt: {0}; nothing was truncated. Restore this node from its replicas, or look \
         with `tailrace wal verify`"
    )]
    Corrupt(Corruption),
    #[error("option {option}: {value} is out of range {min}..={max}")]
    Options { option: &'static str, value: u64, min: u64, max: u64 },
}

/// Walks the log of `superblock` and hands out what it finds. Reads only. On an error, what was
/// handed out before is a prefix of the log and must be thrown away.
pub fn scan(
    device: &mut impl BlockDevice,
    superblock: &Superblock,
    sink: &mut dyn FnMut(ScanEvent<'_>),
) -> Result<ScanReport, OpenError> {
    let mut walk = Walk {
        reader: LogReader::new(device, superblock.layout),
        superblock,
        writer_epoch: WriterEpoch::default(),
        report: ScanReport { end: superblock.trimmed_lsn, ..ScanReport::default() },
    };
    let ring_end = superblock.trimmed_lsn.advance(superblock.layout.capacity());
    while walk.report.end < ring_end {
        match walk.step(sink)? {
            Some(next) => walk.report.end = next,
            None => break,
        }
    }
    // The end of the ring is a position like any other: a superblock that knows of a longer log
    // than fits, or a log that stops before what was declared durable, is refused above.
    assert!(walk.report.end <= ring_end, "the log is longer than its ring");
    Ok(walk.report)
}

struct Walk<'a, D> {
    reader: LogReader<'a, D>,
    superblock: &'a Superblock,
    /// Of the last accepted frame: epochs do not decrease along the log.
    writer_epoch: WriterEpoch,
    report: ScanReport,
}

impl<D: BlockDevice> Walk<'_, D> {
    /// Looks at the position `report.end`; returns the next one if a frame stands there.
    fn step(&mut self, sink: &mut dyn FnMut(ScanEvent<'_>)) -> Result<Option<Lsn>, OpenError> {
        let layout = self.superblock.layout;
        let position = self.report.end;
        let header_lsn = layout.header_lsn(position);
        let block = self.reader.view(header_lsn, layout.block())?;
        let decoded = FrameHeader::decode_block(block);
        let state = match &decoded {
            Err(_) if block.iter().all(|&byte| byte == 0) => HeaderState::Blank,
            Err(HeaderError::Version { .. }) => HeaderState::OtherVersion,
            Err(_) => HeaderState::Unreadable,
            Ok(header) => self.compare(header, header_lsn)?,
        };
        // Evidence is looked for only when the table depends on it.
        let verdict = match decide(state, Proof::None) {
            Verdict::End(_) => {
                let evidence = evidence::find(&mut self.reader, self.superblock, position)?;
                let proof = if evidence.is_some() { Proof::Durable } else { Proof::None };
                (decide(state, proof), evidence)
            }
            verdict => (verdict, None),
        };
        match verdict {
            (Verdict::Accept, _) => {
                let header = decoded.expect("only a sound header is accepted");
                self.accept(&header, position, header_lsn, sink).map(Some)
            }
            (Verdict::End(tail), _) => {
                self.report.tail = Some(tail);
                Ok(None)
            }
            (Verdict::Corrupt(damage), evidence) => {
                let offset = layout.device_offset(header_lsn);
                let lsn = header_lsn;
                Err(OpenError::Corrupt(Corruption { lsn, offset, damage, evidence }))
            }
        }
    }

    /// The claims of a sound header, each against what is expected at `header_lsn`.
    fn compare(&mut self, header: &FrameHeader, header_lsn: Lsn) -> Result<HeaderState, OpenError> {
        let ring = if header.ring_id() == self.superblock.ring_id {
            RingState::Ours
        } else {
            RingState::Other
        };
        let position = match header.lsn().cmp(&header_lsn) {
            std::cmp::Ordering::Equal => PositionState::Here,
            std::cmp::Ordering::Less => PositionState::EarlierLap,
            std::cmp::Ordering::Greater => PositionState::Later,
        };
        let epoch = if header.writer_epoch() > self.superblock.writer_epoch {
            EpochState::Unknown
        } else if header.writer_epoch() < self.writer_epoch {
            EpochState::Older
        } else {
            EpochState::InOrder
        };
        let layout = self.superblock.layout;
        let size = FRAME_HEADER_SIZE + header.payload_size() as usize;
        let fits = size <= layout.room_in_segment(header_lsn) && size <= layout.frame_size_max();
        let payload = if !fits {
            PayloadState::DoesNotFit
        } else if header.payload_is(&self.reader.view(header_lsn, size)?[FRAME_HEADER_SIZE..]) {
            PayloadState::Good
        } else {
            PayloadState::BadChecksum
        };
        Ok(HeaderState::Sound { ring, position, epoch, payload })
    }

    fn accept(
        &mut self,
        header: &FrameHeader,
        position: Lsn,
        header_lsn: Lsn,
        sink: &mut dyn FnMut(ScanEvent<'_>),
    ) -> Result<Lsn, OpenError> {
        let layout = self.superblock.layout;
        let offset = layout.device_offset(header_lsn);
        if position != header_lsn {
            self.check_segment_header(position)?;
        }
        self.writer_epoch = header.writer_epoch();
        let recorded = self.report.recorded_durable_lsn.max(header.durable_lsn());
        self.report.recorded_durable_lsn = recorded;
        sink(ScanEvent::Frame { header, offset });
        match header.kind() {
            FrameKind::Seal => {
                self.report.seal_frames += 1;
                return Ok(layout.segment_start(layout.segment_of(header_lsn) + 1));
            }
            FrameKind::Mark => self.report.mark_frames += 1,
            FrameKind::Data => {
                self.report.data_frames += 1;
                self.deliver(header, header_lsn, sink)?;
            }
        }
        let size = FRAME_HEADER_SIZE + header.payload_size() as usize;
        Ok(header_lsn.advance(size.next_multiple_of(layout.block()) as u64))
    }

    fn deliver(
        &mut self,
        header: &FrameHeader,
        header_lsn: Lsn,
        sink: &mut dyn FnMut(ScanEvent<'_>),
    ) -> Result<(), OpenError> {
        let size = FRAME_HEADER_SIZE + header.payload_size() as usize;
        let offset = self.superblock.layout.device_offset(header_lsn);
        let payload = &self.reader.view(header_lsn, size)?[FRAME_HEADER_SIZE..];
        let payload_lsn = header_lsn.advance(FRAME_HEADER_SIZE as u64);
        for record in RecordIter::new(payload, payload_lsn, header.record_count()) {
            let Ok(record) = record else {
                let damage = Damage::Records;
                let corruption = Corruption { lsn: header_lsn, offset, damage, evidence: None };
                return Err(OpenError::Corrupt(corruption));
            };
            let data = record.data;
            let at = Location {
                lsn: payload_lsn.advance(record.data_offset as u64),
                len: u32::try_from(data.len()).expect("a payload is smaller than 4 GiB"),
            };
            self.report.records += 1;
            self.report.data_bytes += u64::from(at.len);
            sink(ScanEvent::Record(match record.key {
                RecordKey::Entry { stream, term, index } => {
                    Recovered::Entry { stream, term, index, data, at }
                }
                RecordKey::State { stream } => Recovered::State { stream, data, at },
            }));
        }
        Ok(())
    }

    fn check_segment_header(&mut self, position: Lsn) -> Result<(), OpenError> {
        let layout = self.superblock.layout;
        let block = self.reader.view(position, layout.block())?;
        let sound = SegmentHeader::decode_block(block).is_ok_and(|header| {
            header.ring_id == self.superblock.ring_id
                && header.segment_number == layout.segment_of(position)
        });
        if !sound {
            self.report.damaged_segment_headers.push(layout.device_offset(position));
        }
        Ok(())
    }
}
