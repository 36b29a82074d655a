//! The offload thread's work without the thread, for simulations: the same jobs, in a time that
//! passes only when it is told to. A seed of the store and of its faults decides what happens.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::client::pair;
use super::{Client, Signals, WorkerConfig, serve};
use crate::metrics::StoreMetrics;
use crate::store::{Store, StoreError, StoreOptions, StoreUrl};

/// Dropped, it is a broker that was killed: what the store had not taken it will not get.
pub struct SteppedWorker {
    // Before the runtime, whose timers its tasks hold.
    tasks: LocalSet,
    runtime: Runtime,
    started: Instant,
    /// A reply was queued.
    replied: Arc<Notify>,
    metrics: Arc<StoreMetrics>,
}

impl SteppedWorker {
    /// Begins at 0 of its own time, with one client.
    ///
    /// # Errors
    ///
    /// As for [`Store::open`].
    pub fn start(
        url: &StoreUrl,
        options: StoreOptions,
        config: WorkerConfig,
    ) -> Result<(Self, Client), StoreError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| StoreError::Config { advice: error.to_string() })?;
        let (store, started) = runtime.block_on(async {
            let store = Box::pin(Store::open(url, options)).await?;
            Ok::<_, StoreError>((store, Instant::now()))
        })?;
        let metrics = store.metrics().clone();
        let (signals, replied) = (Arc::new(Signals::default()), Arc::new(Notify::new()));
        let wake = replied.clone();
        let wake = Box::new(move || wake.notify_one());
        let (client, port) = pair(config.jobs_max, wake, signals.clone());
        let tasks = LocalSet::new();
        // Nobody is there to be told.
        let note: super::Note = Box::new(|_| {});
        let serving =
            async move { Box::pin(serve(store, config, vec![port], note, &signals)).await };
        tasks.spawn_local(serving);
        Ok((Self { tasks, runtime, started, replied, metrics }, client))
    }

    /// Lets its time pass to `until`, in whole milliseconds, but only to the next reply. Returns
    /// the time reached.
    pub fn run_until(&mut self, until: Duration) -> Duration {
        let millis = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        let until = self.started + Duration::from_millis(millis);
        let (started, replied) = (self.started, self.replied.clone());
        self.tasks.block_on(&self.runtime, async move {
            tokio::select! {
                biased;
                () = replied.notified() => {}
                () = tokio::time::sleep_until(until) => {}
            }
            started.elapsed()
        })
    }

    pub fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }
}

impl fmt::Debug for SteppedWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SteppedWorker").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::object;
    use crate::store::{Bucket, Faults, Verb, Weather};
    use crate::worker::{Job, Outcome, Request};

    const URL: &str = "file:///simulated";

    fn weather() -> Weather {
        Weather {
            delay_max: Duration::from_millis(200),
            stalls: 50,
            stall_max: Duration::from_secs(30),
            failures: 200,
            lost_replies: 200,
            damages: 100,
        }
    }

    /// When each of some jobs was answered and how, and the requests that it took.
    fn run(seed: u64) -> (Vec<(Duration, u64, Outcome)>, u64) {
        let faults = Faults::seeded(seed);
        faults.set_weather(weather());
        let (seed, bucket) = (Some(seed), Some(Bucket::default()));
        let options = StoreOptions { seed, bucket, faults, ..StoreOptions::default() };
        let url = URL.parse().expect("an address");
        let started = SteppedWorker::start(&url, options, WorkerConfig::default());
        let (mut worker, client) = started.expect("it starts");
        let mut answers = Vec::new();
        let mut now = Duration::ZERO;
        for round in 0..20 {
            let first = 1 + round;
            let built = object(first, 2, 0, &[500; 4]);
            let extent = built.extents[0].1.clone();
            let token = round * 2;
            client.try_send(Request { token, job: Job::PutObject(built) }).expect("room");
            let job = Job::Find { extent, timestamp: 0 };
            client.try_send(Request { token: token + 1, job }).expect("room");
            while client.unanswered() > 0 {
                now = worker.run_until(now + Duration::from_secs(1));
                while let Some(reply) = client.poll_reply() {
                    answers.push((now, reply.token, reply.outcome));
                }
            }
        }
        let requests = Verb::ALL.map(|verb| worker.metrics().verb(verb).requests());
        (answers, requests.iter().sum())
    }

    #[test]
    fn a_seed_is_the_whole_run() {
        let (answers, requests) = run(1);
        assert_eq!((&answers, requests), (&run(1).0, run(1).1));
        assert_ne!(answers, run(2).0);
        let stored = answers.iter().filter(|(_, _, outcome)| *outcome == Outcome::Stored);
        assert_eq!(stored.count(), 20, "every write outlasts the weather");
        assert!(requests > 60, "{requests} requests: nothing went wrong");
    }

    #[test]
    fn time_passes_only_as_far_as_it_is_told() {
        let options = StoreOptions { bucket: Some(Bucket::default()), ..StoreOptions::default() };
        let url = URL.parse().expect("an address");
        let started = SteppedWorker::start(&url, options, WorkerConfig::default());
        let (mut worker, client) = started.expect("it starts");
        let hour = Duration::from_secs(3600);
        assert_eq!(worker.run_until(hour), hour);
        assert_eq!(worker.run_until(hour + Duration::from_micros(999)), hour);
        let job = Job::PutObject(object(1, 1, 0, &[10]));
        client.try_send(Request { token: 1, job }).expect("room");
        assert_eq!(worker.run_until(2 * hour), hour, "a reply ends it");
        assert_eq!(client.poll_reply().expect("a reply").outcome, Outcome::Stored);
    }
}
