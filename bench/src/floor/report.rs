//! The result of the floor: three histograms a round and the ratio between them.

use std::io::{self, Write};

use serde::Serialize;

use crate::latencies::{Percentiles, Summary};

use super::{CONTENDED_PERCENT_MAX, FloorArgs, Measured, RATIO_MAX, WARM_UP};

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
    /// Of its time the measuring thread waited this much for its core, as a percentage.
    pub contended_percent: f64,
}

/// What the ratios say.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// None is above its limit.
    Holds,
    AboveLimit,
    /// The machine was busy with other things: what was measured is those.
    Undecided,
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
    pub verdict: Verdict,
    /// Of (a) and (b), each by its median over the rounds, the larger. (c) is left out: what the
    /// kernel does for the broker on the client's core belongs to it.
    pub contended_percent: f64,
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

    fn verdict(&self, max: &Self, contended_percent: f64) -> Verdict {
        // The broker does (a) and (b) one after the other. So at the median, where they vary
        // little, it cannot take less than their sum, and nowhere less than the larger of the two.
        let impossible = self.p50 < 1.0 || self.p99 < 0.5 || self.p99_9 < 0.5;
        if impossible || contended_percent > CONTENDED_PERCENT_MAX {
            Verdict::Undecided
        } else if self.p50 <= max.p50 && self.p99 <= max.p99 && self.p99_9 <= max.p99_9 {
            Verdict::Holds
        } else {
            Verdict::AboveLimit
        }
    }
}

impl Part {
    fn new(measured: &Measured) -> Self {
        let Measured { outcome, contended_percent } = measured;
        Self {
            summary: outcome.latencies.summary(),
            unanswered: outcome.unanswered,
            late_max_us: outcome.late_max_ns / 1000,
            contended_percent: *contended_percent,
        }
    }
}

impl Round {
    pub(super) fn new(echo: &Measured, write: &Measured, produce: &Measured) -> Self {
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
        let contended = |part: fn(&Round) -> &Part| {
            median(rounds.iter().map(|round| part(round).contended_percent))
        };
        let contended_percent = contended(|r| &r.echo).max(contended(|r| &r.write));
        let verdict = ratio.verdict(&RATIO_MAX, contended_percent);
        let kind = "floor";
        Self {
            kind,
            settings,
            ratio,
            ratio_max: RATIO_MAX,
            verdict,
            contended_percent,
            latency_us,
            rounds,
        }
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
        writeln!(
            out,
            "threads of (a) and (b) waited for their cores {:.1} % of the time, of {} % allowed",
            self.contended_percent, CONTENDED_PERCENT_MAX
        )?;
        let Ratio { p50, p99, p99_9 } = self.ratio_max;
        let verdict = match self.verdict {
            Verdict::Holds => "hold",
            Verdict::AboveLimit => "DO NOT HOLD",
            Verdict::Undecided => "UNDECIDED, the machine was busy with other things",
        };
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

    fn measured(us: u64, contended_percent: f64) -> Measured {
        let schedule = Schedule::of_lane(Rate::of_records(1000, 1), 0, 1, 0, 10_000_000);
        let mut load = OpenLoop::new(schedule, 1).unwrap();
        for number in 0..10 {
            load.sent(number * 1_000_000);
            load.replied(number * 1_000_000 + us * 1000, true);
        }
        Measured { outcome: load.finish(10_000_000), contended_percent }
    }

    fn report(rounds: &[(u64, u64, u64)], contended_percent: f64) -> Report {
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
        let part = |us: &u64| measured(*us, contended_percent);
        let rounds = rounds.iter().map(|(a, b, c)| Round::new(&part(a), &part(b), &part(c)));
        Report::new(args, uring::WriteCache::Volatile, rounds.collect())
    }

    #[test]
    fn the_ratio_is_the_median_of_the_rounds_ratios() {
        let report = report(&[(20, 80, 130), (20, 80, 900), (40, 60, 110)], 0.1);
        assert!((report.ratio.p50 - 1.3).abs() < 0.01, "{:?}", report.ratio);
        assert_eq!(report.verdict, Verdict::Holds);
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
        let report = report(&[(20, 80, 151)], 0.1);
        assert_eq!(report.verdict, Verdict::AboveLimit);
        let mut text = Vec::new();
        report.print(&mut text).unwrap();
        assert!(String::from_utf8(text).unwrap().contains("DO NOT HOLD"));
    }

    #[test]
    fn a_busy_machine_decides_nothing() {
        let below_its_floor = report(&[(2000, 3000, 900)], 0.1);
        let contended = report(&[(20, 80, 130)], 3.0);
        for report in [below_its_floor, contended] {
            assert_eq!(report.verdict, Verdict::Undecided);
            let mut text = Vec::new();
            report.print(&mut text).unwrap();
            assert!(String::from_utf8(text).unwrap().contains("UNDECIDED"));
        }
    }
}
