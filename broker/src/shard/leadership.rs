//! Who leads a group, where it is open to choice: the first of its replicas, so that leaders are
//! spread over the brokers as the replicas are; and nobody whose disk is slower than the others'.
//! And what a broker does for its clients that knows of no leader.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::{NodeId, RaftGroupId, Term};

use super::Shard;
use super::message::Message;
use crate::metrics::Metric;
use crate::net::NetAction;
use crate::peer::frame::Control;

/// Between two looks at who leads and who should.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long the preferred leader must have been there, with all that is committed, before it leads.
const REST: Duration = Duration::from_secs(10);
/// The same where leadership came back again and again soon after it was handed over.
const REST_MAX: Duration = Duration::from_secs(600);

/// A broker that has known no leader for so long is of no use; an election takes less.
const LEADERLESS: Duration = Duration::from_millis(800);
/// The same of one that is in touch with no group: it is cut off, or most others are gone.
/// Counted from when that was seen first, so that what came while this broker stood still is
/// heard before.
const CUT_OFF: Duration = Duration::from_millis(100);
/// Who was silent for longer is not heard: several times what heartbeats take.
const SILENCE: Duration = Duration::from_millis(150);
/// How often it then lets its clients go.
const LET_GO_INTERVAL: Duration = Duration::from_secs(5);

/// See the module's text.
#[derive(Default)]
pub(crate) struct Leadership {
    /// By group: how leadership went to and fro.
    led: BTreeMap<RaftGroupId, Led>,
    /// When it is looked next at who leads.
    next_look: Option<Instant>,
    /// Since when no leader is known, and no group within reach.
    leaderless_since: Option<Instant>,
    cut_off_since: Option<Instant>,
    /// When the clients were let go last.
    let_go: Option<Instant>,
}

impl Leadership {
    /// A group has left this broker.
    pub(super) fn forget(&mut self, group: RaftGroupId) {
        self.led.remove(&group);
    }
}

#[derive(Debug)]
struct Led {
    /// The last term in which this broker led.
    term: Term,
    /// How long the preferred leader has been ready.
    ready_since: Option<Instant>,
    rest: Duration,
    handed_over: Option<Instant>,
}

impl Led {
    fn new(term: Term) -> Self {
        Self { term, ready_since: None, rest: REST, handed_over: None }
    }

    /// This broker leads in a term. If the preferred one did not keep what it was given, it is
    /// given it less readily.
    fn leads(&mut self, term: Term, now: Instant) {
        if self.term == term {
            return;
        }
        let soon = |at: Instant| now.saturating_duration_since(at) < 10 * self.rest;
        self.rest = match self.handed_over.take() {
            Some(at) if soon(at) => REST_MAX.min(2 * self.rest),
            _ => REST,
        };
        (self.term, self.ready_since) = (term, None);
    }

    /// Is it time to hand over? `is_ready`: the preferred leader is there and has what is
    /// committed.
    fn should_hand_over(&mut self, is_ready: bool, now: Instant) -> bool {
        self.ready_since = is_ready.then(|| self.ready_since.unwrap_or(now));
        let since = self.ready_since.map(|since| now.saturating_duration_since(since));
        let is_time = since.is_some_and(|since| since >= self.rest);
        if is_time {
            self.handed_over = Some(now);
            self.ready_since = None;
        }
        is_time
    }
}

impl Shard {
    /// At the tick: hands over what another broker should lead.
    pub(super) fn keep_leaders(&mut self) {
        if self.peers.is_alone() {
            return;
        }
        self.let_clients_go();
        if self.log.disk_is_slow(self.now.instant) {
            let shard = self.id;
            self.notes.push(format!(
                "shard {shard}: the disk is slower than those of the other brokers, one of them \
                 leads from now on: look at the device"
            ));
            self.metrics.add(Metric::HandOvers, 1);
            return self.hand_over();
        }
        let now = self.now.instant;
        if self.leadership.next_look.is_some_and(|at| now < at) {
            return;
        }
        self.leadership.next_look = Some(now + LOOK_INTERVAL);
        self.metrics.set(Metric::FollowerLag, self.log.follower_lag());
        if self.node.settings.broker.auto_leader_rebalance {
            self.log.groups().into_iter().for_each(|group| self.prefer_first_replica(group));
        }
    }

    /// Clients ask those for the leader whom they are connected to, and believe whom they ask: one
    /// that is cut off would keep them for as long as it is. They connect anew, to anyone.
    fn let_clients_go(&mut self) {
        let (groups, now) = (self.tiers.groups(), self.now.instant);
        let is_in_use = self.ready && !groups.is_empty();
        let is_leaderless = is_in_use && !groups.iter().any(|it| self.log.knows_leader(*it));
        let is_in_touch = |it| self.log.is_in_touch(it, SILENCE, now);
        let is_cut_off = is_in_use && !groups.iter().any(|it| is_in_touch(*it));
        let leadership = &mut self.leadership;
        let has_been = |is: bool, since: &mut Option<Instant>, limit| {
            *since = is.then(|| since.unwrap_or(now));
            since.is_some_and(|since| now.saturating_duration_since(since) >= limit)
        };
        let is_useless = has_been(is_leaderless, &mut leadership.leaderless_since, LEADERLESS)
            | has_been(is_cut_off, &mut leadership.cut_off_since, CUT_OFF);
        let recently = |at: Instant| now.saturating_duration_since(at) < LET_GO_INTERVAL;
        if !is_useless || leadership.let_go.is_some_and(recently) {
            return;
        }
        leadership.let_go = Some(now);
        for conn in self.connections.ids() {
            self.metrics.add(Metric::ConnectionsLetGo, 1);
            self.actions.push(NetAction::Close { conn });
            self.closed(conn);
        }
    }

