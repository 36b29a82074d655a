//! Who takes part in this shard's raft groups: those that the metadata names, each with the disk
//! that counts. A broker that has lost its disk comes back with an empty one and takes its place
//! again; one that is to have a copy of a group takes the place of one that is not.
//!
//! ```text
//! group 0:     says who, and which disk: the one before never counts again
//! each group:  learner ─► snapshot and what follows it ─► votes in place of another ─► done
//! group 0:     hears that it is done: who has left forgets the group
//! ```
//!
//! Each step is an entry of a log, looked after at the tick by whoever leads; a new leader goes on
//! where the last one was. What a learner gets is a snapshot, which names objects and holds no
//! records, and the part of the log that is in no object yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{LogIndex, NodeId, RaftGroupId};
use replication::{MemberChange, Members, Message};

use super::Shard;
use super::call::Origin;
use super::message::PartRequest;
use super::metadata::METADATA_SHARD;
use crate::cluster::{Command, Group, Image};
use crate::metrics::Metric;
use crate::voter::{node_of, voter};

/// Until group 0 is told again that a group has the members that it should have.
const SETTLE_INTERVAL: Duration = Duration::from_secs(1);

static NOBODY: BTreeSet<u64> = BTreeSet::new();

/// What this shard remembers from tick to tick.
#[derive(Default)]
pub(crate) struct Joining {
    /// By group: what was committed at the last tick. A learner that has it is as near as one can
    /// be while more is written.
    committed: BTreeMap<RaftGroupId, LogIndex>,
    /// Disks that group 0 was told of, by this broker.
    told: BTreeSet<(NodeId, u32)>,
    /// Groups in which this broker has no vote yet, or whose members are being changed.
    learning: BTreeSet<RaftGroupId>,
    /// See [`Shard::listeners`]; with the version of the image that says so.
    listeners: Option<(LogIndex, Arc<BTreeSet<u64>>)>,
    /// When group 0 was told that a group has the members that it should have.
    settling: BTreeMap<RaftGroupId, Instant>,
}

impl Joining {
    /// A group has left this broker.
    pub(super) fn forget(&mut self, group: RaftGroupId) {
        self.committed.remove(&group);
        self.learning.remove(&group);
        self.settling.remove(&group);
    }
}

/// What a group needs before its members are those that they should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Change(MemberChange),
    /// The learner takes part since the log's end: a snapshot that says so has to be made.
    Snapshot,
    /// The learner is to have what was committed, then it votes: in place of a voter, if one is
    /// too many.
    Wait {
        learner: u64,
        voter: Option<u64>,
    },
}

/// Who should take part in a group.
struct Wanted<'a> {
    voters: &'a BTreeSet<u64>,
    learners: &'a BTreeSet<u64>,
}

/// Are the members these voters, and nobody else? So they are in nearly all of many groups.
fn are_just(members: &Members, mut voters: impl Iterator<Item = u64> + Clone) -> bool {
    voters.clone().count() == members.voters.len()
        && voters.all(|it| members.voters.contains(&it))
        && members.learners.is_empty()
        && !members.is_joint()
}

/// The next step, if the members are not those that they should be. `is_heard`: whether one with
/// that number is there.
fn next_step(
    members: &Members,
    wanted: &Wanted<'_>,
    is_heard: impl Fn(u64) -> bool,
    snapshot_names: impl Fn(u64) -> bool,
) -> Option<Step> {
    if members.is_joint() {
        return Some(Step::Change(MemberChange::Leave));
    }
    let is_wanted = |it: &u64| wanted.voters.contains(it) || wanted.learners.contains(it);
    if let Some(old) = members.learners.iter().find(|it| !is_wanted(it)) {
        return Some(Step::Change(MemberChange::RemoveLearner(*old)));
    }
    let missing = |it: &&u64| !members.voters.contains(it) && is_heard(**it);
    let too_many = || members.voters.iter().copied().filter(|it| !wanted.voters.contains(it));
    if let Some(learner) = wanted.voters.iter().copied().find(|it| missing(&it)) {
        // A new disk takes the place of the lost one, another broker that of any.
        let same_node = too_many().find(|it| node_of(*it) == node_of(learner));
        let voter = same_node.or_else(|| too_many().next());
        // The only one goes when another votes: it leads until then.
        let voter = voter.filter(|_| members.voters.len() > 1);
        return Some(if !members.contains(learner) {
            Step::Change(MemberChange::AddLearner(learner))
        } else if snapshot_names(learner) {
            Step::Wait { learner, voter }
        } else {
            Step::Snapshot
        });
    }
    let are_all_there = wanted.voters.iter().all(|it| members.voters.contains(it));
    if let Some(voter) = too_many().next().filter(|_| are_all_there) {
        return Some(Step::Change(MemberChange::RemoveVoter(voter)));
    }
    let listens = |it: &&u64| wanted.learners.contains(it) && !snapshot_names(**it);
    if members.learners.iter().any(|it| listens(&it)) {
        return Some(Step::Snapshot);
    }
    let new = wanted.learners.iter().find(|it| !members.contains(**it) && is_heard(**it));
    new.map(|new| Step::Change(MemberChange::AddLearner(*new)))
}

