//! How a request is made that may fail: with a deadline, again if that may help, and not at all
//! while the store is known to be down.
//!
//! Three bounds keep a sick store from being asked ever more: attempts of one request, a budget of
//! retries that only successes refill, and a breaker that lets one request through at a time once
//! several in a row have failed.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::{BreakerState, StoreMetrics};
use crate::store::{StoreError, Verb};

/// Bounds of one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RetryPolicy {
    /// The first included.
    pub attempts_max: u32,
    /// For one attempt, to which the time for its bytes is added.
    pub deadline: Duration,
    /// The slowest transfer that is waited for.
    pub bytes_per_second_min: u64,
    /// The most that is slept before the second attempt; it doubles with each further one.
    pub delay: Duration,
    pub delay_max: Duration,
    /// Failures in a row that open the breaker.
    pub failures_max: u32,
    /// How long the breaker stays open at first; it doubles with each failed probe.
    pub open: Duration,
    pub open_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts_max: 4,
            deadline: Duration::from_secs(10),
            bytes_per_second_min: 1024 * 1024,
            delay: Duration::from_millis(100),
            delay_max: Duration::from_secs(5),
            failures_max: 8,
            open: Duration::from_secs(1),
            open_max: Duration::from_secs(30),
        }
    }
}

impl RetryPolicy {
    /// For an attempt that carries `size` bytes.
    fn deadline_for(&self, size: u64) -> Duration {
        let millis = size.saturating_mul(1000) / self.bytes_per_second_min.max(1);
        self.deadline + Duration::from_millis(millis)
    }

    /// Full jitter: anything up to the doubled delay, so that those who failed together do not
    /// come back together.
    pub(crate) fn delay_before(&self, attempt: u32, random: &mut fastrand::Rng) -> Duration {
        let doubled = self.delay.saturating_mul(1 << attempt.saturating_sub(1).min(16));
        jitter(doubled.min(self.delay_max), random)
    }
}

fn jitter(most: Duration, random: &mut fastrand::Rng) -> Duration {
    most.mul_f64(random.f64())
}

/// Makes the requests of one store.
#[derive(Debug)]
pub(crate) struct Requests {
    policy: RetryPolicy,
    budget: RetryBudget,
    breaker: RefCell<Breaker>,
    random: RefCell<fastrand::Rng>,
    metrics: Arc<StoreMetrics>,
}

impl Requests {
    pub(crate) fn new(policy: RetryPolicy, seed: u64, metrics: Arc<StoreMetrics>) -> Self {
        Self {
            policy,
            budget: RetryBudget::default(),
            breaker: RefCell::new(Breaker::Closed { failures: 0 }),
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
            metrics,
        }
    }

    pub(crate) fn metrics(&self) -> &Arc<StoreMetrics> {
        &self.metrics
    }

    pub(crate) fn random(&self) -> &RefCell<fastrand::Rng> {
        &self.random
    }

    /// Calls `attempt`, which carries `size` bytes, until it succeeds, fails for good, or has been
    /// called often enough.
    pub(crate) async fn run<T>(
        &self,
        verb: Verb,
        size: u64,
        mut attempt: impl AsyncFnMut() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let after = self.policy.deadline_for(size);
        let mut attempts = 0;
        loop {
            let pass = self.enter(verb)?;
            let started = Instant::now();
            let outcome = tokio::time::timeout(after, attempt()).await;
            let outcome = outcome.unwrap_or(Err(StoreError::Timeout { verb, after }));
            self.metrics.count(verb, started.elapsed(), outcome.as_ref().err());
            pass.leave(outcome.as_ref().err());
            attempts += 1;
            let error = match outcome {
                Ok(value) => {
                    self.budget.refill();
                    return Ok(value);
                }
                Err(error) => error,
            };
            if !error.is_retryable() || attempts >= self.policy.attempts_max {
                return Err(error);
            }
            if !self.budget.take() {
                self.metrics.retries_refused.fetch_add(1, Relaxed);
                return Err(error);
            }
            self.metrics.retries.fetch_add(1, Relaxed);
            let delay = self.policy.delay_before(attempts, &mut self.random.borrow_mut());
            tokio::time::sleep(delay).await;
        }
    }

