//! Flow control by bytes: brokers tell each other how much room their WALs have. A leader takes
//! records only while all that are there have room for them; and where one broker has none left, it
//! lets a snapshot stand for what that one cannot take.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::{NodeId, RaftGroupId};

use super::Shard;
use crate::peer::frame::Control;

/// What was said of a WAL counts for so long: its broker says it ten times a second.
const FRESH: Duration = Duration::from_secs(1);
/// How long a WAL is short of room before a snapshot helps it: most often it soon trims itself.
const SHORT_MAX: Duration = Duration::from_secs(2);

/// What the other brokers say of their WALs.
#[derive(Debug, Default)]
pub(crate) struct Rooms(BTreeMap<NodeId, Room>);

#[derive(Debug)]
struct Room {
    bytes: u64,
    told: Instant,
    /// Since when it has been too little.
    short: Option<Instant>,
}

impl Rooms {
    fn told(&mut self, node: NodeId, bytes: u64, least: u64, now: Instant) {
        let before = self.0.get(&node).and_then(|room| room.short);
        let short = (bytes < least).then(|| before.unwrap_or(now));
        self.0.insert(node, Room { bytes, told: now, short });
    }

    /// Is it known to have less room than that? One that says nothing is not.
    fn is_short(&self, node: NodeId, least: u64, now: Instant) -> bool {
        let fresh = |room: &&Room| now.saturating_duration_since(room.told) < FRESH;
        self.0.get(&node).filter(fresh).is_some_and(|room| room.bytes < least)
    }

    /// Those that have been short of room for long.
    fn stuck(&self, now: Instant) -> impl Iterator<Item = NodeId> {
        let long = move |at| now.saturating_duration_since(at) >= SHORT_MAX;
        let stuck = move |room: &Room| room.short.is_some_and(long);
        self.0.iter().filter(move |(_, room)| stuck(room)).map(|(node, _)| *node)
    }
}

impl Shard {
    /// At the tick: tells the others, and acts on what they told.
    pub(super) fn control_flow(&mut self) {
        if self.peers.is_alone() {
            return;
        }
        let room = Control::WalRoom { bytes: self.log.room() };
        let others: Vec<_> = self.peers.nodes().collect();
        for node in &others {
            self.peers.send_control(*node, &room);
        }
        let now = self.now.instant;
        let least = self.log.room_of_follower_min();
        // One that is behind today may be the one that makes a majority tomorrow.
        let is_short =
            |node: &NodeId| self.peers.is_up(*node) && self.rooms.is_short(*node, least, now);
        let any_short = others.iter().any(is_short);
        self.log.set_followers_have_room(!any_short);
        let groups = self.tiers.groups();
        groups.iter().for_each(|group| self.help_stuck(*group));
    }

    pub(super) fn hear_room(&mut self, from: NodeId, bytes: u64) {
        self.rooms.told(from, bytes, self.log.room_of_follower_min(), self.now.instant);
    }

    /// A broker whose WAL is full and whose next entries are in objects gets a snapshot: with that
    /// it needs none of what fills its WAL.
    fn help_stuck(&mut self, group: RaftGroupId) {
        if !self.log.has_caught_up(group) {
            return;
        }
        let upto = self.tiers[group].offload.upto();
        let behind =
            |node| self.log.matched(group, self.voter_at(node)).is_some_and(|it| it < upto);
        if self.rooms.stuck(self.now.instant).any(behind) {
            self.compact_now(group, upto);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test's clock may be any")]
    fn what_was_said_counts_for_a_while_and_what_lasts_is_noticed() {
        let (mut rooms, start) = (Rooms::default(), Instant::now());
        let (one, two) = (NodeId::new(1), NodeId::new(2));
        rooms.told(one, 10, 100, start);
        rooms.told(two, 100, 100, start);
        let are_short = |rooms: &Rooms, least, now| {
            [one, two, NodeId::new(3)].map(|node| rooms.is_short(node, least, now))
        };
        assert_eq!(are_short(&rooms, 100, start), [true, false, false]);
        assert_eq!(are_short(&rooms, 101, start), [true, true, false]);
        assert_eq!(are_short(&rooms, 101, start + FRESH), [false; 3]);
        let later = start + SHORT_MAX;
        assert_eq!(rooms.stuck(later - Duration::from_millis(1)).count(), 0);
        rooms.told(one, 20, 100, later);
        assert_eq!(rooms.stuck(later).collect::<Vec<_>>(), [one]);
        rooms.told(one, 100, 100, later);
        rooms.told(one, 20, 100, later);
        assert_eq!(rooms.stuck(later).count(), 0, "it had room meanwhile");
    }
}
