//! Records of `__consumer_offsets`, byte for byte as Kafka writes them. Normative:
//! `docs/formats/consumer-offsets.md`.
//!
//! Keys and values begin with an `int16` version; integers are big-endian. Written are offset keys
//! v1, offset values v1 (with an expiry), v3, and v4 (with a topic id), group keys v2 and group
//! values v3. Read is every version from 0 to 4.

use bytes::{BufMut, Bytes};
use uuid::Uuid;

use super::classic::Group;
use super::member::Member;
use super::offsets::Entry;
use super::{AppendToken, Name};

const OFFSET_KEY_VERSION: i16 = 1;
const GROUP_KEY_VERSION: i16 = 2;
const GROUP_VALUE_VERSION: i16 = 3;
/// The last version that is known, of both kinds of values; it is the first flexible one.
const VALUE_VERSION_LAST: i16 = 4;
const TOPIC_ID_TAG: u32 = 0;

/// Why bytes are not a record, or values do not fit into one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecordError {
    #[error("the record ends within a field")]
    Short,
    #[error("a length is negative, or a number too long")]
    Malformed,
    #[error("a string is not UTF-8")]
    NotUtf8,
    #[error("unknown value version {version}")]
    Version { version: i16 },
    #[error("a field of {size} bytes is too long")]
    TooLong { size: usize },
}

/// What a record is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Key {
    Offset {
        group: Name,
        topic: Name,
        partition: i32,
    },
    Group {
        group: Name,
    },
    /// Written by a newer version, or for another kind of group.
    Other {
        version: i16,
    },
}

/// A group's metadata as recorded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct GroupRecord {
    pub(super) protocol_type: Name,
    pub(super) generation: i32,
    pub(super) protocol: Option<Name>,
    pub(super) leader: Option<Name>,
    /// Unix milliseconds, -1 if unknown.
    pub(super) state_since_ms: i64,
    pub(super) members: Vec<MemberRecord>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct MemberRecord {
    pub(super) id: Name,
    pub(super) instance_id: Option<Name>,
    pub(super) client_id: Name,
    pub(super) client_host: Name,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    pub(super) subscription: Bytes,
    pub(super) assignment: Bytes,
}

pub(super) fn offset_key(group: &str, topic: &str, partition: i32) -> Result<Bytes, RecordError> {
    let mut out = Vec::with_capacity(group.len() + topic.len() + 10);
    out.put_i16(OFFSET_KEY_VERSION);
    put_string(&mut out, group)?;
    put_string(&mut out, topic)?;
    out.put_i32(partition);
    Ok(out.into())
}

pub(super) fn group_key(group: &str) -> Result<Bytes, RecordError> {
    let mut out = Vec::with_capacity(group.len() + 4);
    out.put_i16(GROUP_KEY_VERSION);
    put_string(&mut out, group)?;
    Ok(out.into())
}

/// Key and value of a committed offset.
pub(super) fn offset_commit(
    group: &str,
    topic: &str,
    partition: i32,
    entry: &Entry,
) -> Result<(Bytes, Option<Bytes>), RecordError> {
    let mut out = Vec::with_capacity(entry.metadata.len() + 48);
    match entry.expire_ms {
        Some(expire_ms) => {
            out.put_i16(1);
            out.put_i64(entry.offset);
            put_string(&mut out, &entry.metadata)?;
            out.put_i64(entry.commit_ms);
            out.put_i64(expire_ms);
        }
        None if entry.topic_id.is_nil() => {
            out.put_i16(3);
            out.put_i64(entry.offset);
            out.put_i32(entry.leader_epoch);
            put_string(&mut out, &entry.metadata)?;
            out.put_i64(entry.commit_ms);
        }
        None => {
            out.put_i16(4);
            out.put_i64(entry.offset);
            out.put_i32(entry.leader_epoch);
            put_compact_string(&mut out, &entry.metadata)?;
            out.put_i64(entry.commit_ms);
            put_varint(&mut out, 1);
            put_varint(&mut out, TOPIC_ID_TAG);
            put_varint(&mut out, 16);
            out.put_slice(entry.topic_id.as_bytes());
        }
    }
    Ok((offset_key(group, topic, partition)?, Some(out.into())))
}

