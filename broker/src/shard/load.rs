//! How busy this shard's core is, and with which partitions. Each shard tells the one of its broker
//! that has group 0, and that one whoever leads group 0, which moves a hot partition to another
//! core if that has been worth it for a while (`cluster/relief.rs`).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::{NodeId, PartitionId, RaftGroupId, ShardId};

use super::Shard;
use super::message::Message;
use super::metadata::METADATA_SHARD;
use crate::cluster::{Core, CoreLoad, relieve};
use crate::metrics::Metric;
use crate::peer::frame::Control;

/// Over which it is measured, and how often it is told.
const INTERVAL: Duration = Duration::from_secs(5);
/// Partitions that are told of, those with the most bytes.
const TOLD_MAX: usize = 32;
/// A core that was not heard of for so long counts no more.
const STALE: Duration = Duration::from_secs(15);
/// How long a move must have been worth it: a burst is over by then.
const LASTS: Duration = Duration::from_secs(15);
/// After a move it takes a while until the loads show it.
const REST: Duration = Duration::from_secs(60);
/// How long the same partition stays where it was moved.
const PARTITION_REST: Duration = Duration::from_secs(600);

/// What a core has done, where that is measured.
#[derive(Default)]
pub(crate) struct LoadMeter {
    /// When it was measured last, and how long its thread had worked by then.
    since: Option<(Instant, Duration)>,
    /// Thousandths of the time before that the thread worked, and that time, until it is told.
    busy: Option<(u32, Duration)>,
    /// Bytes ever written to each partition that this shard led then.
    written: BTreeMap<PartitionId, u64>,
}

/// What is known of all cores, where group 0 is led.
#[derive(Default)]
pub(crate) struct Loads {
    cores: BTreeMap<Core, (Instant, CoreLoad)>,
    /// Something was heard since it was last looked at.
    is_new: bool,
    /// Since when a move is worth it.
    worth_since: Option<Instant>,
    rests_until: Option<Instant>,
    moved: BTreeMap<PartitionId, Instant>,
}

impl LoadMeter {
    /// Is it time to measure?
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.since.is_none_or(|(at, _)| now.saturating_duration_since(at) >= INTERVAL)
    }

    /// Notes how long the core's thread has worked in all.
    pub(crate) fn note(&mut self, now: Instant, worked: Duration) {
        let Some((at, before)) = self.since.replace((now, worked)) else { return };
        let passed = now.saturating_duration_since(at);
        let busy = worked.saturating_sub(before).as_millis() * 1000 / passed.as_millis().max(1);
        self.busy = Some((u32::try_from(busy).unwrap_or(u32::MAX), passed));
    }

    /// Bytes a second of all partitions by what was ever written to each, those with the most
    /// first. One that was not led at the last call counts from the next one on.
    fn rates(
        &mut self,
        written: BTreeMap<PartitionId, u64>,
        passed: Duration,
    ) -> Vec<(PartitionId, u64)> {
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = |(id, now): (&PartitionId, &u64)| {
            let bytes = now.saturating_sub(*self.written.get(id)?);
            Some((*id, bytes.saturating_mul(1000) / millis))
        };
        let mut rates: Vec<_> = written.iter().filter_map(rate).filter(|it| it.1 > 0).collect();
        rates.sort_unstable_by_key(|(id, bytes)| (Reverse(*bytes), *id));
        self.written = written;
        rates
    }
}

impl Loads {
    fn hear(&mut self, core: Core, load: CoreLoad, now: Instant) {
        self.cores.insert(core, (now, load));
        self.is_new = true;
    }

    /// The loads that count, if something is new and no move is still fresh.
    fn look_at(&mut self, now: Instant) -> Option<BTreeMap<Core, CoreLoad>> {
        let rests = self.rests_until.is_some_and(|until| now < until);
        if !std::mem::take(&mut self.is_new) || rests {
            return None;
        }
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < STALE;
        self.cores.retain(|_, (at, _)| is_fresh(*at));
        self.moved.retain(|_, at| now.saturating_duration_since(*at) < PARTITION_REST);
        Some(self.cores.iter().map(|(core, (_, load))| (*core, load.clone())).collect())
    }

    /// Has a move been worth it for long enough?
    fn has_lasted(&mut self, is_worth_it: bool, now: Instant) -> bool {
        self.worth_since = is_worth_it.then(|| self.worth_since.unwrap_or(now));
        self.worth_since.is_some_and(|since| now.saturating_duration_since(since) >= LASTS)
    }
}

impl Shard {
    /// At the tick: tells of this core's load, and relieves the busiest core where that is for this
    /// shard to do.
    pub(super) fn share_load(&mut self) {
        if let Some((busy, passed)) = self.load.busy.take() {
            let load = self.measured(busy, passed);
            self.metrics.set(Metric::CoreBusy, busy.into());
            let core = (self.node.id, self.id);
            if self.id == METADATA_SHARD {
                self.hear_load(core, load);
            } else {
                self.mailbox.send(METADATA_SHARD, Message::Load { core, load });
            }
        }
        if self.id == METADATA_SHARD {
            self.relieve_busiest();
        }
    }

