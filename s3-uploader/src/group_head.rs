//! The head of a data group's snapshot, which tells of its objects. Normative:
//! `docs/formats/group-snapshot.md`.
//!
//! ```text
//! offset  size  field          integers are little-endian
//!      0     1  version        1
//!      1     8  edited         the last entry whose edit the manifest contains
//!      9     4  manifest_size
//!     13     n  manifest
//! ```
//!
//! What follows is the broker's: partitions and consumer groups. The head is here because whoever
//! looks at a bucket needs it and nothing of a broker.

use bytes::BufMut;
use model::LogIndex;

use crate::codec::{self, DecodeError, Reader};
use crate::manifest::Manifest;

const VERSION: u8 = 1;

/// See the module's text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupHead {
    pub edited: LogIndex,
    pub manifest: Manifest,
}

impl GroupHead {
    /// The head of a snapshot; the rest is the caller's to append.
    pub fn encode(edited: LogIndex, manifest: &Manifest) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.put_u64_le(edited.get());
        let size_at = out.len();
        codec::put_count(&mut out, 0);
        let begin = out.len();
        manifest.encode_into(&mut out);
        let size = out.len() - begin;
        codec::put_count(&mut &mut out[size_at..begin], size);
        out
    }

    /// Reads the head; gives the bytes after it too.
    ///
    /// # Errors
    ///
    /// The bytes do not begin with the head of a snapshot.
    pub fn decode(state: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let mut reader = Reader::new(state);
        reader.version(VERSION)?;
        let edited = LogIndex::new(reader.u64()?);
        let manifest = Manifest::decode(reader.bytes()?)?;
        Ok((Self { edited, manifest }, reader.rest()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::offloaded;

    #[test]
    fn what_was_written_is_read_back_and_no_prefix_is() {
        let mut manifest = Manifest::default();
        manifest.apply(&offloaded(1, 9, &[(3, 0, 5, 10)]), 1).expect("fits");
        let mut bytes = GroupHead::encode(LogIndex::new(7), &manifest);
        let head = GroupHead { edited: LogIndex::new(7), manifest };
        for len in 0..bytes.len() {
            assert!(GroupHead::decode(&bytes[..len]).is_err(), "prefix {len}");
        }
        bytes.extend_from_slice(b"the broker's");
        assert_eq!(GroupHead::decode(&bytes), Ok((head, &b"the broker's"[..])));
        bytes[0] = 2;
        assert_eq!(GroupHead::decode(&bytes), Err(DecodeError::Version { found: 2 }));
    }
}
