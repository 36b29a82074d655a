//! A rolling upgrade: brokers stop one by one and come back with another build, which speaks its
//! own version of the protocol between brokers and the one before it. Some go back to what they
//! were, and some come with a build that is too new for others: those do not hear it until it is
//! taken back.

use super::faults::DOWN_MAX;
use super::{Event, Simulation};

impl Simulation {
    /// A broker stops; it is another build that starts then.
    pub(super) fn change_build(&mut self, node: usize) {
        let builds = self.nodes().into_iter().map(|at| self.machines[at].build());
        let (oldest, newest) = builds.fold((u16::MAX, 0), |(a, b), it| (a.min(it), b.max(it)));
        if newest > oldest + 1 {
            return;
        }
        let build = match self.random.below(5) {
            0 => oldest,
            1 if !self.is_ending => {
                let back = self.random.between(DOWN_MAX, 3 * DOWN_MAX);
                self.plan(back, Event::TakeBack(node));
                self.report.too_new += 1;
                oldest + 2
            }
            _ => oldest + 1,
        };
        self.report.upgrades += usize::from(build == oldest + 1);
        self.start_build(node, build);
    }

    /// A build that was too new goes, and one is back that all others hear.
    pub(super) fn take_back_build(&mut self, node: usize) {
        let build = self.oldest_build_beside(Some(node));
        self.start_build(node, build);
    }

    fn start_build(&mut self, node: usize, build: u16) {
        self.note(node, &[20, build.into()], || format!("is to run build {build}"));
        self.machines[node].set_build(build);
        self.stop(node);
    }

    /// Of all brokers but one.
    pub(super) fn oldest_build_beside(&self, node: Option<usize>) -> u16 {
        let others = self.nodes().into_iter().filter(|it| Some(*it) != node);
        others.map(|it| self.machines[it].build()).min().expect("there are brokers")
    }
}
