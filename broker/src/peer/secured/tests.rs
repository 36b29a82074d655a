use bytes::Bytes;
use proptest::prelude::*;

use super::super::GREETING_TIMEOUT;
use super::super::frame::Control;
use super::super::tests::{Bed, LOCALHOST, ONE, TWO, hello};
use super::super::tls::credentials::Credentials;
use super::super::tls::credentials::tests::files;
use super::*;
use crate::shard::Now;

const THREE: NodeId = NodeId::new(3);
const UNKNOWN: &str = "no authority in `peer-tls-ca` signed the certificate";

/// Of a broker that has a certificate and trusts an authority, whatever others make of it.
fn credentials(certificate: &str, key: &str, ca: &str) -> Credentials {
    Credentials::unchecked(&files(certificate, key, ca), hello(ONE).cluster_id)
}

fn of_node(node: NodeId) -> Credentials {
    credentials(&format!("node-{node}.pem"), &format!("node-{node}.key"), "ca.pem")
}

fn secured() -> Bed {
    let mut bed = Bed::new([hello(ONE), hello(TWO)]);
    bed.secure(ONE, of_node(ONE));
    bed.secure(TWO, of_node(TWO));
    bed
}

/// Broker 1 is right; broker 2 has these credentials, and does not get at it. What they print.
fn notes_with(other: Option<Credentials>) -> [String; 2] {
    let mut bed = Bed::new([hello(ONE), hello(TWO)]);
    bed.secure(ONE, of_node(ONE));
    if let Some(other) = other {
        bed.secure(TWO, other);
    }
    bed.run();
    assert!(!bed.of(TWO).is_up(ONE));
    assert!(bed.of(ONE).inbound.is_empty());
    // Nothing is kept of connections that are gone.
    let ups = bed.of(ONE).links.values().filter(|it| it.is_up()).count();
    assert_eq!(bed.of(ONE).tls.session_count(), ups);
    [ONE, TWO].map(|node| bed.of(node).take_notes().join("\n"))
}

#[test]
fn messages_cross_sealed_whatever_the_pieces_they_arrive_in() {
    for chunk_size in [1, 7, 1000, 16_389, usize::MAX] {
        let mut bed = secured();
        bed.chunk_size = chunk_size;
        bed.run();
        let command = Bytes::from(b"what nobody else may read".repeat(5_000));
        let sent: Vec<_> = (0..5)
            .map(|token| Control::Propose { token, command: command.clone() })
            .chain([Control::NotProposed { token: 5 }])
            .collect();
        for (from, to) in [(ONE, TWO), (TWO, ONE)] {
            for control in &sent {
                assert!(bed.of(from).send_control(to, control));
            }
        }
        bed.run();
        assert_eq!(bed.controls(TWO), sent, "in pieces of {chunk_size}");
        assert_eq!(bed.controls(ONE), sent, "in pieces of {chunk_size}");
        assert_eq!(bed.of(ONE).take_notes(), ["shard 0, node 2: connected"]);
        for plain in [b"nobody".as_slice(), b"TRH1", b"TRW1", b"TRC1"] {
            assert!(!bed.wire.windows(plain.len()).any(|found| found == plain), "{plain:?}");
        }
    }
}

#[test]
fn a_certificate_of_another_authority_is_refused_on_both_sides() {
    let [one, two] = notes_with(Some(credentials("stranger-2.pem", "node-2.key", "other-ca.pem")));
    for (node, notes) in [(2, one), (1, two)] {
        assert!(notes.contains(&format!("node {node}: TLS: ")), "{notes}");
        assert!(notes.contains(UNKNOWN), "{notes}");
    }
    // It takes everybody that broker 1 takes, and is not taken itself.
    let [one, two] = notes_with(Some(credentials("stranger-2.pem", "node-2.key", "ca.pem")));
    assert!(one.contains(&format!("node 2: TLS: {UNKNOWN}")), "{one}");
    assert!(one.contains("127.0.0.1 connected as a broker: TLS: "), "{one}");
    assert!(two.contains("node 1: TLS: it knows no authority that signed this"), "{two}");
}

#[test]
fn an_expired_certificate_is_refused_on_both_sides() {
    let [one, two] = notes_with(Some(credentials("expired-2.pem", "node-2.key", "ca.pem")));
    assert!(one.contains("node 2: TLS: the certificate expired "), "{one}");
    assert!(one.contains("127.0.0.1 connected as a broker: TLS: "), "{one}");
    assert!(two.contains("node 1: TLS: this broker's certificate has expired"), "{two}");
}

#[test]
fn a_certificate_for_servers_only_does_not_let_a_broker_connect() {
    let [one, two] = notes_with(Some(credentials("server-only-2.pem", "node-2.key", "ca.pem")));
    assert!(one.contains("127.0.0.1 connected as a broker: TLS: "), "{one}");
    assert!(two.contains("node 1: TLS: this broker's certificate is not for"), "{two}");
}

#[test]
fn a_broker_with_the_certificate_of_another_node_is_kept_out_on_both_sides() {
    let mut bed = Bed::new([hello(ONE), hello(THREE)]);
    bed.secure(ONE, of_node(ONE));
    bed.secure(THREE, of_node(TWO));
    bed.run();
    assert!(!bed.of(ONE).send_control(THREE, &Control::NotProposed { token: 1 }));
    assert!(!bed.of(THREE).send_control(ONE, &Control::NotProposed { token: 1 }));
    let notes = bed.of(ONE).take_notes().join("\n");
    for said in [
        "shard 0, node 3: TLS: the certificate is of DnsName(\"node-2.",
        "127.0.0.1 connected as a broker: it says that it is node 3: TLS: ",
        "node 3 at 127.0.0.1 is not let in: ",
    ] {
        assert!(notes.contains(said), "{said} in {notes}");
    }
    let notes = bed.of(THREE).take_notes().join("\n");
    assert!(
        notes.contains("node 1: this broker is not let in: its certificate does not name"),
        "{notes}"
    );
}

