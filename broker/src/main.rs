//! `tailrace`: the one binary. Every error is one line on standard error and a non-zero exit.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::parse().and_then(cli::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

#[expect(clippy::print_stderr, reason = "the one place where the process reports why it ends")]
fn report(error: &cli::CliError) {
    eprintln!("tailrace: {error}");
}
