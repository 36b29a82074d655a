//! `sim --seeds N --from S` runs seeds, `sim --seed S` replays one with its timeline.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use sim::{Failure, Report, brokers, offload};

/// Deterministic simulation of three voters, of a broker that offloads, and of three brokers.
#[derive(Parser)]
struct Arguments {
    /// What is simulated; all of it if not given.
    #[arg(long)]
    scenario: Option<Scenario>,
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

#[derive(Clone, Copy, ValueEnum)]
enum Scenario {
    /// Three voters over WALs on failing disks and a failing network.
    Voters,
    /// A broker that offloads, over a failing disk and a failing store.
    Offload,
    /// Three brokers, over failing disks, a failing network and a failing store.
    Brokers,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A panic inside a run is reported with its seed.
    std::panic::set_hook(Box::new(|_| ()));
    let mut out = std::io::stdout().lock();
    let all = [Scenario::Voters, Scenario::Offload, Scenario::Brokers];
    let chosen = arguments.scenario;
    for scenario in
        all.into_iter().filter(|it| chosen.is_none_or(|chosen| chosen.name() == it.name()))
    {
        match runs(scenario, &arguments, &mut out) {
            Ok(true) => {}
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "cannot print: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// A run that held, or its timeline and what it broke.
type Outcome<R> = Result<R, (Vec<String>, String)>;

impl Scenario {
    const fn name(self) -> &'static str {
        match self {
            Self::Voters => "voters",
            Self::Offload => "offload",
            Self::Brokers => "brokers",
        }
    }
}

/// Whether all seeds held; stops at the first that did not.
fn runs(scenario: Scenario, arguments: &Arguments, out: &mut impl Write) -> std::io::Result<bool> {
    match scenario {
        Scenario::Voters => {
            let mut total = Report::default();
            let held = all_held(scenario, arguments, out, |seed, readable| {
                let run = if readable { sim::run_readable } else { sim::run };
                let report = run(seed, None).map_err(told)?;
                total.add(&report);
                Ok(report.trace_hash)
            })?;
            if held {
                writeln!(out, "{} held: {total:?}", scenario.name())?;
            }
            Ok(held)
        }
        Scenario::Offload => counted(scenario, arguments, out, |seed, readable| {
            let run = if readable { offload::run_readable } else { offload::run };
            let report = run(seed, None).map_err(told)?;
            Ok((report.trace_hash, report.counts()))
        }),
        Scenario::Brokers => counted(scenario, arguments, out, |seed, readable| {
            let run = if readable { brokers::run_readable } else { brokers::run };
            let report = run(seed, None).map_err(told)?;
            Ok((report.trace_hash, report.counts()))
        }),
    }
}

/// What happened in a run, by name.
type Counts = Vec<(&'static str, usize)>;

/// [`all_held`]; then what happened, in how many runs.
fn counted(
    scenario: Scenario,
    arguments: &Arguments,
    out: &mut impl Write,
    mut run: impl FnMut(u64, bool) -> Outcome<(u64, Counts)>,
) -> std::io::Result<bool> {
    let mut runs: Vec<Counts> = Vec::new();
    let held = all_held(scenario, arguments, out, |seed, readable| {
        let (trace, counts) = run(seed, readable)?;
        runs.push(counts);
        Ok(trace)
    })?;
    if held {
        writeln!(out, "{} held; counts, and the runs with any:", scenario.name())?;
        for (at, (name, _)) in runs.first().into_iter().flatten().enumerate() {
            let count: usize = runs.iter().map(|run| run[at].1).sum();
            let hit = runs.iter().filter(|run| run[at].1 > 0).count();
            let percent = hit * 100 / runs.len();
            writeln!(out, "{count:>12}  {percent:>3} %  {name}")?;
        }
    }
    Ok(held)
}

fn told<V: std::fmt::Display>(failure: Failure<V>) -> (Vec<String>, String) {
    (failure.timeline, failure.violation.to_string())
}

/// Runs each seed; `run` takes it, and whether to keep a timeline, and gives the trace.
fn all_held(
    scenario: Scenario,
    arguments: &Arguments,
    out: &mut impl Write,
    mut run: impl FnMut(u64, bool) -> Outcome<u64>,
) -> std::io::Result<bool> {
    let (from, count) = arguments.seed.map_or((arguments.from, arguments.seeds), |seed| (seed, 1));
    let name = scenario.name();
    let replay = format!("sim --scenario {name} --seed");
    writeln!(
        out,
        "{name}: SEED {from}..{}; replay one: {replay} SEED",
        from.saturating_add(count)
    )?;
    for seed in from..from.saturating_add(count) {
        match run(seed, false) {
            Ok(trace) if arguments.seed.is_some() => writeln!(out, "trace {trace:016x}")?,
            Ok(_) => {}
            Err(_) => {
                writeln!(out, "SEED {seed}; replay: {replay} {seed}")?;
                if let Err((timeline, violation)) = run(seed, true) {
                    timeline.iter().try_for_each(|line| writeln!(out, "{line}"))?;
                    writeln!(out, "VIOLATION {violation}")?;
                }
                return Ok(false);
            }
        }
    }
    Ok(true)
}