    /// The pass says how the request went; one that is dropped instead, because nobody waits for
    /// the answer any more, says nothing about the store.
    fn enter(&self, verb: Verb) -> Result<Pass<'_>, StoreError> {
        let mut breaker = self.breaker.borrow_mut();
        let is_probe = match *breaker {
            Breaker::Closed { .. } => false,
            Breaker::Open { until, open } if Instant::now() >= until => {
                *breaker = Breaker::HalfOpen { open };
                true
            }
            Breaker::Open { .. } | Breaker::HalfOpen { .. } => {
                let reason = "it failed several times in a row and is left alone for a while";
                return Err(StoreError::Unavailable { verb, reason: reason.to_owned() });
            }
        };
        self.metrics.set_breaker(breaker.state());
        Ok(Pass { requests: self, is_probe, left: false })
    }

    fn leave(&self, error: Option<&StoreError>, is_probe: bool) {
        let failed = error.is_some_and(StoreError::is_failure_of_the_store);
        let mut breaker = self.breaker.borrow_mut();
        let open = match *breaker {
            Breaker::Closed { failures } if failed && failures + 1 >= self.policy.failures_max => {
                self.policy.open
            }
            Breaker::HalfOpen { open } if failed && is_probe => {
                open.saturating_mul(2).min(self.policy.open_max)
            }
            Breaker::Closed { failures } if failed => {
                *breaker = Breaker::Closed { failures: failures + 1 };
                return;
            }
            _ if failed => return,
            _ => {
                *breaker = Breaker::Closed { failures: 0 };
                self.metrics.set_breaker(breaker.state());
                return;
            }
        };
        let wait = open / 2 + jitter(open / 2, &mut self.random.borrow_mut());
        *breaker = Breaker::Open { until: Instant::now() + wait, open };
        self.metrics.set_breaker(breaker.state());
    }

    /// A probe was given up: the next request is one.
    fn abandon_probe(&self) {
        let mut breaker = self.breaker.borrow_mut();
        if let Breaker::HalfOpen { open } = *breaker {
            *breaker = Breaker::Open { until: Instant::now(), open };
            self.metrics.set_breaker(breaker.state());
        }
    }
}

#[derive(Debug)]
enum Breaker {
    Closed { failures: u32 },
    HalfOpen { open: Duration },
    Open { until: Instant, open: Duration },
}

impl Breaker {
    fn state(&self) -> BreakerState {
        match self {
            Self::Closed { .. } => BreakerState::Closed,
            Self::HalfOpen { .. } => BreakerState::HalfOpen,
            Self::Open { .. } => BreakerState::Open,
        }
    }
}

/// Leave to make one attempt.
struct Pass<'a> {
    requests: &'a Requests,
    is_probe: bool,
    left: bool,
}

impl Pass<'_> {
    fn leave(mut self, error: Option<&StoreError>) {
        self.left = true;
        self.requests.leave(error, self.is_probe);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.is_probe && !self.left {
            self.requests.abandon_probe();
        }
    }
}

/// Retries that may still be made: with a store that fails every request, a retry for every tenth
/// request is all there is after the first few.
#[derive(Debug)]
struct RetryBudget(Cell<u32>);

impl RetryBudget {
    const FULL: u32 = 500;
    const RETRY: u32 = 10;

    fn take(&self) -> bool {
        let left = self.0.get().checked_sub(Self::RETRY);
        self.0.set(left.unwrap_or_else(|| self.0.get()));
        left.is_some()
    }

