//! Open-loop load on one connection, without sockets and clocks.
//!
//! When a request should be sent follows from the rate alone, never from when replies come. Each
//! latency runs from that intended time: a request that waits behind a stalled server, in the
//! client or on the wire, has waited all the same. So a stall of a second shows in every request
//! that fell into it, and not, as in a closed loop, in the single one that was in flight
//! (coordinated omission).
//!
//! Times are nanoseconds since the start of the measurement.

use std::collections::VecDeque;

use hdrhistogram::errors::CreationError;

use crate::latencies::Latencies;

const SECOND: u64 = 1_000_000_000;

/// Requests at a constant rate.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Requests per `per_ns` nanoseconds: a fraction, so that no rounding adds up.
    pub requests: u64,
    pub per_ns: u64,
    /// When the first one is due.
    pub first_ns: u64,
    /// Requests due before this are sent, but not counted.
    pub warmup_ns: u64,
    /// Nothing is due from here on.
    pub end_ns: u64,
}

/// What to do now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// A request is due: send it and call [`OpenLoop::sent`].
    Send,
    /// Nothing is due before this time.
    WaitUntil(u64),
    /// Due or not, too many are in flight: a reply has to come first.
    AwaitReply,
    /// All were sent; replies are missing.
    Drain,
    /// All were sent and answered.
    Done,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// From the intended time of sending to the reply. Requests that were never answered are in it
    /// with the time that they had waited at the end.
    pub latencies: Latencies,
    /// Answered well, the warm-up not counted.
    pub answered: u64,
    /// Answered with an error, the warm-up included.
    pub errors: u64,
    /// Not answered at all, or not even sent, the warm-up included.
    pub unanswered: u64,
    /// The longest that a request was sent after its time, in nanoseconds; warm-up not counted.
    pub late_max_ns: u64,
    /// From the end of the schedule to the last reply, in nanoseconds.
    pub overtime_ns: u64,
}

/// The state of one connection's load. Replies come in the order of the requests.
#[derive(Debug)]
pub struct OpenLoop {
    schedule: Schedule,
    in_flight_max: usize,
    /// Requests sent.
    sent: u64,
    /// Intended times of the requests in flight, oldest first.
    in_flight: VecDeque<u64>,
    outcome: Outcome,
}

impl Schedule {
    /// `rate` requests a second, spread over `lanes` connections of which this is the `lane`-th:
    /// together they send evenly. Times in nanoseconds.
    pub fn of_lane(rate: Rate, lane: u64, lanes: u64, warmup_ns: u64, measured_ns: u64) -> Self {
        let Rate { requests, per_ns } = rate;
        let per_ns = per_ns.saturating_mul(lanes);
        let step = u128::from(per_ns) * u128::from(lane);
        let first = step / (u128::from(requests.max(1)) * u128::from(lanes.max(1)));
        Self {
            requests,
            per_ns,
            first_ns: u64::try_from(first).unwrap_or(u64::MAX),
            warmup_ns,
            end_ns: warmup_ns.saturating_add(measured_ns),
        }
    }

    /// When the `index`-th request is to be sent.
    fn intended(&self, index: u64) -> u64 {
        let after = u128::from(index) * u128::from(self.per_ns) / u128::from(self.requests.max(1));
        u64::try_from(after).unwrap_or(u64::MAX).saturating_add(self.first_ns)
    }
}

/// Requests in a number of nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub requests: u64,
    pub per_ns: u64,
}

impl Rate {
    /// `records` a second, `batch` of them in a request.
    pub fn of_records(records: u64, batch: u64) -> Self {
        Self { requests: records, per_ns: SECOND.saturating_mul(batch) }
    }
}

impl OpenLoop {
    pub fn new(schedule: Schedule, in_flight_max: usize) -> Result<Self, CreationError> {
        let outcome = Outcome {
            latencies: Latencies::new()?,
            answered: 0,
            errors: 0,
            unanswered: 0,
            late_max_ns: 0,
            overtime_ns: 0,
        };
        Ok(Self { schedule, in_flight_max, sent: 0, in_flight: VecDeque::new(), outcome })
    }

    pub fn next(&self, now: u64) -> Next {
        let intended = self.schedule.intended(self.sent);
        if intended >= self.schedule.end_ns {
            return if self.in_flight.is_empty() { Next::Done } else { Next::Drain };
        }
        if self.in_flight.len() >= self.in_flight_max {
            Next::AwaitReply
        } else if intended > now {
            Next::WaitUntil(intended)
        } else {
            Next::Send
        }
    }

    /// The request that is due is being sent. Returns its number, from 0.
    pub fn sent(&mut self, now: u64) -> u64 {
        let (index, intended) = (self.sent, self.schedule.intended(self.sent));
        self.sent += 1;
        self.in_flight.push_back(intended);
        if intended >= self.schedule.warmup_ns {
            let late = now.saturating_sub(intended);
            self.outcome.late_max_ns = self.outcome.late_max_ns.max(late);
        }
        index
    }

