//! The heartbeats of all groups between two nodes, and the answers to them, as one message: with
//! many groups a message for each would cost more than all else that an idle node does. A heartbeat
//! says no more than that its sender leads, and what is committed. Normative:
//! `docs/formats/raft-message.md`.
//!
//! ```text
//! offset  size  field          integers are little-endian
//!      0     4  crc            CRC-32C of the bytes after it
//!      4     4  magic          "TRB1"; the digit is the format version
//!      8     4  frame_size     bytes of the whole message
//!     12     4  answer_count
//!     16     8  from
//!     24     8  to
//!     32        answers, then heartbeats up to the end: group 8, term 8, commit 8
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::RaftGroupId;
use raft::eraftpb::{Message as Body, MessageType};

use crate::message::{MessageError, take_checksum};
use crate::state::count;

const MAGIC: [u8; 4] = *b"TRB1";
const HEADER_SIZE: usize = 32;
const BEAT_SIZE: usize = 24;
/// Room for as many groups at once: a vector that grows from nothing, in every tick, is one of the
/// larger parts of what an idle node does.
const ROOM: usize = 128;

/// See the module's text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Heartbeats {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) answers: Vec<Beat>,
    pub(crate) beats: Vec<Beat>,
}

/// What a heartbeat says, or the answer to one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Beat {
    pub(crate) group: RaftGroupId,
    pub(crate) term: u64,
    pub(crate) commit: u64,
}

impl Heartbeats {
    /// None, between two nodes, by their numbers among the voters.
    pub(crate) fn new(from: u64, to: u64) -> Self {
        let (answers, beats) = (Vec::with_capacity(ROOM), Vec::with_capacity(ROOM));
        Self { from, to, answers, beats }
    }

    /// Adds one of raft's messages between these nodes that [`is_heartbeat`].
    pub(crate) fn add(&mut self, group: RaftGroupId, body: &Body) {
        let beat = Beat { group, term: body.term, commit: body.commit };
        debug_assert_eq!(self.body(body.msg_type, &beat), *body, "it says no more than that");
        if body.msg_type == MessageType::MsgHeartbeat {
            self.beats.push(beat);
        } else {
            self.answers.push(beat);
        }
    }

    /// How many there are, answers among them.
    pub fn count(&self) -> usize {
        self.answers.len() + self.beats.len()
    }

    /// A heartbeat or an answer as raft takes it.
    pub(crate) fn body(&self, msg_type: MessageType, beat: &Beat) -> Body {
        let (from, to) = (self.from, self.to);
        Body { msg_type, from, to, term: beat.term, commit: beat.commit, ..Body::default() }
    }

