//! Waking a sleeping reactor from another core or thread.
//!
//! No wake is lost: a sender first puts its message into the inbox and then rings; the receiver
//! first sets `sleeping` and then looks into the inbox once more. Both touch `sleeping` by a
//! read-modify-write, so one of the two sees the other: either the sender finds `true` and wakes
//! the receiver, or the receiver's exchange comes later and it finds the message.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rings one reactor; cheap to clone, and harmless after the reactor has gone.
#[derive(Clone, Debug)]
pub struct Doorbell {
    bell: Arc<Bell>,
}

#[derive(Debug)]
pub(crate) struct Bell {
    sleeping: AtomicBool,
    /// A duplicate, so that the number cannot come to mean another file while a bell is held.
    pub(crate) ring: OwnedFd,
    pub(crate) eventfd: OwnedFd,
}

impl Doorbell {
    pub(crate) fn new(bell: Arc<Bell>) -> Self {
        Self { bell }
    }

    /// Wakes the reactor if it sleeps; call it after the message is in the reactor's inbox. From
    /// a thread that drives a reactor itself, `Io::ring` is cheaper.
    pub fn ring(&self) {
        if self.bell.answer() {
            self.bell.wake();
        }
    }

    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }
}

impl Bell {
    pub(crate) fn new(ring: OwnedFd, eventfd: OwnedFd) -> Arc<Self> {
        Arc::new(Self { sleeping: AtomicBool::new(false), ring, eventfd })
    }

    /// The receiver is about to sleep; it must look into its inbox after this.
    pub(crate) fn fall_asleep(&self) {
        self.sleeping.swap(true, Ordering::SeqCst);
    }

    pub(crate) fn stay_awake(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// Whether this caller, and nobody else, must wake the receiver.
    pub(crate) fn answer(&self) -> bool {
        self.sleeping.swap(false, Ordering::SeqCst)
    }

    /// Wakes through the eventfd.
    pub(crate) fn wake(&self) {
        // It fails only when the counter is full, and then the receiver is being woken already.
        let _ = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
    }
}
