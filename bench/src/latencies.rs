//! Latencies of one measurement: an HDR histogram and the percentiles that are told of it.

use std::io::{self, Write};

use hdrhistogram::Histogram;
use hdrhistogram::errors::{AdditionError, CreationError};
use serde::Serialize;

/// Recorded between these, in nanoseconds; what lies beyond is counted at the bound.
const MIN: u64 = 1_000;
const MAX: u64 = 60_000_000_000;

/// Percentiles that are told; 100 is the maximum.
pub const PERCENTILES: [f64; 6] = [50.0, 90.0, 99.0, 99.9, 99.99, 100.0];

/// Latencies from 1 us to 60 s with three significant digits.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

/// The percentiles of [`PERCENTILES`], in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub p99_99: f64,
    pub max: f64,
}

/// A histogram as it stands in a JSON file. Latencies are in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub count: u64,
    pub mean_us: f64,
    pub latency_us: Percentiles,
    /// The whole distribution: each percentile at which the latency changes by half a per cent of
    /// what is left, with the latency there.
    pub histogram: Vec<Step>,
}

/// One step of a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Step {
    pub percentile: f64,
    pub latency_us: f64,
    /// Requests up to here.
    pub count: u64,
}

impl Latencies {
    pub fn new() -> Result<Self, CreationError> {
        Ok(Self { histogram: Histogram::new_with_bounds(1, MAX, 3)? })
    }

    /// Records a latency in nanoseconds.
    pub fn record(&mut self, nanos: u64) {
        self.histogram.saturating_record(nanos.clamp(MIN, MAX));
    }

    /// Adds all of `other`.
    pub fn add(&mut self, other: &Self) -> Result<(), AdditionError> {
        self.histogram.add(&other.histogram)
    }

    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// In microseconds.
    pub fn at_percentile(&self, percentile: f64) -> f64 {
        micros(self.histogram.value_at_percentile(percentile).min(self.histogram.max()))
    }

    pub fn percentiles(&self) -> Percentiles {
        let [p50, p90, p99, p99_9, p99_99, max] = PERCENTILES.map(|p| self.at_percentile(p));
        Percentiles { p50, p90, p99, p99_9, p99_99, max }
    }

    pub fn summary(&self) -> Summary {
        let mut count = 0;
        let mut histogram = Vec::new();
        for step in self.histogram.iter_quantiles(10) {
            count += step.count_since_last_iteration();
            let latency_us = micros(step.value_iterated_to().min(self.histogram.max()));
            histogram.push(Step { percentile: step.percentile(), latency_us, count });
        }
        Summary {
            count: self.count(),
            mean_us: self.histogram.mean() / 1000.0,
            latency_us: self.percentiles(),
            histogram,
        }
    }
}

impl Percentiles {
    /// The line above rows of [`Percentiles::row`].
    pub fn heading(out: &mut dyn Write, first: &str) -> io::Result<()> {
        let [p50, p90, p99, p99_9, p99_99] = ["p50", "p90", "p99", "p99.9", "p99.99"];
        let max = "max";
        writeln!(out, "{first:<22}{p50:>10}{p90:>10}{p99:>10}{p99_9:>10}{p99_99:>10}{max:>10}")
    }

    pub fn row(&self, out: &mut dyn Write, name: &str) -> io::Result<()> {
        let Self { p50, p90, p99, p99_9, p99_99, max } = self;
        writeln!(
            out,
            "{name:<22}{p50:>10.1}{p90:>10.1}{p99:>10.1}{p99_9:>10.1}{p99_99:>10.1}{max:>10.1}"
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^52 ns")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, expected: f64) {
        assert!((value / expected - 1.0).abs() < 0.001, "{value} is not {expected}");
    }

    #[test]
    fn percentiles_are_in_microseconds_and_keep_three_digits() {
        let mut latencies = Latencies::new().unwrap();
        (1..=10_000).for_each(|us| latencies.record(us * 1000));
        let percentiles = latencies.percentiles();
        close(percentiles.p50, 5_000.0);
        close(percentiles.p99, 9_900.0);
        close(percentiles.p99_99, 9_999.0);
        close(percentiles.max, 10_000.0);
    }

    #[test]
    fn latencies_beyond_the_bounds_count_at_the_bounds() {
        let mut latencies = Latencies::new().unwrap();
        latencies.record(3);
        close(latencies.percentiles().max, 1.0);
        latencies.record(u64::MAX);
        close(latencies.percentiles().max, 60_000_000.0);
        assert_eq!(latencies.count(), 2);
    }

    #[test]
    fn the_json_names_every_percentile_and_the_steps_add_up() {
        let mut latencies = Latencies::new().unwrap();
        (1..=500).for_each(|us| latencies.record(us * 1000));
        let json = serde_json::to_value(latencies.summary()).unwrap();
        for name in ["p50", "p90", "p99", "p99_9", "p99_99", "max"] {
            assert!(json["latency_us"][name].is_f64(), "{name} in {json}");
        }
        let steps = json["histogram"].as_array().unwrap();
        assert_eq!(steps.last().unwrap()["count"], 500);
        let latency = |step: &serde_json::Value| step["latency_us"].as_f64().unwrap();
        assert!(steps.windows(2).all(|pair| latency(&pair[0]) <= latency(&pair[1])));
    }

    #[test]
    fn histograms_of_several_cores_add() {
        let (mut one, mut other) = (Latencies::new().unwrap(), Latencies::new().unwrap());
        one.record(10_000);
        other.record(90_000);
        one.add(&other).unwrap();
        assert_eq!(one.count(), 2);
        close(one.percentiles().max, 90.0);
    }
}
