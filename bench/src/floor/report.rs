//! The result of the floor: three histograms a round and the ratio between them.

use std::io::{self, Write};

use serde::Serialize;

use crate::latencies::{Percentiles, Summary};
use crate::open_loop::Outcome;

use super::{FloorArgs, RATIO_MAX, WARM_UP};

/// c / (a + b).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    pub p50: f64,
    pub p99: f64,
    pub p99_9: f64,
}

/// One of the three in one round.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    #[serde(flatten)]
    pub summary: Summary,
    /// Requests without a reply; in the histogram with the time that they had waited.
    pub unanswered: u64,
    /// The longest that a request was sent after its time.
    pub late_max_us: u64,
}

/// One round.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    pub echo: Part,
    pub write: Part,
    pub produce: Part,
    pub ratio: Ratio,
}

/// What `tailrace bench floor` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub kind: &'static str,
    pub settings: Settings,
    /// The median over the rounds.
    pub ratio: Ratio,
    pub ratio_max: Ratio,
    pub holds: bool,
    /// Medians over the rounds, percentile by percentile, in microseconds.
    pub latency_us: Medians,
    pub rounds: Vec<Round>,
}

/// How it was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    #[serde(flatten)]
    pub args: FloorArgs,
    pub warmup_ms: u128,
    pub acks: i16,
    pub server_core: u32,
    pub client_core: u32,
    /// Of the device under the data directory.
    pub write_cache: String,
    /// Bare writes carried `RWF_DSYNC`.
    pub dsync: bool,
    /// Of the machine, at the end: one, five and fifteen minutes.
    pub load_average: String,
}

/// By part.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Medians {
    pub echo: Percentiles,
    pub write: Percentiles,
    pub produce: Percentiles,
}

impl Ratio {
    fn of(echo: &Percentiles, write: &Percentiles, produce: &Percentiles) -> Self {
        let ratio = |pick: fn(&Percentiles) -> f64| pick(produce) / (pick(echo) + pick(write));
        Self { p50: ratio(|p| p.p50), p99: ratio(|p| p.p99), p99_9: ratio(|p| p.p99_9) }
    }

    /// Whether none is above its limit.
    pub fn holds(&self, max: &Self) -> bool {
        self.p50 <= max.p50 && self.p99 <= max.p99 && self.p99_9 <= max.p99_9
    }
}

impl Part {
    fn new(outcome: &Outcome) -> Self {
        Self {
            summary: outcome.latencies.summary(),
            unanswered: outcome.unanswered,
            late_max_us: outcome.late_max_ns / 1000,
        }
    }
}

impl Round {
    pub(super) fn new(echo: &Outcome, write: &Outcome, produce: &Outcome) -> Self {
        let [echo, write, produce] = [echo, write, produce].map(Part::new);
        let [a, b, c] = [&echo, &write, &produce].map(|part| part.summary.latency_us);
        Self { ratio: Ratio::of(&a, &b, &c), echo, write, produce }
    }
}

