//! Measurements of Tailrace: latencies as percentiles, costs as ratios within one run.

pub mod reactor;
