//! One broker with its disk, its bucket and the clock. Disk and bucket outlast the broker.

use std::num::NonZeroU16;
use std::time::Duration;

use broker::simulation::{Moment, SimBroker};
use bytes::Bytes;
use s3_uploader::SteppedWorker;

use super::settings::Settings;
use crate::hardware::{End, Hardware, Store, unix_ms};
use crate::kafka::violation::Violation;
use crate::random::Random;

const NODE: i32 = 0;

pub(crate) struct Machine {
    /// Microseconds since the run began.
    pub(crate) now: u64,
    pub(crate) store: Store,
    running: Option<Running>,
    /// What the disk held when the last broker ended.
    image: Option<Vec<u8>>,
    random: Random,
    settings: Settings,
}

struct Running {
    broker: SimBroker,
    store: SteppedWorker,
    /// When the store's own time began.
    since: u64,
}

impl Machine {
    pub(crate) fn new(settings: &Settings, mut random: Random) -> Self {
        Self {
            now: 0,
            store: Store::new(&mut random),
            running: None,
            image: None,
            random,
            settings: settings.clone(),
        }
    }

    pub(crate) fn now_ms(&self) -> i64 {
        unix_ms(self.now)
    }

    /// Starts a broker on what the last one left.
    pub(crate) fn start(&mut self) -> Result<(), Violation> {
        let moment = self.moment();
        let hardware = Hardware {
            incarnation: 0,
            node: NODE,
            versions: (1, 1),
            nodes: &[],
            data_groups: NonZeroU16::MIN,
            segment_count: self.settings.segment_count,
            disk_delay_max: self.settings.disk_delay_max,
            wal: self.settings.wal,
            settings: &self.settings.broker,
            store: &self.store,
        };
        let (broker, store) = hardware.start(self.image.take(), moment, &mut self.random)?;
        self.running = Some(Running { broker, store, since: self.now });
        Ok(())
    }

    /// Ends the broker. What the store has not taken it will not get.
    pub(crate) fn end(&mut self, end: End) {
        if let Some(Running { broker, .. }) = self.running.take() {
            self.image = Some(match end {
                End::PowerCut => broker.cut_power(),
                End::Kill => broker.kill(),
            });
        }
    }

    pub(crate) fn broker(&self) -> Option<&SimBroker> {
        self.running.as_ref().map(|running| &running.broker)
    }

    pub(crate) fn broker_mut(&mut self) -> Option<&mut SimBroker> {
        self.running.as_mut().map(|running| &mut running.broker)
    }

    /// A broker that accepts connections.
    pub(crate) fn ready(&mut self) -> Option<&mut SimBroker> {
        self.broker_mut().filter(|broker| broker.is_ready())
    }

    /// Lets time pass to `until`, but only to what the broker has to do first.
    pub(crate) fn advance(&mut self, until: u64) {
        if let Some(Running { broker, store, since }) = &mut self.running {
            let until = until.min(broker.next_turn().unwrap_or(u64::MAX)).max(self.now);
            let wanted = until - *since;
            let reached = store.run_until(Duration::from_micros(wanted));
            let reached = u64::try_from(reached.as_micros()).expect("a short run");
            // The store's time is in whole milliseconds; less than that and a reply has ended it.
            let replied = reached < wanted / 1000 * 1000;
            self.now = if replied { self.now.max(*since + reached) } else { until };
        } else {
            self.now = self.now.max(until);
        }
        self.store.bucket.set_now_ms(self.now_ms());
    }

    /// Lets the broker do what it can; returns what clients received.
    pub(crate) fn turn(&mut self) -> Result<Vec<(u32, Vec<Bytes>)>, Violation> {
        let moment = self.moment();
        let Some(broker) = self.broker_mut() else { return Ok(Vec::new()) };
        let replies = broker.turn(moment);
        match broker.failure() {
            Some(reason) => Err(Violation::Failed { reason }),
            None => Ok(replies),
        }
    }

    fn moment(&self) -> Moment {
        Moment { micros: self.now, unix_ms: self.now_ms() }
    }
}