impl Report {
    /// `rounds` must not be empty.
    pub(super) fn new(args: FloorArgs, write_cache: uring::WriteCache, rounds: Vec<Round>) -> Self {
        let ratio = |pick: fn(&Ratio) -> f64| median(rounds.iter().map(|round| pick(&round.ratio)));
        let ratio =
            Ratio { p50: ratio(|r| r.p50), p99: ratio(|r| r.p99), p99_9: ratio(|r| r.p99_9) };
        let of = |part: fn(&Round) -> &Part| {
            let pick = |pick: fn(&Percentiles) -> f64| {
                median(rounds.iter().map(|round| pick(&part(round).summary.latency_us)))
            };
            Percentiles {
                p50: pick(|p| p.p50),
                p90: pick(|p| p.p90),
                p99: pick(|p| p.p99),
                p99_9: pick(|p| p.p99_9),
                p99_99: pick(|p| p.p99_99),
                max: pick(|p| p.max),
            }
        };
        let settings = Settings {
            args,
            warmup_ms: WARM_UP.as_millis(),
            acks: -1,
            server_core: 0,
            client_core: 1,
            write_cache: write_cache.to_string(),
            dsync: write_cache.needs_sync(),
            load_average: crate::load_average(),
        };
        let latency_us =
            Medians { echo: of(|r| &r.echo), write: of(|r| &r.write), produce: of(|r| &r.produce) };
        let holds = ratio.holds(&RATIO_MAX);
        let kind = "floor";
        Self { kind, settings, ratio, ratio_max: RATIO_MAX, holds, latency_us, rounds }
    }

    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let Settings { args, write_cache, dsync, load_average, .. } = &self.settings;
        let sync = if *dsync { " + RWF_DSYNC" } else { "" };
        writeln!(
            out,
            "acks=all, 1 record of {} B a request, {}/s open loop; {} rounds of 3 x {} s; write \
             cache: {write_cache}{sync}; load average {load_average}",
            args.record_size, args.rate, args.rounds, args.seconds
        )?;
        for (number, round) in self.rounds.iter().enumerate() {
            Percentiles::heading(out, &format!("round {}, us", number + 1))?;
            let [a, b, c] = [&round.echo, &round.write, &round.produce];
            print_parts(out, [a, b, c].map(|part| &part.summary.latency_us))?;
            round.ratio.print(out)?;
            for (name, part) in [("echo", a), ("write", b), ("produce", c)] {
                if part.unanswered > 0 {
                    writeln!(out, "{name}: {} requests were not answered", part.unanswered)?;
                }
            }
        }
        Percentiles::heading(out, "median of rounds, us")?;
        let Medians { echo, write, produce } = &self.latency_us;
        print_parts(out, [echo, write, produce])?;
        self.ratio.print(out)?;
        if self.ratio.p50 < 1.0 || self.ratio.p99 < 1.0 {
            writeln!(
                out,
                "note: a ratio below 1 tells of a busy machine, not of a broker below its floor"
            )?;
        }
        let Ratio { p50, p99, p99_9 } = self.ratio_max;
        let verdict = if self.holds { "hold" } else { "DO NOT HOLD" };
        writeln!(out, "limits {p50} at p50, {p99} at p99, {p99_9} at p99.9: {verdict}")
    }
}

impl Ratio {
    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { p50, p99, p99_9 } = self;
        writeln!(out, "{:<22}{p50:>10.2}{:>10}{p99:>10.2}{p99_9:>10.2}", "c / (a + b)", "")
    }
}

fn print_parts(out: &mut dyn Write, parts: [&Percentiles; 3]) -> io::Result<()> {
    let names = ["a  bare TCP echo", "b  bare O_DIRECT write", "c  acks=all produce"];
    names.iter().zip(parts).try_for_each(|(name, part)| part.row(out, name))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
    f64::midpoint(values[low], values[high])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open_loop::{OpenLoop, Rate, Schedule};

    fn outcome(us: u64) -> Outcome {
        let schedule = Schedule::of_lane(Rate::of_records(1000, 1), 0, 1, 0, 10_000_000);
        let mut load = OpenLoop::new(schedule, 1).unwrap();
        for number in 0..10 {
            load.sent(number * 1_000_000);
            load.replied(number * 1_000_000 + us * 1000, true);
        }
        load.finish(10_000_000)
    }

    fn report(rounds: &[(u64, u64, u64)]) -> Report {
        let args = FloorArgs {
            data_dir: "d".into(),
            rounds: 3,
            seconds: 0.01,
            rate: 1000,
            record_size: 1024,
            json: None,
            check: false,
            broker: None,
        };
        let rounds =
            rounds.iter().map(|(a, b, c)| Round::new(&outcome(*a), &outcome(*b), &outcome(*c)));
        Report::new(args, uring::WriteCache::Volatile, rounds.collect())
    }

    #[test]
    fn the_ratio_is_the_median_of_the_rounds_ratios() {
        let report = report(&[(20, 80, 130), (20, 80, 900), (40, 60, 110)]);
        assert!((report.ratio.p50 - 1.3).abs() < 0.01, "{:?}", report.ratio);
        assert!(report.holds);
        let json = serde_json::to_value(&report).unwrap();
        for name in ["p50", "p99", "p99_9"] {
            assert!(json["ratio"][name].is_f64(), "{json}");
        }
        assert_eq!(json["settings"]["rate"], 1000);
        assert_eq!(json["rounds"][2]["produce"]["count"], 10);
        assert!(json["rounds"][0]["echo"]["histogram"].is_array());
    }

    #[test]
    fn a_ratio_above_its_limit_is_told() {
        let report = report(&[(20, 80, 151)]);
        assert!(!report.holds);
        let mut text = Vec::new();
        report.print(&mut text).unwrap();
        assert!(String::from_utf8(text).unwrap().contains("DO NOT HOLD"));
    }
}