#[test]
fn one_with_and_one_without_tls_say_so() {
    let [with, without] = notes_with(None);
    assert!(
        without.contains("shard 0, node 1: it speaks TLS and this broker does not"),
        "{without}"
    );
    assert!(without.contains("127.0.0.1 connected as a broker: it speaks TLS"), "{without}");
    assert!(with.contains("shard 0, node 2: it does not answer; "), "{with}");
    assert!(with.contains("127.0.0.1 connected as a broker: it does not speak TLS"), "{with}");
}

#[test]
fn strangers_are_told_of_once_until_somebody_is_let_in() {
    let mut bed = secured();
    let now = bed.now;
    for _ in 0..3 {
        let conn = bed.conn();
        bed.of(ONE).accepted(conn, LOCALHOST, now);
        bed.of(ONE).received(conn, b"GET / HTTP/1.1\r\n", now);
    }
    assert_eq!(bed.of(ONE).take_notes().len(), 1);
    bed.run();
    bed.of(ONE).take_notes();
    let conn = bed.conn();
    bed.of(ONE).accepted(conn, LOCALHOST, now);
    bed.of(ONE).received(conn, b"GET / HTTP/1.1\r\n", now);
    assert_eq!(bed.of(ONE).take_notes().len(), 1);
}

/// The first bytes of a broker that connects.
fn client_hello(bed: &mut Bed) -> Vec<u8> {
    let (conn, now) = (bed.conn(), bed.now);
    let peers = bed.of(TWO);
    peers.keep_up(now);
    peers.dialed(ONE, Ok(conn), Now { instant: now, unix_ms: 0 });
    peers.take_actions().into_iter().find_map(sent).expect("a first message").concat()
}

fn sent(action: NetAction) -> Option<Vec<Bytes>> {
    match action {
        NetAction::Send { pieces, .. } => Some(pieces),
        _ => None,
    }
}

#[test]
fn a_greeting_has_to_come_in_time() {
    for size in [0, 1, 200, usize::MAX] {
        let mut bed = secured();
        let hello = client_hello(&mut bed);
        let (conn, now) = (bed.conn(), bed.now);
        let peers = bed.of(ONE);
        peers.keep_up(now);
        peers.take_actions();
        peers.accepted(conn, LOCALHOST, now);
        peers.received(conn, &hello[..size.min(hello.len())], now);
        peers.keep_up(now + GREETING_TIMEOUT / 2);
        assert!(peers.owns(conn), "after {size} bytes");
        let by = peers.next_deadline().expect("it does not wait for ever");
        peers.take_actions();
        peers.keep_up(by);
        assert!(!peers.owns(conn), "after {size} bytes");
        assert_eq!(peers.tls.session_count(), 0);
        assert!(matches!(peers.take_actions()[..], [NetAction::Close { .. }]));
        let notes = peers.take_notes();
        assert!(notes.iter().any(|it| it.contains("no greeting in time")), "{notes:?}");
    }
}

#[test]
fn nothing_is_kept_of_a_record_that_is_too_large() {
    let mut bed = secured();
    let (conn, now) = (bed.conn(), bed.now);
    let peers = bed.of(ONE);
    peers.accepted(conn, LOCALHOST, now);
    peers.received(conn, &[22, 3, 1, 0xff, 0xff], now);
    assert!(!peers.owns(conn));
    let conn = ConnId::simulated(99);
    peers.accepted(conn, LOCALHOST, now);
    // A handshake message of 16 MiB, in records of 16 KiB.
    let mut record = vec![22, 3, 3, 0x40, 0];
    record.extend([[1, 0xff, 0xff, 0xff].as_slice(), &[0; (16 << 10) - 4]].concat());
    for _ in 0..8 {
        peers.received(conn, &record, now);
    }
    assert!(!peers.owns(conn));
}

proptest! {
    #[test]
    fn no_bytes_of_a_stranger_do_harm(
        noise in prop::collection::vec(any::<u8>(), 0..600),
        at in 0_usize..240,
        keeps_head in any::<bool>(),
    ) {
        let mut bed = secured();
        let mut bytes = client_hello(&mut bed);
        if keeps_head {
            bytes.truncate(at);
        } else {
            bytes.clear();
        }
        bytes.extend(noise);
        let (conn, now) = (bed.conn(), bed.now);
        let peers = bed.of(ONE);
        peers.accepted(conn, LOCALHOST, now);
        for piece in bytes.chunks(100) {
            peers.received(conn, piece, now);
        }
        prop_assert!(peers.inbound.get(&conn).is_none_or(|it| it.buffer.is_empty()));
        prop_assert!(peers.take_events().is_empty());
    }

    #[test]
    fn a_bit_that_flips_on_the_way_ends_the_connection(at in 0_usize..200, bit in 0_u8..8) {
        let mut bed = secured();
        bed.run();
        bed.of(ONE).send_control(TWO, &Control::NotProposed { token: 7 });
        let mut actions = bed.of(ONE).take_actions().into_iter();
        let mut bytes = actions.find_map(sent).expect("a message").concat();
        // The version in a record's head means nothing in TLS 1.3.
        let at = 3 + at % (bytes.len() - 3);
        bytes[at] ^= 1 << bit;
        let (conn, now) = (bed.inbound_of(TWO), bed.now);
        bed.of(TWO).take_events();
        bed.of(TWO).received(conn, &bytes, now);
        prop_assert!(bed.controls(TWO).is_empty());
    }
}
