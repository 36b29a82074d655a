//! Takes so many produce requests of so many records, for a tool that counts instructions:
//! `produce_cost RECORDS REQUESTS`. See `tools/bench/instructions.py`.

use std::process::ExitCode;

use sim::cost::CostRun;

fn main() -> ExitCode {
    let numbers: Vec<usize> =
        std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let [records, requests] = numbers[..] else { return ExitCode::FAILURE };
    CostRun::new(records).produce(requests);
    ExitCode::SUCCESS
}
