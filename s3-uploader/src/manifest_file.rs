//! A group's state as it is stored in the bucket. Normative: `docs/formats/manifest.md`.
//!
//! ```text
//! offset  size  field       integers are little-endian
//!      0     4  crc         CRC-32C of the rest
//!      4     4  magic       "MNF1"; the digit is the format version
//!      8    16  cluster_id  most significant byte first
//!     24     8  group
//!     32     8  term        of the leader that wrote it
//!     40     8  index       last raft entry that the state contains
//!     48     8  sequence    as in its key
//!     56     8  state_size
//!     64     n  state       opaque here: the group's snapshot
//! ```
//!
//! A file is put under `manifest/{group}/{sequence}` only if nothing is there yet, and the highest
//! sequence counts: of two leaders that believe to lead, one gets the name and the other learns it.

use std::fmt;
use std::str::FromStr;

use bytes::{BufMut, Bytes, BytesMut};
use model::{LogIndex, RaftGroupId, Term};
use uuid::Uuid;

use crate::codec::{DecodeError, Reader};
use crate::object_name::{ObjectNameError, parse_number};

const MAGIC: [u8; 4] = *b"MNF1";
const HEADER_SIZE: usize = 64;
const CRC_SIZE: usize = 4;

/// What is stored under `manifest/`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ManifestFile {
    pub cluster_id: Uuid,
    pub group: RaftGroupId,
    pub term: Term,
    /// The last raft entry that the state contains.
    pub index: LogIndex,
    pub sequence: u64,
    /// The group's snapshot; that of a data group contains its `Manifest`.
    pub state: Bytes,
}

/// Key of a manifest file: its group, and a number that only grows.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ManifestName {
    pub group: RaftGroupId,
    pub sequence: u64,
}

/// Why bytes are not a manifest file.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ManifestFileError {
    #[error("manifest checksum is {stored:#010x}, computed {computed:#010x}")]
    Checksum { stored: u32, computed: u32 },
    #[error("unknown manifest magic {found:02x?}")]
    Magic { found: [u8; 4] },
    #[error("manifest of {len} bytes says that its state has {state_size}")]
    Size { state_size: u64, len: usize },
    #[error("manifest header: {0}")]
    Header(#[from] DecodeError),
    #[error("it is {found} of cluster {cluster_id}")]
    Misplaced { found: ManifestName, cluster_id: Uuid },
}

impl ManifestFile {
    pub fn name(&self) -> ManifestName {
        ManifestName { group: self.group, sequence: self.sequence }
    }

    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_SIZE + self.state.len());
        out.put_u32_le(0);
        out.put_slice(&MAGIC);
        out.put_slice(self.cluster_id.as_bytes());
        out.put_u64_le(self.group.get());
        out.put_u64_le(self.term.get());
        out.put_u64_le(self.index.get());
        out.put_u64_le(self.sequence);
        out.put_u64_le(to_u64(self.state.len()));
        out.put_slice(&self.state);
        let crc = crc32c::crc32c(&out[CRC_SIZE..]);
        out[..CRC_SIZE].copy_from_slice(&crc.to_le_bytes());
        out.freeze()
    }

    /// Believes no field before the checksum. The state is a view of `bytes`.
    ///
    /// # Errors
    ///
    /// The bytes are not a whole manifest file.
    pub fn decode(bytes: &Bytes) -> Result<Self, ManifestFileError> {
        let mut reader = Reader::new(bytes);
        let stored = reader.u32()?;
        let computed = crc32c::crc32c(&bytes[CRC_SIZE..]);
        if stored != computed {
            return Err(ManifestFileError::Checksum { stored, computed });
        }
        let found = reader.array()?;
        if found != MAGIC {
            return Err(ManifestFileError::Magic { found });
        }
        let cluster_id = Uuid::from_bytes(reader.array()?);
        let (group, term) = (RaftGroupId::new(reader.u64()?), Term::new(reader.u64()?));
        let (index, sequence) = (LogIndex::new(reader.u64()?), reader.u64()?);
        let state_size = reader.u64()?;
        let state = bytes.slice(HEADER_SIZE..);
        if to_u64(state.len()) != state_size {
            return Err(ManifestFileError::Size { state_size, len: bytes.len() });
        }
        Ok(Self { cluster_id, group, term, index, sequence, state })
    }

    /// The file that was read under that name, of that cluster if it is known.
    ///
    /// # Errors
    ///
    /// The bytes are not a whole manifest file, or are another one.
    pub(crate) fn decode_as(
        bytes: &Bytes,
        name: ManifestName,
        cluster_id: Option<Uuid>,
    ) -> Result<Self, ManifestFileError> {
        let file = Self::decode(bytes)?;
        if file.name() != name || cluster_id.is_some_and(|known| known != file.cluster_id) {
            let (found, cluster_id) = (file.name(), file.cluster_id);
            return Err(ManifestFileError::Misplaced { found, cluster_id });
        }
        Ok(file)
    }
}

