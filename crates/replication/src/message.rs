//! A message between two nodes of a group, and its bytes. Normative:
//! `docs/formats/raft-message.md`.
//!
//! ```text
//! offset  size  field          integers are little-endian
//!      0     4  crc            CRC-32C of bytes 4..head_size
//!      4     4  magic          "TRM1"; the digit is the format version
//!      8     4  frame_size     bytes of the whole message, payloads included
//!     12     4  head_size      bytes before the first payload
//!     16     1  kind
//!     17     1  flags          bit 0: rejected, bit 1: leadership transfer; all others 0
//!     18     2  zero
//!     20     4  entry_count
//!     24     8  group
//!     32     8  from
//!     40     8  to
//!     48     8  term
//!     56     8  log_term
//!     64     8  index
//!     72     8  commit
//!     80     8  commit_term
//!     88     8  reject_hint
//!     96     8  priority       signed
//!    104        entries: term 8, descriptor_size 1, descriptor; entry i has index + 1 + i
//!    ...        of kind snapshot: index 8, term 8, counts of members 4 (voters 2, learners 1,
//!               outgoing voters 1), data_size 4, members 8 each, data
//!    ...        the entries' payloads, as long as their descriptors say
//! ```
//!
//! The checksum covers the head; each payload has its own in its descriptor, so that a payload is
//! neither copied nor read to be sent.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::RaftGroupId;
use raft::eraftpb::{Entry, Message as Body, MessageType, Snapshot};

use crate::descriptor::{DESCRIPTOR_SIZE_MAX, Descriptor, DescriptorError};
use crate::members::{COUNTS_SIZE, Members};
use crate::state::count;

const MAGIC: [u8; 4] = *b"TRM1";
const HEADER_SIZE: usize = 104;
const ENTRY_HEAD_SIZE: usize = 9;
const FLAG_REJECT: u8 = 1;
const FLAG_TRANSFER: u8 = 2;
/// What raft-rs puts into the context of a vote request that a leader asked for.
const CAMPAIGN_TRANSFER: &[u8] = b"CampaignTransfer";

/// Kinds on the wire. Proposals are not among them, since a client goes to the leader itself, nor
/// are heartbeats: those travel together ([`crate::Heartbeats`]).
const KINDS: [(u8, MessageType); 8] = [
    (1, MessageType::MsgAppend),
    (2, MessageType::MsgAppendResponse),
    (3, MessageType::MsgRequestVote),
    (4, MessageType::MsgRequestVoteResponse),
    (5, MessageType::MsgRequestPreVote),
    (6, MessageType::MsgRequestPreVoteResponse),
    (9, MessageType::MsgSnapshot),
    (10, MessageType::MsgTimeoutNow),
];

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MessageError {
    #[error("a raft message is cut off after {len} bytes")]
    Short { len: usize },
    #[error("unknown raft message magic {found:02x?}")]
    Magic { found: [u8; 4] },
    #[error("raft message checksum is {stored:#010x}, computed {computed:#010x}")]
    Checksum { stored: u32, computed: u32 },
    #[error("a raft message's sizes do not fit its {len} bytes")]
    Sizes { len: usize },
    #[error("unknown kind {found} of raft message")]
    Kind { found: u8 },
    #[error("a raft message has unknown flags or reserved bytes")]
    Reserved,
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
}

/// A message of one group: raft's own, with descriptors in its entries and the payloads beside
/// them.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    group: RaftGroupId,
    /// An entry's `data` is its encoded descriptor, its `context` the payload by reference.
    pub(crate) body: Body,
}

impl Message {
    /// `None` for what does not travel between nodes.
    pub(crate) fn new(group: RaftGroupId, body: Body) -> Option<Self> {
        kind_of(body.msg_type).map(|_| Self { group, body })
    }

    pub fn group(&self) -> RaftGroupId {
        self.group
    }

    pub fn from(&self) -> u64 {
        self.body.from
    }

    pub fn to(&self) -> u64 {
        self.body.to
    }

    /// Whether a follower's log would grow by it: losing it is worth telling.
    pub fn has_entries(&self) -> bool {
        !self.body.entries.is_empty()
    }

