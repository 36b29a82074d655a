//! The other brokers of the cluster, for a shard: raft's messages to and from them, and commands
//! for group 0 that have to be proposed where it is led.

use std::net::IpAddr;
use std::time::Duration;

use model::{LogIndex, NodeId, RaftGroupId, Term};
use s3_uploader::Adoption;
use uring::ConnId;

use super::Shard;
use super::call::Origin;
use super::message::{CommandRefused, PartAnswer};
use super::metadata::METADATA_SHARD;
use crate::cluster::Command;
use crate::peer::PeerEvent;
use crate::peer::frame::{Control, Frame};
use crate::voter::{node_of, voter};

/// Between two words to the other brokers of what the bucket has of the metadata.
const STORED_INTERVAL: Duration = Duration::from_secs(1);
/// Clocks that are further apart than that are told of, ms.
const CLOCKS_APART_MS: i64 = 10_000;

impl Shard {
    /// Another broker connected.
    pub(crate) fn peer_accepted(&mut self, conn: ConnId, address: IpAddr) {
        self.peers.accepted(conn, address, self.now.instant);
    }

    /// An attempt to connect to another broker is over.
    pub(crate) fn peer_dialed(&mut self, node: NodeId, conn: Result<ConnId, String>) {
        self.peers.dialed(node, conn, self.now);
    }

    /// Takes in what the other brokers sent.
    pub(super) fn hear_peers(&mut self) {
        for event in self.peers.take_events() {
            match event {
                PeerEvent::Frame { from, frame: Frame::Raft(message) } => {
                    let from = self.voter_at(from);
                    self.note_catching_up(&message);
                    self.log.handle_message(from, message, self.now.instant);
                }
                PeerEvent::Frame { from, frame: Frame::Heartbeats(heartbeats) } => {
                    let from = self.voter_at(from);
                    self.log.handle_heartbeats(from, &heartbeats, self.now.instant);
                }
                PeerEvent::Frame { from, frame: Frame::Control(control) } => {
                    self.hear_control(from, control);
                }
                PeerEvent::LetIn { node, unix_ms } => self.compare_clocks(node, unix_ms),
                PeerEvent::Up { node } => {
                    self.tell_metadata_stored(node);
                    self.tell_leads_to(node);
                    self.tell_added_to(node);
                }
                PeerEvent::Gone { node } => self.log.handle_node_gone(self.voter_at(node)),
                PeerEvent::Down { node } => {
                    self.log.report_unreachable(self.voter_at(node));
                    self.abandon_forwarded(node);
                }
            }
        }
    }

    /// Nothing that was acknowledged hangs on clocks, but what users see of time does.
    fn compare_clocks(&mut self, node: NodeId, unix_ms: i64) {
        let ahead = unix_ms.saturating_sub(self.now.unix_ms);
        if self.id != METADATA_SHARD || ahead.saturating_abs() < CLOCKS_APART_MS {
            return;
        }
        // What it says is some milliseconds old.
        let seconds = ahead.saturating_abs().saturating_add(500) / 1000;
        let word = if ahead > 0 { "ahead of" } else { "behind" };
        self.notes.push(format!(
            "node {node}: its clock is {seconds} s {word} this broker's: set the clocks of both \
             (NTP); the limits of timestamps, LogAppendTime and retention by time go by the clock \
             of who leads"
        ));
    }

    /// The number of a broker among the members of groups, by what it said last.
    pub(super) fn voter_at(&self, node: NodeId) -> u64 {
        voter(node, self.peers.incarnation(node).unwrap_or(0))
    }

    /// The node of a member, if it has that disk now, by what it said last.
    pub(super) fn node_at(&self, member: u64) -> Option<NodeId> {
        node_of(member).filter(|node| self.voter_at(*node) == member)
    }

    /// Sends what raft has for the other brokers.
    pub(super) fn send_to_peers(&mut self) {
        for (to, message) in self.log.take_outgoing() {
            // What is for a disk that is gone would only fill the connection.
            let node = self.node_at(to);
            if !node.is_some_and(|node| self.peers.send(node, &message)) && message.has_entries() {
                // It goes on when the next answer comes; until then nothing piles up.
                self.log.report_unreachable(to);
            }
        }
        for (to, heartbeats) in self.log.take_heartbeats() {
            if let Some(node) = self.node_at(to) {
                self.peers.send_heartbeats(node, &heartbeats);
            }
        }
        self.actions.append(&mut self.peers.take_actions());
        self.notes.append(&mut self.peers.take_notes());
    }

