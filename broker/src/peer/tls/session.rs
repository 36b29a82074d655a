//! TLS on one connection.

use std::io::{BufRead, IoSlice, Write};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use model::NodeId;
use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls::{ClientConnection, Connection, Error, InvalidMessage, ServerConnection};

use super::credentials::Credentials;
use super::reason::reason;

/// Bytes of a record at most, and of what a record is larger than what is in it.
const RECORD_SIZE: usize = 16 << 10;
const RECORD_OVERHEAD: usize = 32;

/// Its state is large, and seldom looked up.
#[derive(Debug)]
pub(super) struct Session(Box<Connection>);

/// Why a connection is not used, for the operators of both sides.
#[derive(Debug, thiserror::Error)]
pub(in crate::peer) enum SessionError {
    #[error("TLS: {}", reason(.0))]
    Tls(Error),
    #[error(
        "it does not speak TLS: all brokers of a cluster have `peer-tls-certificate`, \
         `peer-tls-key` and `peer-tls-ca`, or none has"
    )]
    NotTls,
    #[error("TLS: it has shown no certificate")]
    NoCertificate,
}

impl Session {
    /// The side that began the connection; it wants a node and no other.
    pub(super) fn dialed(credentials: &Credentials, node: NodeId) -> Self {
        let name = credentials.name_of(node).expect("a node's name is one of DNS");
        let session = ClientConnection::new(Arc::clone(&credentials.client), name);
        Self::new(session.expect("the system has randomness").into())
    }

    /// The other side.
    pub(super) fn accepted(credentials: &Credentials) -> Self {
        let session = ServerConnection::new(Arc::clone(&credentials.server));
        Self::new(session.expect("the system has randomness").into())
    }

    fn new(mut session: Connection) -> Self {
        // What is sealed leaves at once; the link bounds what the socket has not taken.
        session.set_buffer_limit(None);
        Self(Box::new(session))
    }

    pub(super) fn open(
        &mut self,
        mut sealed: &[u8],
        plain: &mut BytesMut,
    ) -> Result<(), SessionError> {
        while !sealed.is_empty() {
            // Fails if what arrived is larger than a record or a handshake may be.
            let taken = self.0.read_tls(&mut sealed);
            if taken.map_err(|error| Error::General(error.to_string()))? == 0 {
                // The other side said that it has ended; what comes after it is of no interest.
                return Ok(());
            }
            self.0.process_new_packets()?;
            let mut reader = self.0.reader();
            // An error says that there is nothing more, as an empty piece does.
            while let Ok(piece) = reader.fill_buf()
                && !piece.is_empty()
            {
                plain.extend_from_slice(piece);
                let size = piece.len();
                reader.consume(size);
            }
        }
        Ok(())
    }

    /// Pieces of one message share records. Before the handshake is over they wait in the session.
    pub(super) fn seal(&mut self, pieces: &[Bytes]) -> Vec<Bytes> {
        let slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        // An error was told of when it was found; the connection is about to be closed.
        let size = self.0.writer().write_vectored(&slices).unwrap_or_default();
        self.take_sealed(size + RECORD_OVERHEAD * (size / RECORD_SIZE + 1))
    }

    pub(super) fn unsent(&mut self) -> Vec<Bytes> {
        self.take_sealed(0)
    }

    fn take_sealed(&mut self, size_expected: usize) -> Vec<Bytes> {
        if !self.0.wants_write() {
            return Vec::new();
        }
        let mut sealed = Vec::with_capacity(size_expected);
        while self.0.wants_write() {
            self.0.write_tls(&mut sealed).expect("memory takes what is written to it");
        }
        vec![sealed.into()]
    }

    /// Is the other side's certificate of that node?
    pub(super) fn is_of(
        &self,
        credentials: &Credentials,
        node: NodeId,
    ) -> Result<(), SessionError> {
        let own = self.0.peer_certificates().and_then(<[_]>::first);
        let own = own.ok_or(SessionError::NoCertificate)?;
        let name = credentials.name_of(node);
        let name = name.map_err(|error| Error::General(error.to_string()))?;
        Ok(verify_server_name(&ParsedCertificate::try_from(own)?, &name)?)
    }
}

impl From<Error> for SessionError {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Self::NotTls,
            error => Self::Tls(error),
        }
    }
}
