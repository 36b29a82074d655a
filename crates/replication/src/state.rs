//! What a group keeps beside its entries: hard state, compaction mark, voters. Normative:
//! `docs/formats/raft-state.md`.
//!
//! ```text
//! State record                              Snapshot record
//! offset  size  field                       offset  size  field        integers are little-endian
//!      0     4  crc    CRC-32C of the rest       0     4  crc          CRC-32C of the rest
//!      4     4  magic  "RST1"                    4     4  magic        "RSN1"
//!      8     8  term                             8     8  index        last entry it stands for
//!     16     8  vote   0: none                  16     8  term         of that entry
//!     24     8  commit                          24     2  voter_count
//!     32     8  mark_index                      26     1  learner_count
//!     40     8  mark_term                       27     1  outgoing_count
//!     48     4  voter_count                     28     4  data_size
//!     52     4  zero                            32  8*n  voters, learners, outgoing voters
//!     56   8*n  voters                         ...       data         opaque here
//! ```
//!
//! A third record, of 8 bytes, has only checksum and magic, `RGN1`: the group was removed from this
//! node, and what stands before is nothing any more.
//!
//! The mark is the last entry that compaction removed. The two are apart because the first is
//! written often and is small, the second seldom and may be large. The digit of each magic is the
//! format's version. The voters of a state record count only where there is no snapshot.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::members::{COUNTS_SIZE, Members, take_numbers};

const STATE_MAGIC: [u8; 4] = *b"RST1";
const SNAPSHOT_MAGIC: [u8; 4] = *b"RSN1";
const GONE_MAGIC: [u8; 4] = *b"RGN1";
const STATE_SIZE_MIN: usize = 56;
const SNAPSHOT_SIZE_MIN: usize = 32;
const CRC_SIZE: usize = 4;

/// Why bytes are not a state or a snapshot record.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StateError {
    #[error("a raft state record of {len} bytes is too short")]
    Short { len: usize },
    #[error("raft state checksum is {stored:#010x}, computed {computed:#010x}")]
    Checksum { stored: u32, computed: u32 },
    #[error("unknown raft state magic {found:02x?}")]
    Magic { found: [u8; 4] },
    #[error("a raft state record's counts do not fit its {len} bytes")]
    Counts { len: usize },
}

/// Any of the records, told apart by its magic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum StateRecord {
    State(HardRecord),
    Snapshot(SnapshotRecord),
    /// The group was removed from this node.
    Gone,
}

/// Term, vote and commit of a group with its compaction mark and voters.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct HardRecord {
    pub(crate) term: u64,
    pub(crate) vote: u64,
    pub(crate) commit: u64,
    pub(crate) mark: Mark,
    pub(crate) voters: Vec<u64>,
}

/// A snapshot: metadata only, the records themselves are in the object store.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct SnapshotRecord {
    pub(crate) mark: Mark,
    pub(crate) members: Members,
    pub(crate) data: Bytes,
}

/// The last entry that is gone from the log: (0, 0) if none is.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Mark {
    pub(crate) index: u64,
    pub(crate) term: u64,
}

impl StateRecord {
    /// Believes no field before the checksum.
    pub(crate) fn decode(data: &[u8]) -> Result<Self, StateError> {
        let short = StateError::Short { len: data.len() };
        let (stored, rest) = data.split_first_chunk::<CRC_SIZE>().ok_or(short)?;
        let (stored, computed) = (u32::from_le_bytes(*stored), crc32c::crc32c(rest));
        if stored != computed {
            return Err(StateError::Checksum { stored, computed });
        }
        let (magic, rest) = rest.split_first_chunk::<4>().ok_or(short)?;
        match *magic {
            STATE_MAGIC if data.len() >= STATE_SIZE_MIN => HardRecord::decode(rest),
            SNAPSHOT_MAGIC if data.len() >= SNAPSHOT_SIZE_MIN => SnapshotRecord::decode(rest),
            GONE_MAGIC if rest.is_empty() => Ok(Self::Gone),
            GONE_MAGIC => Err(StateError::Counts { len: data.len() }),
            STATE_MAGIC | SNAPSHOT_MAGIC => Err(short),
            found => Err(StateError::Magic { found }),
        }
    }
}

impl HardRecord {
    pub(crate) fn encode(&self, out: &mut BytesMut) -> Bytes {
        seal(out, STATE_MAGIC, |out| {
            out.put_u64_le(self.term);
            out.put_u64_le(self.vote);
            out.put_u64_le(self.commit);
            out.put_u64_le(self.mark.index);
            out.put_u64_le(self.mark.term);
            out.put_u32_le(count(self.voters.len()));
            out.put_u32_le(0);
            self.voters.iter().for_each(|voter| out.put_u64_le(*voter));
        })
    }

    /// `rest` holds at least the fixed part.
    fn decode(mut rest: &[u8]) -> Result<StateRecord, StateError> {
        let len = rest.len();
        let (term, vote, commit) = (rest.get_u64_le(), rest.get_u64_le(), rest.get_u64_le());
        let mark = Mark { index: rest.get_u64_le(), term: rest.get_u64_le() };
        let (voter_count, zero) = (rest.get_u32_le(), rest.get_u32_le());
        let voters = take_numbers(&mut rest, voter_count).ok_or(StateError::Counts { len })?;
        if zero != 0 || !rest.is_empty() {
            return Err(StateError::Counts { len });
        }
        Ok(StateRecord::State(Self { term, vote, commit, mark, voters }))
    }
}