    fn refill(&self) {
        self.0.set((self.0.get() + 1).min(Self::FULL));
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self(Cell::new(Self::FULL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down() -> StoreError {
        StoreError::Unavailable { verb: Verb::Get, reason: "away".to_owned() }
    }

    fn requests(policy: RetryPolicy) -> Requests {
        Requests::new(policy, 7, Arc::new(StoreMetrics::default()))
    }

    /// Fails `failures` times, then succeeds; counts the calls.
    async fn run(requests: &Requests, failures: u32) -> (Result<(), StoreError>, u32) {
        let mut calls = 0;
        let outcome = requests.run(Verb::Get, 0, async || {
            calls += 1;
            if calls <= failures { Err(down()) } else { Ok(()) }
        });
        (outcome.await, calls)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_tried_again_and_not_for_ever() {
        let requests = requests(RetryPolicy::default());
        assert_eq!(run(&requests, 0).await, (Ok(()), 1));
        assert_eq!(run(&requests, 3).await, (Ok(()), 4));
        assert_eq!(run(&requests, 4).await, (Err(down()), 4));
        let metrics = requests.metrics();
        assert_eq!(metrics.retries.load(Relaxed), 6);
        assert_eq!(metrics.verb(Verb::Get).requests(), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn what_will_not_change_is_not_tried_again() {
        let requests = requests(RetryPolicy::default());
        let mut calls = 0;
        let absent = StoreError::NotFound { key: "a".to_owned() };
        let outcome = requests.run(Verb::Get, 0, async || {
            calls += 1;
            Err::<(), _>(absent.clone())
        });
        assert_eq!((outcome.await, calls), (Err(absent.clone()), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_has_a_deadline_by_its_size() {
        let requests = requests(RetryPolicy { attempts_max: 1, ..RetryPolicy::default() });
        for (size, seconds) in [(0, 10), (5 << 20, 15)] {
            let started = Instant::now();
            let never = requests.run(Verb::Put, size, async || {
                std::future::pending::<()>().await;
                Ok(())
            });
            let after = Duration::from_secs(seconds);
            assert_eq!(never.await, Err(StoreError::Timeout { verb: Verb::Put, after }));
            assert_eq!(started.elapsed(), after);
        }
    }

    #[test]
    fn delays_double_and_are_spread() {
        let policy = RetryPolicy::default();
        let mut random = fastrand::Rng::with_seed(1);
        for (attempt, most) in [(1, 100), (2, 200), (4, 800), (7, 5000), (u32::MAX, 5000)] {
            let most = Duration::from_millis(most);
            let delays: Vec<_> =
                (0..200).map(|_| policy.delay_before(attempt, &mut random)).collect();
            assert!(delays.iter().all(|delay| *delay <= most), "attempt {attempt}");
            assert!(delays.iter().any(|delay| *delay > most / 2), "attempt {attempt}");
            assert!(delays.iter().any(|delay| *delay < most / 2), "attempt {attempt}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_bounds_the_retries_of_a_store_that_fails() {
        let policy = RetryPolicy { failures_max: u32::MAX, ..RetryPolicy::default() };
        let requests = requests(policy);
        for _ in 0..40 {
            assert_eq!(run(&requests, u32::MAX).await.0, Err(down()));
        }
        let metrics = requests.metrics();
        assert_eq!(metrics.retries.load(Relaxed), 50);
        assert!(metrics.retries_refused.load(Relaxed) >= 23);
        for _ in 0..10 {
            assert_eq!(run(&requests, 0).await, (Ok(()), 1));
        }
        assert_eq!(run(&requests, 1).await, (Ok(()), 2), "ten successes pay for a retry");
    }

    #[tokio::test(start_paused = true)]
    async fn the_breaker_opens_probes_and_closes() {
        let requests = requests(RetryPolicy { attempts_max: 1, ..RetryPolicy::default() });
        let metrics = requests.metrics().clone();
        for _ in 0..8 {
            assert_eq!(metrics.breaker(), BreakerState::Closed);
            assert_eq!(run(&requests, 1).await, (Err(down()), 1));
        }
        assert_eq!(metrics.breaker(), BreakerState::Open);
        assert_eq!(run(&requests, 0).await.1, 0, "an open breaker lets nothing through");

        tokio::time::advance(Duration::from_millis(1001)).await;
        assert_eq!(run(&requests, 1).await.1, 1, "a probe");
        assert_eq!(metrics.breaker(), BreakerState::Open);
        tokio::time::advance(Duration::from_millis(999)).await;
        assert_eq!(run(&requests, 0).await.1, 0, "it stays open for longer after a failed probe");

        tokio::time::advance(Duration::from_millis(1001)).await;
        let slow = requests.run(Verb::Get, 0, async || {
            assert_eq!(run(&requests, 0).await.1, 0, "one probe at a time");
            assert_eq!(metrics.breaker(), BreakerState::HalfOpen);
            Ok(())
        });
        assert_eq!(slow.await, Ok(()));
        assert_eq!(metrics.breaker(), BreakerState::Closed);
        assert_eq!(run(&requests, 0).await.1, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_given_up_does_not_keep_the_breaker_half_open() {
        let policy = RetryPolicy { attempts_max: 1, failures_max: 1, ..RetryPolicy::default() };
        let requests = requests(policy);
        assert_eq!(run(&requests, 1).await.1, 1);
        tokio::time::advance(Duration::from_secs(2)).await;
        let probe = requests.run(Verb::Get, 0, async || {
            std::future::pending::<()>().await;
            Ok(())
        });
        assert!(tokio::time::timeout(Duration::from_secs(1), probe).await.is_err());
        assert_eq!(run(&requests, 0).await, (Ok(()), 1));
    }
}
