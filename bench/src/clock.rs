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

/// A duration in nanoseconds; 584 years at most.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Blocks this thread.
#[expect(clippy::disallowed_methods, reason = "nothing is measured on this thread meanwhile")]
pub(crate) fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}
