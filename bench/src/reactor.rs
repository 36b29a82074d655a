//! `tailrace bench reactor`: what the reactor costs over a bare io_uring loop (ADR 0001).
//!
//! One client, spinning on core 1, sends 100 bytes over TCP; the server on core 0 writes 4 KiB with
//! `O_DIRECT` and then replies 100 bytes. The product's reactor and the bare loop serve by turns,
//! on the same file, in the same run: the device's moods hit both, so the ratio stands still where
//! the microseconds do not.

mod client;
mod report;
mod server;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use uring::{AlignedBuf, DeviceError, DeviceFile, OpenMode, SetupError};

pub use report::{Percentiles, Report, Round};
use server::Server;

/// The ratio at p50 that ADR 0001 promises.
pub const RATIO_P50_MAX: f64 = 1.1;

/// The file that is written, and written anew from its start.
const FILE_SIZE: u64 = 64 << 20;

/// One write.
const BLOCK_SIZE: usize = 4096;

/// Both servers spin this long after an event, as in the figure to hold.
const SPIN: Duration = Duration::from_micros(500);

/// Measures the reactor against a bare io_uring loop.
#[derive(Args, Clone, Debug)]
pub struct ReactorArgs {
    /// Rounds; each measures both servers, in changing order
    #[arg(long, default_value_t = 10)]
    pub rounds: u32,
    /// Seconds that each server is measured in a round; many short rounds stand a busy machine best
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
    /// Folder for the file that is written, on the device to measure
    #[arg(long, default_value = ".")]
    pub data_dir: PathBuf,
    /// Write with RWF_DSYNC, as the WAL does on a device with a volatile cache
    #[arg(long)]
    pub durable: bool,
    /// The bare loop gives way to other threads on each pass, as the reactor must: on a busy
    /// machine this compares the loops and not what the scheduler does to them
    #[arg(long)]
    pub bare_yields: bool,
    /// Fail if the ratio at p50 is above 1.1
    #[arg(long)]
    pub check: bool,
    /// Also write the result to this file
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the comparison needs two cores, one for the server and one for the client")]
    OneCore,
    #[error("--rounds must be at least 1 and --seconds more than 0")]
    NothingToDo,
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("cannot {action}: {source}")]
    Io { action: &'static str, source: io::Error },
}

/// Measures, prints the table to `out`, and returns the result.
pub fn run(args: &ReactorArgs, out: &mut impl Write) -> Result<Report, RunError> {
    if uring::core_count() < 2 {
        return Err(RunError::OneCore);
    }
    let time = Duration::try_from_secs_f64(args.seconds).unwrap_or_default();
    if args.rounds == 0 || time.is_zero() {
        return Err(RunError::NothingToDo);
    }
    let path = args.data_dir.join(format!("tailrace-bench-reactor-{}", std::process::id()));
    let measured = measure(args, time, &path);
    // A file left behind only takes room.
    let _ = fs::remove_file(&path);
    let report = measured?;
    report.print(out).map_err(io_error("print the result"))?;
    if let Some(json) = &args.json {
        let text = serde_json::to_vec_pretty(&report).map_err(io::Error::other);
        text.and_then(|text| fs::write(json, text)).map_err(io_error("write the JSON file"))?;
    }
    Ok(report)
}

fn measure(args: &ReactorArgs, time: Duration, path: &Path) -> Result<Report, RunError> {
    let device = DeviceFile::open(path, OpenMode::Create)?;
    fill(&device).map_err(io_error("fill the file"))?;
    let mut rounds = Vec::new();
    for round in 0..args.rounds {
        let order = match round % 2 {
            0 => [Server::Product, Server::Bare],
            _ => [Server::Bare, Server::Product],
        };
        let mut measured = Round::default();
        for server in order {
            let percentiles = serve_and_measure(server, args, time, &device)?;
            match server {
                Server::Product => measured.product = percentiles,
                Server::Bare => measured.bare = percentiles,
            }
        }
        rounds.push(measured);
    }
    Ok(Report::new(args, device.write_cache().to_string(), rounds))
}

fn serve_and_measure(
    server: Server,
    args: &ReactorArgs,
    time: Duration,
    device: &DeviceFile,
) -> Result<Percentiles, RunError> {
    let running = server.start(device, args).map_err(io_error("start the server"))?;
    let address = running.address;
    let client = uring::spawn_pinned("client", Some(1), move || client::measure(address, time))
        .map_err(io_error("start the client"))?;
    let measured = client.join().map_err(|_| io::Error::other("the client panicked"));
    // The server first: why it ended is the better message.
    running.stop()?;
    measured.and_then(|outcome| outcome).map_err(io_error("measure"))
}

/// Written once, so that the measured writes change no metadata of the file system.
fn fill(device: &DeviceFile) -> io::Result<()> {
    let zeros = AlignedBuf::zeroed(1 << 20, 4096);
    device.resize(FILE_SIZE)?;
    for offset in (0..FILE_SIZE).step_by(zeros.len()) {
        device.write_at(offset, &zeros)?;
    }
    device.sync()
}

fn io_error(action: &'static str) -> impl Fn(io::Error) -> RunError {
    move |source| RunError::Io { action, source }
}
