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

/// What happens to attempts by chance; the numbers are out of a thousand.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Weather {
    /// The way to the store and the way back take up to this, each.
    pub delay_max: Duration,
    /// Ways that take up to `stall_max` instead.
    pub stalls: u16,
    pub stall_max: Duration,
    /// Attempts that are not made.
    pub failures: u16,
    /// Attempts that are made and whose reply is lost.
    pub lost_replies: u16,
    /// Ranged reads that are cut short, or have a byte that is another one.
    pub damages: u16,
}

/// What chance did to attempts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Injected {
    pub stalls: usize,
    pub failures: usize,
    pub lost_replies: usize,
    pub damages: usize,
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
    weather: Weather,
    /// Without it there is no weather.
    random: Option<fastrand::Rng>,
    injected: Injected,
}

impl Faults {
    /// Faults that a seed decides, once there is a weather.
    pub fn seeded(seed: u64) -> Self {
        let random = Some(fastrand::Rng::with_seed(seed));
        Self(Arc::new(Mutex::new(State { random, ..State::default() })))
    }

    /// The weather from now on.
    pub fn set_weather(&self, weather: Weather) {
        let mut state = self.state();
        // What was drawn and did not strike yet belongs to the weather before.
        (state.lose_reply, state.damage) = (None, None);
        state.weather = weather;
    }

    pub fn injected(&self) -> Injected {
        self.state().injected
    }

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
        self.travel().await;
        let fault = self.take(verb).or_else(|| self.state().draw(verb));
        match fault {
            None | Some(Fault::None) => {}
            Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
            Some(Fault::Error(error)) => return Err(error),
            Some(Fault::LostReply) => self.state().lose_reply = Some(verb),
            Some(fault) => self.state().damage = Some(fault),
        }
        Ok(())
    }

    pub(super) async fn after(&self, verb: Verb) -> Result<(), StoreError> {
        let is_lost = self.state().lose_reply.take_if(|of| *of == verb).is_some();
        self.travel().await;
        if is_lost {
            let reason = "the reply was lost".to_owned();
            return Err(StoreError::Unavailable { verb, reason });
        }
        Ok(())
    }

    /// The way to the store or back.
    async fn travel(&self) {
        let delay = self.state().delay();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
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

impl State {
    fn delay(&mut self) -> Duration {
        let Some(random) = &mut self.random else { return Duration::ZERO };
        let stalls = random.u16(..1000) < self.weather.stalls;
        self.injected.stalls += usize::from(stalls);
        let most = if stalls { self.weather.stall_max } else { self.weather.delay_max };
        most.mul_f64(random.f64())
    }

    /// What chance has for an attempt.
    fn draw(&mut self, verb: Verb) -> Option<Fault> {
        let Weather { failures, lost_replies, damages, .. } = self.weather;
        let random = self.random.as_mut()?;
        let mut hits = |chance: u16| random.u16(..1000) < chance;
        if hits(failures) {
            self.injected.failures += 1;
            let reason = "bad weather".to_owned();
            return Some(Fault::Error(StoreError::Unavailable { verb, reason }));
        }
        if hits(lost_replies) {
            self.injected.lost_replies += 1;
            return Some(Fault::LostReply);
        }
        if verb == Verb::Get && hits(damages) {
            self.injected.damages += 1;
            let at = random.usize(1..4096);
            return Some(if random.bool() { Fault::Truncate(at) } else { Fault::Flip(at) });
        }
        None
    }
}
