//! The result of a comparison: percentiles by round, their medians, the ratio.

use std::io::{self, Write};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{RATIO_P50_MAX, ReactorArgs};

/// Request to reply, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Percentiles {
    /// What the machine gives when nothing else disturbs; the steadiest figure on a shared one.
    pub p10_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p99_9_us: f64,
    pub requests: u64,
}

/// Both servers, one after the other.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Round {
    pub product: Percentiles,
    pub bare: Percentiles,
}

/// What `tailrace bench reactor` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub seconds: f64,
    pub durable: bool,
    pub bare_yields: bool,
    /// Of the device under the file.
    pub write_cache: String,
    /// Medians over the rounds.
    pub product: Percentiles,
    pub bare: Percentiles,
    /// Product over bare, from the medians.
    pub ratio_p10: f64,
    pub ratio_p50: f64,
    pub ratio_p99: f64,
    pub ratio_p99_9: f64,
    pub ratio_p50_max: f64,
    pub holds: bool,
    pub rounds: Vec<Round>,
}

impl Percentiles {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let micros = |quantile| micros(histogram.value_at_quantile(quantile));
        Self {
            p10_us: micros(0.1),
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            p99_9_us: micros(0.999),
            requests: histogram.len(),
        }
    }

    /// Of each percentile by itself; the requests of all together.
    fn medians(of: &[Self]) -> Self {
        let median = |pick: fn(&Self) -> f64| {
            let mut values: Vec<f64> = of.iter().map(pick).collect();
            values.sort_by(f64::total_cmp);
            let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
            f64::midpoint(values[low], values[high])
        };
        Self {
            p10_us: median(|one| one.p10_us),
            p50_us: median(|one| one.p50_us),
            p99_us: median(|one| one.p99_us),
            p99_9_us: median(|one| one.p99_9_us),
            requests: of.iter().map(|one| one.requests).sum(),
        }
    }
}

impl Report {
    /// `rounds` must not be empty.
    pub(super) fn new(args: &ReactorArgs, write_cache: String, rounds: Vec<Round>) -> Self {
        let of = |pick: fn(&Round) -> Percentiles| {
            Percentiles::medians(&rounds.iter().map(pick).collect::<Vec<_>>())
        };
        let (product, bare) = (of(|round| round.product), of(|round| round.bare));
        let ratio_p50 = product.p50_us / bare.p50_us;
        Self {
            seconds: args.seconds,
            durable: args.durable,
            bare_yields: args.bare_yields,
            write_cache,
            product,
            bare,
            ratio_p10: product.p10_us / bare.p10_us,
            ratio_p50,
            ratio_p99: product.p99_us / bare.p99_us,
            ratio_p99_9: product.p99_9_us / bare.p99_9_us,
            ratio_p50_max: RATIO_P50_MAX,
            holds: ratio_p50 <= RATIO_P50_MAX,
            rounds,
        }
    }

    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let sync = if self.durable { " with RWF_DSYNC" } else { "" };
        writeln!(
            out,
            "TCP request -> 4 KiB O_DIRECT write{sync} -> reply, 1 connection, medians of {} \
             rounds of {} s; write cache: {}",
            self.rounds.len(),
            self.seconds,
            self.write_cache
        )?;
        let [p10, p50, p99, p99_9] = ["p10", "p50", "p99", "p99.9"];
        writeln!(out, "{:<10}{p10:>10}{p50:>10}{p99:>10}{p99_9:>10}{:>12}", "us", "requests")?;
        let bare = if self.bare_yields { "bare+yield" } else { "bare loop" };
        for (name, row) in [("reactor", &self.product), (bare, &self.bare)] {
            writeln!(
                out,
                "{name:<10}{:>10.1}{:>10.1}{:>10.1}{:>10.1}{:>12}",
                row.p10_us, row.p50_us, row.p99_us, row.p99_9_us, row.requests
            )?;
        }
        writeln!(
            out,
            "{:<10}{:>10.3}{:>10.3}{:>10.3}{:>10.3}",
            "ratio", self.ratio_p10, self.ratio_p50, self.ratio_p99, self.ratio_p99_9
        )?;
        let verdict = if self.holds { "holds" } else { "DOES NOT HOLD" };
        writeln!(out, "ratio at p50 of at most {RATIO_P50_MAX}: {verdict}")
    }
}

#[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^52 ns")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percentiles(p50_us: f64) -> Percentiles {
        Percentiles {
            p10_us: p50_us / 2.0,
            p50_us,
            p99_us: 2.0 * p50_us,
            p99_9_us: 3.0 * p50_us,
            requests: 10,
        }
    }

    #[test]
    fn ratios_come_from_medians_so_one_bad_round_does_not_decide() {
        let args = ReactorArgs {
            rounds: 3,
            seconds: 1.0,
            data_dir: ".".into(),
            durable: false,
            bare_yields: false,
            check: false,
            json: None,
        };
        let round =
            |product, bare| Round { product: percentiles(product), bare: percentiles(bare) };
        let rounds = vec![round(60.0, 60.0), round(66.0, 900.0), round(900.0, 61.0)];
        let report = Report::new(&args, "write back".to_owned(), rounds.clone());
        assert!((report.ratio_p50 - 66.0 / 61.0).abs() < 1e-9);
        assert_eq!((report.holds, report.product.requests), (true, 30));
        let slow = Report::new(&args, "write back".to_owned(), vec![round(70.0, 60.0)]);
        assert!(!slow.holds);
        let mut text = Vec::new();
        slow.print(&mut text).unwrap();
        assert!(String::from_utf8(text).unwrap().contains("DOES NOT HOLD"));
    }

    #[test]
    fn percentiles_are_in_microseconds() {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        histogram.record_n(50_000, 100).unwrap();
        assert!((Percentiles::of(&histogram).p50_us - 50.0).abs() < 0.1);
    }
}
