//! The bytes of `__consumer_offsets`, as Kafka's message definitions give them.

use proptest::prelude::*;

use super::super::offsets::Entry;
use super::super::record::{Key, decode_group, decode_key, decode_offset, offset_commit};
use super::*;

fn entry() -> Entry {
    Entry {
        offset: 0x0102,
        leader_epoch: 5,
        metadata: "md".into(),
        topic_id: Uuid::nil(),
        commit_ms: 0x0304,
        expire_ms: None,
        since: AppendToken(0),
    }
}

#[test]
fn golden_offset_commit() {
    let key = b"\0\x01\0\x01g\0\x05topic\0\0\0\x07";
    let v3 = b"\0\x03\0\0\0\0\0\0\x01\x02\0\0\0\x05\0\x02md\0\0\0\0\0\0\x03\x04";
    let v1 = b"\0\x01\0\0\0\0\0\0\x01\x02\0\x02md\0\0\0\0\0\0\x03\x04\0\0\0\0\0\0\0\x09";
    let v4 = b"\0\x04\0\0\0\0\0\0\x01\x02\0\0\0\x05\x03md\0\0\0\0\0\0\x03\x04\x01\0\x10\
        \x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11";
    let with_expiry = Entry { expire_ms: Some(9), ..entry() };
    let with_id = Entry { topic_id: Uuid::from_bytes([0x11; 16]), ..entry() };
    let table: [(Entry, &[u8]); 3] = [(entry(), v3), (with_expiry, v1), (with_id, v4)];
    for (entry, golden) in table {
        let (found_key, value) = offset_commit("g", "topic", 7, &entry).expect("fits");
        assert_eq!((&found_key[..], value.as_deref()), (&key[..], Some(golden)));
        let mut decoded = decode_offset(golden).expect("golden");
        if entry.expire_ms.is_some() {
            assert_eq!(decoded.leader_epoch, -1, "version 1 has none");
            decoded.leader_epoch = 5;
        }
        assert_eq!(decoded, entry);
        for end in 0..golden.len() {
            assert!(decode_offset(&golden[..end]).is_err(), "{end} bytes");
        }
    }
    let found = decode_key(key).expect("golden");
    assert_eq!(found, Key::Offset { group: "g".into(), topic: "topic".into(), partition: 7 });
    assert_eq!(decode_key(b"\0\x02\0\x01g"), Ok(Key::Group { group: "g".into() }));
    assert_eq!(decode_key(b"\0\x63rest"), Ok(Key::Other { version: 0x63 }));
}

#[test]
fn golden_group_metadata() {
    let mut bench = Bench::new();
    let token = bench.send(Operation::Join(static_join("i")));
    let id = bench.joined(token).member_id;
    assert_eq!(&*id, "i-00000000-0000-0000-0000-000000000001");
    let token = bench.send(sync(&id, 1, vec![(id.clone(), Bytes::from_static(b"as"))]));
    assert_eq!(bench.assignment(token), &b"as"[..]);
    let (_, (key, value)) = bench.log.last().expect("recorded").clone();
    let mut golden = b"\0\x03\0\x08consumer\0\0\0\x01\0\x05range\0\x26".to_vec();
    golden.extend(id.as_bytes());
    golden.extend(1_700_000_000_000_i64.to_be_bytes());
    golden.extend(b"\0\0\0\x01\0\x26");
    golden.extend(id.as_bytes());
    golden.extend(b"\0\x01i\0\x06client\0\x0a/127.0.0.1\0\0\xea\x60\0\0\x27\x10");
    golden.extend(b"\0\0\0\x01r\0\0\0\x02as");
    assert_eq!(&key[..], b"\0\x02\0\x01g");
    assert_eq!(value.as_deref(), Some(&golden[..]));
    for end in 0..golden.len() {
        assert!(decode_group(&golden[..end]).is_err(), "{end} bytes");
    }
}

#[test]
fn older_and_newer_group_values_are_read() {
    // Version 0: no rebalance time-out, no state timestamp, no instance; one member.
    let v0 =
        b"\0\0\0\x01c\0\0\0\x02\xff\xff\0\x01m\0\0\0\x01\0\x01m\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\0";
    let old = decode_group(v0).expect("version 0");
    assert_eq!((old.generation, old.protocol, old.state_since_ms), (2, None, -1));
    assert_eq!(old.members[0].rebalance_timeout_ms, 9);
    // Version 4: compact, with tags; no members.
    let v4 = b"\0\x04\x02c\0\0\0\x02\0\x02m\0\0\0\0\0\0\0\x01\x01\x01\x05\x01x";
    let new = decode_group(v4).expect("version 4");
    assert_eq!((new.leader.as_deref(), new.members.len()), (Some("m"), 0));
    assert_eq!(decode_group(b"\0\x05"), Err(RecordError::Version { version: 5 }));
}

#[test]
fn a_count_of_members_costs_nothing_until_they_are_there() {
    let claim = b"\0\x03\0\x01c\0\0\0\x02\xff\xff\xff\xff\0\0\0\0\0\0\0\0\x7f\xff\xff\xff";
    assert_eq!(decode_group(claim), Err(RecordError::Short));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(
        key in prop::collection::vec(any::<u8>(), 0..40),
        mut value in prop::collection::vec(any::<u8>(), 0..80),
        version in 0_u8..6,
    ) {
        let _ = (decode_key(&key), decode_offset(&value), decode_group(&value));
        value.splice(0..value.len().min(2), [0, version]);
        let _ = (decode_offset(&value), decode_group(&value));
        let mut bench = Bench::new();
        bench.coordinator.begin_load(0);
        for key in [&key[..], b"\0\x02\0\x01g", b"\0\x01\0\x01g\0\x01t\0\0\0\0"] {
            bench.coordinator.load(0, key, Some(&value));
        }
        bench.coordinator.end_load(bench.now, 0);
        bench.pass(1);
    }
}
