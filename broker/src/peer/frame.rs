//! What goes over a connection between two brokers once they have met: raft messages and
//! heartbeats as `docs/formats/raft-message.md` has them, and control messages, each a frame with
//! the same first twelve bytes. Normative: `docs/formats/peer.md`.

use bytes::{Bytes, BytesMut};
use replication::{Heartbeats, Message, MessageError};

use crate::codec::{DecodeError, Reader, Writer};

const RAFT_MAGIC: [u8; 4] = *b"TRM1";
const HEARTBEATS_MAGIC: [u8; 4] = *b"TRB1";
const CONTROL_MAGIC: [u8; 4] = *b"TRC1";
/// Checksum, magic and size of a frame.
const HEAD_SIZE: usize = 12;
/// Room around an entry of the largest size, and for the heads of many small ones.
const OVERHEAD_MAX: usize = 1 << 20;

/// One message from another broker.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Frame {
    Raft(Message),
    Heartbeats(Heartbeats),
    Control(Control),
}

/// What brokers ask of each other beside raft's own messages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Control {
    /// Propose this command to group 0; the answer has the same token.
    Propose { token: u64, command: Bytes },
    /// The command is the entry at `index` of group 0, if the leader of `term` stays it. Comes
    /// before any message that lets the entry be applied.
    Proposed { token: u64, term: u64, index: u64 },
    /// The command was not proposed.
    NotProposed { token: u64 },
    /// The metadata in the object store contains the commands up to here.
    MetadataStored { upto: u64 },
    /// So much more the WAL of this shard takes.
    WalRoom { bytes: u64 },
    /// The sender leads these groups, each in the term beside it. Said to brokers that have no copy
    /// of them.
    Leads { led: Vec<(u64, u64)> },
    /// A client wants the first replicas of these groups to lead: the receiver hands over what it
    /// leads of them.
    Prefer { groups: Vec<u64> },
    /// A partition leaves a group that the sender leads for one that the receiver leads: an
    /// `Adoption` as the object tier encodes it.
    HandOver { adoption: Bytes },
    /// Brokers that were added, each as the command that did it, by the metadata up to `version`:
    /// who is behind may need one of them to hear of it.
    Added { version: u64, commands: Vec<Bytes> },
    /// How busy a core of the sender is, in thousandths, bytes a second written to all that it
    /// leads, and the partitions with the most, with theirs: for whoever leads group 0.
    Load { shard: u16, busy: u32, bytes: u64, partitions: Vec<(u64, u64)> },
}

