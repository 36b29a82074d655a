//! The end of a run: everything is well, so all must come to rest, and all be there.

use std::time::Duration;

use s3_uploader::Weather;

use super::{Event, Simulation};
use crate::hardware::End;
use crate::kafka::violation::Violation;

/// Microseconds within which all is offloaded and deleted, beside what a stalled request and the
/// settings may take.
const REST_MAX: u64 = 180_000_000;
/// Microseconds to serve after a start.
const START_MAX: u64 = 30_000_000;
/// Microseconds to read everything.
const READ_MAX: u64 = 120_000_000;
/// Reads that find damage of before in a cache, each of which makes that be read anew.
const FAILURES_MAX: usize = 20;
/// Microseconds between two looks.
const INTERVAL: u64 = 100_000;

pub(super) fn come_to_rest(it: &mut Simulation) -> Result<(), Violation> {
    it.machine
        .store
        .faults
        .set_weather(Weather { delay_max: Duration::from_millis(20), ..Weather::default() });
    it.ambush = None;
    // A broker that is down comes back; nobody else does anything any more.
    it.plan.retain(|_, event| matches!(event, Event::Start));
    wait(it, REST_MAX, unrest)?;
    read_all(it)?;
    // Once more from the disk and the bucket alone.
    it.end_broker(End::PowerCut);
    it.plan.clear();
    it.start()?;
    wait(it, START_MAX, |it| (!it.ready).then(|| "it does not serve".to_owned()))?;
    read_all(it)
}

/// What is not at rest.
fn unrest(it: &Simulation) -> Option<String> {
    let Some(broker) = it.machine.broker().filter(|_| it.ready) else {
        return Some("the broker does not serve".to_owned());
    };
    let counters = broker.counters();
    let Some(group) = broker.groups().next() else { return Some("no group".to_owned()) };
    let manifest = broker.manifest(group.group);
    let retired = manifest.totals().retired_count;
    if group.pending_bytes > 0 {
        return Some(format!("bytes are not offloaded: {group:?}"));
    }
    if counters.is_under_pressure {
        return Some(format!("the log is full: {counters:?}"));
    }
    if retired > 0 {
        return Some(format!("{retired} objects are not deleted"));
    }
    let orphan = it.watch.orphans(manifest).into_iter().next();
    orphan.map(|object| format!("{object} is an orphan: {group:?}"))
}

/// Lets time pass until nothing is wrong any more.
fn wait(
    it: &mut Simulation,
    most: u64,
    wrong: impl Fn(&Simulation) -> Option<String>,
) -> Result<(), Violation> {
    let by = it.machine.now + most;
    while let Some(what) = wrong(it) {
        if it.machine.now >= by {
            return Err(Violation::Stuck { seconds: most / 1_000_000, what });
        }
        let next = (it.machine.now + INTERVAL).min(by);
        it.step(next)?;
    }
    Ok(())
}

/// Reads every partition from its log start to its end: all that was acknowledged is there.
fn read_all(it: &mut Simulation) -> Result<(), Violation> {
    it.clients.rewind(&it.history);
    let failed_max = it.report.reads_failed + FAILURES_MAX;
    for partition in 0..it.settings.partitions().len() {
        let by = it.machine.now + READ_MAX;
        while it.clients.position(partition) < it.history.high_watermark(partition) {
            if it.machine.now >= by || it.report.reads_failed > failed_max {
                let offset = it.clients.position(partition);
                let reason = "it fails again and again".to_owned();
                let partition = it.history.name(partition);
                return Err(Violation::Unreadable { partition, offset, reason });
            }
            it.ask(|it, _| it.clients.follow(partition, &it.history, &mut it.random));
            let next = it.machine.now + INTERVAL;
            it.step(next)?;
        }
        it.history.read_through(partition, it.clients.position(partition))?;
    }
    Ok(())
}