impl SnapshotRecord {
    pub(crate) fn encode(&self, out: &mut BytesMut) -> Bytes {
        seal(out, SNAPSHOT_MAGIC, |out| {
            out.put_u64_le(self.mark.index);
            out.put_u64_le(self.mark.term);
            self.members.encode_counts(out);
            out.put_u32_le(count(self.data.len()));
            self.members.encode(out);
            out.put_slice(&self.data);
        })
    }

    /// `rest` holds at least the fixed part.
    fn decode(mut rest: &[u8]) -> Result<StateRecord, StateError> {
        let len = rest.len();
        let mark = Mark { index: rest.get_u64_le(), term: rest.get_u64_le() };
        let mut counts = [0; COUNTS_SIZE];
        rest.copy_to_slice(&mut counts);
        let data_size = rest.get_u32_le();
        let members = Members::decode(counts, &mut rest).ok_or(StateError::Counts { len })?;
        if u32::try_from(rest.len()) != Ok(data_size) {
            return Err(StateError::Counts { len });
        }
        Ok(StateRecord::Snapshot(Self { mark, members, data: Bytes::copy_from_slice(rest) }))
    }
}

/// The record that says that a group was removed.
pub(crate) fn encode_gone(out: &mut BytesMut) -> Bytes {
    seal(out, GONE_MAGIC, |_| {})
}

/// Counts here are of voters (a handful) and of snapshot bytes, capped where a snapshot enters the
/// driver.
pub(crate) fn count(len: usize) -> u32 {
    u32::try_from(len).expect("SNAPSHOT_SIZE_MAX caps snapshots, the caller caps voters")
}

/// Writes checksum and magic around `body` at the end of `out` and splits the record off.
fn seal(out: &mut BytesMut, magic: [u8; 4], body: impl FnOnce(&mut BytesMut)) -> Bytes {
    debug_assert!(out.is_empty(), "the arena is split after every record");
    out.put_u32_le(0);
    out.put_slice(&magic);
    body(out);
    let crc = crc32c::crc32c(&out[CRC_SIZE..]);
    out[..CRC_SIZE].copy_from_slice(&crc.to_le_bytes());
    out.split().freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE_GOLDEN: &[u8] = include_bytes!("../testdata/raft-state.v1.bin");
    const SNAPSHOT_GOLDEN: &[u8] = include_bytes!("../testdata/raft-snapshot.v1.bin");
    const GONE_GOLDEN: &[u8] = include_bytes!("../testdata/raft-gone.v1.bin");

    fn state() -> HardRecord {
        let mark = Mark { index: 40, term: 6 };
        HardRecord { term: 7, vote: 2, commit: 41, mark, voters: vec![1, 2, 3] }
    }

    fn snapshot() -> SnapshotRecord {
        let mark = Mark { index: 40, term: 6 };
        let members = Members::of_voters(vec![1, 2, 3]);
        SnapshotRecord { mark, members, data: Bytes::from_static(b"producers") }
    }

    #[test]
    fn reads_and_writes_the_bytes_of_version_1() {
        let mut arena = BytesMut::new();
        assert_eq!(&state().encode(&mut arena)[..], STATE_GOLDEN);
        assert_eq!(&snapshot().encode(&mut arena)[..], SNAPSHOT_GOLDEN);
        assert_eq!(StateRecord::decode(STATE_GOLDEN), Ok(StateRecord::State(state())));
        assert_eq!(StateRecord::decode(SNAPSHOT_GOLDEN), Ok(StateRecord::Snapshot(snapshot())));
        assert_eq!(&encode_gone(&mut arena)[..], GONE_GOLDEN);
        assert_eq!(StateRecord::decode(GONE_GOLDEN), Ok(StateRecord::Gone));
    }

    #[test]
    fn all_kinds_of_members_return_as_they_went() {
        let members = Members { voters: vec![1, 2], learners: vec![3], outgoing: vec![1, 4] };
        let record = SnapshotRecord { members, ..snapshot() };
        let bytes = record.encode(&mut BytesMut::new());
        assert_eq!(StateRecord::decode(&bytes), Ok(StateRecord::Snapshot(record)));
    }

    #[test]
    fn every_bit_flip_and_every_prefix_is_refused() {
        for golden in [STATE_GOLDEN, SNAPSHOT_GOLDEN, GONE_GOLDEN] {
            for bit in 0..golden.len() * 8 {
                let mut bytes = golden.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(StateRecord::decode(&bytes).is_err(), "bit {bit}");
            }
            for len in 0..golden.len() {
                assert!(StateRecord::decode(&golden[..len]).is_err(), "prefix {len}");
            }
        }
    }

    #[test]
    fn a_count_beyond_the_bytes_is_refused_even_with_a_good_checksum() {
        for (golden, at) in [(STATE_GOLDEN, 48), (SNAPSHOT_GOLDEN, 24), (SNAPSHOT_GOLDEN, 28)] {
            let mut bytes = golden.to_vec();
            bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            let crc = crc32c::crc32c(&bytes[4..]);
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
            assert!(matches!(StateRecord::decode(&bytes), Err(StateError::Counts { .. })));
        }
    }
}
