//! Load on a broker: connections over its leaders, and cores to run them on.

mod executor;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::BenchError;
use crate::kafka::{KafkaError, Requests, Workload};
use crate::open_loop::{Outcome, Rate, Schedule};

/// One connection's part.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) address: SocketAddr,
    pub(crate) requests: Requests,
    pub(crate) schedule: Schedule,
    pub(crate) in_flight_max: usize,
    /// False for acks=0: a request is done when it is written.
    pub(crate) replies: bool,
}

/// What one connection did.
#[derive(Debug)]
pub(crate) struct LaneOutcome {
    pub(crate) outcome: Outcome,
    pub(crate) first_error: Option<String>,
}

/// How hard and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) connections: usize,
    pub(crate) rate: Rate,
    pub(crate) warmup_ns: u64,
    pub(crate) measured_ns: u64,
    pub(crate) in_flight_max: usize,
}

/// Spreads the connections over the leaders; each sends to its leader's partitions in turns.
pub(crate) fn lanes(
    plan: &Plan,
    workload: &Workload,
    leaders: &BTreeMap<SocketAddr, Vec<i32>>,
) -> Result<Vec<Lane>, BenchError> {
    if plan.connections < leaders.len() {
        let why = "--connections must be at least the number of addresses that lead partitions";
        return Err(BenchError::Argument { why });
    }
    let mut lanes = Vec::new();
    let count = plan.connections as u64;
    for ((address, partitions), lane) in leaders.iter().cycle().zip(0..count) {
        // Connections to one leader start at different partitions.
        let mut partitions = partitions.clone();
        let turn = usize::try_from(lane).unwrap_or_default() / leaders.len();
        let shift = turn % partitions.len().max(1);
        partitions.rotate_left(shift);
        let requests = Requests::new(workload, &partitions).map_err(KafkaError::from)?;
        lanes.push(Lane {
            address: *address,
            requests,
            schedule: Schedule::of_lane(plan.rate, lane, count, plan.warmup_ns, plan.measured_ns),
            in_flight_max: plan.in_flight_max,
            replies: workload.acks != 0,
        });
    }
    Ok(lanes)
}

/// Runs all lanes, spread over executors on `cores`, to their ends. Executors that do not spin
/// sleep between events, and their wake-ups are in the latencies.
pub(crate) fn run(
    lanes: Vec<Lane>,
    cores: &[usize],
    spins: bool,
) -> Result<Vec<LaneOutcome>, BenchError> {
    let mut by_core: Vec<Vec<Lane>> = cores.iter().map(|_| Vec::new()).collect();
    for (number, lane) in lanes.into_iter().enumerate() {
        by_core[number % cores.len()].push(lane);
    }
    let work = cores.iter().copied().zip(by_core).filter(|(_, lanes)| !lanes.is_empty());
    executor::run(work.collect(), spins)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(connections: usize) -> Plan {
        Plan {
            connections,
            rate: Rate::of_records(1000, 1),
            warmup_ns: 0,
            measured_ns: 100_000_000,
            in_flight_max: 16,
        }
    }

    fn workload() -> Workload {
        let topic = "t".to_owned();
        Workload { topic, partitions: 3, record_size: 100, batch_records: 1, acks: 1 }
    }

    #[test]
    fn connections_spread_over_leaders_and_share_the_rate() {
        let leader = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let leaders = BTreeMap::from([(leader(1), vec![0, 2]), (leader(2), vec![1])]);
        let made = lanes(&plan(4), &workload(), &leaders).unwrap();
        let addresses: Vec<u16> = made.iter().map(|lane| lane.address.port()).collect();
        assert_eq!(addresses, [1, 2, 1, 2]);
        let firsts: Vec<u64> = made.iter().map(|lane| lane.schedule.first_ns).collect();
        assert_eq!(firsts, [0, 1_000_000, 2_000_000, 3_000_000]);
        assert!(lanes(&plan(1), &workload(), &leaders).is_err());
    }
}
