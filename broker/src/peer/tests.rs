use std::collections::VecDeque;

use super::hello::{Refusal, VERSIONS};
use super::*;
use model::ShardId;
use uuid::Uuid;

/// Some brokers' shards and the connections between them, in one thread.
pub(super) struct Bed {
    peers: BTreeMap<NodeId, Peers>,
    /// By the broker and its end of a connection: the other broker and its end.
    ends: BTreeMap<(NodeId, ConnId), (NodeId, ConnId)>,
    next_conn: u32,
    pub(super) now: Instant,
    /// Bytes arrive in pieces of this size at most.
    pub(super) chunk_size: usize,
    /// All that was sent.
    pub(super) wire: Vec<u8>,
}

pub(super) const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
pub(super) const ONE: NodeId = NodeId::new(1);
pub(super) const TWO: NodeId = NodeId::new(2);

pub(super) fn hello(node: NodeId) -> Hello {
    let shard = ShardId::new(0);
    let cluster_id = Uuid::from_u128(1);
    Hello {
        cluster_id,
        from: node,
        to: node,
        shard,
        shard_count: 1,
        versions: VERSIONS,
        incarnation: 0,
        is_new: false,
        process: node.get().unsigned_abs().into(),
        unix_ms: 0,
    }
}

impl Bed {
    #[expect(clippy::disallowed_methods, reason = "a test's clock may be any")]
    pub(super) fn new(hellos: [Hello; 2]) -> Self {
        let now = Instant::now();
        let peers = |own: Hello| {
            let others = hellos.iter().map(|it| it.from).filter(|node| *node != own.from);
            (own.from, Peers::new(own, others, 1 << 20, now))
        };
        let (peers, ends) = (hellos.map(peers).into(), BTreeMap::new());
        Self { peers, ends, next_conn: 0, now, chunk_size: usize::MAX, wire: Vec::new() }
    }

    /// Gives a broker credentials for TLS.
    pub(super) fn secure(&mut self, node: NodeId, credentials: Credentials) {
        let peers = self.peers.remove(&node).expect("a node of the bed");
        self.peers.insert(node, peers.with_tls(Some(credentials.into())));
    }

    pub(super) fn conn(&mut self) -> ConnId {
        self.next_conn += 1;
        ConnId::simulated(self.next_conn)
    }

    pub(super) fn of(&mut self, node: NodeId) -> &mut Peers {
        self.peers.get_mut(&node).expect("a node of the bed")
    }

    /// Carries out what the brokers want done to sockets until nothing is left.
    pub(super) fn run(&mut self) {
        let mut todo: VecDeque<(NodeId, NetAction)> = VecDeque::new();
        loop {
            let now = self.now;
            for (node, peers) in &mut self.peers {
                peers.keep_up(now);
                todo.extend(peers.take_actions().into_iter().map(|action| (*node, action)));
            }
            let Some((node, action)) = todo.pop_front() else { return };
            match action {
                NetAction::Dial { node: to } => {
                    let (a, b) = (self.conn(), self.conn());
                    self.ends.insert((node, a), (to, b));
                    self.ends.insert((to, b), (node, a));
                    self.of(to).accepted(b, LOCALHOST, now);
                    self.of(node).dialed(to, Ok(a), Now { instant: now, unix_ms: 0 });
                }
                NetAction::Send { conn, pieces } => {
                    if let Some((to, end)) = self.ends.get(&(node, conn)).copied() {
                        let bytes = pieces.concat();
                        for piece in bytes.chunks(self.chunk_size) {
                            self.of(to).received(end, piece, now);
                        }
                        self.wire.extend(bytes);
                        self.of(node).sent(conn);
                    }
                }
                NetAction::Close { conn } | NetAction::CloseAfterSend { conn } => {
                    self.cut(node, conn);
                }
                NetAction::Pause { .. } | NetAction::Resume { .. } => panic!("not done here"),
            }
        }
    }

    /// The connection over which a broker hears.
    pub(super) fn inbound_of(&mut self, node: NodeId) -> ConnId {
        *self.of(node).inbound.keys().next().expect("somebody connected")
    }

