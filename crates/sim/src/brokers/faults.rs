//! What goes wrong: power, processes, links, and the store's weather.

use broker::simulation::SimBroker;

use super::{Bug, Event, Simulation};
use crate::hardware::End;
use crate::kafka::violation::Violation;
use crate::weather::draw_weather;

/// Microseconds that a broker stays down, or stands still, at most.
pub(super) const DOWN_MAX: u64 = 3_000_000;
/// Microseconds within which each disk has what was given to it.
const WRITTEN_AFTER: u64 = 1_000_000;
/// Microseconds that a link is cut at most.
const CUT_MAX: u64 = 5_000_000;
/// Microseconds that a broker which stops waits for another one to lead.
const HAND_OVER_MAX: u64 = 1_000_000;

impl Simulation {
    pub(super) fn strike(&mut self) -> Result<(), Violation> {
        let again = self.random.between(100_000, self.settings.fault_interval_max);
        self.plan(again, Event::Fault);
        let nodes = self.nodes();
        let node = nodes[self.random.index(nodes.len())];
        match self.random.below(26) {
            0..=3 => self.end_broker(node, End::PowerCut),
            4..=5 => self.end_broker(node, End::Kill),
            6 => nodes.into_iter().for_each(|node| self.end_broker(node, End::PowerCut)),
            7..=9 => self.pause(node),
            10..=11 => self.stop(node),
            12..=14 => self.isolate(node),
            15..=17 => self.cut(node),
            18..=19 => self.lose_disk(node),
            20 => self.bring_old_disk(node),
            21..=23 if self.settings.upgrades => self.change_build(node),
            _ => self.break_links(node),
        }
        Ok(())
    }

    /// Draws the store's weather for the next while.
    pub(super) fn change_weather(&mut self) {
        let (weather, after) = draw_weather(&mut self.random);
        self.note(0, &[6, after], || format!("{weather:?}"));
        self.store.faults.set_weather(weather);
        self.plan(after, Event::Weather);
    }

    pub(super) fn end_broker(&mut self, node: usize, end: End) {
        let Some(broker) = self.machines[node].broker() else { return };
        self.report.add_life(&broker.counters());
        let disk = u64::from(broker.disk_trace());
        self.note(node, &[7, disk], || format!("{end:?}"));
        self.machines[node].end(end);
        self.clients.broker_ended(node, &mut self.random);
        for conn in self.network.node_ended(self.now, node, end == End::Kill) {
            let after = self.random.below(DOWN_MAX);
            self.plan(after, Event::Reset(conn));
        }
        match end {
            End::PowerCut => self.report.power_cuts += 1,
            End::Kill => self.report.kills += 1,
        }
        let down = self.random.below(DOWN_MAX);
        self.plan(down, Event::Start(node));
    }

    /// A broker's disk is gone, and it comes back with an empty one. One at a time: what a majority
    /// has lost is lost.
    fn lose_disk(&mut self, node: usize) {
        if self.lost.is_some() || self.machines[node].runs_on_old() {
            return;
        }
        self.end_broker(node, End::PowerCut);
        let mut incarnation = self.draw_incarnation();
        if self.bug == Some(Bug::SameVoter) {
            incarnation = 0;
        }
        self.note(node, &[14, incarnation.into()], || format!("has another disk, {incarnation}"));
        self.machines[node].lose_disk(incarnation);
        self.lost = Some(node);
        self.report.disks_lost += 1;
    }

    /// Of a disk that is not a node's first.
    pub(super) fn draw_incarnation(&mut self) -> u32 {
        let drawn = self.random.between(1, u64::from(u32::MAX) - 1);
        u32::try_from(drawn).expect("the bound is one of them")
    }

    /// The disk that a broker had lost is found, and the broker runs on it for a while.
    fn bring_old_disk(&mut self, node: usize) {
        if self.machines[node].runs_on_old() {
            return;
        }
        let after = self.random.between(DOWN_MAX, 2 * DOWN_MAX);
        if self.swap_disks(node) {
            self.report.disks_found += 1;
            self.plan(after, Event::NewDisk(node));
        }
    }

    pub(super) fn swap_disks(&mut self, node: usize) -> bool {
        // What one disk has is not taken for what the other one has.
        self.end_broker(node, End::PowerCut);
        let swapped = self.machines[node].swap_disks();
        if swapped {
            let old = self.machines[node].runs_on_old();
            self.note(node, &[15, old.into()], || format!("gets its other disk; old: {old}"));
        }
        swapped
    }

    /// The broker whose disk was lost has its place again.
    pub(super) fn look_at_replacement(&mut self) {
        let Some(node) = self.lost else { return };
        // All know it, and had time to write that down.
        let is_over = self.nodes().into_iter().all(|at| self.has_its_place(at));
        self.over_since = is_over.then(|| self.over_since.unwrap_or(self.now));
        if self.over_since.is_some_and(|since| self.now >= since + WRITTEN_AFTER) {
            self.note(node, &[16], || "has its place again".to_owned());
            (self.lost, self.over_since) = (None, None);
            self.report.disks_replaced += 1;
        }
    }

    /// It votes where it is to, and not with a disk that it will lose again.
    pub(super) fn has_its_place(&self, node: usize) -> bool {
        let machine = &self.machines[node];
        !machine.runs_on_old() && machine.broker().is_some_and(SimBroker::votes)
    }

    fn pause(&mut self, node: usize) {
        let until = self.now + self.random.between(1_000, DOWN_MAX);
        self.note(node, &[8, until], || format!("stands still until {until}"));
        self.machines[node].pause(until);
        self.report.pauses += 1;
    }

    /// What a broker does that is asked to stop: others lead what it leads, then it ends.
    pub(super) fn stop(&mut self, node: usize) {
        let Some(broker) = self.machines[node].broker_mut() else { return };
        broker.hand_over();
        self.note(node, &[9], || "stops".to_owned());
        self.report.stops += 1;
        self.plan(0, Event::Stop(node, self.now + HAND_OVER_MAX));
    }

    /// A broker that stops goes on until nobody needs it, or it has waited long enough.
    pub(super) fn stop_on(&mut self, node: usize, by: u64) {
        let Some(broker) = self.machines[node].broker_mut() else { return };
        if self.now < by && broker.could_hand_over() {
            return self.plan(1_000, Event::Stop(node, by));
        }
        broker.shut_down();
        self.end_broker(node, End::Kill);
        self.report.kills -= 1;
    }

    /// Nothing goes to a broker from the others, or back.
    fn isolate(&mut self, node: usize) {
        let until = self.now + self.random.between(10_000, CUT_MAX);
        self.note(node, &[10, until], || format!("is cut off until {until}"));
        for other in self.nodes().into_iter().filter(|other| *other != node) {
            self.network.cut(node, other, until);
            self.network.cut(other, node, until);
        }
        self.report.cuts += 1;
    }

    /// Nothing goes from one broker to another.
    fn cut(&mut self, from: usize) {
        let to = self.another_than(from);
        let until = self.now + self.random.between(10_000, CUT_MAX);
        self.note(from, &[11, to as u64, until], || format!("does not reach {to} until {until}"));
        self.network.cut(from, to, until);
        self.report.cuts_one_way += 1;
    }

    fn another_than(&mut self, node: usize) -> usize {
        let others: Vec<_> = self.nodes().into_iter().filter(|it| *it != node).collect();
        others[self.random.index(others.len())]
    }

    fn break_links(&mut self, node: usize) {
        let other = self.another_than(node);
        self.note(node, &[12, other as u64], || format!("its connections to {other} break"));
        self.network.break_between(self.now, node, other);
        self.report.breaks += 1;
    }
}
