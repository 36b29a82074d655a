//! What goes wrong: the store's weather, and the broker's end at moments that matter.

use super::{Event, Simulation};
use crate::hardware::End;
use crate::kafka::violation::Violation;
use crate::weather::draw_weather;

/// Microseconds that a broker stays down at most.
const DOWN_MAX: u64 = 3_000_000;
/// Microseconds that an end waits for its moment at most.
const PATIENCE: u64 = 6_000_000;
/// Microseconds that a clean stop waits for the object store, as the broker's settings say.
const FLUSH_MAX: u64 = 10_000_000;
const SHUT_DOWN_MAX: u64 = 2_000_000;

/// The moment at which a broker ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ambush {
    moment: Target,
    /// As the count stood when it was laid.
    count: u64,
    until: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Target {
    Now,
    /// An object has arrived in the bucket; no entry names it yet.
    Object,
    /// The log was compacted.
    Compaction,
    /// Objects were deleted; the manifest still lists them.
    Deletion,
}

impl Simulation {
    /// Draws the weather for the next while.
    pub(super) fn change_weather(&mut self) {
        let (weather, after) = draw_weather(&mut self.random);
        self.report.outages += usize::from(weather.failures == 1000 || weather.stalls == 1000);
        self.trace.note(self.machine.now, 0, &[6, after], || format!("{weather:?}"));
        self.machine.store.faults.set_weather(weather);
        self.plan(after, Event::Weather);
    }

    /// Chooses the moment for the broker's next end.
    pub(super) fn lay_ambush(&mut self) -> Result<(), Violation> {
        let moments = [Target::Now, Target::Object, Target::Compaction, Target::Deletion];
        let moment = moments[self.random.index(4)];
        let ambush =
            Ambush { moment, count: self.count(moment), until: self.machine.now + PATIENCE };
        self.ambush = Some(ambush);
        self.spring_ambush()
    }

    /// Ends the broker if its moment has come.
    pub(super) fn spring_ambush(&mut self) -> Result<(), Violation> {
        let Some(Ambush { moment, count, until }) = self.ambush else { return Ok(()) };
        let came = moment != Target::Now && self.count(moment) > count;
        if moment != Target::Now && !came && self.machine.now < until {
            return Ok(());
        }
        self.ambush = None;
        match moment {
            Target::Object => self.report.ends_before_edit += usize::from(came),
            Target::Compaction => self.report.ends_at_trim += usize::from(came),
            Target::Deletion => self.report.ends_at_deletion += usize::from(came),
            Target::Now => {}
        }
        let end = match self.random.below(10) {
            0..=5 => End::PowerCut,
            6..=8 => End::Kill,
            _ => return self.stop_cleanly(),
        };
        self.end_broker(end);
        let down = self.random.below(DOWN_MAX);
        self.plan(down, Event::Start);
        Ok(())
    }

    fn count(&self, moment: Target) -> u64 {
        match moment {
            Target::Now => 0,
            Target::Object => self.watch.created as u64,
            Target::Compaction => self.first_index,
            Target::Deletion => self.watch.deleted as u64,
        }
    }

    /// The broker is gone, and so are its clients' connections.
    pub(super) fn end_broker(&mut self, end: End) {
        let Some(broker) = self.machine.broker() else { return };
        self.report.add_life(&broker.counters());
        let disk = u64::from(broker.disk_trace());
        self.trace.note(self.machine.now, 0, &[7, disk], || format!("{end:?}"));
        self.machine.end(end);
        self.clients.disconnected();
        self.ready = false;
        self.first_index = 0;
        match end {
            End::PowerCut => self.report.power_cuts += 1,
            End::Kill => self.report.kills += 1,
        }
        let again = self.random.between(1_000_000, self.settings.crash_interval_max);
        self.plan(DOWN_MAX + again, Event::Crash);
    }

    pub(super) fn start(&mut self) -> Result<(), Violation> {
        self.trace.note(self.machine.now, 0, &[8], || "starts".to_owned());
        self.machine.start()
    }

    /// What a broker does that is asked to stop: it offloads what there is, and marks its log.
    fn stop_cleanly(&mut self) -> Result<(), Violation> {
        self.trace.note(self.machine.now, 0, &[9], || "stops".to_owned());
        let plan = std::mem::take(&mut self.plan);
        if let Some(broker) = self.machine.broker_mut() {
            broker.flush();
        }
        let by = self.machine.now + FLUSH_MAX;
        while self.machine.now < by && self.machine.broker().is_some_and(|it| !it.is_flushed()) {
            self.step(by)?;
        }
        let by = self.machine.now + SHUT_DOWN_MAX;
        while self.machine.now < by && self.machine.broker_mut().is_some_and(|it| !it.shut_down()) {
            self.step(by)?;
        }
        self.plan = plan;
        self.report.clean_stops += 1;
        self.end_broker(End::Kill);
        self.report.kills -= 1;
        let down = self.random.below(DOWN_MAX);
        self.plan(down, Event::Start);
        Ok(())
    }
}
