//! Time of a measurement: nanoseconds since its start.

use std::time::{Duration, Instant};

/// Reads the monotonic clock; copies share their start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the clock is what is measured with")]
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Nanoseconds since the start.
    pub(crate) fn now(self) -> u64 {
        nanos(self.start.elapsed())
    }
}

/// How much of a time this thread wanted to run and could not, because others ran on its core.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contention {
    clock: Clock,
    waited_ns: u64,
}

impl Contention {
    pub(crate) fn start() -> Self {
        Self { clock: Clock::start(), waited_ns: waited_ns() }
    }

    /// From the start to now, as a percentage; 0 if the kernel does not tell.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 ns")]
    pub(crate) fn percent(self) -> f64 {
        let waited = waited_ns().saturating_sub(self.waited_ns);
        waited as f64 / self.clock.now().max(1) as f64 * 100.0
    }
}

/// Of this thread, since it was started.
fn waited_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').nth(1).and_then(|waited| waited.parse().ok()).unwrap_or_default()
}

/// A duration in nanoseconds; 584 years at most.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Blocks this thread.
#[expect(clippy::disallowed_methods, reason = "nothing is measured on this thread meanwhile")]
pub(crate) fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}