/// Key and value of a group's members and assignments.
pub(super) fn group_metadata(group: &Group) -> Result<(Bytes, Option<Bytes>), RecordError> {
    let mut out = Vec::new();
    out.put_i16(GROUP_VALUE_VERSION);
    put_string(&mut out, &group.protocol_type)?;
    out.put_i32(group.generation);
    put_nullable(&mut out, group.protocol.as_deref())?;
    put_nullable(&mut out, group.leader.as_deref())?;
    out.put_i64(group.state_since_ms);
    put_count(&mut out, group.members.len())?;
    for member in group.members.values() {
        put_member(&mut out, member, group.protocol.as_deref().unwrap_or_default())?;
    }
    Ok((group_key(&group.id)?, Some(out.into())))
}

fn put_member(out: &mut Vec<u8>, member: &Member, protocol: &str) -> Result<(), RecordError> {
    put_string(out, &member.id)?;
    put_nullable(out, member.instance_id.as_deref())?;
    put_string(out, &member.client_id)?;
    put_string(out, &member.client_host)?;
    out.put_i32(i32::try_from(member.rebalance_timeout_ms).unwrap_or(i32::MAX));
    out.put_i32(i32::try_from(member.session_timeout_ms).unwrap_or(i32::MAX));
    put_bytes(out, &member.metadata(protocol))?;
    put_bytes(out, &member.assignment)
}

pub(super) fn decode_key(bytes: &[u8]) -> Result<Key, RecordError> {
    let mut fields = Fields { rest: bytes, flexible: false };
    match fields.i16()? {
        0 | OFFSET_KEY_VERSION => Ok(Key::Offset {
            group: fields.string()?,
            topic: fields.string()?,
            partition: fields.i32()?,
        }),
        GROUP_KEY_VERSION => Ok(Key::Group { group: fields.string()? }),
        version => Ok(Key::Other { version }),
    }
}

pub(super) fn decode_offset(bytes: &[u8]) -> Result<Entry, RecordError> {
    let (mut fields, version) = Fields::of_value(bytes)?;
    let mut entry = Entry {
        offset: fields.i64()?,
        leader_epoch: if version >= 3 { fields.i32()? } else { -1 },
        metadata: fields.string()?,
        topic_id: Uuid::nil(),
        commit_ms: fields.i64()?,
        expire_ms: None,
        since: AppendToken(0),
    };
    if version == 1 {
        entry.expire_ms = Some(fields.i64()?).filter(|ms| *ms >= 0);
    }
    fields.tags(|tag, bytes| {
        if tag == TOPIC_ID_TAG
            && let Ok(id) = Uuid::from_slice(bytes)
        {
            entry.topic_id = id;
        }
    })?;
    Ok(entry)
}

pub(super) fn decode_group(bytes: &[u8]) -> Result<GroupRecord, RecordError> {
    let (mut fields, version) = Fields::of_value(bytes)?;
    let mut record = GroupRecord {
        protocol_type: fields.string()?,
        generation: fields.i32()?,
        protocol: fields.nullable()?,
        leader: fields.nullable()?,
        state_since_ms: if version >= 2 { fields.i64()? } else { -1 },
        members: Vec::new(),
    };
    // Grown member by member: the count is only a claim.
    for _ in 0..fields.count()? {
        record.members.push(fields.member(version)?);
    }
    fields.tags(|_, _| ())?;
    Ok(record)
}

/// The bytes of a record not yet read. Every length is checked against what is left.
struct Fields<'a> {
    rest: &'a [u8],
    flexible: bool,
}