    /// The reply to the oldest request in flight is there. False if there is no such request.
    pub fn replied(&mut self, now: u64, good: bool) -> bool {
        let Some(intended) = self.in_flight.pop_front() else { return false };
        self.outcome.overtime_ns = now.saturating_sub(self.schedule.end_ns);
        self.outcome.errors += u64::from(!good);
        if intended >= self.schedule.warmup_ns {
            self.outcome.answered += u64::from(good);
            self.outcome.latencies.record(now.saturating_sub(intended));
        }
        true
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Ends the measurement. What has not been answered, or could not be sent, has waited since
    /// its intended time.
    pub fn finish(mut self, now: u64) -> Outcome {
        loop {
            let intended = self.schedule.intended(self.sent);
            if intended >= self.schedule.end_ns || intended > now {
                break;
            }
            self.sent += 1;
            self.in_flight.push_back(intended);
        }
        for intended in self.in_flight {
            self.outcome.unanswered += 1;
            if intended >= self.schedule.warmup_ns {
                self.outcome.latencies.record(now.saturating_sub(intended));
            }
        }
        self.outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// 1,000 requests/s for a second after 100 ms of warm-up.
    fn open_loop(in_flight_max: usize) -> OpenLoop {
        let rate = Rate::of_records(1000, 1);
        OpenLoop::new(Schedule::of_lane(rate, 0, 1, 100 * MS, 1000 * MS), in_flight_max).unwrap()
    }

    /// A server that takes `service` for each request, one after the other, and stands still
    /// during `stall`.
    fn run(mut load: OpenLoop, service: u64, stall: std::ops::Range<u64>) -> Outcome {
        let (mut now, mut free_at) = (0, 0);
        let mut replies: VecDeque<u64> = VecDeque::new();
        loop {
            let mut then = replies.front().copied().unwrap_or(u64::MAX);
            match load.next(now) {
                Next::Send => {
                    load.sent(now);
                    let mut start: u64 = free_at.max(now);
                    if stall.contains(&start) {
                        start = stall.end;
                    }
                    free_at = start + service;
                    replies.push_back(free_at);
                    continue;
                }
                Next::WaitUntil(due) => then = then.min(due),
                Next::AwaitReply | Next::Drain => {}
                Next::Done => return load.finish(now),
            }
            now = then;
            while replies.front().is_some_and(|reply| *reply <= now) {
                replies.pop_front();
                assert!(load.replied(now, true));
            }
        }
    }

    #[test]
    fn a_steady_server_shows_its_service_time() {
        let outcome = run(open_loop(64), MS / 10, 0..0);
        assert_eq!((outcome.answered, outcome.unanswered, outcome.late_max_ns), (1000, 0, 0));
        let percentiles = outcome.latencies.percentiles();
        assert!((percentiles.max - 100.0).abs() < 1.0, "{percentiles:?}");
    }

    #[test]
    fn a_stall_shows_in_every_request_that_fell_into_it() {
        // Half of the measured second stands still, whatever may be in flight.
        for in_flight_max in [1, 8, 10_000] {
            let outcome = run(open_loop(in_flight_max), MS / 10, 300 * MS..800 * MS);
            assert_eq!(outcome.answered, 1000);
            let percentiles = outcome.latencies.percentiles();
            // 500 waited 250 ms on average; a closed loop would show a single slow one.
            assert!(percentiles.p90 > 350_000.0, "{in_flight_max}: {percentiles:?}");
            assert!(percentiles.max > 495_000.0, "{in_flight_max}: {percentiles:?}");
            assert!((outcome.late_max_ns > 400 * MS) == (in_flight_max < 500));
        }
    }

    #[test]
    fn a_server_that_never_answers_shows_too() {
        let mut load = open_loop(4);
        let mut now = 0;
        while now < 2000 * MS {
            if load.next(now) == Next::Send {
                load.sent(now);
            }
            now += MS;
        }
        let outcome = load.finish(now);
        assert_eq!((outcome.answered, outcome.unanswered), (0, 1100));
        assert_eq!(outcome.latencies.count(), 1000);
        assert!(outcome.latencies.percentiles().p50 > 1_000_000.0);
    }

    #[test]
    fn lanes_share_the_rate_evenly_and_odd_rates_do_not_drift() {
        let rate = Rate::of_records(3, 1);
        let lanes: Vec<_> = (0..2).map(|i| Schedule::of_lane(rate, i, 2, 0, 9)).collect();
        assert_eq!((lanes[0].intended(0), lanes[1].intended(0)), (0, SECOND / 3));
        assert_eq!(lanes[0].intended(3_000_000), 2_000_000 * SECOND);
    }

    #[test]
    fn a_reply_without_a_request_is_told() {
        assert!(!open_loop(1).replied(1, true));
    }
}