    fn cut(&mut self, node: NodeId, conn: ConnId) {
        if let Some((to, end)) = self.ends.remove(&(node, conn)) {
            self.ends.remove(&(to, end));
            let now = self.now;
            self.of(to).closed(end, now);
        }
    }

    pub(super) fn controls(&mut self, node: NodeId) -> Vec<Control> {
        let control = |event| match event {
            PeerEvent::Frame { frame: Frame::Control(control), .. } => Some(control),
            _ => None,
        };
        self.of(node).take_events().into_iter().filter_map(control).collect()
    }
}

#[test]
fn brokers_find_each_other_and_messages_keep_their_order() {
    let mut bed = Bed::new([hello(ONE), hello(TWO)]);
    bed.run();
    let sent: Vec<_> = (0..5).map(|token| Control::NotProposed { token }).collect();
    for control in &sent {
        assert!(bed.of(ONE).send_control(TWO, control));
    }
    assert!(bed.of(TWO).send_control(ONE, &sent[0]));
    bed.run();
    assert_eq!(bed.controls(TWO), sent);
    assert_eq!(bed.controls(ONE), sent[..1]);
    assert_eq!(bed.of(ONE).take_notes(), ["shard 0, node 2: connected"]);
}

#[test]
fn a_lost_connection_is_made_again() {
    let mut bed = Bed::new([hello(ONE), hello(TWO)]);
    bed.run();
    let control = Control::NotProposed { token: 9 };
    let (to, conn) = bed
        .ends
        .iter()
        .find(|((node, _), _)| *node == ONE)
        .map(|((node, conn), _)| (*node, *conn))
        .expect("a connection");
    bed.of(ONE).take_events();
    let now = bed.now;
    bed.of(to).closed(conn, now);
    bed.cut(to, conn);
    let down = bed.of(ONE).take_events();
    assert!(matches!(down[..], [PeerEvent::Down { node: TWO }]), "{down:?}");
    assert!(!bed.of(ONE).send_control(TWO, &control), "it is lost, and that is said");
    bed.now = bed.of(ONE).next_deadline().expect("an attempt");
    bed.run();
    assert!(bed.of(ONE).send_control(TWO, &control));
    bed.run();
    assert_eq!(bed.controls(TWO), [control]);
}

#[test]
fn a_broker_of_another_cluster_is_kept_out_on_both_sides() {
    let other = Hello { cluster_id: Uuid::from_u128(2), ..hello(TWO) };
    let mut bed = Bed::new([hello(ONE), other]);
    bed.run();
    for (node, peer) in [(ONE, TWO), (TWO, ONE)] {
        assert!(!bed.of(node).send_control(peer, &Control::NotProposed { token: 1 }));
        let notes = bed.of(node).take_notes();
        let why = Refusal::Cluster;
        let refused = format!("shard 0, node {peer}: this broker is not let in: {why}");
        assert!(notes.contains(&refused), "{notes:?}");
        let kept_out = format!("shard 0: node {peer} at 127.0.0.1 is not let in: {why} (it is of ");
        assert!(notes.iter().any(|line| line.starts_with(&kept_out)), "{notes:?}");
    }
}

/// What a broker says to a greeting that arrives over a new connection.
fn answer_to(bed: &mut Bed, node: NodeId, hello: &Hello) -> Option<Welcome> {
    let (conn, now) = (bed.conn(), bed.now);
    let peers = bed.of(node);
    peers.accepted(conn, LOCALHOST, now);
    peers.received(conn, &hello.encode(), now);
    let answers = peers.take_actions().into_iter().filter_map(|action| match action {
        NetAction::Send { conn: to, pieces } if to == conn => Some(pieces.concat()),
        _ => None,
    });
    answers.last().and_then(|it| Welcome::decode(&it).ok())
}

