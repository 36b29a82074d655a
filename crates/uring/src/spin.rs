//! How long a core looks for work before it sleeps.
//!
//! Waking up takes longer than a fast device's write, so a request that finds its core asleep pays
//! for it. A core that is asked often therefore keeps looking: if the time from one piece of work
//! to the next was short lately, it rests for half of it and then looks until twice that time. One
//! that is asked seldom sleeps after a moment, and an idle one costs nothing.
//!
//! The rest is what else lives on the core: with none, kernel threads and the host of a virtual
//! machine took their time at the worst moments, and p99.9 doubled. And a core that looks gives way
//! each time, which Linux 6.18 takes as an offer of a whole time slice: a thread with much to do
//! keeps the core until the next tick, 4 ms. One that sleeps is let in at once when there is work
//! for it. So where another thread took the core, and soon again, it sleeps. Once is no sign of
//! one: the host takes a core for as long, and a core that sleeps pays for it with each write.

use std::time::Duration;

/// A pause counts for an eighth, so some eight of them make up the mind.
const WEIGHT: u32 = 8;

/// A look at an empty ring takes 1 to 2 us, and some 50 with a kernel thread in between that
/// completes a write. What takes longer was a thread with work of its own.
const TAKEN: Duration = Duration::from_millis(1);

/// A shorter rest is not worth going to sleep for.
const REST_MIN: Duration = Duration::from_micros(100);

/// A thread with work takes the core again within so many events.
const AGAIN: u32 = 256;

/// So many events later it is tried again.
const HOLD_OFF: u32 = 4096;

/// Decides from pauses between pieces of work.
#[derive(Debug)]
pub(crate) struct Spin {
    /// Always looked for that long.
    base: Duration,
    /// Pauses up to here are looked through.
    pause_max: Duration,
    /// Decaying average.
    pause: Duration,
    /// Events until the core is looked on with again, after another thread took it.
    held_off: u32,
    /// Events in which it would be taken again by a thread that took it.
    suspected: u32,
}

impl Spin {
    /// With a `pause_max` of zero it is never more than `base`.
    pub(crate) fn new(base: Duration, pause_max: Duration) -> Self {
        Self { base, pause_max, pause: pause_max * 2, held_off: 0, suspected: 0 }
    }

    /// How long after the last piece of work to look for the next one; at least so long if a write
    /// is under way.
    pub(crate) fn time(&self, least: Duration) -> Duration {
        if self.held_off > 0 {
            Duration::ZERO
        } else if self.pause > self.pause_max {
            self.base.max(least)
        } else {
            self.base.max(self.pause * 2).max(least)
        }
    }

    /// How long to sleep before looking: half of the usual pause, where that is looked through.
    /// What else needs the core gets it then.
    pub(crate) fn rest(&self) -> Duration {
        let looks_through = self.held_off == 0 && self.pause <= self.pause_max;
        let rest = if looks_through { self.pause / 2 } else { Duration::ZERO };
        if rest < REST_MIN { Duration::ZERO } else { rest }
    }

    /// There was work. `pause` is the time since the last one, if nothing was under way meanwhile;
    /// it counts as twice `pause_max` at most, so that a long one is not remembered for longer than
    /// any other that is not looked through.
    pub(crate) fn worked(&mut self, pause: Option<Duration>) {
        self.held_off = self.held_off.saturating_sub(1);
        self.suspected = self.suspected.saturating_sub(1);
        if let Some(pause) = pause {
            let pause = pause.min(self.pause_max * 2);
            self.pause = (self.pause * (WEIGHT - 1) + pause) / WEIGHT;
        }
    }

    /// A look that found nothing took so long.
    pub(crate) fn looked(&mut self, took: Duration) {
        if took < TAKEN {
            return;
        }
        if self.suspected > 0 {
            self.held_off = HOLD_OFF;
        }
        self.suspected = AGAIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_micros(100);
    const PAUSE_MAX: Duration = Duration::from_millis(2);
    const NOTHING: Duration = Duration::ZERO;

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// After that many pauses of 700 us.
    fn steady(count: u32) -> Spin {
        let mut spin = Spin::new(BASE, PAUSE_MAX);
        (0..count).for_each(|_| spin.worked(Some(micros(700))));
        spin
    }

    #[test]
    fn steady_work_is_waited_for_and_seldom_work_is_not() {
        assert_eq!(steady(6).time(NOTHING), BASE, "not yet");
        assert!(steady(9).time(NOTHING) > PAUSE_MAX);
        let mut spin = steady(40);
        assert!(spin.time(NOTHING) > micros(1400) && spin.time(NOTHING) < micros(1500), "{spin:?}");
        assert!(spin.rest() > micros(350) && spin.rest() < micros(375), "{spin:?}");
        spin.worked(Some(Duration::from_secs(3600)));
        assert!(spin.time(NOTHING) > micros(1400), "one long pause is no habit");
        (0..20).for_each(|_| spin.worked(Some(Duration::from_secs(1))));
        assert_eq!((spin.time(NOTHING), spin.rest()), (BASE, NOTHING));
        assert_eq!(spin.time(micros(1000)), micros(1000), "a write is under way");
    }

    #[test]
    fn work_without_pauses_is_looked_for_as_long_as_any() {
        let mut spin = Spin::new(BASE, PAUSE_MAX);
        (0..100).for_each(|_| spin.worked(Some(NOTHING)));
        assert_eq!((spin.time(NOTHING), spin.rest()), (BASE, NOTHING));
    }

    #[test]
    fn a_core_that_another_thread_takes_is_left_to_it() {
        let mut spin = steady(40);
        spin.looked(micros(50));
        assert!(spin.time(NOTHING) > micros(1400), "a kernel thread that was soon done");
        for _ in 0..2 {
            spin.looked(Duration::from_millis(4));
            assert!(spin.time(NOTHING) > micros(1400), "once in a while it may have been the host");
            (0..AGAIN).for_each(|_| spin.worked(None));
        }
        (0..2).for_each(|_| spin.looked(Duration::from_millis(4)));
        for _ in 0..HOLD_OFF {
            assert_eq!((spin.time(micros(1000)), spin.rest()), (NOTHING, NOTHING));
            spin.worked(None);
        }
        assert!(spin.time(NOTHING) > micros(1400), "it is tried again");
    }

    #[test]
    fn a_limit_of_zero_switches_it_off() {
        let mut spin = Spin::new(BASE, NOTHING);
        (0..100).for_each(|_| spin.worked(Some(micros(1))));
        assert_eq!(spin.time(NOTHING), BASE);
        let mut never = Spin::new(NOTHING, NOTHING);
        never.worked(Some(NOTHING));
        assert_eq!(never.time(NOTHING), NOTHING);
    }
}