    fn prefer_first_replica(&mut self, group: RaftGroupId) {
        let Some(term) = self.log.leads(group) else { return };
        let Some(preferred) = self.metadata.image().preferred_leader(group) else { return };
        let now = self.now.instant;
        let is_ready = preferred != self.node.id && self.could_lead(group, preferred);
        let led = self.leadership.led.entry(group).or_insert_with(|| Led::new(term));
        led.leads(term, now);
        if led.should_hand_over(is_ready, now) {
            self.hand_group_to(group, preferred);
        }
    }

    /// A client wants the first replicas of groups to lead, now: has the shards of these groups see
    /// to it. The leader table tells what became of it.
    pub(crate) fn want_first_replicas(&mut self, groups: impl Iterator<Item = RaftGroupId>) {
        let mut by_shard: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for group in groups {
            let shard = self.metadata.image().group(group).and_then(|it| it.shard());
            shard.into_iter().for_each(|it| by_shard.entry(it).or_default().push(group));
        }
        for (shard, groups) in by_shard {
            if shard == self.id {
                self.prefer(groups);
            } else {
                self.mailbox.send(shard, Message::Prefer { groups });
            }
        }
    }

    /// The same of groups of this shard: those that are led elsewhere their leaders hear of.
    pub(super) fn prefer(&mut self, groups: Vec<RaftGroupId>) {
        let mut elsewhere: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for group in groups {
            match self.node.leader(group) {
                Some((leader, _)) if leader == self.node.id => self.hand_over_to_first(group),
                Some((leader, _)) => elsewhere.entry(leader).or_default().push(group.get()),
                None => {}
            }
        }
        for (leader, groups) in elsewhere {
            self.peers.send_control(leader, &Control::Prefer { groups });
        }
    }

    /// Hands a group over to its first replica, if it is led here and that one could.
    pub(super) fn hand_over_to_first(&mut self, group: RaftGroupId) {
        let preferred = self.metadata.image().preferred_leader(group);
        let other = preferred.filter(|node| *node != self.node.id && self.could_lead(group, *node));
        if let Some(node) = other.filter(|_| self.log.leads(group).is_some()) {
            self.hand_group_to(group, node);
        }
    }

    /// Has another broker lead a group, if that has all by then.
    pub(super) fn hand_group_to(&mut self, group: RaftGroupId, node: NodeId) {
        self.metrics.add(Metric::HandOvers, 1);
        let voter = self.voter_at(node);
        self.log.hand_over_group(group, voter);
    }

    /// Is a broker there, with a vote and with what was committed at the last tick?
    pub(super) fn could_lead(&self, group: RaftGroupId, node: NodeId) -> bool {
        let voter = self.voter_at(node);
        let votes = |members: &replication::Members| members.voters.contains(&voter);
        self.peers.is_up(node)
            && self.log.members(group).is_some_and(votes)
            && self.has_what_was_committed(group, voter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test's clock may be any")]
    fn the_preferred_leader_leads_once_it_has_been_ready_for_a_while() {
        let (mut led, start) = (Led::new(Term::new(1)), Instant::now());
        assert!(!led.should_hand_over(true, start));
        assert!(!led.should_hand_over(false, start + REST / 2), "it was away");
        assert!(!led.should_hand_over(true, start + REST));
        assert!(led.should_hand_over(true, start + 2 * REST));
        assert!(!led.should_hand_over(true, start + 2 * REST), "it takes a moment");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test's clock may be any")]
    fn one_that_does_not_keep_leading_is_waited_for_longer_and_longer() {
        let (mut led, mut now) = (Led::new(Term::new(1)), Instant::now());
        let mut rests = Vec::new();
        for term in 2..10 {
            led.should_hand_over(true, now);
            now += led.rest;
            assert!(led.should_hand_over(true, now));
            now += Duration::from_secs(1);
            led.leads(Term::new(term), now);
            rests.push(led.rest);
        }
        assert_eq!(rests[..3], [2 * REST, 4 * REST, 8 * REST]);
        assert_eq!(rests.last(), Some(&REST_MAX));
        led.should_hand_over(true, now);
        now += REST_MAX;
        assert!(led.should_hand_over(true, now));
        led.leads(Term::new(20), now + 20 * REST_MAX);
        assert_eq!(led.rest, REST, "it led for long");
    }
}
