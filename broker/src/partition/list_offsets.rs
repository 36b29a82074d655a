//! Offsets by timestamp, in the local part of the log. The index knows the largest timestamp of
//! each batch, so it names the one batch to look into; the caller reads that, and
//! [`Sought::find_in`] walks its records.

use std::ops::Range;

use kafka_wire::batch::Batches;
use kafka_wire::records::{self, Records};
use model::Offset;

use super::read::{Piece, VisibleEnd};
use super::{BatchEntry, Partition};

/// A record by its timestamp.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sought {
    /// The first record that is not older than this, ms since 1970.
    AtOrAfter(i64),
    /// The first of the youngest records.
    Youngest,
}

/// Where a record can be. The one found at the lower offset is the answer, unless the other is
/// younger and the youngest is sought.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TimestampCandidates {
    /// Offsets whose batches are in the object store: to be searched first. Their records are
    /// committed, but the last of them may be above a last stable offset.
    pub remote: Option<Range<Offset>>,
    pub local: Option<TimestampCandidate>,
}

/// The batch to look into.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TimestampCandidate {
    pub batch: Piece,
    /// Where to search on if no record of this batch is found: possible only if the log starts in
    /// the middle of it.
    pub end_offset: Offset,
}

/// Why the records of a stored batch cannot be walked: it was valid when it was appended.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SearchError {
    #[error("the bytes are not a record batch")]
    NotABatch,
    #[error(transparent)]
    Records(#[from] records::ReadError),
}

/// A record and its timestamp, ms since 1970.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TimestampedOffset {
    pub offset: Offset,
    pub timestamp: i64,
}

impl Partition {
    /// The first local batch, from the one that contains `from`, that holds the record sought: none
    /// if no local record below the visible end is it. And what is not local of the log from
    /// `from` on.
    pub fn timestamp_candidates(
        &self,
        sought: Sought,
        from: Offset,
        visible_end: VisibleEnd,
    ) -> TimestampCandidates {
        let end = self.visible_end(visible_end);
        let from = from.max(self.log_start);
        let entry = match sought {
            Sought::AtOrAfter(timestamp) => self.batches.at_timestamp(timestamp, from, end),
            Sought::Youngest => self.batches.at_max_timestamp(from, end),
        };
        let remote = from..self.local_start();
        TimestampCandidates {
            remote: (!remote.is_empty()).then_some(remote),
            local: entry.map(|entry| self.candidate(entry)),
        }
    }

    fn candidate(&self, entry: &BatchEntry) -> TimestampCandidate {
        TimestampCandidate { batch: self.piece(entry), end_offset: entry.end_offset() }
    }
}

impl Sought {
    /// The record sought among those of one batch, given as stored; records before `log_start` are
    /// passed over.
    pub fn find_in(
        self,
        log_start: Offset,
        batch: &[u8],
    ) -> Result<Option<TimestampedOffset>, SearchError> {
        let batch = Batches::new(batch).next().ok_or(SearchError::NotABatch)?;
        let records = Records::new(batch)?;
        let mut fault = None;
        let walked = records.iter().map_while(|record| match record {
            Ok(record) => Some(TimestampedOffset {
                offset: Offset::new(record.offset),
                timestamp: record.timestamp,
            }),
            Err(error) => {
                fault = Some(error);
                None
            }
        });
        let found = self.find(walked.filter(|record| record.offset >= log_start));
        fault.map_or(Ok(found), |error| Err(error.into()))
    }

    fn find(
        self,
        mut records: impl Iterator<Item = TimestampedOffset>,
    ) -> Option<TimestampedOffset> {
        match self {
            Self::AtOrAfter(timestamp) => records.find(|record| record.timestamp >= timestamp),
            Self::Youngest => records.reduce(|youngest, record| {
                if record.timestamp > youngest.timestamp { record } else { youngest }
            }),
        }
    }
}
