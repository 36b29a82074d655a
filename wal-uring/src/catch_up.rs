//! Catch-up reads: one record's data by location, checked, few in flight, behind the appends.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use uring::AlignedBuf;

use crate::device::Disk;
use crate::frame::{RECORD_HEADER_SIZE, RecordError, decode_single};
use crate::ring::RingLayout;
use crate::{Location, Lsn, in_memory};

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the record was trimmed")]
    Trimmed,
    #[error("the record is not durable yet")]
    NotDurable,
    #[error("too many reads are waiting; ask again when one is done")]
    Busy,
    #[error("no record can lie at this location")]
    BadLocation,
    #[error("device read at offset {offset} failed: {source}")]
    Device { offset: u64, source: io::Error },
    #[error("record at device offset {offset} is damaged: {cause}")]
    Corrupt { offset: u64, cause: RecordError },
}

/// A read that is over. `token` is the caller's.
#[derive(Debug)]
pub struct ReadDone {
    pub token: u64,
    pub result: Result<Bytes, ReadError>,
}

#[derive(Clone, Copy)]
struct Request {
    at: Location,
    token: u64,
}

impl Request {
    /// Start of the record: its header lies before the data and holds its checksum.
    fn start(self) -> Lsn {
        Lsn::new(self.at.lsn.get() - RECORD_HEADER_SIZE as u64)
    }
}

pub(crate) struct CatchUp {
    layout: RingLayout,
    queue: VecDeque<Request>,
    queue_max: usize,
    /// Slots of reads in flight.
    in_flight: Vec<Option<Request>>,
}

impl CatchUp {
    pub(crate) fn new(layout: RingLayout, in_flight_max: usize, queue_max: usize) -> Self {
        let in_flight = (0..in_flight_max).map(|_| None).collect();
        Self { layout, queue: VecDeque::with_capacity(queue_max), queue_max, in_flight }
    }

    /// Queues a read of a record between `trimmed` and `durable`.
    pub(crate) fn push(
        &mut self,
        at: Location,
        token: u64,
        trimmed: Lsn,
        durable: Lsn,
    ) -> Result<(), ReadError> {
        if at.lsn < trimmed {
            return Err(ReadError::Trimmed);
        }
        if at.end() > durable {
            return Err(ReadError::NotDurable);
        }
        // Location came through the caller: check what the WAL itself guarantees of one.
        let in_segment = at.lsn.get() % self.layout.segment_size;
        let header = self.layout.block() + RECORD_HEADER_SIZE;
        if in_segment < header as u64
            || in_segment + u64::from(at.len) > self.layout.segment_size
            || at.len as usize > self.layout.entry_size_max()
        {
            return Err(ReadError::BadLocation);
        }
        if self.queue.len() >= self.queue_max {
            return Err(ReadError::Busy);
        }
        self.queue.push_back(Request { at, token });
        Ok(())
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.iter().flatten().count()
    }

    /// Starts waiting reads. While appends are under way, one at a time: the device serves both.
    pub(crate) fn submit(&mut self, disk: &mut (impl Disk + ?Sized), appends_busy: bool) {
        let limit = if appends_busy { 1 } else { self.in_flight.len() };
        while !self.queue.is_empty() && self.in_flight() < limit {
            let slot = self.in_flight.iter().position(Option::is_none).expect("below the limit");
            let request = self.queue.pop_front().expect("not empty");
            let (offset, len) = self.aligned(request);
            let buf = disk.take_buffer(len);
            self.in_flight[slot] = Some(request);
            disk.read(crate::token::read(slot), offset, buf, len);
        }
    }

    pub(crate) fn complete(
        &mut self,
        slot: usize,
        buf: &AlignedBuf,
        result: io::Result<()>,
        trimmed: Lsn,
    ) -> ReadDone {
        let request = self.in_flight[slot].take().expect("a completion of a read in flight");
        let token = request.token;
        let (offset, len) = self.aligned(request);
        // Trimmed while the read was under way: its blocks may already hold another record.
        if request.at.lsn < trimmed {
            return ReadDone { token, result: Err(ReadError::Trimmed) };
        }
        if let Err(source) = result {
            return ReadDone { token, result: Err(ReadError::Device { offset, source }) };
        }
        let skip = in_memory(self.layout.device_offset(request.start()) - offset);
        let record = &buf[..len][skip..][..RECORD_HEADER_SIZE + request.at.len as usize];
        let result = match decode_single(record, request.start()) {
            // A copy, so that the buffer, perhaps a registered one, is free again at once.
            Ok(view) => Ok(Bytes::copy_from_slice(view.data)),
            Err(cause) => {
                let offset = self.layout.device_offset(request.start());
                Err(ReadError::Corrupt { offset, cause })
            }
        };
        ReadDone { token, result }
    }

    /// Device offset and size, in whole blocks, of what holds the record.
    fn aligned(&self, request: Request) -> (u64, usize) {
        let block = u64::from(self.layout.block_size);
        let start = self.layout.device_offset(request.start());
        let end = start + (RECORD_HEADER_SIZE + request.at.len as usize) as u64;
        let offset = start / block * block;
        (offset, in_memory(end.next_multiple_of(block) - offset))
    }
}