    /// The broker stops: another one is to lead what this one leads.
    pub(crate) fn hand_over(&mut self) {
        let peers = &self.peers;
        self.log.hand_over(|voter| node_of(voter).is_some_and(|node| peers.is_up(node)));
    }

    /// Does this broker still lead what another one could?
    pub(crate) fn could_hand_over(&self) -> bool {
        self.peers.any_up() && self.log.leads_any()
    }

    fn hear_control(&mut self, from: NodeId, control: Control) {
        match control {
            Control::Propose { token, command } => {
                // What a broker encoded is a command of its version: another one is refused.
                let proposed = Command::decode(&command).ok();
                let place = proposed.and_then(|it| self.try_propose_command(&it).ok());
                let answer = match place {
                    Some((term, index)) => {
                        Control::Proposed { token, term: term.get(), index: index.get() }
                    }
                    None => Control::NotProposed { token },
                };
                self.peers.send_control(from, &answer);
            }
            Control::Proposed { token, term, index } => {
                if let Some((_, origin, since)) = self.metadata.forwarded.remove(&token) {
                    let place = (Term::new(term), LogIndex::new(index));
                    self.metadata.await_command(place, origin, since);
                }
            }
            Control::NotProposed { token } => {
                if let Some((_, origin, _)) = self.metadata.forwarded.remove(&token) {
                    let refused = CommandRefused::NotLeader;
                    self.answer(origin, PartAnswer::Command(Err(refused)));
                }
            }
            Control::WalRoom { bytes } => self.hear_room(from, bytes),
            Control::Load { shard, busy, bytes, partitions } => {
                self.hear_load_of(from, shard, (busy, bytes), &partitions);
            }
            Control::Leads { led } => self.hear_leads(from, &led),
            Control::Prefer { groups } => {
                groups
                    .into_iter()
                    .for_each(|group| self.hand_over_to_first(RaftGroupId::new(group)));
            }
            Control::HandOver { adoption } => {
                if let Ok(adoption) = Adoption::decode(&adoption) {
                    self.ask_to_adopt(adoption);
                }
            }
            Control::Added { version, commands } => {
                self.hear_added(LogIndex::new(version), &commands);
            }
            Control::MetadataStored { upto } => {
                self.node.set_metadata_stored(LogIndex::new(upto));
            }
        }
    }

    /// Has the leader of group 0 propose a command; false if there is none that could be asked.
    pub(super) fn forward_command(&mut self, origin: Origin, command: &Command) -> bool {
        let Some((leader, _)) = self.node.leader(RaftGroupId::METADATA) else { return false };
        self.metadata.last_token += 1;
        let token = self.metadata.last_token;
        let propose = Control::Propose { token, command: command.encode().into() };
        let sent = leader != self.node.id && self.peers.send_control(leader, &propose);
        if sent {
            self.metadata.forwarded.insert(token, (leader, origin, self.now.instant));
        }
        sent
    }

    /// Nothing is heard any more of the commands that a broker was asked to propose.
    fn abandon_forwarded(&mut self, node: NodeId) {
        let lost = self.metadata.forwarded.extract_if(.., |_, (asked, ..)| *asked == node);
        let lost: Vec<_> = lost.map(|(_, (_, origin, _))| origin).collect();
        for origin in lost {
            self.answer(origin, PartAnswer::Command(Err(CommandRefused::NotLeader)));
        }
    }

    /// The metadata in the bucket is newer than before: the leaders of other groups wait for that.
    pub(super) fn metadata_stored(&mut self, upto: LogIndex) {
        debug_assert_eq!(self.id, METADATA_SHARD);
        self.node.set_metadata_stored(upto);
        self.tell_all_metadata_stored();
    }

    /// Said again now and then: what was said may be lost, or said when others led.
    pub(super) fn repeat_metadata_stored(&mut self) {
        let told = self.metadata.told_stored;
        let due = |at| self.now.instant.saturating_duration_since(at) >= STORED_INTERVAL;
        if told.is_none_or(due) {
            self.tell_all_metadata_stored();
        }
    }

    fn tell_all_metadata_stored(&mut self) {
        self.metadata.told_stored = Some(self.now.instant);
        let others: Vec<_> = self.peers.nodes().collect();
        for node in others {
            self.tell_metadata_stored(node);
        }
    }

    fn tell_metadata_stored(&mut self, node: NodeId) {
        if self.log.leads(RaftGroupId::METADATA).is_some() {
            let upto = self.node.metadata_stored().get();
            self.peers.send_control(node, &Control::MetadataStored { upto });
        }
    }
}
