//! Entry descriptor: what raft sees of an entry. Normative: `docs/formats/raft-entry.md`.
//!
//! ```text
//! offset  size  field        integers are little-endian
//!      0     1  version      1
//!      1     1  flags        bit 0: resident, bit 1: a change of members; all others 0
//!      2     1  app_size     bytes of `app`, at most 64
//!      3     1  zero
//!      4     4  payload_len  bytes of payload
//!      8     4  payload_crc  CRC-32C of the payload
//!     12     n  app          the application's bytes, opaque here
//! ```
//!
//! An entry's data in the WAL is its descriptor followed by its payload; on the wire the two travel
//! apart. Both are the same on every replica. Data of no bytes is the empty entry that a new leader
//! writes first. Of a change of members the application's bytes are raft's (`members.rs`).

use std::ops::Deref;

use bytes::{BufMut, Bytes, BytesMut};

/// Most bytes an application may put beside an entry.
pub const APP_SIZE_MAX: usize = 64;
/// Most bytes an encoded descriptor takes.
pub const DESCRIPTOR_SIZE_MAX: usize = DESCRIPTOR_SIZE_MIN + APP_SIZE_MAX;
const DESCRIPTOR_SIZE_MIN: usize = 12;
const VERSION: u8 = 1;
const FLAG_RESIDENT: u8 = 1;
const FLAG_MEMBERS: u8 = 2;

/// Why bytes are not a descriptor, or a payload is not the one described.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DescriptorError {
    #[error("an entry descriptor is cut off after {len} bytes")]
    Short { len: usize },
    #[error("unknown version {found} of an entry descriptor")]
    Version { found: u8 },
    #[error("an entry descriptor has unknown flags or reserved bytes")]
    Reserved,
    #[error("an entry descriptor claims {app_size} application bytes, at most 64 are allowed")]
    AppSize { app_size: u8 },
    #[error("payload has {found} bytes, its descriptor says {expected}")]
    PayloadLen { expected: u32, found: usize },
    #[error("payload checksum is {found:#010x}, its descriptor says {expected:#010x}")]
    PayloadCrc { expected: u32, found: u32 },
}

/// What every replica keeps of an entry in memory: how to check its payload, and a few bytes of the
/// application.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Descriptor {
    /// Bytes of payload.
    pub payload_len: u32,
    /// CRC-32C of the payload.
    pub payload_crc: u32,
    /// Whether the payload is kept in memory until it is applied, also at recovery.
    pub resident: bool,
    /// Whether it is raft's own and changes who takes part in the group.
    pub changes_members: bool,
    /// The application's own bytes, enough to rebuild its indexes without reading payloads.
    pub app: AppBytes,
}

impl Descriptor {
    /// Describes a payload; `None` if it has 4 GiB or more.
    pub fn of(payload: &[u8], resident: bool, app: AppBytes) -> Option<Self> {
        Self::of_checked(payload, crc32c::crc32c(payload), resident, app)
    }

    /// The same of a payload whose CRC-32C is known, which is believed.
    pub fn of_checked(
        payload: &[u8],
        payload_crc: u32,
        resident: bool,
        app: AppBytes,
    ) -> Option<Self> {
        let payload_len = u32::try_from(payload.len()).ok()?;
        Some(Self { payload_len, payload_crc, resident, changes_members: false, app })
    }

    /// Bytes that [`Self::encode`] writes, which is where the payload begins in an entry's data.
    pub fn encoded_size(&self) -> usize {
        DESCRIPTOR_SIZE_MIN + self.app.len()
    }

