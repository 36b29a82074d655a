//! Who takes part in this shard's raft groups: a broker that has lost its disk comes back with an
//! empty one, and takes its place again.
//!
//! ```text
//! group 0:     the disk is the node's from now on, the one before never counts again
//! each group:  learner ─► snapshot and what follows it ─► votes in place of the lost one ─► done
//! ```
//!
//! Each step is an entry of a log, looked after at the tick by whoever leads; a new leader goes on
//! where the last one was. What a learner gets is a snapshot, which names objects and holds no
//! records, and the part of the log that is in no object yet.

use std::collections::{BTreeMap, BTreeSet};

use model::{LogIndex, NodeId, RaftGroupId};
use replication::{MemberChange, Members, Message};

use super::Shard;
use super::metadata::METADATA_SHARD;
use crate::cluster::{Command, Image};
use crate::metrics::Metric;
use crate::voter::{node_of, voter};

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
}

/// What a group needs before a broker with another disk has its place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Change(MemberChange),
    /// The learner takes part since the log's end: a snapshot that says so has to be made.
    Snapshot,
    /// The learner is to have what was committed.
    Wait {
        learner: u64,
        voter: u64,
    },
}

/// The next step, if the members are not those that they should be. `present`: the number of a node
/// with the disk that counts; `is_heard`: whether one with that number is there.
fn next_step(
    members: &Members,
    present: impl Fn(NodeId) -> u64,
    is_heard: impl Fn(u64) -> bool,
    snapshot_names: impl Fn(u64) -> bool,
) -> Option<Step> {
    if members.is_joint() {
        return Some(Step::Change(MemberChange::Leave));
    }
    let is_present = |member: u64| node_of(member).is_some_and(|node| present(node) == member);
    if let Some(old) = members.learners.iter().find(|learner| !is_present(**learner)) {
        return Some(Step::Change(MemberChange::RemoveLearner(*old)));
    }
    let lost = members.voters.iter().filter(|voter| !is_present(**voter));
    let pairs = lost.filter_map(|voter| Some((*voter, present(node_of(*voter)?))));
    let (voter, learner) = pairs.filter(|(_, new)| is_heard(*new)).min()?;
    if !members.contains(learner) {
        return Some(Step::Change(MemberChange::AddLearner(learner)));
    }
    Some(if snapshot_names(learner) { Step::Wait { learner, voter } } else { Step::Snapshot })
}

impl Shard {
    /// See [`super::ReplicatedLog::has_quorum`]: of the data group.
    pub(super) fn has_quorum(&self) -> bool {
        self.log.has_quorum(self.data_group(), self.now.instant)
    }

    /// At the tick: what has to change in the groups that this broker leads.
    pub(super) fn keep_members(&mut self) {
        if self.node.settings.nodes.len() < 2 {
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
            self.node.others().filter_map(|node| Some((node, self.peers.incarnation(node)?)));
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
        let Some(members) = self.log.members(group) else { return };
        let image = self.metadata.image();
        let step = next_step(
            members,
            |node| voter(node, image.incarnation(node)),
            |it| self.node_at(it).is_some_and(|node| self.peers.is_up(node)),
            |it| self.log.snapshot_names(group, it),
        );
        let change = match step {
            None => return,
            Some(Step::Snapshot) => return self.make_snapshot(group),
            Some(Step::Change(change)) => change,
            Some(Step::Wait { learner, voter }) => {
                if !self.has_what_was_committed(group, learner) {
                    return;
                }
                MemberChange::Replace { learner, voter }
            }
        };
        if self.log.propose_change(group, change) {
            self.metrics.add(Metric::MemberChanges, 1);
            let (shard, change) = (self.id, describe(change));
            self.notes.push(format!("shard {shard}, group {group}: {change}"));
        }
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
        let upto = self.tier.offload.covered();
        if upto >= self.log.members_since(group) {
            self.compact_now(upto);
        } else {
            self.tier.offload.want();
        }
    }

    /// An image says which disks count: brokers with others are heard no more.
    pub(super) fn retire_disks(&mut self, image: &Image) {
        self.peers.retire(image.retired_disks().collect());
    }

    /// Does this broker vote in a group, with no change of that under way?
    fn has_place_in(&self, group: RaftGroupId) -> bool {
        let own = self.node.voter();
        let votes = |members: &Members| members.is_voter(own) && !members.is_joint();
        self.log.members(group).is_some_and(votes)
    }

    /// The same of all its groups.
    #[cfg(feature = "simulation")]
    pub(crate) fn votes(&self) -> bool {
        self.log.groups().into_iter().all(|group| self.has_place_in(group))
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
                    "shard {shard}, group {group}: this broker has its log and votes"
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
        MemberChange::AddLearner(new) => format!("node {} gets the log anew", node(new)),
        MemberChange::RemoveLearner(old) => {
            format!("node {} came with another disk once more", node(old))
        }
        MemberChange::Replace { learner, .. } => {
            format!("node {} has the log and votes in place of its lost disk", node(learner))
        }
        MemberChange::Leave => "the lost disk counts no more".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: u64 = 9 << 32 | 3;

    fn step(members: &Members, heard: &[u64], named: &[u64]) -> Option<Step> {
        let present = |node: NodeId| if node.get() == 2 { NEW } else { voter(node, 0) };
        let (heard, named) = (|it| heard.contains(&it), |it| named.contains(&it));
        next_step(members, present, heard, named)
    }

    #[test]
    fn a_lost_disk_is_replaced_step_by_step() {
        let of = |voters: &[u64], learners: &[u64], outgoing: &[u64]| {
            let [voters, learners, outgoing] = [voters, learners, outgoing].map(<[u64]>::to_vec);
            Members { voters, learners, outgoing }
        };
        let before = of(&[1, 2, 3], &[], &[]);
        assert_eq!(step(&before, &[], &[]), None, "it is not there yet");
        let add = Step::Change(MemberChange::AddLearner(NEW));
        assert_eq!(step(&before, &[NEW], &[]), Some(add));
        let learning = of(&[1, 2, 3], &[NEW], &[]);
        assert_eq!(step(&learning, &[NEW], &[]), Some(Step::Snapshot));
        let wait = Step::Wait { learner: NEW, voter: 3 };
        assert_eq!(step(&learning, &[NEW], &[NEW]), Some(wait));
        let joint = of(&[1, 2, NEW], &[], &[1, 2, 3]);
        assert_eq!(step(&joint, &[], &[]), Some(Step::Change(MemberChange::Leave)));
        assert_eq!(step(&of(&[1, 2, NEW], &[], &[]), &[NEW], &[]), None);
        // The replacement was lost before it had its place.
        let again = of(&[1, 2, 3], &[8 << 32 | 3], &[]);
        let remove = Step::Change(MemberChange::RemoveLearner(8 << 32 | 3));
        assert_eq!(step(&again, &[NEW], &[]), Some(remove));
    }
}
