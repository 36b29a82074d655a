//! What a shard does once a minute: clients that said nothing for long are closed, producers that
//! wrote nothing for long are forgotten.

use std::time::{Duration, Instant};

use super::Shard;
use crate::net::NetAction;

const INTERVAL: Duration = Duration::from_secs(60);

/// When upkeep is next due.
pub(crate) struct Upkeep {
    next: Instant,
}

impl Upkeep {
    pub(crate) fn new(now: Instant) -> Self {
        Self { next: now + INTERVAL }
    }

    pub(crate) fn next_deadline(&self) -> Instant {
        self.next
    }
}

impl Shard {
    /// Does the upkeep if it is due.
    pub(crate) fn keep_up(&mut self) {
        let now = self.now.instant;
        if now < self.upkeep.next {
            return;
        }
        self.upkeep = Upkeep::new(now);
        let settings = &self.node.settings.broker;
        let expiration = i64::try_from(settings.producer_id_expiration.as_millis());
        self.hosting.expire_producers(self.now.unix_ms, expiration.unwrap_or(i64::MAX));
        if let Some(idle_max) = settings.connections_max_idle {
            for conn in self.connections.idle_since(now.checked_sub(idle_max)) {
                self.actions.push(NetAction::CloseAfterSend { conn });
                self.closed(conn);
            }
        }
    }
}