    /// Appends the fixed layout above.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(VERSION);
        let resident = if self.resident { FLAG_RESIDENT } else { 0 };
        out.put_u8(resident | if self.changes_members { FLAG_MEMBERS } else { 0 });
        out.put_u8(self.app.size);
        out.put_u8(0);
        out.put_u32_le(self.payload_len);
        out.put_u32_le(self.payload_crc);
        out.put_slice(&self.app);
    }

    /// Reads a descriptor from the start of `data`. The bytes after it are the payload.
    pub fn decode(data: &[u8]) -> Result<Self, DescriptorError> {
        let short = DescriptorError::Short { len: data.len() };
        let (head, rest) = data.split_first_chunk::<DESCRIPTOR_SIZE_MIN>().ok_or(short)?;
        let [version, flags, app_size, zero, l0, l1, l2, l3, c0, c1, c2, c3] = *head;
        if version != VERSION {
            return Err(DescriptorError::Version { found: version });
        }
        if flags & !(FLAG_RESIDENT | FLAG_MEMBERS) != 0 || zero != 0 {
            return Err(DescriptorError::Reserved);
        }
        if usize::from(app_size) > APP_SIZE_MAX {
            return Err(DescriptorError::AppSize { app_size });
        }
        let app = rest.get(..usize::from(app_size)).and_then(AppBytes::new).ok_or(short)?;
        Ok(Self {
            payload_len: u32::from_le_bytes([l0, l1, l2, l3]),
            payload_crc: u32::from_le_bytes([c0, c1, c2, c3]),
            resident: flags & FLAG_RESIDENT != 0,
            changes_members: flags & FLAG_MEMBERS != 0,
            app,
        })
    }

    /// Whether `payload` is the one described: the check that stands before every `step` of raft.
    pub fn verify(&self, payload: &[u8]) -> Result<(), DescriptorError> {
        if u32::try_from(payload.len()) != Ok(self.payload_len) {
            let (expected, found) = (self.payload_len, payload.len());
            return Err(DescriptorError::PayloadLen { expected, found });
        }
        let (expected, found) = (self.payload_crc, crc32c::crc32c(payload));
        if expected != found {
            return Err(DescriptorError::PayloadCrc { expected, found });
        }
        Ok(())
    }

    /// The payload inside an entry's data, checked against the descriptor before it.
    pub(crate) fn carve(&self, data: &Bytes) -> Result<Bytes, DescriptorError> {
        let start = self.encoded_size();
        if data.len() < start {
            return Err(DescriptorError::Short { len: data.len() });
        }
        let payload = data.slice(start..);
        self.verify(&payload)?;
        Ok(payload)
    }
}

/// At most 64 bytes, stored in place so that a log of descriptors is one flat piece of memory.
#[derive(Clone, Copy)]
pub struct AppBytes {
    size: u8,
    bytes: [u8; APP_SIZE_MAX],
}

impl AppBytes {
    pub const EMPTY: Self = Self { size: 0, bytes: [0; APP_SIZE_MAX] };

    /// `None` if there are more than [`APP_SIZE_MAX`] bytes.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut app = Self::EMPTY;
        app.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        app.size = u8::try_from(bytes.len()).ok()?;
        Some(app)
    }
}

impl Deref for AppBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.size)]
    }
}

impl PartialEq for AppBytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for AppBytes {}

impl std::fmt::Debug for AppBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x?}", &**self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &[u8] = include_bytes!("../testdata/raft-entry.v1.bin");

    fn golden() -> Descriptor {
        let app = AppBytes::new(b"partition 7").expect("short");
        Descriptor::of(b"payload", true, app).expect("short")
    }

    #[test]
    fn reads_and_writes_the_bytes_of_version_1() {
        let mut data = BytesMut::new();
        golden().encode(&mut data);
        data.put_slice(b"payload");
        assert_eq!(&data[..], GOLDEN);
        let read = Descriptor::decode(GOLDEN).expect("golden");
        assert_eq!(read, golden());
        assert_eq!(read.carve(&Bytes::from_static(GOLDEN)).expect("golden"), "payload");
    }

    #[test]
    fn every_prefix_of_a_descriptor_is_refused() {
        for len in 0..golden().encoded_size() {
            let error = Descriptor::decode(&GOLDEN[..len]).expect_err("cut off");
            assert_eq!(error, DescriptorError::Short { len });
        }
    }

    #[test]
    fn what_is_reserved_must_be_zero() {
        for (at, value, expected) in [
            (0, 2, DescriptorError::Version { found: 2 }),
            (1, 5, DescriptorError::Reserved),
            (2, 65, DescriptorError::AppSize { app_size: 65 }),
            (3, 1, DescriptorError::Reserved),
        ] {
            let mut bytes = GOLDEN.to_vec();
            bytes[at] = value;
            assert_eq!(Descriptor::decode(&bytes), Err(expected));
        }
    }

    #[test]
    fn every_bit_flip_in_a_payload_is_refused() {
        for bit in 0..b"payload".len() * 8 {
            let mut payload = b"payload".to_vec();
            payload[bit / 8] ^= 1 << (bit % 8);
            assert!(golden().verify(&payload).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn application_bytes_end_at_64() {
        assert_eq!(AppBytes::new(&[1; 64]).as_deref(), Some(&[1; 64][..]));
        assert_eq!(AppBytes::new(&[1; 65]), None);
    }
}
