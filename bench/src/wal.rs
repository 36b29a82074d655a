//! `tailrace bench wal`: how much of a device's bandwidth the WAL gets, by itself: no sockets, no
//! Kafka, no raft.
//!
//! One core appends records of one size as fast as they become durable. Framing, checksums, group
//! commit, trim and reuse of segments are the product's, and so are the options. `fio` on the file
//! that is left says what the device has (`tools/bench/bandwidth.py`).

mod append;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::BenchError;
use crate::produce::float;

/// Appends WAL records as fast as they become durable and tells the bandwidth
///
/// Makes the file, and leaves it. The first core appends a record while fewer than --in-flight
/// bytes are not durable. The log goes round when the file is full.
#[derive(Args, Clone, Debug, Serialize)]
pub struct WalArgs {
    /// File to make, on the device to measure; it must not be there
    #[arg(long, value_name = "FILE")]
    pub path: PathBuf,
    /// Bytes of the file
    #[arg(long, default_value_t = 2 << 30)]
    pub size: u64,
    /// Bytes of a record
    #[arg(long, default_value_t = 128 << 10)]
    pub record_size: usize,
    /// Bytes that are appended and not yet durable, at most
    #[arg(long, default_value_t = 4 << 20)]
    pub in_flight: u64,
    /// Seconds to measure
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Also write settings and result to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What `tailrace bench wal` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub kind: &'static str,
    pub settings: WalArgs,
    /// Of the device under the file.
    pub write_cache: String,
    pub records: u64,
    /// Of record data that became durable, in units of 1,000,000 bytes.
    pub megabytes_per_second: f64,
    /// Bytes of one device write, on average.
    pub write_size: f64,
    /// Of the machine, at the end: one, five and fifteen minutes.
    pub load_average: String,
}

/// Measures, prints the result to `out`, and returns it.
pub fn run(args: &WalArgs, out: &mut dyn Write) -> Result<Report, BenchError> {
    let time = Duration::try_from_secs_f64(args.seconds).unwrap_or_default();
    if time.is_zero() || args.in_flight == 0 {
        let why = "--seconds and --in-flight must be more than 0";
        return Err(BenchError::Argument { why });
    }
    append::make(&args.path, args.size)?;
    let (path, record_size, in_flight) = (args.path.clone(), args.record_size, args.in_flight);
    let thread = uring::spawn_pinned("wal", Some(0), move || {
        append::run(&path, record_size, in_flight, time)
    });
    let thread = thread.map_err(BenchError::io("start a thread"))?;
    let found = thread.join().map_err(|_| BenchError::Panicked)??;
    let seconds = Duration::from_nanos(found.nanos).as_secs_f64();
    let bytes = float(found.records) * float(u64::try_from(args.record_size).unwrap_or(u64::MAX));
    let report = Report {
        kind: "wal",
        settings: args.clone(),
        write_cache: found.write_cache,
        records: found.records,
        megabytes_per_second: bytes / seconds / 1e6,
        write_size: float(found.written) / float(found.writes.max(1)),
        load_average: crate::load_average(),
    };
    report.print(out).map_err(BenchError::io("print the result"))?;
    if let Some(json) = &args.json {
        crate::write_json(json, &report)?;
    }
    Ok(report)
}

impl Report {
    fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(
            out,
            "{:.0} MB/s durable, records of {} bytes, {:.0} KiB a write; {}; load average {}",
            self.megabytes_per_second,
            self.settings.record_size,
            self.write_size / 1024.0,
            self.write_cache,
            self.load_average
        )
    }
}
