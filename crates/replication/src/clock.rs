//! A group's clock: heartbeats and elections are counted in ticks.

use crate::action::Role;
use crate::driver::DriverConfig;
use crate::group::{Group, Shared};

impl Group {
    /// True if raft did something by itself: there may be something to hand out.
    pub(crate) fn tick(&mut self, shared: &mut Shared<'_>) -> bool {
        self.ticks += 1;
        if self.barrier {
            return false;
        }
        let stirred = self.raw.tick();
        if stirred {
            self.drop_own_beats();
            self.after_step(shared);
        } else if self.ticks.is_multiple_of(election_round(shared.config)) {
            self.draw_election_timeout(shared.config);
        }
        self.beat_at_once(shared.heartbeats);
        stirred
    }

    /// The leader, if it is that node, has stopped: the time in which it would have been waited for
    /// counts as over. What is left is the part of the time-out that differs between voters.
    pub(crate) fn leader_gone(&mut self, node: u64, election_ticks: usize) {
        if self.role() == Role::Follower && self.leader() == Some(node) {
            let elapsed = &mut self.raw.raft.election_elapsed;
            *elapsed = election_ticks.max(*elapsed);
        }
    }

    /// raft-rs draws its timeouts from the thread's generator; a replay needs ours. The draw
    /// changes with the term, and with time, so that two nodes that tie once do not tie for ever.
    pub(crate) fn draw_election_timeout(&mut self, config: &DriverConfig) {
        let election_ticks = config.election_ticks as u64;
        let round = self.ticks / election_round(config);
        let draw = [config.node, self.id.get(), self.raw.raft.term, round]
            .iter()
            .fold(config.seed, |seed, value| mix(seed ^ value));
        let extra = draw % (election_ticks / 2 + 1);
        let extra = usize::try_from(extra).expect("below a usize");
        self.raw.raft.set_randomized_election_timeout(config.election_ticks + extra);
    }
}

/// Ticks until another election timeout is drawn.
fn election_round(config: &DriverConfig) -> u64 {
    2 * config.election_ticks as u64
}

/// SplitMix64's finaliser: every bit of the result depends on every bit of the value.
fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
