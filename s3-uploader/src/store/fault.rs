//! A store that misbehaves as told, for tests: the real store with faults in front of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::store::{StoreError, Verb};

/// What goes wrong with one attempt of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fault {
    /// None: to let an attempt pass before others.
    None,
    /// The attempt is made this much later.
    Delay(Duration),
    /// The attempt is not made.
    Error(StoreError),
    /// The attempt is made and its reply lost.
    LostReply,
    /// A ranged read ends this many bytes early.
    Truncate(usize),
    /// This byte of a ranged read is another one.
    Flip(usize),
}

/// A handle on the faults to come; clones are one and the same.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    next: VecDeque<(Verb, Fault)>,
    always: Vec<(Verb, Fault)>,
    lose_reply: Option<Verb>,
    damage: Option<Fault>,
}

impl Faults {
    /// The next attempt of that verb for which none was queued before gets this fault.
    pub fn next(&self, verb: Verb, fault: Fault) {
        self.state().next.push_back((verb, fault));
    }

    /// Every attempt of that verb gets this fault, until [`Self::clear`].
    pub fn always(&self, verb: Verb, fault: Fault) {
        self.state().always.push((verb, fault));
    }

    pub fn clear(&self) {
        *self.state() = State::default();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, verb: Verb) -> Option<Fault> {
        let mut state = self.state();
        let queued = state.next.iter().position(|(of, _)| *of == verb);
        let fault = queued.and_then(|at| state.next.remove(at));
        let fault = fault.or_else(|| state.always.iter().find(|(of, _)| *of == verb).cloned());
        fault.map(|(_, fault)| fault)
    }

    pub(super) async fn before(&self, verb: Verb) -> Result<(), StoreError> {
        match self.take(verb) {
            None | Some(Fault::None) => {}
            Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
            Some(Fault::Error(error)) => return Err(error),
            Some(Fault::LostReply) => self.state().lose_reply = Some(verb),
            Some(fault) => self.state().damage = Some(fault),
        }
        Ok(())
    }

    pub(super) fn after(&self, verb: Verb) -> Result<(), StoreError> {
        if self.state().lose_reply.take_if(|of| *of == verb).is_some() {
            let reason = "the reply was lost".to_owned();
            return Err(StoreError::Unavailable { verb, reason });
        }
        Ok(())
    }

    pub(super) fn damage(&self, bytes: Bytes) -> Bytes {
        match self.state().damage.take() {
            Some(Fault::Truncate(count)) => bytes.slice(..bytes.len().saturating_sub(count)),
            Some(Fault::Flip(at)) if at < bytes.len() => {
                let mut bytes = bytes.to_vec();
                bytes[at] ^= 0x40;
                Bytes::from(bytes)
            }
            _ => bytes,
        }
    }
}