impl Shard {
    /// See [`super::ReplicatedLog::has_quorum`].
    pub(super) fn has_quorum(&self, group: RaftGroupId) -> bool {
        self.log.has_quorum(group, self.now.instant)
    }

    /// At the tick: what has to change in the groups that this broker leads.
    pub(super) fn keep_members(&mut self) {
        if self.peers.is_alone() {
            return;
        }
        self.tell_of_new_disks();
        for group in self.log.groups() {
            if self.log.has_caught_up(group) {
                self.keep_members_of(group);
            }
            self.joining.committed.insert(group, self.log.committed(group));
        }
        self.note_own_part();
    }

    /// Group 0 hears of a broker that came with a disk that nobody knows.
    fn tell_of_new_disks(&mut self) {
        if self.id != METADATA_SHARD || self.log.leads(RaftGroupId::METADATA).is_none() {
            return self.joining.told.clear();
        }
        let image = self.metadata.shared_image();
        let disks =
            self.peers.nodes().filter_map(|node| Some((node, self.peers.incarnation(node)?)));
        let is_new = |(node, incarnation): &(NodeId, u32)| {
            *incarnation != image.incarnation(*node) && !image.is_retired(*node, *incarnation)
        };
        let new: Vec<_> = disks.filter(is_new).collect();
        for (node, incarnation) in new {
            let command = Command::ReplaceDisk { node, incarnation };
            if !self.joining.told.contains(&(node, incarnation))
                && self.try_propose_command(&command).is_ok()
            {
                self.joining.told.insert((node, incarnation));
            }
        }
    }

    fn keep_members_of(&mut self, group: RaftGroupId) {
        let image = self.metadata.shared_image();
        let listeners = (group == RaftGroupId::METADATA).then(|| self.listeners());
        let (Some(members), Some(found)) = (self.log.members(group), image.group(group)) else {
            return;
        };
        if listeners.is_none() && are_just(members, image.voter_numbers(found)) {
            return self.settle_group(found);
        }
        let voters = image.voters_of(found);
        let learners = listeners.as_deref().unwrap_or(&NOBODY);
        let step = next_step(
            members,
            &Wanted { voters: &voters, learners },
            |it| self.node_at(it).is_some_and(|node| self.peers.is_up(node)),
            |it| self.log.snapshot_names(group, it),
        );
        let change = match step {
            None if members.voters.iter().eq(&voters) => return self.settle_group(found),
            None => return,
            Some(Step::Snapshot) => return self.make_snapshot(group),
            Some(Step::Change(change)) => change,
            Some(Step::Wait { learner, voter }) => {
                if !self.has_what_was_committed(group, learner) {
                    return;
                }
                let promote = MemberChange::Promote(learner);
                voter.map_or(promote, |voter| MemberChange::Replace { learner, voter })
            }
        };
        if self.leaves_by(group, change) {
            // Another one leads first, and goes on with this.
            return self.hand_over_to(group, &voters);
        }
        if self.log.propose_change(group, change) {
            self.metrics.add(Metric::MemberChanges, 1);
            let (shard, change) = (self.id, describe(change));
            self.notes.push(format!("shard {shard}, group {group}: {change}"));
        }
    }

    /// The brokers that are to hear of the metadata without a vote on it, with the disks that
    /// count: all others.
    fn listeners(&mut self) -> Arc<BTreeSet<u64>> {
        let image = self.metadata.image();
        if let Some((version, listeners)) = &self.joining.listeners
            && *version == image.version()
        {
            return Arc::clone(listeners);
        }
        let all = image.members().into_iter();
        let votes = |node: &NodeId| {
            image.group(RaftGroupId::METADATA).is_some_and(|group| group.is_on(*node))
        };
        let others = all.filter(|node| !votes(node));
        let listeners: BTreeSet<_> =
            others.map(|node| voter(node, image.incarnation(node))).collect();
        let (version, listeners) = (image.version(), Arc::new(listeners));
        self.joining.listeners = Some((version, Arc::clone(&listeners)));
        listeners
    }

    /// Would this broker have no vote after a change?
    fn leaves_by(&self, group: RaftGroupId, change: MemberChange) -> bool {
        let own = self.node.voter();
        match change {
            MemberChange::Replace { voter, .. } | MemberChange::RemoveVoter(voter) => voter == own,
            MemberChange::Leave => {
                self.log.members(group).is_some_and(|members| !members.voters.contains(&own))
            }
            _ => false,
        }
    }

