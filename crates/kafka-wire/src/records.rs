//! Records inside a batch: reading them as views, and building small batches.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};
use zerocopy::IntoBytes;

use crate::batch::{self, BatchView, HEADER_SIZE, NO_TIMESTAMP};
use crate::batch::{NewHeader, TimestampType};
use crate::compression::{Compression, CompressionError, decompress};
use crate::varint::{self, VarintError};

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecordFault {
    #[error("ends before it is complete")]
    CutShort,
    #[error("a varint is too long")]
    Varint,
    #[error("a length is negative or beyond the record")]
    Length,
    #[error("its fields end before its length")]
    LeftOver,
    #[error("its timestamp does not fit 64 bits")]
    Timestamp,
}

/// Why the records of a batch cannot be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Compression(#[from] CompressionError),
    #[error("codec {bits} does not exist")]
    UnknownCodec { bits: i16 },
    #[error("record {index}: {fault}")]
    Record { index: i32, fault: RecordFault },
}

/// A record as views into its batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Record<'a> {
    /// Assigned by the batch.
    pub offset: i64,
    /// Milliseconds; the batch's with LogAppendTime.
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    header_count: i32,
    headers: &'a [u8],
}

/// A record header. Keys may repeat and need not be UTF-8.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RecordHeader<'a> {
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
}

/// The records of one batch, unpacked if they are compressed.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    batch: BatchView<'a>,
    payload: Cow<'a, [u8]>,
}

impl<'a> Records<'a> {
    /// Unpacks the batch, if need be; bounded as [`decompress`] is.
    pub fn new(batch: BatchView<'a>) -> Result<Self, ReadError> {
        let codec = batch.header.compression();
        let bits = batch.header.attributes() & 7;
        let codec = codec.ok_or(ReadError::UnknownCodec { bits })?;
        let payload = decompress(codec, batch.payload())?;
        Ok(Self { batch, payload })
    }

    /// The records in order. Ends after the first error.
    pub fn iter(&self) -> RecordIter<'_> {
        let header = self.batch.header;
        let fixed = header.timestamp_type() == TimestampType::LogAppendTime;
        RecordIter {
            rest: &self.payload,
            index: 0,
            count: header.record_count(),
            base_offset: header.base_offset(),
            base_timestamp: header.base_timestamp(),
            fixed_timestamp: fixed.then(|| header.max_timestamp()),
        }
    }
}

/// See [`Records::iter`].
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    rest: &'a [u8],
    index: i32,
    count: i32,
    base_offset: i64,
    base_timestamp: i64,
    fixed_timestamp: Option<i64>,
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.count {
            return None;
        }
        let index = self.index;
        self.index = index.saturating_add(1);
        let record = self.read().map_err(|fault| ReadError::Record { index, fault });
        if record.is_err() {
            self.index = self.count;
        }
        Some(record)
    }
}

impl<'a> RecordIter<'a> {
    fn read(&mut self) -> Result<Record<'a>, RecordFault> {
        let mut outer = Fields { rest: self.rest };
        let size = usize::try_from(outer.varint()?).map_err(|_| RecordFault::Length)?;
        let body = outer.take(size)?;
        self.rest = outer.rest;
        let mut fields = Fields { rest: body };
        fields.take(1)?; // attributes: unused
        let timestamp_delta = fields.varlong()?;
        let offset_delta = fields.varint()?;
        let key = fields.nullable()?;
        let value = fields.nullable()?;
        let header_count = i32::try_from(fields.varint()?).map_err(|_| RecordFault::Length)?;
        if header_count < 0 {
            return Err(RecordFault::Length);
        }
        let mut headers = HeaderIter { fields: Fields { rest: fields.rest }, left: header_count };
        headers.try_for_each(|header| header.map(|_| ()))?;
        if !headers.fields.rest.is_empty() {
            return Err(RecordFault::LeftOver);
        }
        let timestamp = match self.fixed_timestamp {
            Some(timestamp) => timestamp,
            None => {
                self.base_timestamp.checked_add(timestamp_delta).ok_or(RecordFault::Timestamp)?
            }
        };
        let offset = self.base_offset.wrapping_add(offset_delta);
        Ok(Record { offset, timestamp, key, value, header_count, headers: fields.rest })
    }
}

impl<'a> Record<'a> {
    /// Its headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = RecordHeader<'a>> + use<'a> {
        // Reading the record has checked them.
        HeaderIter { fields: Fields { rest: self.headers }, left: self.header_count }
            .map_while(Result::ok)
    }
}

struct HeaderIter<'a> {
    fields: Fields<'a>,
    left: i32,
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = Result<RecordHeader<'a>, RecordFault>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1).filter(|left| *left >= 0)?;
        let key = self.fields.nullable().and_then(|key| key.ok_or(RecordFault::Length));
        Some(key.and_then(|key| Ok(RecordHeader { key, value: self.fields.nullable()? })))
    }
}

