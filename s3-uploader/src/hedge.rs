//! A second request for a read whose first one is slower than nearly all before it: of the two the
//! first answer counts. Most of a store's slow answers are one slow server, not a slow store.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::StoreMetrics;
use crate::store::StoreError;

const SAMPLES_MAX: usize = 128;
const SAMPLES_MIN: usize = 16;
const DELAY_FIRST: Duration = Duration::from_millis(500);
const DELAY_MIN: Duration = Duration::from_millis(20);
const DELAY_MAX: Duration = Duration::from_secs(2);
/// One read in ten may be made twice: when all of the store gets slow, more would only add load.
const CREDIT_FULL: u32 = 100;
const CREDIT_HEDGE: u32 = 10;

/// Decides when a read is made a second time.
#[derive(Debug)]
pub(crate) struct Hedge {
    latencies: RefCell<VecDeque<Duration>>,
    credit: Cell<u32>,
    metrics: Arc<StoreMetrics>,
}

impl Hedge {
    pub(crate) fn new(metrics: Arc<StoreMetrics>) -> Self {
        Self { latencies: RefCell::default(), credit: Cell::new(CREDIT_FULL), metrics }
    }

    /// An error of one of the two requests is only the outcome once the other has failed as well.
    pub(crate) async fn run<T>(
        &self,
        read: impl AsyncFn() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let outcome = self.first_of_two(&read).await;
        if outcome.is_ok() {
            self.record(started.elapsed());
        }
        outcome
    }

    async fn first_of_two<T>(
        &self,
        read: &impl AsyncFn() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.credit.set((self.credit.get() + 1).min(CREDIT_FULL));
        let mut first = Box::pin(read());
        if let Ok(outcome) = tokio::time::timeout(self.delay(), &mut first).await {
            return outcome;
        }
        let Some(credit) = self.credit.get().checked_sub(CREDIT_HEDGE) else {
            return first.await;
        };
        self.credit.set(credit);
        self.metrics.hedges.fetch_add(1, Relaxed);
        let mut second = Box::pin(read());
        tokio::select! {
            biased;
            outcome = &mut first => match outcome {
                Ok(value) => Ok(value),
                Err(_) => self.won(second.await),
            },
            outcome = &mut second => match outcome {
                Ok(value) => self.won(Ok(value)),
                Err(_) => first.await,
            },
        }
    }

    fn won<T>(&self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        if outcome.is_ok() {
            self.metrics.hedges_won.fetch_add(1, Relaxed);
        }
        outcome
    }

    /// What 95 of 100 of the last reads took at most.
    fn delay(&self) -> Duration {
        let latencies = self.latencies.borrow();
        if latencies.len() < SAMPLES_MIN {
            return DELAY_FIRST;
        }
        let mut sorted: Vec<Duration> = latencies.iter().copied().collect();
        sorted.sort_unstable();
        sorted[sorted.len() * 95 / 100].clamp(DELAY_MIN, DELAY_MAX)
    }

    fn record(&self, latency: Duration) {
        let mut latencies = self.latencies.borrow_mut();
        if latencies.len() == SAMPLES_MAX {
            latencies.pop_front();
        }
        latencies.push_back(latency);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Verb;

    fn hedge() -> Hedge {
        Hedge::new(Arc::new(StoreMetrics::default()))
    }

    /// The n-th request of a read takes `millis[n]`, and fails if that is odd.
    async fn read(hedge: &Hedge, millis: [u64; 2]) -> (Result<usize, StoreError>, Duration) {
        let calls = Cell::new(0);
        let started = Instant::now();
        let outcome = hedge.run(async || {
            let call = calls.get();
            calls.set(call + 1);
            tokio::time::sleep(Duration::from_millis(millis[call])).await;
            let reason = call.to_string();
            let failed = StoreError::Unavailable { verb: Verb::Get, reason };
            if millis[call].is_multiple_of(2) { Ok(call) } else { Err(failed) }
        });
        (outcome.await, started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_of_two_counts() {
        let hedge = hedge();
        for _ in 0..SAMPLES_MAX {
            assert_eq!(read(&hedge, [30, 0]).await, (Ok(0), Duration::from_millis(30)));
        }
        assert_eq!(read(&hedge, [4000, 10]).await, (Ok(1), Duration::from_millis(40)));
        assert_eq!(read(&hedge, [50, 1000]).await, (Ok(0), Duration::from_millis(50)));
        assert_eq!(hedge.metrics.hedges.load(Relaxed), 2);
        assert_eq!(hedge.metrics.hedges_won.load(Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_waits_for_the_other_answer() {
        let hedge = hedge();
        let (outcome, took) = read(&hedge, [11, 0]).await;
        assert!(outcome.is_err(), "before the delay there is no second request");
        assert_eq!(took, Duration::from_millis(11));
        assert_eq!(read(&hedge, [601, 200]).await, (Ok(1), Duration::from_millis(700)));
        assert_eq!(read(&hedge, [900, 101]).await, (Ok(0), Duration::from_millis(900)));
        assert!(read(&hedge, [601, 201]).await.0.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_store_is_not_asked_twice_for_everything() {
        let hedge = hedge();
        for _ in 0..200 {
            read(&hedge, [10_000, 10_000]).await.0.expect("an answer");
        }
        let hedges = hedge.metrics.hedges.load(Relaxed);
        assert!((20..=32).contains(&hedges), "{hedges}");
    }
}