/// Why a connection to another broker is closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("unknown magic {found:02x?} of a frame")]
    Magic { found: [u8; 4] },
    #[error("a frame of {found} bytes, of at most {most}")]
    Size { found: usize, most: usize },
    #[error("a frame's checksum is {stored:#010x}, computed {computed:#010x}")]
    Checksum { stored: u32, computed: u32 },
    #[error(transparent)]
    Raft(#[from] MessageError),
    #[error("a control message: {0}")]
    Control(#[from] DecodeError),
}

/// The largest frame, where an entry has at most so many bytes.
pub(crate) const fn frame_size_max(entry_size_max: usize) -> usize {
    entry_size_max + OVERHEAD_MAX
}

/// Takes the first frame off what arrived, if it is whole. Nothing is reserved by its size.
///
/// # Errors
///
/// What arrived is not what another broker sends.
pub(crate) fn take_frame(
    buffer: &mut BytesMut,
    size_max: usize,
) -> Result<Option<Frame>, FrameError> {
    let Some((head, _)) = buffer.split_first_chunk::<HEAD_SIZE>() else { return Ok(None) };
    let [_, _, _, _, a, b, c, d, size @ ..] = *head;
    let found = [a, b, c, d];
    let size = usize::try_from(u32::from_le_bytes(size)).unwrap_or(usize::MAX);
    if ![RAFT_MAGIC, HEARTBEATS_MAGIC, CONTROL_MAGIC].contains(&found) {
        return Err(FrameError::Magic { found });
    }
    if !(HEAD_SIZE..=size_max).contains(&size) {
        return Err(FrameError::Size { found: size, most: size_max });
    }
    if buffer.len() < size {
        return Ok(None);
    }
    let frame = buffer.split_to(size).freeze();
    let frame = match found {
        RAFT_MAGIC => Frame::Raft(Message::decode(frame)?),
        HEARTBEATS_MAGIC => Frame::Heartbeats(Heartbeats::decode(&frame)?),
        _ => Frame::Control(Control::decode(&frame)?),
    };
    Ok(Some(frame))
}

impl Control {
    pub(crate) fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        writer.u32(0);
        CONTROL_MAGIC.iter().for_each(|byte| writer.u8(*byte));
        writer.u32(0);
        match self {
            Self::Propose { token, command } => {
                writer.u8(1);
                writer.u64(*token);
                writer.bytes(command);
            }
            Self::Proposed { token, term, index } => {
                writer.u8(2);
                writer.u64(*token);
                writer.u64(*term);
                writer.u64(*index);
            }
            Self::NotProposed { token } => {
                writer.u8(3);
                writer.u64(*token);
            }
            Self::MetadataStored { upto } => {
                writer.u8(4);
                writer.u64(*upto);
            }
            Self::WalRoom { bytes } => {
                writer.u8(5);
                writer.u64(*bytes);
            }
            Self::Leads { led } => {
                writer.u8(8);
                writer.u64(0);
                write_pairs(&mut writer, led);
            }
            Self::Prefer { groups } => {
                writer.u8(9);
                writer.u64(0);
                writer.count(groups.len());
                groups.iter().for_each(|group| writer.u64(*group));
            }
            Self::HandOver { adoption } => {
                writer.u8(10);
                writer.u64(0);
                writer.bytes(adoption);
            }
            Self::Added { version, commands } => {
                writer.u8(11);
                writer.u64(*version);
                writer.count(commands.len());
                commands.iter().for_each(|command| writer.bytes(command));
            }
            Self::Load { shard, busy, bytes, partitions } => {
                writer.u8(12);
                writer.u64((*shard).into());
                writer.u32(*busy);
                writer.u64(*bytes);
                write_pairs(&mut writer, partitions);
            }
        }
        let mut frame = writer.finish();
        let size = u32::try_from(frame.len()).expect("a command is smaller than an entry");
        frame[8..HEAD_SIZE].copy_from_slice(&size.to_le_bytes());
        let crc = crc32c::crc32c(&frame[4..]);
        frame[..4].copy_from_slice(&crc.to_le_bytes());
        frame.into()
    }

    /// `frame` is whole, and longer than its head.
    fn decode(frame: &[u8]) -> Result<Self, FrameError> {
        let mut reader = Reader::new(frame);
        let stored = reader.u32("checksum")?;
        let computed = crc32c::crc32c(&frame[4..]);
        if stored != computed {
            return Err(FrameError::Checksum { stored, computed });
        }
        reader.u32("magic")?;
        reader.u32("size")?;
        let kind = reader.u8("kind")?;
        let token = reader.u64("number")?;
        let control = match kind {
            1 => Self::Propose { token, command: Bytes::copy_from_slice(reader.bytes("command")?) },
            2 => Self::Proposed { token, term: reader.u64("term")?, index: reader.u64("index")? },
            3 => Self::NotProposed { token },
            4 => Self::MetadataStored { upto: token },
            5 => Self::WalRoom { bytes: token },
            8 if token == 0 => Self::Leads {
                led: reader
                    .list("leads", |reader| Ok((reader.u64("group")?, reader.u64("term")?)))?,
            },
            9 if token == 0 => {
                Self::Prefer { groups: reader.list("groups", |reader| reader.u64("group"))? }
            }
            10 if token == 0 => {
                Self::HandOver { adoption: Bytes::copy_from_slice(reader.bytes("adoption")?) }
            }
            11 => Self::Added {
                version: token,
                commands: reader.list("commands", |reader| {
                    Ok(Bytes::copy_from_slice(reader.bytes("command")?))
                })?,
            },
            12 => Self::Load {
                shard: u16::try_from(token).map_err(|_| DecodeError::Range { field: "shard" })?,
                busy: reader.u32("busy")?,
                bytes: reader.u64("bytes")?,
                partitions: reader.list("partitions", |reader| {
                    Ok((reader.u64("partition")?, reader.u64("its bytes")?))
                })?,
            },
            found => return Err(DecodeError::Kind { found }.into()),
        };
        reader.finish()?;
        Ok(control)
    }
}

