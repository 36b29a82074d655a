//! `tailrace bench produce`: open-loop Produce load, percentiles and throughput.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::BenchError;
use crate::clock::nanos;
use crate::kafka::{self, Workload};
use crate::latencies::{Latencies, Percentiles, Summary};
use crate::load::{self, LaneOutcome, Plan};
use crate::open_loop::Rate;

/// Sends Produce requests at a fixed rate and tells the latency percentiles
///
/// Open loop: when a request is due follows from the rate alone, and its latency runs from then,
/// so a broker that stalls shows it in every request that fell into the stall. One executor on
/// each core of --cores; batches are prepared beforehand, idempotence is off, the topic is created
/// if it is not there.
#[derive(Args, Clone, Debug, Serialize)]
pub struct ProduceArgs {
    /// A broker to connect to first
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub bootstrap: String,
    /// Topic to produce to
    #[arg(long, default_value = "tailrace-bench")]
    pub topic: String,
    /// Partitions of the topic
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: i32,
    /// Records a second, over all connections
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: u64,
    /// Bytes of a record's value
    #[arg(long, default_value_t = 1024)]
    pub record_size: usize,
    /// Records in a request
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub batch_records: u64,
    /// Connections, spread over the brokers that lead partitions
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
    /// Requests in flight on a connection; one that is due then waits, and its latency runs
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub in_flight: u32,
    /// Seconds to measure
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Seconds of load before that, not counted
    #[arg(long, default_value_t = 2.0)]
    pub warmup: f64,
    /// -1: on all in-sync replicas; 1: on the leader; 0: no reply, latencies end at the send
    #[arg(long, default_value_t = -1, allow_negative_numbers = true,
        value_parser = clap::value_parser!(i16).range(-1..=1))]
    pub acks: i16,
    /// Cores of the load, as 1 or 1,3
    #[arg(long, value_delimiter = ',', default_value = "1")]
    pub cores: Vec<usize>,
    /// Let load cores sleep between events; their wake-ups are then in the latencies
    #[arg(long)]
    pub sleep: bool,
    /// Also write settings and result to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What `tailrace bench produce` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub kind: &'static str,
    pub settings: ProduceArgs,
    /// From the intended time of a request to its reply.
    #[serde(flatten)]
    pub latencies: Summary,
    /// Acknowledged in the measured time and shortly after.
    pub records_per_second: f64,
    /// Of record values, in units of 1,000,000 bytes.
    pub megabytes_per_second: f64,
    /// Requests, warm-up included.
    pub errors: u64,
    pub unanswered: u64,
    pub first_error: Option<String>,
    /// The longest that a request was sent after its time.
    pub late_max_us: u64,
    /// Of the machine, at the end: one, five and fifteen minutes.
    pub load_average: String,
}

/// Measures, prints the table to `out`, and returns the result.
pub fn run(args: &ProduceArgs, out: &mut dyn Write) -> Result<Report, BenchError> {
    let time = |seconds| Duration::try_from_secs_f64(seconds).map(nanos);
    let (Ok(warmup_ns), Ok(measured_ns @ 1..)) = (time(args.warmup), time(args.seconds)) else {
        let why = "--seconds must be more than 0, --warmup 0 or more";
        return Err(BenchError::Argument { why });
    };
    let workload = Workload {
        topic: args.topic.clone(),
        partitions: args.partitions,
        record_size: args.record_size,
        batch_records: args.batch_records,
        acks: args.acks,
    };
    let plan = Plan {
        connections: usize::try_from(args.connections).unwrap_or(usize::MAX),
        rate: Rate::of_records(args.rate, args.batch_records),
        warmup_ns,
        measured_ns,
        in_flight_max: usize::try_from(args.in_flight).unwrap_or(usize::MAX),
    };
    let leaders = kafka::prepare(&args.bootstrap, &workload)?;
    let lanes = load::lanes(&plan, &workload, &leaders)?;
    let outcomes = load::run(lanes, &args.cores, !args.sleep)?;
    let report = Report::new(args, measured_ns, &outcomes)?;
    report.print(out).map_err(BenchError::io("print the result"))?;
    if let Some(json) = &args.json {
        crate::write_json(json, &report)?;
    }
    Ok(report)
}