    /// The message to send, cut from `arena`.
    pub fn encode(&self, arena: &mut BytesMut) -> Bytes {
        let mut out = arena.split_off(arena.len());
        let size = HEADER_SIZE + self.count() * BEAT_SIZE;
        out.reserve(size);
        out.put_u32_le(0);
        out.put_slice(&MAGIC);
        out.put_u32_le(count(size));
        out.put_u32_le(count(self.answers.len()));
        out.put_u64_le(self.from);
        out.put_u64_le(self.to);
        for beat in self.answers.iter().chain(&self.beats) {
            out.put_u64_le(beat.group.get());
            out.put_u64_le(beat.term);
            out.put_u64_le(beat.commit);
        }
        let crc = crc32c::crc32c(&out[4..]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        *arena = out.split_off(size);
        out.freeze()
    }

    /// Reads one whole message.
    ///
    /// # Errors
    ///
    /// It is not what [`Self::encode`] makes.
    pub fn decode(frame: &[u8]) -> Result<Self, MessageError> {
        let len = frame.len();
        if len < HEADER_SIZE {
            return Err(MessageError::Short { len });
        }
        let (mut header, mut rest) = frame.split_at(HEADER_SIZE);
        let stored = take_checksum(&mut header, MAGIC)?;
        let (size, answer_count) = (header.get_u32_le(), header.get_u32_le());
        let count = rest.len() / BEAT_SIZE;
        let answer_count = usize::try_from(answer_count).ok().filter(|it| *it <= count);
        let fits = u32::try_from(len) == Ok(size) && rest.len() == count * BEAT_SIZE;
        let answer_count = answer_count.filter(|_| fits).ok_or(MessageError::Sizes { len })?;
        let computed = crc32c::crc32c(&frame[4..]);
        if stored != computed {
            return Err(MessageError::Checksum { stored, computed });
        }
        let mut all = Self::new(header.get_u64_le(), header.get_u64_le());
        for at in 0..count {
            let group = RaftGroupId::new(rest.get_u64_le());
            let beat = Beat { group, term: rest.get_u64_le(), commit: rest.get_u64_le() };
            if at < answer_count { &mut all.answers } else { &mut all.beats }.push(beat);
        }
        Ok(all)
    }
}

/// Is it a heartbeat, or the answer to one?
pub(crate) fn is_heartbeat(body: &Body) -> bool {
    matches!(body.msg_type, MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &[u8] = include_bytes!("../testdata/raft-heartbeats.v1.bin");

    fn some() -> Heartbeats {
        let mut all = Heartbeats::new(1, 2);
        let mut add = |kind, group, term, commit| {
            let body = Body { msg_type: kind, from: 1, to: 2, term, commit, ..Body::default() };
            all.add(RaftGroupId::new(group), &body)
        };
        add(MessageType::MsgHeartbeat, 3, 7, 1003);
        add(MessageType::MsgHeartbeatResponse, 4, 9, 2004);
        add(MessageType::MsgHeartbeat, 5, 7, 1005);
        all
    }

    #[test]
    fn reads_and_writes_the_bytes_of_version_1() {
        assert_eq!(some().encode(&mut BytesMut::new()), GOLDEN);
        assert_eq!(Heartbeats::decode(GOLDEN), Ok(some()));
        assert_eq!((some().answers.len(), some().count()), (1, 3));
    }

    #[test]
    fn many_are_cut_from_one_arena() {
        let all = some();
        let mut arena = BytesMut::with_capacity(4096);
        for _ in 0..3 {
            assert_eq!(all.encode(&mut arena), GOLDEN);
        }
    }

    #[test]
    fn damage_is_refused() {
        for length in 0..GOLDEN.len() {
            Heartbeats::decode(&GOLDEN[..length]).expect_err("cut");
        }
        for bit in 0..GOLDEN.len() * 8 {
            let mut flipped = GOLDEN.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            Heartbeats::decode(&flipped).expect_err("flipped");
        }
        let none = Heartbeats::new(1, 2).encode(&mut BytesMut::new());
        assert_eq!(Heartbeats::decode(&none), Ok(Heartbeats::new(1, 2)));
    }

    /// Checksums and sizes hide most of the decoder from random bytes, so they are made good first.
    fn decode_any(mut frame: Vec<u8>) {
        let len = u32::try_from(frame.len()).expect("short");
        frame[8..12].copy_from_slice(&len.to_le_bytes());
        let crc = crc32c::crc32c(&frame[4..]);
        frame[..4].copy_from_slice(&crc.to_le_bytes());
        if let Ok(all) = Heartbeats::decode(&frame) {
            assert_eq!(all.encode(&mut BytesMut::new()), frame);
        }
    }

    proptest::proptest! {
        #[test]
        fn damage_under_a_good_checksum_never_panics(
            damage in proptest::collection::vec((0..GOLDEN.len(), proptest::num::u8::ANY), 0..8),
            len in HEADER_SIZE..=GOLDEN.len(),
        ) {
            let mut bytes = GOLDEN.to_vec();
            damage.iter().for_each(|(at, value)| bytes[*at] = *value);
            bytes.truncate(len);
            decode_any(bytes);
        }
    }
}
