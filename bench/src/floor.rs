//! `tailrace bench floor`: what the broker adds to what TCP and the disk take anyway.

mod broker;
mod client;
mod echo;
mod report;
mod writer;

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use uring::DeviceFile;

use crate::BenchError;
use crate::clock::{Contention, nanos};
use crate::kafka::{self, Requests, Workload};
use crate::open_loop::{Outcome, Rate, Schedule};

use broker::Broker;
use echo::Echo;
pub use report::{Part, Ratio, Report, Round, Verdict};

/// The most that c / (a + b) may be.
pub const RATIO_MAX: Ratio = Ratio { p50: 1.5, p99: 2.0, p99_9: 3.0 };

/// The most that the threads of (a) and (b) may have waited for their cores, as a percentage of
/// their time. A quiet machine shows less than 1.
pub const CONTENDED_PERCENT_MAX: f64 = 2.0;

const IN_FLIGHT_MAX: usize = 64;

/// The last replies may take this long.
const REPLY_NANOS_MAX: u64 = 10_000_000_000;

/// Sent but not counted, at the start of each part.
const WARM_UP: Duration = Duration::from_millis(300);

const TOPIC: &str = "tailrace-bench-floor";

/// Measures acks=all produce against its floor: a bare TCP round trip plus a bare durable write
///
/// Interleaved, at the same open-loop rate: (a) a request and a reply of the same sizes over
/// loopback TCP, server on core 0, client on core 1, both spinning; (b) an O_DIRECT write (durable
/// as the broker would make it) of the block that holds one record, from core 0, on the broker's
/// file system; (c) acks=all produce of one record a request to a broker that this starts on core
/// 0, with the client of (a). Latencies run from the intended time of each request. Told is
/// c / (a + b), the median over the rounds. On a machine that is busy with other things the floor
/// rises more than the broker: such a run is told to be undecided, and --check fails.
#[derive(Args, Clone, Debug, Serialize)]
pub struct FloorArgs {
    /// Folder for the broker's data and the file of bare writes, on the device to measure
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Rounds; each measures all three, in changing order
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Seconds that each of the three is measured in a round
    #[arg(long, default_value_t = 4.0)]
    pub seconds: f64,
    /// Requests a second
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: u64,
    /// Bytes of the record's value
    #[arg(long, default_value_t = 1024)]
    pub record_size: usize,
    /// Also write settings, ratios and histograms to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Fail if a ratio is above 1.5 at p50, 2 at p99 or 3 at p99.9, or the machine was too busy
    #[arg(long)]
    pub check: bool,
    /// The broker's program, if it is not this one
    #[arg(long, hide = true, value_name = "PATH")]
    pub broker: Option<PathBuf>,
}

/// Measures, prints the table to `out`, and returns the result.
pub fn run(args: &FloorArgs, out: &mut dyn Write) -> Result<Report, BenchError> {
    if uring::core_count() < 2 {
        return Err(BenchError::OneCore);
    }
    let measured = Duration::try_from_secs_f64(args.seconds).unwrap_or_default();
    if measured.is_zero() {
        return Err(BenchError::Argument { why: "--seconds must be more than 0" });
    }
    fs::create_dir_all(&args.data_dir).map_err(BenchError::io("create the data directory"))?;
    let path = args.data_dir.join(format!("tailrace-bench-floor-{}", std::process::id()));
    let rounds = measure(args, measured, &path);
    // A file left behind only takes room.
    let _ = fs::remove_file(&path);
    let (write_cache, rounds) = rounds?;
    let report = Report::new(args.clone(), write_cache, rounds);
    report.print(out).map_err(BenchError::io("print the result"))?;
    if let Some(json) = &args.json {
        crate::write_json(json, &report)?;
    }
    Ok(report)
}

fn measure(
    args: &FloorArgs,
    measured: Duration,
    path: &std::path::Path,
) -> Result<(uring::WriteCache, Vec<Round>), BenchError> {
    let device = writer::create(path)?;
    let program = match &args.broker {
        Some(program) => program.clone(),
        None => std::env::current_exe().map_err(BenchError::io("find this program's file"))?,
    };
    let broker = Broker::start(&program, &args.data_dir.join("broker"))?;
    let workload = Workload {
        topic: TOPIC.to_owned(),
        partitions: 1,
        record_size: args.record_size,
        batch_records: 1,
        acks: -1,
    };
    kafka::prepare(&broker.address.to_string(), &workload)?;
    let rate = Rate::of_records(args.rate, 1);
    let schedule = Schedule::of_lane(rate, 0, 1, nanos(WARM_UP), nanos(measured));
    let durable = device.write_cache().needs_sync();
    let mut bare = Bare { workload, schedule, durable, device };
    let mut rounds = Vec::new();
    for round in 0..args.rounds {
        rounds.push(bare.round(round, broker.address)?);
    }
    Ok((bare.device.write_cache(), rounds))
}

/// One of the three in one round.
struct Measured {
    outcome: Outcome,
    /// Of its time the measuring thread waited this much for its core, as a percentage.
    contended_percent: f64,
}

impl Measured {
    fn new(outcome: Outcome, contention: Contention) -> Self {
        Self { outcome, contended_percent: contention.percent() }
    }
}

/// What all measurements share.
struct Bare {
    workload: Workload,
    schedule: Schedule,
    durable: bool,
    device: DeviceFile,
}

impl Bare {
    fn round(&mut self, round: u32, broker: SocketAddr) -> Result<Round, BenchError> {
        let mut parts = [None, None, None];
        for turn in 0..3 {
            let part = usize::try_from((round + turn) % 3).unwrap_or_default();
            parts[part] = Some(match part {
                0 => self.echo()?,
                1 => self.write()?,
                _ => self.client(broker)?,
            });
        }
        let [Some(echo), Some(write), Some(produce)] = parts else {
            return Err(BenchError::Panicked);
        };
        Ok(Round::new(&echo, &write, &produce))
    }

    fn echo(&self) -> Result<Measured, BenchError> {
        let requests = Requests::new(&self.workload, &[0]).map_err(kafka::KafkaError::from)?;
        let echo = Echo::start(requests.size(), &kafka::canned_reply(TOPIC))
            .map_err(BenchError::io("start the echo server"))?;
        let outcome = self.client(echo.address);
        // The server first: why it ended is the better message.
        echo.stop().map_err(BenchError::io("run the echo server"))?;
        outcome
    }

    fn write(&mut self) -> Result<Measured, BenchError> {
        let size = writer::block_size(self.workload.record_size);
        let size = size.map_err(BenchError::io("measure bare writes"))?;
        let (durable, schedule) = (self.durable, self.schedule);
        // A scoped thread cannot be pinned by its spawner: it pins itself.
        let device = &self.device;
        std::thread::scope(|scope| {
            let run = move || {
                uring::pin_to_core(0).map_err(BenchError::io("pin a thread"))?;
                writer::run(device, size, durable, schedule)
            };
            scope.spawn(run).join().map_err(|_| BenchError::Panicked)?
        })
    }

    /// On core 1, the same for the echo and the broker.
    fn client(&self, address: SocketAddr) -> Result<Measured, BenchError> {
        let mut requests = Requests::new(&self.workload, &[0]).map_err(kafka::KafkaError::from)?;
        let schedule = self.schedule;
        let run = move || client::run(address, &mut requests, schedule);
        let thread = uring::spawn_pinned("client", Some(1), run);
        let thread = thread.map_err(BenchError::io("start the client"))?;
        let joined = thread.join().map_err(|_: Box<_>| io::Error::other("it panicked"));
        joined.map_err(BenchError::io("run the client"))?
    }
}
