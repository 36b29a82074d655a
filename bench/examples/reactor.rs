//! Runs `bench reactor` by itself, without building the broker.

use std::error::Error;
use std::process::ExitCode;

use bench::reactor::{ReactorArgs, run};
use clap::Parser;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: ReactorArgs,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let report = run(&Cli::parse().args, &mut std::io::stdout())?;
    Ok(if report.holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
