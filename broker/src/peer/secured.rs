//! [`Peers`] where connections have TLS: what is heard through it, and what an operator is told of
//! connections that never get to a greeting.

use std::net::IpAddr;
use std::time::Instant;

use bytes::BytesMut;
use model::NodeId;
use uring::ConnId;

use super::hello::{Hello, Known, Refusal, Welcome, judge};
use super::tls::{SessionError, begins_tls, refuses_plain};
use super::{NetAction, PeerEvent, Peers};

/// For a broker without TLS that meets one with it.
const NO_TLS_HERE: &str = "it speaks TLS and this broker does not: all brokers of a cluster have \
                           `peer-tls-certificate`, `peer-tls-key` and `peer-tls-ca`, or none has";

/// What was told of strangers that is kept, so that each thing is told once.
const STRANGERS_MAX: usize = 64;

impl Peers {
    /// Sealed bytes arrived on a connection that [`Self::owns`].
    pub(super) fn received_sealed(&mut self, conn: ConnId, sealed: &[u8], now: Instant) {
        let mut heard = BytesMut::new();
        let inbound = self.inbound.get_mut(&conn);
        let is_inbound = inbound.is_some();
        let plain = inbound.map_or(&mut heard, |it| &mut it.buffer);
        let opened = self.tls.open(conn, sealed, plain);
        let pieces = self.tls.unsent(conn);
        if !pieces.is_empty() {
            self.actions.push(NetAction::Send { conn, pieces });
        }
        match opened {
            Err(error) => self.give_up(conn, &error, now),
            Ok(()) if is_inbound => self.take_frames(conn, now),
            Ok(()) if heard.is_empty() => {}
            Ok(()) => self.received_back(conn, &heard, now),
        }
    }

    /// What a broker has to say to a greeting.
    pub(super) fn verdict(&mut self, conn: ConnId, hello: &Hello, now: Instant) -> Welcome {
        if let Err(error) = self.tls.is_of(conn, hello.from) {
            let address = self.inbound.get(&conn).map(|it| it.address);
            let what = format!("it says that it is node {}: {error}", hello.from);
            address.into_iter().for_each(|address| self.tell_of_stranger(address, &what));
            return Welcome::Refused(Refusal::Certificate);
        }
        let is_first_disk = hello.incarnation == 0;
        let took_part = self.on_first_disk.as_ref().map(|nodes| nodes.contains(&hello.from));
        let known = Known {
            is_peer: self.links.contains_key(&hello.from),
            is_retired: self.retired.contains(&(hello.from, hello.incarnation)),
            is_running: self.is_running(hello, now),
            has_taken_part: is_first_disk && took_part == Some(true),
            // Where all are new nobody knows more, and nobody has anything to forget.
            is_early: is_first_disk && took_part.is_none() && !self.own.is_new,
        };
        judge(&self.own, known, hello)
    }

    /// Ends a connection that TLS does not stand for, once the other side has been told why.
    fn give_up(&mut self, conn: ConnId, error: &SessionError, now: Instant) {
        self.tls.closed(conn);
        self.actions.push(NetAction::CloseAfterSend { conn });
        if let Some(inbound) = self.inbound.remove(&conn) {
            match inbound.node {
                Some((node, _)) => self.notes.push(format!("node {node}: {error}")),
                None => self.tell_of_stranger(inbound.address, &error.to_string()),
            }
            return;
        }
        let Some((node, link)) = self.link_of(conn) else { return };
        let was_up = link.is_up();
        link.refused(now);
        self.events.extend(was_up.then_some(PeerEvent::Down { node }));
        self.tell(node, &error.to_string());
    }

    /// Gives up connections on which nobody greeted, or answered a greeting, in time.
    pub(super) fn give_up_late(&mut self, now: Instant) {
        let late = |deadline: Option<Instant>| deadline.is_some_and(|by| by <= now);
        let silent = self.inbound.extract_if(.., |_, it| late(it.deadline()));
        let silent: Vec<_> = silent.map(|(conn, it)| (conn, it.address)).collect();
        for (conn, address) in silent {
            self.tls.closed(conn);
            self.actions.push(NetAction::Close { conn });
            self.tell_of_stranger(address, "it has sent no greeting in time");
        }
        let unanswered = self
            .links
            .iter_mut()
            .filter_map(|(node, link)| link.give_up_if_due(now).map(|conn| (*node, conn)));
        let unanswered: Vec<_> = unanswered.collect();
        for (node, conn) in unanswered {
            self.tls.closed(conn);
            self.actions.push(NetAction::Close { conn });
            self.tell_unanswered(node, &[]);
        }
    }

    /// The connection to a node ended, or time was up, before its greeting was answered.
    pub(super) fn tell_unanswered(&mut self, node: NodeId, answer: &[u8]) {
        let reason = if refuses_plain(answer) {
            NO_TLS_HERE
        } else if self.tls.is_on() {
            "it does not answer; what it prints may say why, and whether it has TLS at all"
        } else {
            "it does not answer"
        };
        self.tell(node, reason);
    }

    /// What is no greeting, in the eyes of a broker without TLS.
    pub(super) fn tell_of_no_greeting(&mut self, address: IpAddr, bytes: &[u8]) {
        let reason = if begins_tls(bytes) { NO_TLS_HERE } else { "it is no Tailrace broker" };
        self.tell_of_stranger(address, reason);
    }

    pub(super) fn tell_of_stranger(&mut self, address: IpAddr, what: &str) {
        self.tell_of(address, format!("{address} connected as a broker: {what}"));
    }

    /// A broker that greeted as it should, and is refused.
    pub(super) fn tell_of_refused(&mut self, address: IpAddr, hello: &Hello, refusal: Refusal) {
        let node = hello.from;
        let line = format!(
            "node {node} at {address} is not let in: {refusal}{}",
            match refusal {
                Refusal::Version => {
                    let [(from, to), (own_from, own_to)] = [hello.versions, self.own.versions];
                    format!(" (it speaks {from} to {to}, this broker {own_from} to {own_to})")
                }
                Refusal::Cluster => {
                    format!(
                        " (it is of {}, this broker of {})",
                        hello.cluster_id, self.own.cluster_id
                    )
                }
                _ => String::new(),
            }
        );
        self.tell_of(address, line);
    }

    /// Tells the operator of somebody who connected and is not let in: each thing once, until
    /// somebody is let in.
    fn tell_of(&mut self, address: IpAddr, line: String) {
        if self.strangers.len() >= STRANGERS_MAX {
            self.strangers.clear();
        }
        let note = format!("shard {}: {line}", self.own.shard);
        if self.strangers.insert((address, line)) {
            self.notes.push(note);
        }
    }
}

#[cfg(test)]
mod tests;
