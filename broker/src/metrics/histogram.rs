//! A latency histogram that one shard writes and any thread reads, without locks.
//!
//! Log-linear: four buckets to each power of two of microseconds, so a bucket is at most 25% wide.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SUB_BUCKETS: u64 = 4;
/// Up to 2^26 us, 67 s; what takes longer is counted in the last bucket.
const POWERS: u64 = 26;
const BUCKET_COUNT: usize = 96;

const _: () = assert!(BUCKET_COUNT as u64 == SUB_BUCKETS * (POWERS - 2));

/// Counts of durations, from microseconds to a minute.
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKET_COUNT],
    sum_us: AtomicU64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum_us: AtomicU64::new(0) }
    }

    /// Counts one duration. Called by the owning shard only.
    pub(crate) fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        increase(&self.buckets[bucket(us)], 1);
        increase(&self.sum_us, us);
    }

    /// Appends the histogram's lines for one shard; empty buckets are left out, as the format
    /// allows.
    pub(crate) fn render(&self, text: &mut String, name: &str, shard: usize) {
        let mut count = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            let here = bucket.load(Ordering::Relaxed);
            if here == 0 {
                continue;
            }
            count += here;
            let bound = seconds(upper_bound_us(index));
            push(text, format_args!("{name}_bucket{{shard=\"{shard}\",le=\"{bound}\"}} {count}\n"));
        }
        push(text, format_args!("{name}_bucket{{shard=\"{shard}\",le=\"+Inf\"}} {count}\n"));
        let sum = seconds(self.sum_us.load(Ordering::Relaxed));
        push(text, format_args!("{name}_sum{{shard=\"{shard}\"}} {sum}\n"));
        push(text, format_args!("{name}_count{{shard=\"{shard}\"}} {count}\n"));
    }
}

fn increase(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

/// Index of the bucket that holds a duration.
fn bucket(us: u64) -> usize {
    let clamped = us.clamp(SUB_BUCKETS, (1 << POWERS) - 1);
    let power = u64::from(clamped.ilog2());
    let sub = (clamped >> (power - 2)) & (SUB_BUCKETS - 1);
    usize::try_from(SUB_BUCKETS * (power - 2) + sub).expect("at most BUCKET_COUNT")
}

/// The largest duration that a bucket holds, in microseconds.
fn upper_bound_us(index: usize) -> u64 {
    let index = index as u64;
    let (power, sub) = (index / SUB_BUCKETS + 2, index % SUB_BUCKETS);
    ((SUB_BUCKETS + sub + 1) << (power - 2)) - 1
}

#[expect(clippy::cast_precision_loss, reason = "a sum is shown, not computed with")]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a string takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_within_its_buckets_bound() {
        for us in (0..5_000).chain([65_535, 65_536, 1 << 20, (1 << 26) - 1]) {
            let index = bucket(us);
            assert!(us <= upper_bound_us(index), "{us} us in bucket {index}");
            assert!(index == 0 || us > upper_bound_us(index - 1), "{us} us in bucket {index}");
        }
        assert_eq!(bucket(u64::MAX), bucket((1 << 26) - 1));
        assert!(bucket(u64::MAX) < BUCKET_COUNT);
    }

    #[test]
    fn counts_are_cumulative() {
        let histogram = Histogram::new();
        for us in [10, 10, 1_000] {
            histogram.record(Duration::from_micros(us));
        }
        let mut text = String::new();
        histogram.render(&mut text, "x_seconds", 3);
        assert!(text.contains("x_seconds_bucket{shard=\"3\",le=\"0.000011\"} 2\n"), "{text}");
        assert!(text.contains("x_seconds_bucket{shard=\"3\",le=\"+Inf\"} 3\n"), "{text}");
        assert!(text.contains("x_seconds_sum{shard=\"3\"} 0.00102\n"), "{text}");
    }
}
