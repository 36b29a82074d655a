//! Measurements of Tailrace: latencies as percentiles, costs as ratios within one run.
//!
//! [`run`] is `tailrace bench`. Load is open loop ([`open_loop`]): a request has a time at which it
//! should be sent, and its latency runs from there.

mod clock;
pub mod fetch;
pub mod floor;
pub mod kafka;
pub mod latencies;
mod load;
pub mod open_loop;
pub mod produce;
pub mod reactor;
pub mod wal;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use floor::Verdict;
use hdrhistogram::errors::{AdditionError, CreationError};
use serde::Serialize;

/// What to measure.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    Reactor(reactor::ReactorArgs),
    Produce(produce::ProduceArgs),
    Fetch(fetch::FetchArgs),
    Floor(floor::FloorArgs),
    Wal(wal::WalArgs),
}

/// Why there is no result, or, where a check was asked for, not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Reactor(#[from] reactor::RunError),
    #[error("the comparison needs two cores, one for the server and one for the client")]
    OneCore,
    #[error("{why}")]
    Argument { why: &'static str },
    #[error("cannot {action}: {source}")]
    Io { action: &'static str, source: io::Error },
    #[error(transparent)]
    Device(#[from] uring::DeviceError),
    #[error(transparent)]
    Kafka(#[from] kafka::KafkaError),
    #[error("the broker refused a request: {error}")]
    Refused { error: String },
    #[error("cannot run the broker {program}: {why}")]
    Broker { program: PathBuf, why: String },
    #[error("the WAL: {why}")]
    Wal { why: String },
    #[error(transparent)]
    Format(#[from] wal_uring::FormatError),
    #[error("the load executor: {why}")]
    Executor { why: String },
    #[error("cannot make a histogram: {0}")]
    Histogram(#[from] CreationError),
    #[error("cannot add histograms: {0}")]
    Addition(#[from] AdditionError),
    #[error("a thread of the measurement panicked")]
    Panicked,
    #[error("the result is above its limit")]
    AboveLimit,
    #[error("the machine is too busy with other things to check anything")]
    Busy,
}

/// Measures, and prints the result to `out`.
pub fn run(command: BenchCommand, out: &mut dyn Write) -> Result<(), BenchError> {
    let holds = match command {
        BenchCommand::Reactor(args) => reactor::run(&args, &mut { out })?.holds || !args.check,
        BenchCommand::Produce(args) => produce::run(&args, out).map(|_| true)?,
        BenchCommand::Fetch(args) => fetch::run(&args, out).map(|_| true)?,
        BenchCommand::Wal(args) => wal::run(&args, out).map(|_| true)?,
        BenchCommand::Floor(args) => match floor::run(&args, out)?.verdict {
            Verdict::Undecided if args.check => return Err(BenchError::Busy),
            verdict => verdict == Verdict::Holds || !args.check,
        },
    };
    if holds { Ok(()) } else { Err(BenchError::AboveLimit) }
}

impl BenchError {
    fn io(action: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), BenchError> {
    let text = serde_json::to_vec_pretty(value).map_err(io::Error::other);
    text.and_then(|text| fs::write(path, text)).map_err(BenchError::io("write the JSON file"))
}

/// How busy the machine is: a latency means little without it.
fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
