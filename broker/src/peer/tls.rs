//! TLS on the connections of a shard to other brokers, where the configuration asks for it: plain
//! bytes in, sealed ones out, and back. No I/O, as in all of `peer/`.
//!
//! Both sides show a certificate that an authority of the cluster signed. The side that connects
//! wants that of the node that it dialed; the other side learns in the greeting which node the
//! certificate is to be of ([`Tls::is_of`]).

pub(crate) mod credentials;
mod reason;
mod session;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use model::NodeId;
use uring::ConnId;

use self::credentials::Credentials;
use self::session::Session;

pub(super) use self::session::SessionError;

/// The first bytes of a TLS record that begins a handshake, and of one that refuses it.
const HANDSHAKE: [u8; 2] = [22, 3];
const ALERT: [u8; 2] = [21, 3];

/// See the module's text.
#[derive(Debug)]
pub(super) struct Tls {
    /// None: all connections are plain.
    credentials: Option<Arc<Credentials>>,
    sessions: BTreeMap<ConnId, Session>,
}

impl Tls {
    pub(super) fn new(credentials: Option<Arc<Credentials>>) -> Self {
        Self { credentials, sessions: BTreeMap::new() }
    }

    pub(super) fn is_on(&self) -> bool {
        self.credentials.is_some()
    }

    /// This broker connected to a node.
    pub(super) fn dialed(&mut self, conn: ConnId, node: NodeId) {
        if let Some(credentials) = &self.credentials {
            self.sessions.insert(conn, Session::dialed(credentials, node));
        }
    }

    /// Somebody connected to this broker.
    pub(super) fn accepted(&mut self, conn: ConnId) {
        if let Some(credentials) = &self.credentials {
            self.sessions.insert(conn, Session::accepted(credentials));
        }
    }

    pub(super) fn closed(&mut self, conn: ConnId) {
        self.sessions.remove(&conn);
    }

    #[cfg(test)]
    pub(super) fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Adds to `plain` what arrived in `sealed`.
    ///
    /// # Errors
    ///
    /// The other side is not let in, or sent what nobody can read. What [`Self::unsent`] has then
    /// tells it why.
    pub(super) fn open(
        &mut self,
        conn: ConnId,
        sealed: &[u8],
        plain: &mut BytesMut,
    ) -> Result<(), SessionError> {
        self.sessions.get_mut(&conn).map_or(Ok(()), |session| session.open(sealed, plain))
    }

    /// What goes out for these pieces: the same ones where there is no TLS.
    pub(super) fn seal(&mut self, conn: ConnId, pieces: Vec<Bytes>) -> Vec<Bytes> {
        if !self.is_on() {
            return pieces;
        }
        // Without a session the connection is gone: nothing may leave unsealed.
        self.sessions.get_mut(&conn).map_or_else(Vec::new, |session| session.seal(&pieces))
    }

    /// What TLS itself has to say: its part of the handshake, and why it ends a connection.
    pub(super) fn unsent(&mut self, conn: ConnId) -> Vec<Bytes> {
        self.sessions.get_mut(&conn).map_or_else(Vec::new, Session::unsent)
    }

    /// Is the other side of a connection the node that it says it is?
    ///
    /// # Errors
    ///
    /// Its certificate does not name that node.
    pub(super) fn is_of(&self, conn: ConnId, node: NodeId) -> Result<(), SessionError> {
        let Some(credentials) = &self.credentials else { return Ok(()) };
        let session = self.sessions.get(&conn).ok_or(SessionError::NoCertificate)?;
        session.is_of(credentials, node)
    }
}

/// Does somebody begin TLS with these bytes?
pub(super) fn begins_tls(bytes: &[u8]) -> bool {
    bytes.starts_with(&HANDSHAKE)
}

/// Does somebody who expects TLS refuse with these bytes what is none?
pub(super) fn refuses_plain(bytes: &[u8]) -> bool {
    bytes.starts_with(&ALERT)
}
