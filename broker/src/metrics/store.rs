//! The object store's counters as Prometheus text. They are written by the store's thread, and are
//! of the whole broker.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use s3_uploader::{BreakerState, LATENCY_BOUNDS, RequestCounts, StoreMetrics, Verb};

use super::{header, line};

/// Appends the store's lines, as they are `uptime` after the broker's start.
pub(super) fn render(text: &mut String, metrics: &StoreMetrics, uptime: Duration) {
    latencies(text, metrics);
    let name = "tailrace_object_errors_total";
    header(text, name, "counter", "Requests to the object store that failed, by what was wrong.");
    for (kind, count) in metrics.errors() {
        line(text, format_args!("{name}{{kind=\"{kind}\"}} {count}"));
    }
    for (name, kind, help, cell) in [
        ("uploaded_bytes_total", "counter", "Bytes sent to the store.", &metrics.bytes_up),
        ("downloaded_bytes_total", "counter", "Bytes read from the store.", &metrics.bytes_down),
        ("retries_total", "counter", "Requests made again after a failure.", &metrics.retries),
        (
            "retries_refused_total",
            "counter",
            "Retries not made because too many of the last requests failed.",
            &metrics.retries_refused,
        ),
        ("hedges_total", "counter", "Second attempts of reads that were slow.", &metrics.hedges),
        ("hedges_won_total", "counter", "Those that answered first.", &metrics.hedges_won),
        ("cache_hits_total", "counter", "Chunks found in the object cache.", &metrics.cache_hits),
        ("cache_misses_total", "counter", "Chunks that had to be read.", &metrics.cache_misses),
        (
            "read_ahead_total",
            "counter",
            "Chunks asked for before their reader.",
            &metrics.read_ahead,
        ),
        ("cache_bytes", "gauge", "Memory of the object cache.", &metrics.cache_bytes),
        ("jobs_count", "gauge", "Jobs of the shards under way.", &metrics.queue_depth),
    ] {
        let name = format!("tailrace_object_{name}");
        header(text, &name, kind, help);
        line(text, format_args!("{name} {}", cell.load(Relaxed)));
    }
    let name = "tailrace_object_circuit_state";
    header(text, name, "gauge", "0: requests go through; 1: one is tried; 2: they fail at once.");
    let state = match metrics.breaker() {
        BreakerState::Closed => 0,
        BreakerState::HalfOpen => 1,
        BreakerState::Open => 2,
    };
    line(text, format_args!("{name} {state}"));
    let name = "tailrace_object_requests_dollars";
    let help = "Cost of a month's requests at the rate since the start, by S3's list prices.";
    header(text, name, "gauge", help);
    let cost = RequestCounts::of(metrics).monthly_cost_dollars(uptime);
    line(text, format_args!("{name} {cost:.2}"));
}

fn latencies(text: &mut String, metrics: &StoreMetrics) {
    let name = "tailrace_object_request_latency_seconds";
    header(text, name, "histogram", "Requests to the object store, each attempt, by verb.");
    for verb in Verb::ALL {
        let of_verb = metrics.verb(verb);
        let mut count = 0;
        for (bound, here) in LATENCY_BOUNDS.iter().zip(of_verb.buckets()) {
            count += here;
            let le = bound.as_secs_f64();
            line(text, format_args!("{name}_bucket{{verb=\"{verb}\",le=\"{le}\"}} {count}"));
        }
        let all = of_verb.requests();
        line(text, format_args!("{name}_bucket{{verb=\"{verb}\",le=\"+Inf\"}} {all}"));
        let sum = of_verb.latency_sum().as_secs_f64();
        line(text, format_args!("{name}_sum{{verb=\"{verb}\"}} {sum}"));
        line(text, format_args!("{name}_count{{verb=\"{verb}\"}} {all}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_store_is_a_sample_or_a_comment() {
        let metrics = StoreMetrics::default();
        metrics.bytes_up.store(7, Relaxed);
        let mut text = String::new();
        render(&mut text, &metrics, Duration::from_secs(60));
        assert!(text.contains("tailrace_object_uploaded_bytes_total 7\n"), "{text}");
        assert!(text.contains("tailrace_object_circuit_state 0\n"), "{text}");
        assert!(text.contains("tailrace_object_errors_total{kind=\"throttled\"} 0\n"), "{text}");
        for line in text.lines().filter(|line| !line.starts_with("# ")) {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            assert!(name.starts_with("tailrace_object_"), "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