/// Reads fields off the front of a record.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<i64, RecordFault> {
        let value = self.unsigned(varint::SIZE_MAX)?;
        let value = u32::try_from(value).map_err(|_| RecordFault::Varint)?;
        Ok(varint::unzigzag(u64::from(value)))
    }

    fn varlong(&mut self) -> Result<i64, RecordFault> {
        Ok(varint::unzigzag(self.unsigned(varint::LONG_SIZE_MAX)?))
    }

    fn unsigned(&mut self, size_max: usize) -> Result<u64, RecordFault> {
        let (value, size) = varint::read(self.rest, size_max).map_err(RecordFault::from)?;
        self.take(size)?;
        Ok(value)
    }

    fn nullable(&mut self) -> Result<Option<&'a [u8]>, RecordFault> {
        match self.varint()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| RecordFault::Length)?;
                self.take(length).map(Some)
            }
        }
    }

    fn take(&mut self, size: usize) -> Result<&'a [u8], RecordFault> {
        let (taken, rest) = self.rest.split_at_checked(size).ok_or(RecordFault::CutShort)?;
        self.rest = rest;
        Ok(taken)
    }
}

impl From<VarintError> for RecordFault {
    fn from(error: VarintError) -> Self {
        match error {
            VarintError::CutShort => Self::CutShort,
            VarintError::TooLong => Self::Varint,
        }
    }
}

/// What a control batch says about its producer's transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ControlType {
    Abort,
    Commit,
}

/// Builds one batch: for internal topics, control batches, tools and tests.
///
/// Sizes are the caller's to bound: a record or batch beyond 2 GiB is not representable.
#[derive(Clone, Debug)]
pub struct RecordBatchBuilder {
    header: NewHeader,
    records: BytesMut,
}

impl Default for RecordBatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl RecordBatchBuilder {
    /// An empty, uncompressed batch at offset 0 and leader epoch -1, without producer.
    pub fn new() -> Self {
        let header = NewHeader {
            base_offset: 0,
            partition_leader_epoch: -1,
            compression: Compression::None,
            timestamp_type: TimestampType::CreateTime,
            transactional: false,
            control: false,
            last_offset_delta: -1,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: 0,
        };
        Self { header, records: BytesMut::new() }
    }

    /// A control batch of one record, timestamp in milliseconds, for a producer's transaction.
    pub fn control(
        control_type: ControlType,
        producer_id: i64,
        producer_epoch: i16,
        coordinator_epoch: i32,
        timestamp_ms: i64,
    ) -> Self {
        let code = match control_type {
            ControlType::Abort => 0u8,
            ControlType::Commit => 1,
        };
        let mut value = Vec::with_capacity(6);
        value.put_i16(0); // version
        value.put_i32(coordinator_epoch);
        let mut batch = Self::new().producer(producer_id, producer_epoch, -1).transactional();
        batch.header.control = true;
        batch.append(timestamp_ms, Some(&[0, 0, 0, code]), Some(&value), &[]);
        batch
    }

    #[must_use]
    pub fn base_offset(mut self, base_offset: i64) -> Self {
        self.header.base_offset = base_offset;
        self
    }

    #[must_use]
    pub fn leader_epoch(mut self, leader_epoch: i32) -> Self {
        self.header.partition_leader_epoch = leader_epoch;
        self
    }

    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.header.transactional = true;
        self
    }

    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.header.compression = compression;
        self
    }

    /// Adds a record. The first one's timestamp (milliseconds) is the batch's base.
    pub fn append(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader<'_>],
    ) -> &mut Self {
        if self.header.record_count == 0 {
            self.header.base_timestamp = timestamp_ms;
        }
        self.header.last_offset_delta = self.header.record_count;
        self.header.record_count = self.header.record_count.saturating_add(1);
        self.header.max_timestamp = self.header.max_timestamp.max(timestamp_ms);
        let mut record = Vec::new();
        record.put_u8(0); // attributes
        let delta = timestamp_ms.wrapping_sub(self.header.base_timestamp);
        varint::put_signed(&mut record, delta);
        varint::put_signed(&mut record, i64::from(self.header.last_offset_delta));
        put_nullable(&mut record, key);
        put_nullable(&mut record, value);
        put_length(&mut record, headers.len());
        for header in headers {
            put_nullable(&mut record, Some(header.key));
            put_nullable(&mut record, header.value);
        }
        put_length(&mut self.records, record.len());
        self.records.put_slice(&record);
        self
    }

    pub fn record_count(&self) -> i32 {
        self.header.record_count
    }

    /// Bytes of the batch if it is built uncompressed now.
    pub fn size(&self) -> usize {
        HEADER_SIZE.saturating_add(self.records.len())
    }

    /// The batch, with length and CRC.
    ///
    /// # Panics
    /// If a codec fails to write into memory, which none does.
    pub fn build(&self) -> BytesMut {
        let payload = self.header.compression.compress(&self.records);
        let payload = payload.expect("packing into memory does not fail");
        let mut bytes = BytesMut::with_capacity(HEADER_SIZE.saturating_add(payload.len()));
        bytes.put_slice(self.header.into_header().as_bytes());
        bytes.put_slice(&payload);
        batch::seal(&mut bytes);
        bytes
    }
}

fn put_nullable(out: &mut impl BufMut, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::put_signed(out, -1),
        Some(bytes) => {
            put_length(out, bytes.len());
            out.put_slice(bytes);
        }
    }
}

fn put_length(out: &mut impl BufMut, length: usize) {
    varint::put_signed(out, i64::try_from(length).unwrap_or(i64::MAX));
}
