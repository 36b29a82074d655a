//! One member of a group.

use bytes::Bytes;

use super::{JoinRequest, Name, Protocol, ReplyToken};

/// A member that has just joined is kept this long while its first rebalance runs, whatever its
/// session timeout: it cannot send heartbeats before it is answered.
pub(super) const NEW_MEMBER_TIMEOUT_MS: u64 = 300_000;

#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: Name,
    pub(super) instance_id: Option<Name>,
    pub(super) client_id: Name,
    pub(super) client_host: Name,
    pub(super) session_timeout_ms: u64,
    pub(super) rebalance_timeout_ms: u64,
    pub(super) protocols: Vec<Protocol>,
    pub(super) assignment: Bytes,
    /// The join that is answered when the rebalance is complete.
    pub(super) join: Option<ReplyToken>,
    /// The sync that is answered when the leader's assignment is recorded.
    pub(super) sync: Option<ReplyToken>,
    /// Joined in this rebalance for the first time.
    pub(super) new: bool,
    /// Has joined this generation and not yet sent its sync.
    pub(super) sync_due: bool,
    /// When the session ends without a sign of life.
    pub(super) session_end: u64,
    /// The earliest timer that is set for this session.
    pub(super) timer_at: Option<u64>,
}

impl Member {
    pub(super) fn new(id: Name, request: JoinRequest) -> Self {
        let mut member = Self {
            id,
            instance_id: request.instance_id.clone(),
            client_id: Name::from(""),
            client_host: Name::from(""),
            session_timeout_ms: 0,
            rebalance_timeout_ms: 0,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            join: None,
            sync: None,
            new: true,
            sync_due: false,
            session_end: 0,
            timer_at: None,
        };
        member.update(request);
        member
    }

    /// Takes over what a member says when it joins again; whether it is static does not change.
    pub(super) fn update(&mut self, request: JoinRequest) {
        self.client_id = request.client_id;
        self.client_host = request.client_host;
        self.session_timeout_ms = millis(request.session_timeout_ms);
        self.rebalance_timeout_ms = millis(request.rebalance_timeout_ms);
        self.protocols = owned(request.protocols);
    }

    /// This member's subscription in that protocol; empty if it does not know the protocol.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let known = self.protocols.iter().find(|p| &*p.name == protocol);
        known.map(|p| p.metadata.clone()).unwrap_or_default()
    }

    /// Waiting members are not expected to send heartbeats. A new one is still given up at the
    /// end of its longer session: its client may be gone for good.
    pub(super) fn is_waiting(&self) -> bool {
        !self.new && (self.join.is_some() || self.sync.is_some())
    }
}

/// A timeout from the wire; negative is none at all.
pub(super) fn millis(timeout_ms: i32) -> u64 {
    u64::try_from(timeout_ms).unwrap_or(0)
}

/// Copies the metadata, so that a member does not keep a whole request frame in memory.
fn owned(protocols: Vec<Protocol>) -> Vec<Protocol> {
    let copy = |p: Protocol| Protocol { metadata: Bytes::copy_from_slice(&p.metadata), ..p };
    protocols.into_iter().map(copy).collect()
}