    /// The entries that travel with the message: of each its descriptor, empty for the first entry
    /// of a new leader, and the size of its payload in bytes.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], usize)> {
        self.body.entries.iter().map(|entry| (&entry.data[..], entry.context.len()))
    }

    /// Leaves only the first `count` entries: to raft it is as if the leader had sent no more.
    pub fn truncate(&mut self, count: usize) {
        self.body.entries.truncate(count);
    }

    /// Bytes of payload that travel with the message.
    pub fn payload_size(&self) -> usize {
        self.body.entries.iter().map(|entry| entry.context.len()).sum()
    }

    /// Bytes of the snapshot that it carries.
    pub fn snapshot_size(&self) -> usize {
        self.body.snapshot.as_ref().map_or(0, |snapshot| snapshot.data.len())
    }

    /// The message as pieces to be sent one after the other: the head, cut from `arena`, then each
    /// payload by reference.
    pub fn encode(&self, arena: &mut BytesMut) -> Vec<Bytes> {
        let mut head = arena.split_off(arena.len());
        self.encode_head(&mut head);
        let mut pieces = Vec::with_capacity(1 + self.body.entries.len());
        *arena = head.split_off(head.len());
        pieces.push(head.freeze());
        let payloads = self.body.entries.iter().map(|entry| &entry.context);
        pieces.extend(payloads.filter(|payload| !payload.is_empty()).cloned());
        pieces
    }

    /// Reads one whole message. Payloads refer into `frame` and are not checked here: the driver
    /// does that before raft sees them. Nothing is reserved by a count alone.
    pub fn decode(frame: Bytes) -> Result<Self, MessageError> {
        let len = frame.len();
        let sizes = MessageError::Sizes { len };
        let head = checked_head(&frame)?;
        let head_size = head.len();
        let (header, mut rest) = head.split_at(HEADER_SIZE);
        let (group, mut body, entry_count) = decode_header(header)?;
        let mut payload_start = head_size;
        let mut index = body.index;
        for _ in 0..entry_count {
            index = index.checked_add(1).ok_or(sizes)?;
            let at = head_size - rest.len();
            let entry = decode_entry(&frame, at, index, &mut payload_start)?;
            rest = rest.get(ENTRY_HEAD_SIZE + entry.data.len()..).ok_or(sizes)?;
            body.entries.push(entry);
        }
        if body.msg_type == MessageType::MsgSnapshot {
            let snapshot = decode_snapshot(&frame, &mut rest, head_size).ok_or(sizes)?;
            body.set_snapshot(snapshot);
        }
        if !rest.is_empty() || payload_start != len {
            return Err(sizes);
        }
        Ok(Self { group, body })
    }

    fn encode_head(&self, out: &mut BytesMut) {
        let body = &self.body;
        let mut flags = if body.reject { FLAG_REJECT } else { 0 };
        if body.context == CAMPAIGN_TRANSFER {
            flags |= FLAG_TRANSFER;
        }
        out.reserve(HEADER_SIZE + body.entries.len() * (ENTRY_HEAD_SIZE + DESCRIPTOR_SIZE_MAX));
        out.put_u32_le(0);
        out.put_slice(&MAGIC);
        out.put_u64_le(0);
        out.put_u8(kind_of(body.msg_type).expect("checked when the message was made"));
        out.put_u8(flags);
        out.put_u16_le(0);
        out.put_u32_le(count(body.entries.len()));
        for number in [self.group.get(), body.from, body.to, body.term, body.log_term] {
            out.put_u64_le(number);
        }
        for number in [body.index, body.commit, body.commit_term, body.reject_hint] {
            out.put_u64_le(number);
        }
        out.put_i64_le(body.priority);
        for entry in &body.entries {
            out.put_u64_le(entry.term);
            out.put_u8(u8::try_from(entry.data.len()).expect("DESCRIPTOR_SIZE_MAX is 76"));
            out.put_slice(&entry.data);
        }
        if body.msg_type == MessageType::MsgSnapshot {
            encode_snapshot(body.get_snapshot(), out);
        }
        let head_size = out.len();
        out[8..12].copy_from_slice(&count(head_size + self.payload_size()).to_le_bytes());
        out[12..16].copy_from_slice(&count(head_size).to_le_bytes());
        let crc = crc32c::crc32c(&out[4..]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Decodes bytes whose checksum and sizes are made good first, as a fuzzer would have to guess
/// them.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let mut frame = bytes.to_vec();
    if let (Some(size), Ok(len)) = (frame.get_mut(8..12), u32::try_from(bytes.len())) {
        size.copy_from_slice(&len.to_le_bytes());
    }
    let head_size = frame.get(12..16).and_then(|size| size.try_into().ok()).map(u32::from_le_bytes);
    let head_size = head_size.and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
    if let Some(crc) = frame.get(4..head_size).map(crc32c::crc32c) {
        frame[..4].copy_from_slice(&crc.to_le_bytes());
    }
    if let Ok(message) = Message::decode(frame.into()) {
        let again = message.encode(&mut BytesMut::new()).concat();
        assert_eq!(Message::decode(again.into()), Ok(message));
    }
}

fn kind_of(kind: MessageType) -> Option<u8> {
    KINDS.iter().find(|(_, known)| *known == kind).map(|(number, _)| *number)
}

/// The checksum that a frame begins with, if the magic that follows it is right.
pub(crate) fn take_checksum(fields: &mut &[u8], magic: [u8; 4]) -> Result<u32, MessageError> {
    let stored = fields.get_u32_le();
    let mut found = [0; 4];
    fields.copy_to_slice(&mut found);
    if found == magic { Ok(stored) } else { Err(MessageError::Magic { found }) }
}

/// The head of a frame, once its checksum holds.
fn checked_head(frame: &[u8]) -> Result<&[u8], MessageError> {
    let len = frame.len();
    if len < HEADER_SIZE {
        return Err(MessageError::Short { len });
    }
    let mut fields = frame;
    let stored = take_checksum(&mut fields, MAGIC)?;
    let (frame_size, head_size) = (fields.get_u32_le(), fields.get_u32_le());
    let head = usize::try_from(head_size)
        .ok()
        .filter(|head_size| *head_size >= HEADER_SIZE && u32::try_from(len) == Ok(frame_size))
        .and_then(|head_size| frame.get(..head_size))
        .ok_or(MessageError::Sizes { len })?;
    let computed = crc32c::crc32c(&head[4..]);
    if stored != computed {
        return Err(MessageError::Checksum { stored, computed });
    }
    Ok(head)
}

/// The fixed fields of a head, which is at least as long as they are.
fn decode_header(header: &[u8]) -> Result<(RaftGroupId, Body, u32), MessageError> {
    let mut fields = &header[16..];
    let (kind, flags, zero) = (fields.get_u8(), fields.get_u8(), fields.get_u16_le());
    let known = KINDS.iter().find(|(number, _)| *number == kind);
    let (_, msg_type) = known.ok_or(MessageError::Kind { found: kind })?;
    if flags & !(FLAG_REJECT | FLAG_TRANSFER) != 0 || zero != 0 {
        return Err(MessageError::Reserved);
    }
    let entry_count = fields.get_u32_le();
    let group = RaftGroupId::new(fields.get_u64_le());
    let mut body = Body { msg_type: *msg_type, ..Body::default() };
    body.from = fields.get_u64_le();
    body.to = fields.get_u64_le();
    body.term = fields.get_u64_le();
    body.log_term = fields.get_u64_le();
    body.index = fields.get_u64_le();
    body.commit = fields.get_u64_le();
    body.commit_term = fields.get_u64_le();
    body.reject_hint = fields.get_u64_le();
    body.priority = fields.get_i64_le();
    body.reject = flags & FLAG_REJECT != 0;
    if flags & FLAG_TRANSFER != 0 {
        body.context = Bytes::from_static(CAMPAIGN_TRANSFER);
    }
    Ok((group, body, entry_count))
}

/// The entry whose head is at `at`; its payload is the next in the frame.
fn decode_entry(
    frame: &Bytes,
    at: usize,
    index: u64,
    payload_start: &mut usize,
) -> Result<Entry, MessageError> {
    let len = frame.len();
    let sizes = MessageError::Sizes { len };
    let mut head = frame.get(at..at + ENTRY_HEAD_SIZE).ok_or(sizes)?;
    let mut entry = Entry { term: head.get_u64_le(), index, ..Entry::default() };
    let descriptor_size = usize::from(head.get_u8());
    if descriptor_size == 0 {
        return Ok(entry);
    }
    let start = at + ENTRY_HEAD_SIZE;
    let bytes = frame.get(start..start + descriptor_size).ok_or(sizes)?;
    let descriptor = Descriptor::decode(bytes)?;
    if descriptor.encoded_size() != descriptor_size {
        return Err(sizes);
    }
    let payload_len = usize::try_from(descriptor.payload_len).map_err(|_| sizes)?;
    let payload_end = payload_start.checked_add(payload_len).filter(|end| *end <= len);
    let payload_end = payload_end.ok_or(sizes)?;
    entry.data = frame.slice(start..start + descriptor_size);
    entry.context = frame.slice(*payload_start..payload_end);
    *payload_start = payload_end;
    Ok(entry)
}

fn encode_snapshot(snapshot: &Snapshot, out: &mut BytesMut) {
    let metadata = snapshot.get_metadata();
    out.put_u64_le(metadata.index);
    out.put_u64_le(metadata.term);
    let members = Members::from_raft(metadata.get_conf_state());
    members.encode_counts(out);
    out.put_u32_le(count(snapshot.data.len()));
    members.encode(out);
    out.put_slice(&snapshot.data);
}

/// `rest` is the end of the frame's head.
fn decode_snapshot(frame: &Bytes, rest: &mut &[u8], head_size: usize) -> Option<Snapshot> {
    const FIXED_SIZE: usize = 24;
    if rest.len() < FIXED_SIZE {
        return None;
    }
    let (index, term) = (rest.get_u64_le(), rest.get_u64_le());
    let mut counts = [0; COUNTS_SIZE];
    rest.copy_to_slice(&mut counts);
    let data_size = rest.get_u32_le();
    let members = Members::decode(counts, rest)?;
    if u32::try_from(rest.len()) != Ok(data_size) {
        return None;
    }
    let data = frame.slice(head_size - rest.len()..head_size);
    *rest = &[];
    let mut snapshot = Snapshot { data, ..Snapshot::default() };
    let metadata = snapshot.mut_metadata();
    metadata.index = index;
    metadata.term = term;
    metadata.set_conf_state(members.to_raft());
    Some(snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::AppBytes;

    const GOLDEN: &[u8] = include_bytes!("../testdata/raft-message.v1.bin");

    fn append() -> Message {
        let app = AppBytes::new(b"app").expect("short");
        let payload = Bytes::from_static(b"payload");
        let mut data = BytesMut::new();
        Descriptor::of(&payload, false, app).expect("short").encode(&mut data);
        let empty = Entry { term: 7, index: 42, ..Entry::default() };
        let full = Entry { index: 43, data: data.freeze(), context: payload, ..empty.clone() };
        let mut body = Body { msg_type: MessageType::MsgAppend, from: 1, to: 2, ..Body::default() };
        (body.term, body.log_term, body.index, body.commit) = (7, 6, 41, 40);
        body.entries = vec![empty, full].into();
        Message::new(RaftGroupId::new(5), body).expect("travels")
    }

    fn snapshot() -> Message {
        let mut body = Body { msg_type: MessageType::MsgSnapshot, term: 7, ..Body::default() };
        let metadata = body.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (40, 6);
        metadata.mut_conf_state().voters = vec![1, 2, 3];
        body.mut_snapshot().data = Bytes::from_static(b"producers");
        Message::new(RaftGroupId::new(5), body).expect("travels")
    }

    fn encoded(message: &Message) -> Vec<u8> {
        message.encode(&mut BytesMut::new()).concat()
    }

    #[test]
    fn reads_and_writes_the_bytes_of_version_1() {
        assert_eq!(encoded(&append()), GOLDEN);
        assert_eq!(Message::decode(Bytes::from_static(GOLDEN)), Ok(append()));
    }

    #[test]
    fn a_payload_is_sent_by_reference() {
        let message = append();
        let pieces = message.encode(&mut BytesMut::new());
        assert_eq!(pieces.len(), 2);
        assert_eq!(pieces[1].as_ptr(), message.body.entries[1].context.as_ptr());
    }

    #[test]
    fn every_kind_and_flag_returns_as_it_went() {
        for (_, msg_type) in KINDS {
            let mut message = snapshot();
            message.body.msg_type = msg_type;
            if msg_type != MessageType::MsgSnapshot {
                message.body.clear_snapshot();
            }
            message.body.reject = true;
            message.body.priority = -3;
            message.body.context = Bytes::from_static(CAMPAIGN_TRANSFER);
            assert_eq!(Message::decode(encoded(&message).into()), Ok(message));
        }
    }

    #[test]
    fn a_proposal_does_not_travel() {
        let body = Body { msg_type: MessageType::MsgPropose, ..Body::default() };
        assert_eq!(Message::new(RaftGroupId::new(5), body), None);
    }

    #[test]
    fn every_bit_flip_is_refused_or_leaves_a_payload_that_does_not_verify() {
        for message in [append(), snapshot()] {
            let bytes = encoded(&message);
            let payload_start = bytes.len() - message.payload_size();
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let read = Message::decode(flipped.into());
                if bit / 8 < payload_start {
                    assert!(read.is_err(), "bit {bit}");
                } else {
                    let read = read.expect("the head is intact");
                    let entry = &read.body.entries[1];
                    let descriptor = Descriptor::decode(&entry.data).expect("intact");
                    assert!(descriptor.verify(&entry.context).is_err(), "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn every_prefix_and_every_byte_too_many_is_refused() {
        for message in [append(), snapshot()] {
            let mut bytes = encoded(&message);
            for len in 0..bytes.len() {
                assert!(Message::decode(bytes[..len].to_vec().into()).is_err(), "prefix {len}");
            }
            bytes.push(0);
            assert!(Message::decode(bytes.into()).is_err());
        }
    }

    proptest::proptest! {
        /// Checksums hide most of the decoder from random bytes, so they are made good first.
        #[test]
        fn damage_under_a_good_checksum_never_panics(
            damage in proptest::collection::vec((0usize..400, proptest::num::u8::ANY), 1..6),
            which in 0usize..2,
        ) {
            let mut bytes = encoded(&[append(), snapshot()][which]);
            for (at, value) in damage {
                let len = bytes.len();
                bytes[at % len] = value;
            }
            fuzz(&bytes);
        }
    }
}
