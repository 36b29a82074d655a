//! What the store is asked and how it does, for the metrics page: plain counters that any thread
//! reads while the offload thread writes them.

use std::array;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::store::{StoreError, Verb};

const KIND_COUNT: usize = StoreError::KINDS.len();

/// Upper bounds of the latency buckets; a last one takes what is above them all.
pub const LATENCY_BOUNDS: [Duration; 13] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
];
const BUCKET_COUNT: usize = LATENCY_BOUNDS.len() + 1;

/// Whether requests are let through to the store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BreakerState {
    Closed,
    /// One request is on its way to see whether the store is back.
    HalfOpen,
    /// Requests fail at once.
    Open,
}

/// All counters start at 0 with the process.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    verbs: [VerbMetrics; Verb::ALL.len()],
    errors: [AtomicU64; KIND_COUNT],
    pub bytes_up: AtomicU64,
    pub bytes_down: AtomicU64,
    pub retries: AtomicU64,
    /// Retries not made because too many of the last requests failed.
    pub retries_refused: AtomicU64,
    pub hedges: AtomicU64,
    /// Hedged requests whose second attempt answered first.
    pub hedges_won: AtomicU64,
    pub cache_hits: AtomicU64,
    pub cache_misses: AtomicU64,
    pub cache_bytes: AtomicU64,
    /// Chunks asked for before a reader needed them.
    pub read_ahead: AtomicU64,
    /// Jobs taken from the shards and not answered yet.
    pub queue_depth: AtomicU64,
    breaker: AtomicU8,
}

/// Requests of one verb. A request that is retried counts once for each attempt.
#[derive(Debug, Default)]
pub struct VerbMetrics {
    buckets: [AtomicU64; BUCKET_COUNT],
    micros: AtomicU64,
}

impl StoreMetrics {
    pub fn verb(&self, verb: Verb) -> &VerbMetrics {
        &self.verbs[verb.index()]
    }

    /// Errors by kind, each with the kind's name.
    pub fn errors(&self) -> [(&'static str, u64); KIND_COUNT] {
        array::from_fn(|kind| (StoreError::KINDS[kind], self.errors[kind].load(Relaxed)))
    }

    pub fn breaker(&self) -> BreakerState {
        match self.breaker.load(Relaxed) {
            0 => BreakerState::Closed,
            1 => BreakerState::HalfOpen,
            _ => BreakerState::Open,
        }
    }

    pub(crate) fn set_breaker(&self, state: BreakerState) {
        let code = match state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        self.breaker.store(code, Relaxed);
    }

    pub(crate) fn count(&self, verb: Verb, latency: Duration, error: Option<&StoreError>) {
        self.verbs[verb.index()].record(latency);
        if let Some(error) = error {
            self.errors[error.kind_index()].fetch_add(1, Relaxed);
        }
    }
}

impl VerbMetrics {
    pub fn requests(&self) -> u64 {
        self.buckets().iter().sum()
    }

    /// Requests by latency: as many as [`LATENCY_BOUNDS`], and one more for those above. Each
    /// bucket counts its own requests only.
    pub fn buckets(&self) -> [u64; BUCKET_COUNT] {
        array::from_fn(|bucket| self.buckets[bucket].load(Relaxed))
    }

    pub fn latency_sum(&self) -> Duration {
        Duration::from_micros(self.micros.load(Relaxed))
    }

    fn record(&self, latency: Duration) {
        let bucket = LATENCY_BOUNDS.partition_point(|bound| *bound < latency);
        self.buckets[bucket].fetch_add(1, Relaxed);
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Relaxed);
    }
}

/// Requests by what they are billed as.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RequestCounts {
    /// Also every request of a multipart upload, and listings.
    pub puts: u64,
    pub gets: u64,
}

impl RequestCounts {
    pub fn of(metrics: &StoreMetrics) -> Self {
        let requests = |verb| metrics.verb(verb).requests();
        Self {
            puts: requests(Verb::Put) + requests(Verb::Multipart) + requests(Verb::List),
            gets: requests(Verb::Get),
        }
    }

    /// What a month costs in which these requests are made every `period`, by S3's list prices;
    /// deletions are free. Storage and traffic are not in it.
    #[expect(clippy::cast_precision_loss, reason = "an estimate, shown with two digits")]
    pub fn monthly_cost_dollars(self, period: Duration) -> f64 {
        const PUT_DOLLARS: f64 = 0.005 / 1000.0;
        const GET_DOLLARS: f64 = 0.0004 / 1000.0;
        const MONTH: Duration = Duration::from_hours(730);
        let dollars = self.puts as f64 * PUT_DOLLARS + self.gets as f64 * GET_DOLLARS;
        if period.is_zero() { 0.0 } else { dollars * MONTH.div_duration_f64(period) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_fall_into_their_buckets() {
        let metrics = StoreMetrics::default();
        let error = StoreError::NotFound { key: "a".to_owned() };
        metrics.count(Verb::Get, Duration::from_micros(10), None);
        metrics.count(Verb::Get, Duration::from_millis(1), Some(&error));
        metrics.count(Verb::Get, Duration::from_secs(60), None);
        let get = metrics.verb(Verb::Get);
        assert_eq!((get.buckets()[0], get.buckets()[13], get.requests()), (2, 1, 3));
        assert_eq!(get.latency_sum(), Duration::from_micros(60_001_010));
        assert_eq!(metrics.errors()[0], ("not_found", 1));
        assert_eq!(metrics.verb(Verb::Put).requests(), 0);
    }

    #[test]
    fn the_breaker_is_seen() {
        let metrics = StoreMetrics::default();
        assert_eq!(metrics.breaker(), BreakerState::Closed);
        for state in [BreakerState::Open, BreakerState::HalfOpen, BreakerState::Closed] {
            metrics.set_breaker(state);
            assert_eq!(metrics.breaker(), state);
        }
    }

    #[test]
    fn the_cost_is_that_of_the_price_list() {
        let metrics = StoreMetrics::default();
        for verb in Verb::ALL {
            metrics.count(verb, Duration::ZERO, None);
        }
        let counts = RequestCounts::of(&metrics);
        assert_eq!(counts, RequestCounts { puts: 3, gets: 1 });
        // One PUT a second is 2,628,000 a month, that is 13.14 dollars.
        let cost = RequestCounts { puts: 10, gets: 0 };
        let cost = cost.monthly_cost_dollars(Duration::from_secs(10));
        assert!((cost - 13.14).abs() < 1e-9, "{cost}");
        assert!(counts.monthly_cost_dollars(Duration::ZERO).abs() < f64::EPSILON);
    }
}