    /// Has one of these lead, of those that could.
    fn hand_over_to(&mut self, group: RaftGroupId, voters: &BTreeSet<u64>) {
        let able = voters.iter().copied().filter_map(node_of);
        let to = able.filter(|node| self.could_lead(group, *node)).min();
        if let Some(node) = to {
            self.hand_group_to(group, node);
        }
    }

    /// The members of a group are those that they should be: who has left may forget it.
    fn settle_group(&mut self, found: &Group) {
        if found.leaving.is_empty() {
            self.joining.settling.remove(&found.id);
            return;
        }
        let now = self.now.instant;
        let asked = self.joining.settling.get(&found.id);
        if asked.is_some_and(|at| now.saturating_duration_since(*at) < SETTLE_INTERVAL) {
            return;
        }
        self.joining.settling.insert(found.id, now);
        self.command(Command::GroupSettled { group: found.id, asked: found.asked });
    }

    /// Proposes a command that nobody waits for: the image tells what became of it.
    pub(super) fn command(&mut self, command: Command) {
        let origin = Origin { call: self.calls.reserve(), part: 0 };
        self.ask(METADATA_SHARD, origin, PartRequest::Command(Box::new(command)));
    }

    /// Has a member what was committed at the last tick? It cannot be nearer while more is written.
    pub(super) fn has_what_was_committed(&self, group: RaftGroupId, member: u64) -> bool {
        let committed = self.joining.committed.get(&group);
        let matched = self.log.matched(group, member);
        matched.zip(committed).is_some_and(|(has, committed)| has >= *committed)
    }

    /// Lets a snapshot stand for as much of a group's log as can be, so that it names those who
    /// have just become members.
    fn make_snapshot(&mut self, group: RaftGroupId) {
        if group == RaftGroupId::METADATA {
            if let Some((index, snapshot)) = self.metadata_snapshot() {
                // Refused if nothing is there to compact: then the snapshot is as new as can be.
                let _ = self.log.compact(group, index, snapshot);
            }
            return;
        }
        let upto = self.tiers[group].offload.covered();
        if upto >= self.log.members_since(group) {
            self.compact_now(group, upto);
        } else {
            self.tiers[group].offload.want();
        }
    }

    /// An image says which disks count: brokers with others are heard no more, nor are those that
    /// have forgotten what they had on theirs.
    pub(super) fn note_disks(&mut self, image: &Image) {
        self.peers.retire(image.retired_disks().collect());
        let known = image.nodes().map(|node| node.id);
        self.peers.note_on_first_disk(known.filter(|it| image.incarnation(*it) == 0).collect());
    }

    /// Does this broker take part in a group as it should, with no change of that under way?
    fn has_place_in(&self, group: RaftGroupId) -> bool {
        let own = self.node.voter();
        let listens = group == RaftGroupId::METADATA
            && self.metadata.image().replica_on(group, self.node.id).is_none();
        let has_it = |members: &Members| {
            members.is_voter(own) && !members.is_joint() || listens && members.contains(own)
        };
        self.log.members(group).is_some_and(has_it)
    }

    /// The same of all its groups, and of those that it is to have.
    #[cfg(feature = "simulation")]
    pub(crate) fn votes(&self) -> bool {
        let image = self.metadata.image();
        let wanted = image.groups().filter(|group| group.is_on(self.node.id)).map(|it| it.id);
        let mut groups = self.log.groups().into_iter().chain(wanted);
        image.cluster_id().is_some() && groups.all(|group| self.has_place_in(group))
    }

    /// Counts what comes to a broker that has no vote yet: what its replacement costs.
    pub(super) fn note_catching_up(&mut self, message: &Message) {
        let own = self.node.voter();
        let members = self.log.members(message.group());
        if members.is_some_and(|members| !members.is_voter(own)) {
            let size = message.payload_size() + message.snapshot_size();
            self.metrics.add(Metric::CatchUpBytes, size as u64);
        }
    }

    /// Tells the operator when this broker has its place in a group again, and in each broker's
    /// metrics that a change is not over.
    fn note_own_part(&mut self) {
        for group in self.log.groups() {
            if !self.has_place_in(group) {
                self.joining.learning.insert(group);
            } else if self.joining.learning.remove(&group) {
                let shard = self.id;
                self.notes.push(format!(
                    "shard {shard}, group {group}: this broker has its log and its place"
                ));
            }
        }
        self.metrics.set(Metric::LearnerGroups, self.joining.learning.len() as u64);
    }
}