impl<'a> Fields<'a> {
    fn of_value(bytes: &'a [u8]) -> Result<(Self, i16), RecordError> {
        let mut fields = Self { rest: bytes, flexible: false };
        let version = fields.i16()?;
        if !(0..=VALUE_VERSION_LAST).contains(&version) {
            return Err(RecordError::Version { version });
        }
        fields.flexible = version >= VALUE_VERSION_LAST;
        Ok((fields, version))
    }

    fn member(&mut self, version: i16) -> Result<MemberRecord, RecordError> {
        let id = self.string()?;
        let instance_id = if version >= 3 { self.nullable()? } else { None };
        let client_id = self.string()?;
        let client_host = self.string()?;
        let rebalance_timeout_ms = if version >= 1 { Some(self.i32()?) } else { None };
        let session_timeout_ms = self.i32()?;
        let member = MemberRecord {
            id,
            instance_id,
            client_id,
            client_host,
            rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
            session_timeout_ms,
            subscription: self.bytes()?,
            assignment: self.bytes()?,
        };
        self.tags(|_, _| ())?;
        Ok(member)
    }

    fn take(&mut self, size: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.rest.split_at_checked(size).ok_or(RecordError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(RecordError::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn i16(&mut self) -> Result<i16, RecordError> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, RecordError> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, RecordError> {
        self.array().map(i64::from_be_bytes)
    }

    fn varint(&mut self) -> Result<u32, RecordError> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(RecordError::Malformed)
    }

    /// A length or count that may be null: -1, or 0 where one is added to it.
    fn length(&mut self, wide: bool) -> Result<Option<usize>, RecordError> {
        let length = match (self.flexible, wide) {
            (true, _) => i64::from(self.varint()?) - 1,
            (false, true) => i64::from(self.i32()?),
            (false, false) => i64::from(self.i16()?),
        };
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length).map(Some).map_err(|_| RecordError::Malformed),
        }
    }

    fn nullable(&mut self) -> Result<Option<Name>, RecordError> {
        let Some(size) = self.length(false)? else { return Ok(None) };
        let text = std::str::from_utf8(self.take(size)?).map_err(|_| RecordError::NotUtf8)?;
        Ok(Some(Name::from(text)))
    }

    fn string(&mut self) -> Result<Name, RecordError> {
        self.nullable()?.ok_or(RecordError::Malformed)
    }

    fn bytes(&mut self) -> Result<Bytes, RecordError> {
        let size = self.length(true)?.unwrap_or(0);
        self.take(size).map(Bytes::copy_from_slice)
    }

    fn count(&mut self) -> Result<usize, RecordError> {
        Ok(self.length(true)?.unwrap_or(0))
    }

    fn tags(&mut self, mut see: impl FnMut(u32, &[u8])) -> Result<(), RecordError> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let size = usize::try_from(self.varint()?).map_err(|_| RecordError::Malformed)?;
            see(tag, self.take(size)?);
        }
        Ok(())
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) -> Result<(), RecordError> {
    let size = i16::try_from(text.len()).map_err(|_| RecordError::TooLong { size: text.len() })?;
    out.put_i16(size);
    out.put_slice(text.as_bytes());
    Ok(())
}

fn put_nullable(out: &mut Vec<u8>, text: Option<&str>) -> Result<(), RecordError> {
    match text {
        Some(text) => put_string(out, text),
        None => {
            out.put_i16(-1);
            Ok(())
        }
    }
}

fn put_compact_string(out: &mut Vec<u8>, text: &str) -> Result<(), RecordError> {
    let too_long = RecordError::TooLong { size: text.len() };
    let size = u32::try_from(text.len()).ok().and_then(|size| size.checked_add(1));
    put_varint(out, size.ok_or(too_long)?);
    out.put_slice(text.as_bytes());
    Ok(())
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), RecordError> {
    put_count(out, bytes.len())?;
    out.put_slice(bytes);
    Ok(())
}

fn put_count(out: &mut Vec<u8>, count: usize) -> Result<(), RecordError> {
    out.put_i32(i32::try_from(count).map_err(|_| RecordError::TooLong { size: count })?);
    Ok(())
}

fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.put_u8(value.to_le_bytes()[0]);
}