fn write_pairs(writer: &mut Writer, pairs: &[(u64, u64)]) {
    writer.count(pairs.len());
    for (first, second) in pairs {
        writer.u64(*first);
        writer.u64(*second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE_MAX: usize = 4096;

    fn controls() -> [(Control, &'static [u8]); 10] {
        let command = Bytes::from_static(b"command");
        [
            (
                Control::Propose { token: 1, command },
                include_bytes!("../../testdata/peer-propose.v1.bin"),
            ),
            (
                Control::Proposed { token: 2, term: 5, index: 3 },
                include_bytes!("../../testdata/peer-proposed.v1.bin"),
            ),
            (
                Control::NotProposed { token: 4 },
                include_bytes!("../../testdata/peer-not-proposed.v1.bin"),
            ),
            (
                Control::MetadataStored { upto: 6 },
                include_bytes!("../../testdata/peer-metadata-stored.v1.bin"),
            ),
            (
                Control::WalRoom { bytes: 7 << 20 },
                include_bytes!("../../testdata/peer-wal-room.v1.bin"),
            ),
            (
                Control::Leads { led: vec![(3, 9), (5, 2)] },
                include_bytes!("../../testdata/peer-leads.v1.bin"),
            ),
            (
                Control::Prefer { groups: vec![3, 5] },
                include_bytes!("../../testdata/peer-prefer.v1.bin"),
            ),
            (
                Control::HandOver { adoption: Bytes::from_static(b"adoption") },
                include_bytes!("../../testdata/peer-hand-over.v1.bin"),
            ),
            (
                Control::Added { version: 8, commands: vec![Bytes::from_static(b"command")] },
                include_bytes!("../../testdata/peer-added.v1.bin"),
            ),
            (
                Control::Load { shard: 3, busy: 750, bytes: 5000, partitions: vec![(9, 4000)] },
                include_bytes!("../../testdata/peer-load.v1.bin"),
            ),
        ]
    }

    fn take_all(bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
        let mut buffer = BytesMut::from(bytes);
        std::iter::from_fn(|| take_frame(&mut buffer, SIZE_MAX).transpose()).collect()
    }

    #[test]
    fn reads_and_writes_the_bytes_of_version_1() {
        for (control, bytes) in controls() {
            assert_eq!(control.encode(), bytes, "{control:?}");
            assert_eq!(take_all(bytes), Ok(vec![Frame::Control(control)]));
        }
    }

    #[test]
    fn frames_are_taken_however_they_arrive() {
        let raft = include_bytes!("../../../crates/replication/testdata/raft-message.v1.bin");
        let mut stream = raft.to_vec();
        controls().iter().for_each(|(_, bytes)| stream.extend_from_slice(bytes));
        let beats = include_bytes!("../../../crates/replication/testdata/raft-heartbeats.v1.bin");
        stream.extend_from_slice(beats);
        stream.extend_from_slice(raft);
        let whole = take_all(&stream).expect("frames");
        assert_eq!(whole.len(), 13);
        assert!(matches!(&whole[11], Frame::Heartbeats(beats) if beats.count() == 3));
        assert!(matches!((&whole[0], &whole[12]), (Frame::Raft(a), Frame::Raft(b)) if a == b));
        for step in [1, 2, 7, 100] {
            let mut buffer = BytesMut::new();
            let mut frames = Vec::new();
            for piece in stream.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = take_frame(&mut buffer, SIZE_MAX).expect("a frame") {
                    frames.push(frame);
                }
            }
            assert_eq!(frames, whole, "{step} bytes at a time");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn damage_is_refused_and_a_cut_is_waited_for() {
        for (control, bytes) in controls() {
            for length in 0..bytes.len() {
                assert_eq!(take_all(&bytes[..length]), Ok(Vec::new()), "{control:?} {length}");
            }
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                // A size that grew is waited for.
                assert!(take_all(&flipped).is_err() || (64..96).contains(&bit), "bit {bit}");
            }
        }
        let mut large = controls()[0].1.to_vec();
        large[8..12].copy_from_slice(&4097_u32.to_le_bytes());
        assert_eq!(take_all(&large), Err(FrameError::Size { found: 4097, most: SIZE_MAX }));
    }

    /// Whatever is decoded is encoded as it was; nothing is allocated by a length.
    fn take_any(bytes: &[u8]) {
        let mut buffer = BytesMut::from(bytes);
        while let Ok(Some(frame)) = take_frame(&mut buffer, SIZE_MAX) {
            if let Frame::Control(control) = frame {
                assert_eq!(take_all(&control.encode()), Ok(vec![Frame::Control(control)]));
            }
        }
    }

    proptest::proptest! {
        /// Checksums hide most of the decoder from random bytes, so they are made good first.
        #[test]
        fn damage_under_a_good_checksum_never_panics(
            damage in proptest::collection::vec((0_usize..100, proptest::num::u8::ANY), 0..8),
            which in 0_usize..9,
        ) {
            let mut bytes = controls()[which].1.to_vec();
            for (at, value) in damage {
                let len = bytes.len();
                bytes[at % len] = value;
            }
            let crc = crc32c::crc32c(&bytes[4..]);
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
            take_any(&bytes);
        }
    }
}