/// For the operator.
fn describe(change: MemberChange) -> String {
    let node = |member| node_of(member).map_or_else(String::new, |node| node.to_string());
    match change {
        MemberChange::AddLearner(new) => format!("node {} gets the log", node(new)),
        MemberChange::RemoveLearner(old) => format!("node {} gets the log no more", node(old)),
        MemberChange::Replace { learner, voter } if node_of(learner) == node_of(voter) => {
            format!("node {} has the log and votes in place of its lost disk", node(learner))
        }
        MemberChange::Replace { learner, voter } => {
            format!("node {} has the log and votes in place of node {}", node(learner), node(voter))
        }
        MemberChange::Leave => "the one before counts no more".to_owned(),
        MemberChange::Promote(new) => format!("node {} has the log and votes", node(new)),
        MemberChange::RemoveVoter(old) => format!("node {} votes no more", node(old)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: u64 = 9 << 32 | 3;

    fn of(voters: &[u64], learners: &[u64], outgoing: &[u64]) -> Members {
        let [voters, learners, outgoing] = [voters, learners, outgoing].map(<[u64]>::to_vec);
        Members { voters, learners, outgoing }
    }

    /// `heard` are there; of `named` the snapshot says that they are members.
    fn step(members: &Members, wanted: &[u64], heard: &[u64], named: &[u64]) -> Option<Step> {
        let (heard, named) = (|it| heard.contains(&it), |it| named.contains(&it));
        let (voters, learners) = (wanted.iter().copied().collect(), BTreeSet::new());
        next_step(members, &Wanted { voters: &voters, learners: &learners }, heard, named)
    }

    #[test]
    fn a_lost_disk_is_replaced_step_by_step() {
        let wanted = [1, 2, NEW];
        let before = of(&[1, 2, 3], &[], &[]);
        assert_eq!(step(&before, &wanted, &[], &[]), None, "it is not there yet");
        let add = Step::Change(MemberChange::AddLearner(NEW));
        assert_eq!(step(&before, &wanted, &[NEW], &[]), Some(add));
        let learning = of(&[1, 2, 3], &[NEW], &[]);
        assert_eq!(step(&learning, &wanted, &[NEW], &[]), Some(Step::Snapshot));
        let wait = Step::Wait { learner: NEW, voter: Some(3) };
        assert_eq!(step(&learning, &wanted, &[NEW], &[NEW]), Some(wait));
        let joint = of(&[1, 2, NEW], &[], &[1, 2, 3]);
        assert_eq!(step(&joint, &wanted, &[], &[]), Some(Step::Change(MemberChange::Leave)));
        assert_eq!(step(&of(&[1, 2, NEW], &[], &[]), &wanted, &[NEW], &[]), None);
        // The replacement was lost before it had its place.
        let again = of(&[1, 2, 3], &[8 << 32 | 3], &[]);
        let remove = Step::Change(MemberChange::RemoveLearner(8 << 32 | 3));
        assert_eq!(step(&again, &wanted, &[NEW], &[]), Some(remove));
    }

    #[test]
    fn a_broker_takes_the_place_of_another_or_a_place_of_its_own() {
        let three = of(&[1, 2, 3], &[], &[]);
        let add = |it| Some(Step::Change(MemberChange::AddLearner(it)));
        assert_eq!(step(&three, &[1, 3, 4], &[4], &[]), add(4));
        let learning = of(&[1, 2, 3], &[4], &[]);
        let wait = |voter| Some(Step::Wait { learner: 4, voter });
        assert_eq!(step(&learning, &[1, 3, 4], &[4], &[4]), wait(Some(2)));
        assert_eq!(step(&learning, &[1, 2, 3, 4], &[4], &[4]), wait(None));
        assert_eq!(step(&three, &[1, 4], &[], &[]), None, "nobody leaves before it is there");
        let alone = of(&[1], &[4], &[]);
        assert_eq!(step(&alone, &[4], &[4], &[4]), wait(None), "it leads until another can");
        let remove = Step::Change(MemberChange::RemoveVoter(2));
        assert_eq!(step(&three, &[1, 3], &[], &[]), Some(remove));
        // Others were asked for before it had its place.
        let remove = Step::Change(MemberChange::RemoveLearner(4));
        assert_eq!(step(&learning, &[1, 2, 3], &[4], &[4]), Some(remove));
    }

    #[test]
    fn brokers_without_a_vote_on_the_metadata_hear_of_it() {
        let (voters, learners) = ([1, 2, 3].into(), [4, 5].into());
        let wanted = Wanted { voters: &voters, learners: &learners };
        let step = |members: &Members, heard: u64| {
            next_step(members, &wanted, |it| it == heard, |it| it == 4)
        };
        let add = Some(Step::Change(MemberChange::AddLearner(5)));
        assert_eq!(step(&of(&[1, 2, 3], &[], &[]), 5), add);
        assert_eq!(step(&of(&[1, 2, 3], &[4], &[]), 4), None);
        assert_eq!(step(&of(&[1, 2, 3], &[4, 5], &[]), 4), Some(Step::Snapshot));
    }
}