impl Report {
    fn new(
        args: &ProduceArgs,
        measured_ns: u64,
        lanes: &[LaneOutcome],
    ) -> Result<Self, BenchError> {
        let mut latencies = Latencies::new()?;
        for lane in lanes {
            latencies.add(&lane.outcome.latencies)?;
        }
        let outcomes = || lanes.iter().map(|lane| &lane.outcome);
        let answered: u64 = outcomes().map(|outcome| outcome.answered).sum();
        // Behind time, the last replies come after the end: then the time is longer, too.
        let overtime = outcomes().map(|outcome| outcome.overtime_ns).max().unwrap_or_default();
        let seconds = Duration::from_nanos(measured_ns + overtime).as_secs_f64();
        let records_per_second = float(answered * args.batch_records) / seconds;
        let record_size = u64::try_from(args.record_size).unwrap_or(u64::MAX);
        Ok(Self {
            kind: "produce",
            settings: args.clone(),
            latencies: latencies.summary(),
            records_per_second,
            megabytes_per_second: records_per_second * float(record_size) / 1e6,
            errors: outcomes().map(|outcome| outcome.errors).sum(),
            unanswered: outcomes().map(|outcome| outcome.unanswered).sum(),
            first_error: lanes.iter().find_map(|lane| lane.first_error.clone()),
            late_max_us: outcomes().map(|outcome| outcome.late_max_ns).max().unwrap_or(0) / 1000,
            load_average: crate::load_average(),
        })
    }

    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let ProduceArgs { rate, record_size, batch_records, connections, acks, .. } =
            &self.settings;
        writeln!(
            out,
            "acks={acks}, {rate} records/s of {record_size} B open loop, {batch_records} a \
             request, {connections} connections, {} s; load average {}",
            self.settings.seconds, self.load_average
        )?;
        Percentiles::heading(out, "latency, us")?;
        self.latencies.latency_us.row(out, "produce")?;
        writeln!(
            out,
            "{:.0} records/s, {:.2} MB/s; {} requests counted, {} errors, {} unanswered; sent at \
             most {} us late",
            self.records_per_second,
            self.megabytes_per_second,
            self.latencies.count,
            self.errors,
            self.unanswered,
            self.late_max_us
        )?;
        match &self.first_error {
            Some(error) => writeln!(out, "the first error: {error}"),
            None => Ok(()),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts and sizes are far below 2^52")]
pub(crate) fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open_loop::{OpenLoop, Schedule};
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: ProduceArgs,
    }

    #[test]
    fn the_documented_flags_parse() {
        let line = "x --bootstrap h:1 --topic t --partitions 2 --rate 5 --record-size 10 \
                    --batch-records 3 --connections 4 --seconds 1 --warmup 0 --acks -1 \
                    --cores 1,2 --json f";
        let args = Cli::parse_from(line.split_whitespace()).args;
        assert_eq!((args.acks, args.cores, args.partitions), (-1, vec![1, 2], 2));
        assert!(Cli::try_parse_from(["x", "--acks", "2"]).is_err());
    }

    #[test]
    fn throughput_counts_acknowledged_records_and_errors_are_told() {
        let args = Cli::parse_from(["x", "--batch-records", "10", "--record-size", "100"]).args;
        let rate = Rate::of_records(1000, 10);
        let schedule = Schedule::of_lane(rate, 0, 1, 0, 1_000_000_000);
        let mut load = OpenLoop::new(schedule, 8).unwrap();
        for number in 0..100 {
            load.sent(number * 10_000_000);
            load.replied(number * 10_000_000 + 100_000, number != 7);
        }
        let first_error = Some("NOT_LEADER_OR_FOLLOWER(6)".to_owned());
        let lane = LaneOutcome { outcome: load.finish(1_000_000_000), first_error };
        let report = Report::new(&args, 1_000_000_000, &[lane]).unwrap();
        assert!((report.records_per_second - 990.0).abs() < 1e-6);
        assert_eq!((report.errors, report.unanswered), (1, 0));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["settings"]["acks"], &json["count"]), (&(-1).into(), &100.into()));
        assert!(json["latency_us"]["p99_9"].is_f64());
        let mut text = Vec::new();
        report.print(&mut text).unwrap();
        assert!(String::from_utf8(text).unwrap().contains("NOT_LEADER_OR_FOLLOWER"));
    }
}