#[test]
fn a_second_process_of_a_node_is_kept_out_until_the_first_is_silent() {
    let mut bed = Bed::new([hello(ONE), hello(TWO)]);
    bed.run();
    bed.of(TWO).take_notes();
    let first = bed.inbound_of(TWO);
    let second = Hello { process: 99, to: TWO, incarnation: 7, ..hello(ONE) };
    bed.now += SILENCE_MAX - Duration::from_millis(1);
    for _ in 0..3 {
        let answer = answer_to(&mut bed, TWO, &second);
        assert_eq!(answer, Some(Welcome::Refused(Refusal::Running)));
    }
    assert!(bed.of(TWO).owns(first), "the one that is heard stays");
    assert_eq!(bed.of(TWO).incarnation(ONE), Some(0), "no disk is replaced by who is not let in");
    let [note] = &bed.of(TWO).take_notes()[..] else { panic!("each thing is told once") };
    assert!(note.starts_with("shard 0: node 1 at 127.0.0.1 is not let in: another"), "{note}");
    bed.now += Duration::from_millis(1);
    let answer = answer_to(&mut bed, TWO, &second);
    assert_eq!(answer, Some(Welcome::Accepted { version: 1 }));
    assert!(!bed.of(TWO).owns(first));
}

#[test]
fn an_empty_disk_of_a_node_that_has_taken_part_is_kept_out_and_learns_nothing() {
    let new = Hello { is_new: true, ..hello(TWO) };
    let mut bed = Bed::new([hello(ONE), new]);
    bed.of(ONE).note_on_first_disk([ONE, TWO].into());
    bed.run();
    assert!(!bed.of(TWO).is_up(ONE), "it is not let in");
    let notes = bed.of(TWO).take_notes();
    assert!(notes.iter().any(|line| line.contains("the disk is empty")), "{notes:?}");
    assert!(bed.of(ONE).send_control(TWO, &Control::NotProposed { token: 1 }));
    bed.run();
    assert_eq!(bed.controls(TWO), [], "what it is told would make up for what it forgot");
    // Of its second disk nobody knows yet that it has taken part, nor of one that is its first.
    let second = Hello { incarnation: 5, to: ONE, ..new };
    assert_eq!(answer_to(&mut bed, ONE, &second), Some(Welcome::Accepted { version: 1 }));
    let mut bed = Bed::new([hello(ONE), new]);
    bed.of(ONE).note_on_first_disk([ONE].into());
    bed.run();
    assert!(bed.of(TWO).send_control(ONE, &Control::NotProposed { token: 1 }));
    assert!(bed.of(ONE).send_control(TWO, &Control::NotProposed { token: 2 }));
    bed.run();
    assert_eq!(bed.controls(ONE).len() + bed.controls(TWO).len(), 2);
}

#[test]
fn an_empty_disk_waits_until_it_is_known_who_has_taken_part() {
    let new = Hello { is_new: true, ..hello(TWO) };
    let mut bed = Bed::new([hello(ONE), new]);
    bed.run();
    let greeting = Hello { to: ONE, ..new };
    let early = Some(Welcome::Refused(Refusal::Early));
    assert_eq!(answer_to(&mut bed, ONE, &greeting), early);
    let let_in = Some(Welcome::Accepted { version: 1 });
    let second = Hello { incarnation: 5, ..greeting };
    assert_eq!(answer_to(&mut bed, ONE, &second), let_in, "it has nothing to forget");
    let mut bed = Bed::new([hello(ONE), new]);
    bed.of(ONE).note_on_first_disk([ONE].into());
    assert_eq!(answer_to(&mut bed, ONE, &greeting), let_in);
    // Who is new itself knows no less than anybody.
    let mut bed = Bed::new([Hello { is_new: true, ..hello(ONE) }, new]);
    assert_eq!(answer_to(&mut bed, ONE, &greeting), let_in);
}

#[test]
fn what_is_no_broker_is_dropped() {
    let mut bed = Bed::new([hello(ONE), hello(TWO)]);
    let (conn, now) = (bed.conn(), bed.now);
    let peers = bed.of(ONE);
    peers.keep_up(now);
    peers.take_actions();
    peers.accepted(conn, LOCALHOST, now);
    peers.received(conn, b"GET / HTTP/1.1\r\n", now);
    assert!(peers.owns(conn), "too short to tell");
    peers.received(conn, b"Host: broker-1.rack-b.tailrace.example:9192\r\n\r\n", now);
    assert!(!peers.owns(conn));
    assert!(matches!(peers.take_actions()[..], [NetAction::Close { .. }]));
}
