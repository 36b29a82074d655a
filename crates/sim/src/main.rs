//! `sim --seeds N --from S` runs seeds, `sim --seed S` replays one with its timeline.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use sim::{Failure, Report, run, run_readable};

/// Deterministic simulation of three nodes.
#[derive(Parser)]
struct Arguments {
    /// Replay this seed alone, with a timeline.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// How many seeds to run.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (from, count) = arguments.seed.map_or((arguments.from, arguments.seeds), |seed| (seed, 1));
    // A panic inside a run is reported with its seed.
    std::panic::set_hook(Box::new(|_| ()));
    let mut out = std::io::stdout().lock();
    let result = match runs(from, count, arguments.seed.is_some(), &mut out) {
        Ok(held) => held,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "cannot print: {error}");
            false
        }
    };
    if result { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether all seeds held; stops at the first that did not.
fn runs(from: u64, count: u64, readable: bool, out: &mut impl Write) -> std::io::Result<bool> {
    writeln!(out, "SEED {from}..{}", from.saturating_add(count))?;
    writeln!(out, "replay one: cargo run --release -p sim -- --seed SEED")?;
    let mut total = Report::default();
    for seed in from..from.saturating_add(count) {
        match run(seed, None) {
            Ok(report) => total.add(&report),
            Err(_) => return failed(seed, out),
        }
        if readable {
            writeln!(out, "trace {:016x}", total.trace_hash)?;
        }
    }
    writeln!(out, "{count} seeds held: {total:?}")?;
    Ok(true)
}

fn failed(seed: u64, out: &mut impl Write) -> std::io::Result<bool> {
    writeln!(out, "SEED {seed}")?;
    writeln!(out, "replay: cargo run --release -p sim -- --seed {seed}")?;
    if let Err(Failure { violation, timeline }) = run_readable(seed, None) {
        for line in timeline {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "VIOLATION {violation}")?;
    }
    Ok(false)
}
