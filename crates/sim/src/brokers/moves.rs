//! Partitions that move from one group to another, and are called back, while all goes on.

use model::RaftGroupId;

use super::{Event, Simulation};

impl Simulation {
    /// Asks for a move, or for a partition to stay, and plans the next one.
    pub(super) fn move_one(&mut self) {
        let Some(interval_max) = self.settings.move_interval_max.filter(|_| !self.is_ending) else {
            return;
        };
        let after = self.random.between(100_000, interval_max);
        self.plan(after, Event::Move);
        let partitions = self.settings.partitions();
        let groups: Vec<RaftGroupId> = self.settings.groups().collect();
        let (topic, index) = partitions[self.random.index(partitions.len())];
        let to = groups[self.random.index(groups.len())];
        let mut brokers = self.machines.iter_mut().filter_map(|it| it.broker_mut());
        if brokers.any(|broker| broker.move_partition(topic.name, index, to)) {
            self.note(0, &[18, to.get()], || format!("{}-{index} goes to group {to}", topic.name));
        }
    }
}
