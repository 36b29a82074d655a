//! `perf`: compares benchmark results and describes the machine they come from.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use perf::compare::{compare, read};
use perf::host::Host;

/// Compares results of `tailrace bench` and describes the machine they come from.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows two results of one kind (written with --json) side by side
    ///
    /// Ratios, latencies and throughput are compared; settings that differ are told. Ends with
    /// status 1 if a figure got worse by more than --max-worse, and with 2 if the files cannot be
    /// compared.
    Compare {
        before: PathBuf,
        after: PathBuf,
        /// How much worse a figure may be, as a percentage of what it was
        #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
        max_worse: f64,
    },
    /// Prints kernel, processor, cores, memory and block devices as JSON
    Host,
}

fn main() -> ExitCode {
    match run(Cli::parse().command, &mut std::io::stdout()) {
        Ok(code) => code,
        Err(error) => {
            let line = format!("error: {error}\n");
            // There is nowhere left to tell that this failed.
            let _ = std::io::stderr().write_all(line.as_bytes());
            ExitCode::from(2)
        }
    }
}

fn run(command: Command, out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        Command::Compare { before, after, max_worse } => {
            let compared = compare(&read(&before)?, &read(&after)?)?;
            write!(out, "{}", compared.table(max_worse))?;
            let worse = compared.worse_than(max_worse).count();
            if worse > 0 {
                writeln!(out, "{worse} figures got worse by more than {max_worse} %")?;
            }
            Ok(if worse > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Command::Host => {
            serde_json::to_writer_pretty(&mut *out, &Host::read(Path::new("/")))?;
            writeln!(out)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