impl ManifestName {
    /// What the keys of all manifests of a group begin with; to list them.
    pub fn prefix(group: RaftGroupId) -> String {
        format!("manifest/{:020}/", group.get())
    }
}

impl fmt::Display for ManifestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:020}", Self::prefix(self.group), self.sequence)
    }
}

impl FromStr for ManifestName {
    type Err = ObjectNameError;

    fn from_str(key: &str) -> Result<Self, ObjectNameError> {
        let numbers = key.strip_prefix("manifest/").and_then(|rest| rest.split_once('/'));
        let parsed = numbers.and_then(|(group, sequence)| {
            let group = RaftGroupId::new(parse_number(group)?);
            Some(Self { group, sequence: parse_number(sequence)? })
        });
        parsed.ok_or_else(|| ObjectNameError::ManifestForm { key: key.to_owned() })
    }
}

fn to_u64(size: usize) -> u64 {
    u64::try_from(size).expect("a length in memory has at most 64 bits")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOLDEN: &[u8] = include_bytes!("../testdata/manifest-file.v1.bin");
    const KEY: &str = "manifest/00000000000000000003/00000000000000000042";

    fn file() -> ManifestFile {
        ManifestFile {
            cluster_id: Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
            group: RaftGroupId::new(3),
            term: Term::new(12),
            index: LogIndex::new(5001),
            sequence: 42,
            state: Bytes::from_static(b"snapshot"),
        }
    }

    #[test]
    fn reads_and_writes_the_bytes_of_version_1() {
        assert_eq!(file().encode(), GOLDEN);
        assert_eq!(ManifestFile::decode(&Bytes::from_static(GOLDEN)), Ok(file()));
    }

    #[test]
    fn every_bit_flip_and_every_prefix_is_refused() {
        for bit in 0..GOLDEN.len() * 8 {
            let mut bytes = GOLDEN.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(ManifestFile::decode(&bytes.into()).is_err(), "bit {bit}");
        }
        for len in 0..GOLDEN.len() {
            assert!(ManifestFile::decode(&Bytes::from_static(&GOLDEN[..len])).is_err(), "{len}");
        }
    }

    #[test]
    fn wrong_sizes_are_refused_even_with_a_good_checksum() {
        for state_size in [0, 7, 9, u64::MAX] {
            let mut bytes = GOLDEN.to_vec();
            bytes[56..64].copy_from_slice(&state_size.to_le_bytes());
            let crc = crc32c::crc32c(&bytes[4..]);
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
            let error = ManifestFileError::Size { state_size, len: GOLDEN.len() };
            assert_eq!(ManifestFile::decode(&bytes.into()), Err(error));
        }
        for len in 4..HEADER_SIZE {
            let mut bytes = GOLDEN[..len].to_vec();
            let crc = crc32c::crc32c(&bytes[4..]);
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
            let error = ManifestFile::decode(&bytes.into()).expect_err("a header cut off");
            assert!(matches!(error, ManifestFileError::Header(DecodeError::Short { .. })), "{len}");
        }
    }

    #[test]
    fn the_key_is_as_documented() {
        assert_eq!(file().name().to_string(), KEY);
        assert_eq!(KEY.parse(), Ok(file().name()));
        assert!(KEY.starts_with(&ManifestName::prefix(RaftGroupId::new(3))));
        for cut in 0..KEY.len() {
            assert!(KEY[..cut].parse::<ManifestName>().is_err(), "cut at {cut}");
        }
        for wrong in [format!("{KEY}0"), format!("/{KEY}"), KEY.replace("0042", "+042")] {
            assert!(wrong.parse::<ManifestName>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_listing_is_in_order_of_group_and_sequence(
            a in any::<(u64, u64)>(),
            b in any::<(u64, u64)>(),
        ) {
            let [a, b] = [a, b].map(|(group, sequence)| ManifestName {
                group: RaftGroupId::new(group),
                sequence,
            });
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
        }

        #[test]
        fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 4..200)) {
            let crc = crc32c::crc32c(&bytes[4..]);
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
            let _ = ManifestFile::decode(&bytes.into());
        }
    }
}