    /// Of a core that nothing leaves anyway, the partitions are not gone through.
    fn measured(&mut self, busy: u32, passed: Duration) -> CoreLoad {
        if busy < self.busy_min() || !self.node.settings.broker.balancer {
            self.load.written.clear();
            return CoreLoad { busy, ..CoreLoad::default() };
        }
        let mut written = BTreeMap::new();
        for group in self.tiers.groups().iter().filter(|it| self.log.leads(**it).is_some()) {
            written.extend(self.hosting.partitions(*group).map(|log| (log.id(), log.written())));
        }
        let mut partitions = self.load.rates(written, passed);
        let bytes = partitions.iter().map(|(_, bytes)| bytes).sum();
        partitions.truncate(TOLD_MAX);
        CoreLoad { busy, bytes, partitions }
    }

    /// A core of this broker or another one tells of its load: it is for whoever leads group 0.
    pub(super) fn hear_load(&mut self, core: Core, load: CoreLoad) {
        match self.node.leader(RaftGroupId::METADATA) {
            Some((leader, _)) if leader == self.node.id => {
                self.loads.hear(core, load, self.now.instant);
            }
            // What another broker told when this one led is old by the time it would arrive.
            Some((leader, _)) if core.0 == self.node.id => {
                let CoreLoad { busy, bytes, partitions } = load;
                let partitions = partitions.iter().map(|(id, bytes)| (id.get(), *bytes)).collect();
                let load = Control::Load { shard: core.1.get(), busy, bytes, partitions };
                self.peers.send_control(leader, &load);
            }
            _ => {}
        }
    }

    /// The same, as it arrives from another broker.
    pub(super) fn hear_load_of(
        &mut self,
        node: NodeId,
        shard: u16,
        (busy, bytes): (u32, u64),
        partitions: &[(u64, u64)],
    ) {
        let partitions = partitions.iter().map(|(id, bytes)| (PartitionId::new(*id), *bytes));
        let load = CoreLoad { busy, bytes, partitions: partitions.collect() };
        self.hear_load((node, ShardId::new(shard)), load);
    }

    /// Thousandths of its time that a core works before partitions leave it.
    fn busy_min(&self) -> u32 {
        10 * self.node.settings.broker.balancer_busy
    }

    fn relieve_busiest(&mut self) {
        let now = self.now.instant;
        if !self.log.has_caught_up(RaftGroupId::METADATA) || !self.node.settings.broker.balancer {
            self.loads = Loads::default();
            return;
        }
        let Some(loads) = self.loads.look_at(now) else { return };
        let image = self.metadata.shared_image();
        if image.moving().next().is_some() {
            return;
        }
        let moved = &self.loads.moved;
        let found = relieve(&image, &loads, self.busy_min(), |id| !moved.contains_key(&id));
        if !self.loads.has_lasted(found.is_some(), now) {
            return;
        }
        if let Some((partition, command)) = found
            && self.try_propose_command(&command).is_ok()
        {
            let name = image.name_of(partition);
            self.notes.push(format!("{name} moves: its core is busier than others"));
            self.metrics.add(Metric::BalancerChanges, 1);
            self.loads.moved.insert(partition, now);
            self.loads.rests_until = Some(now + REST);
            self.loads.worth_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "a test's clock may be any")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_core_is_as_busy_as_its_thread_works() {
        let (mut meter, start) = (LoadMeter::default(), start());
        assert!(meter.is_due(start));
        meter.note(start, 3 * SECOND);
        assert_eq!(meter.busy, None, "it begins");
        assert!(!meter.is_due(start + INTERVAL - SECOND / 10) && meter.is_due(start + INTERVAL));
        meter.note(start + INTERVAL, 7 * SECOND);
        assert_eq!(meter.busy.take(), Some((800, INTERVAL)));
        meter.note(start + 3 * INTERVAL, 7 * SECOND);
        assert_eq!(meter.busy, Some((0, 2 * INTERVAL)));
    }

    #[test]
    fn rates_are_of_partitions_that_were_led_before_too() {
        let mut meter = LoadMeter::default();
        let written = |of: &[(u64, u64)]| {
            of.iter().map(|(id, bytes)| (PartitionId::new(*id), *bytes)).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(meter.rates(written(&[(1, 500), (2, 0), (3, 7)]), 2 * SECOND), []);
        let rates = meter.rates(written(&[(1, 700), (2, 4000), (3, 7), (4, 900)]), 2 * SECOND);
        assert_eq!(rates, [(PartitionId::new(2), 2000), (PartitionId::new(1), 100)]);
        let rates = meter.rates(written(&[(4, 1900)]), SECOND);
        assert_eq!(rates, [(PartitionId::new(4), 1000)]);
    }

    #[test]
    fn a_burst_is_over_before_anything_moves_and_a_move_is_waited_for() {
        let (mut loads, start) = (Loads::default(), start());
        assert!(!loads.has_lasted(true, start));
        assert!(!loads.has_lasted(false, start + LASTS / 2));
        assert!(!loads.has_lasted(true, start + LASTS));
        assert!(loads.has_lasted(true, start + 2 * LASTS));
        let core = (NodeId::new(1), ShardId::new(0));
        loads.hear(core, CoreLoad::default(), start);
        assert_eq!(loads.look_at(start).map(|it| it.len()), Some(1));
        assert_eq!(loads.look_at(start), None, "nothing is new");
        loads.hear((NodeId::new(2), core.1), CoreLoad::default(), start + STALE);
        assert_eq!(loads.look_at(start + STALE).map(|it| it.len()), Some(1), "one is silent");
        loads.rests_until = Some(start + REST);
        loads.hear(core, CoreLoad::default(), start + STALE);
        assert_eq!(loads.look_at(start + STALE), None);
    }
}
