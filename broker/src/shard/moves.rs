//! Partitions that move from one raft group to another (ADR 0014).
//!
//! ```text
//! leader of the group that has it             leader of the group that gets it
//! offload what there is
//! seal: an entry, after which it takes no more
//! offload the rest
//! hand over: where its records are, and what  adopt: an entry with all that
//! else is known of it; again and again until  tell group 0: the metadata says that it is there
//! the metadata says that it is gone
//! ```
//!
//! Group 0 decides: of a move that was asked for again, or called off, the other group's entry
//! counts for nothing, and the partition takes records again where it was.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{LogIndex, PartitionId, RaftGroupId};
use s3_uploader::{Adoption, Arrival, Edit, Manifest};
use uuid::Uuid;

use super::Shard;
use super::call::Origin;
use super::hosted::entry_of;
use super::message::PartRequest;
use super::tier::Tier;
use crate::cluster::{self, Command, Image};
use crate::metrics::Metric;
use crate::partition::{self, Partition};
use crate::peer::frame::Control;

/// How long a partition may take no records. Then it stays where it is for now.
const SEALED_MAX: Duration = Duration::from_secs(3);
/// How long after that it is tried again.
const PAUSE: Duration = Duration::from_secs(5);
/// How often what may have been lost is said again.
const SAY_INTERVAL: Duration = Duration::from_millis(100);
/// How far leader epochs rise with a move: above those of all terms that the old group may come to
/// before the metadata says that the partition is gone. It is sealed for seconds, and an election
/// takes a tenth of one at least.
const EPOCH_STEP: u32 = 1024;
/// An extent's part of an entry that hands a partition over, at most.
const EXTENT_SIZE_MAX: usize = 80;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Moves {
    /// What the image says that moves from or to a group of this shard.
    under_way: BTreeMap<PartitionId, UnderWay>,
    leaving: BTreeMap<PartitionId, Leaving>,
    /// Moves that an entry was proposed for that adopts the partition.
    adopting: BTreeMap<PartitionId, (RaftGroupId, LogIndex)>,
    /// When group 0 was last told of a partition that arrived, or a seal was last taken back.
    said: BTreeMap<PartitionId, Instant>,
}

#[derive(Clone, Copy)]
struct UnderWay {
    topic_id: Uuid,
    index: u32,
    partition: PartitionId,
    from: RaftGroupId,
    to: RaftGroupId,
    id: LogIndex,
    /// When the image first said so.
    since: Instant,
}

/// What the leader of a partition's group has done for its move.
struct Leaving {
    group: RaftGroupId,
    id: LogIndex,
    /// The rest is short once the log is offloaded up to here.
    flushed: LogIndex,
    /// Where the seal is in the log, and when it was proposed.
    sealed: Option<(LogIndex, Instant)>,
    handed_over: Option<Instant>,
    not_before: Option<Instant>,
}

/// What the leader that has a partition does next for its move.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Seal,
    HandOver,
    /// Takes back a seal for an earlier move.
    Unseal,
    Wait,
}

/// `sealed`: the move that the partition is sealed for; `is_proposed`: whether the seal for the
/// present move is in the log.
fn next_step(sealed: Option<LogIndex>, moving: LogIndex, is_proposed: bool) -> Step {
    match sealed {
        None => Step::Seal,
        Some(by) if by == moving => Step::HandOver,
        // One that is taken back behind the seal for this move would let records in that are not
        // handed over; and that of a later move is for whoever knows of it.
        Some(by) if by > moving || is_proposed => Step::Wait,
        Some(_) => Step::Unseal,
    }
}

impl Moves {
    /// Another broker leads a group.
    pub(super) fn step_down(&mut self, group: RaftGroupId) {
        self.leaving.retain(|_, leaving| leaving.group != group);
        self.adopting.retain(|_, (of, _)| *of != group);
    }

    /// May something be said of a partition that may have been lost?
    fn may_say(&mut self, partition: PartitionId, now: Instant) -> bool {
        let said = self.said.get(&partition);
        let rested = said.is_none_or(|at| now.saturating_duration_since(*at) >= SAY_INTERVAL);
        if rested {
            self.said.insert(partition, now);
        }
        rested
    }
}

impl UnderWay {
    /// Another move in place of this one.
    fn ask_for(&self, to: RaftGroupId) -> Command {
        let Self { topic_id, index, id, .. } = *self;
        Command::MovePartition { topic_id, index, to, replaces: id }
    }
}

impl Shard {
    /// Notes what an image says of moves, in place of the one before.
    pub(super) fn follow_moves(&mut self, image: &Image) {
        let now = self.now.instant;
        let before = std::mem::take(&mut self.moves.under_way);
        let seen = |id: PartitionId, by: LogIndex| {
            before.get(&id).filter(|it| it.id == by).map(|it| it.since)
        };
        let here = |it: &UnderWay| self.tiers.contains(it.from) || self.tiers.contains(it.to);
        let all = image.moving().map(|(topic, index, it, to)| UnderWay {
            topic_id: topic.id,
            index,
            partition: it.id,
            from: it.group,
            to: to.to,
            id: to.id,
            since: seen(it.id, to.id).unwrap_or(now),
        });
        self.moves.under_way = all.filter(here).map(|it| (it.partition, it)).collect();
        for gone in before.values() {
            let is_there = |it: &cluster::Partition| it.moved == gone.id;
            let topic = image.topic_by_id(gone.topic_id);
            let partition = topic.and_then(|topic| topic.partitions.get(gone.index as usize));
            if partition.is_some_and(is_there) {
                self.has_moved(gone);
            }
        }
        let Moves { under_way, leaving, adopting, said } = &mut self.moves;
        leaving.retain(|id, _| under_way.contains_key(id));
        adopting.retain(|id, _| under_way.contains_key(id));
        said.retain(|_, at| now.saturating_duration_since(*at) < SAY_INTERVAL);
    }

    /// The metadata says that a partition is where it was to go.
    fn has_moved(&mut self, moved: &UnderWay) {
        let now = self.now.instant;
        if self.log.leads(moved.to).is_some() {
            self.metrics.add(Metric::PartitionMoves, 1);
            self.metrics.moves.record(now.saturating_duration_since(moved.since));
        }
        let leaving = self.moves.leaving.remove(&moved.partition);
        if let Some((_, sealed)) = leaving.and_then(|leaving| leaving.sealed) {
            self.metrics.sealed.record(now.saturating_duration_since(sealed));
        }
    }

    /// Moves on what moves as far as it goes without waiting; true if something was done.
    pub(super) fn moves_on(&mut self) -> bool {
        if self.moves.under_way.is_empty() {
            return false;
        }
        let all: Vec<_> = self.moves.under_way.values().copied().collect();
        all.iter().fold(false, |done, it| self.leave_on(it) | self.arrive_on(it) | done)
    }

    fn leave_on(&mut self, moving: &UnderWay) -> bool {
        let (group, id) = (moving.from, moving.partition);
        if !self.tiers.contains(group) || !self.log.has_caught_up(group) {
            return false;
        }
        let flushed = self.log.committed(group);
        let new = |not_before| Leaving {
            group,
            id: moving.id,
            flushed,
            sealed: None,
            handed_over: None,
            not_before,
        };
        let leaving = self.moves.leaving.entry(id).or_insert_with(|| new(None));
        if leaving.id != moving.id {
            *leaving = new(leaving.not_before);
        }
        let sealed = self.tiers[group].manifest.sealed(id);
        match next_step(sealed, moving.id, leaving.sealed.is_some()) {
            Step::Seal => self.seal_on(moving),
            Step::HandOver => self.hand_over_on(moving),
            Step::Unseal => self.unseal(group, id),
            Step::Wait => false,
        }
    }

    /// Seals a partition once little is left to offload, and there is who takes it.
    fn seal_on(&mut self, moving: &UnderWay) -> bool {
        let (group, id, now) = (moving.from, moving.partition, self.now.instant);
        let Some(leaving) = self.moves.leaving.get(&id) else { return false };
        if leaving.sealed.is_some() || leaving.not_before.is_some_and(|at| now < at) {
            return false;
        }
        if self.tiers[group].offload.covered() < leaving.flushed {
            self.tiers[group].offload.want_when_idle();
            return false;
        }
        if self.node.leader(moving.to).is_none() || self.hosting.of(group, id).is_none() {
            return false;
        }
        let extents = self.tiers[group].manifest.extents(id).len();
        if extents.saturating_mul(EXTENT_SIZE_MAX) > self.log.entry_size_max() / 2 {
            let name = self.metadata.image().name_of(id);
            self.notes.push(format!(
                "{name} stays where it is: it is in {extents} pieces in the object store, too many \
                 for an entry of the log; move it when they are merged"
            ));
            self.command(moving.ask_for(group));
            return true;
        }
        let edit = Edit::Sealed { partition: id, id: moving.id };
        let Ok(index) = self.propose_edit(group, &edit) else { return false };
        if let Some(leaving) = self.moves.leaving.get_mut(&id) {
            leaving.sealed = Some((index, now));
        }
        if let Some((log, _)) = self.hosting.of_mut(group, id) {
            log.set_sealed(true);
        }
        true
    }

    /// A partition that takes no more records goes once all of them are in the object store.
    fn hand_over_on(&mut self, moving: &UnderWay) -> bool {
        let (group, id, now) = (moving.from, moving.partition, self.now.instant);
        let committed = self.log.committed(group);
        let Some(leaving) = self.moves.leaving.get_mut(&id) else { return false };
        let (upto, since) = *leaving.sealed.get_or_insert((committed, now));
        if now.saturating_duration_since(since) >= SEALED_MAX {
            // Asked for anew it is another move, and this one can be taken back.
            leaving.not_before = Some(now + PAUSE);
            leaving.sealed = Some((upto, now));
            self.metrics.add(Metric::PartitionMovesPutOff, 1);
            self.command(moving.ask_for(moving.to));
            return true;
        }
        if self.tiers[group].offload.covered() < upto {
            self.tiers[group].offload.want_when_idle();
            return false;
        }
        if leaving.handed_over.is_some_and(|at| now.saturating_duration_since(at) < SAY_INTERVAL) {
            return false;
        }
        leaving.handed_over = Some(now);
        let Some(adoption) = self.adoption_of(moving) else { return false };
        match self.node.leader(moving.to) {
            Some((node, _)) if node == self.node.id => self.ask_to_adopt(adoption),
            Some((node, _)) => {
                let adoption = adoption.encode();
                self.peers.send_control(node, &Control::HandOver { adoption });
            }
            None => {}
        }
        true
    }

    /// What another group has to know of a partition that is sealed, and in the object store.
    fn adoption_of(&self, moving: &UnderWay) -> Option<Adoption> {
        let (group, id) = (moving.from, moving.partition);
        let log = self.hosting.of(group, id)?;
        let epoch = u32::try_from(log.epoch_of(self.log.leads(group)?).get()).ok()?;
        let arrival = Arrival { id: moving.id, epoch_base: epoch.saturating_add(EPOCH_STEP) };
        let state = log.encode_whole()?.into();
        Some(self.tiers[group].manifest.adoption(id, moving.to, arrival, state))
    }

    /// Takes a seal back, for a move that is none any more.
    fn unseal(&mut self, group: RaftGroupId, partition: PartitionId) -> bool {
        self.moves.may_say(partition, self.now.instant)
            && self.propose_edit(group, &Edit::Unsealed { partition }).is_ok()
    }

    /// Does a group have a partition, by the metadata and by its manifest? One that came for a move
    /// that was called off is in the manifest too, with objects that whoever has it needs.
    pub(super) fn is_at_home(&self, group: RaftGroupId, partition: PartitionId) -> bool {
        let arrival = self.tiers[group].manifest.arrival(partition);
        let moved = arrival.map(|it| it.id).unwrap_or_default();
        self.hosting.is_named(group, partition, moved)
            && !self.moves.adopting.contains_key(&partition)
    }

    /// At the tick: partitions that are sealed for a move that was called off take records again.
    pub(super) fn unseal_what_stays(&mut self) {
        let has_some = |tier: &Tier| tier.manifest.sealed_partitions().next().is_some();
        let groups = self.tiers.iter().filter(|(_, tier)| has_some(tier));
        let groups = groups.map(|(group, _)| group).filter(|it| self.log.has_caught_up(*it));
        let image = self.metadata.shared_image();
        for group in groups.collect::<Vec<_>>() {
            let manifest = &self.tiers[group].manifest;
            let sealed = manifest.sealed_partitions().filter(|(_, id)| image.version() >= *id);
            let stays = |id: &PartitionId| {
                let stays = |it: &cluster::Partition| it.group == group && it.moving.is_none();
                image.partitions().any(|(_, _, it)| it.id == *id && stays(it))
            };
            let staying: Vec<_> = sealed.map(|(id, _)| id).filter(stays).collect();
            for partition in staying {
                self.unseal(group, partition);
            }
        }
    }

    /// Hands a partition to the shard of this broker that has the group which gets it.
    pub(super) fn ask_to_adopt(&mut self, adoption: Adoption) {
        if let Some(shard) = self.metadata.image().shard_of(adoption.group, self.node.id) {
            let origin = Origin { call: self.calls.reserve(), part: 0 };
            self.ask(shard, origin, PartRequest::Adopt(Box::new(adoption)));
        }
    }

    /// Proposes the entry with which a group of this shard gets a partition.
    pub(super) fn adopt(&mut self, mut adoption: Box<Adoption>) {
        let (group, id, by) = (adoption.group, adoption.partition, adoption.id);
        let is_it = |it: &UnderWay| it.to == group && it.id == by;
        let is_wanted = self.moves.under_way.get(&id).is_some_and(is_it);
        let Some(term) = self.log.leads(group).filter(|_| self.log.has_caught_up(group)) else {
            return;
        };
        let is_news = is_news(&self.tiers[group].manifest, &adoption);
        if !is_wanted || !is_news || self.moves.adopting.get(&id) == Some(&(group, by)) {
            return;
        }
        let term = u32::try_from(term.get()).unwrap_or(u32::MAX);
        adoption.epoch_base = adoption.epoch_base.saturating_sub(term);
        let found = Partition::adopted(&adoption.state, partition::Origin::default());
        if found.is_ok_and(|found| found.id() == id)
            && self.propose_edit(group, &Edit::Adopted(adoption)).is_ok()
        {
            self.moves.adopting.insert(id, (group, by));
        }
    }

    /// Tells group 0 that a partition has arrived.
    fn arrive_on(&mut self, moving: &UnderWay) -> bool {
        let (group, id) = (moving.to, moving.partition);
        if !self.tiers.contains(group) || !self.log.has_caught_up(group) {
            return false;
        }
        let arrival = self.tiers[group].manifest.arrival(id).filter(|it| it.id == moving.id);
        let Some(arrival) = arrival else { return false };
        if !self.moves.may_say(id, self.now.instant) {
            return false;
        }
        self.command(Command::PartitionArrived {
            topic_id: moving.topic_id,
            index: moving.index,
            id: moving.id,
            epoch_base: arrival.epoch_base,
            // The manifest contains it: one with that many edits does, too.
            arrived: self.tiers[group].edited,
        });
        true
    }

    /// An entry that adopts a partition is in a group's log: batches of it may follow.
    pub(super) fn edit_appended(&mut self, group: RaftGroupId, index: LogIndex, payload: &Bytes) {
        if let Ok((Edit::Adopted(adoption), _)) = Edit::decode(payload) {
            self.hosting.adopt_again(group, index, &adoption, &self.tiers[group].manifest);
        }
    }

    /// The same entry is committed, and the manifest contains it.
    pub(super) fn adopted(&mut self, group: RaftGroupId, index: LogIndex, adoption: &Adoption) {
        let id = adoption.partition;
        if self.hosting.adopt(group, index, adoption) {
            let since = (index.next().get()..self.log.end_of(group).get()).map(LogIndex::new);
            let entries = since.filter_map(|index| {
                let entry = self.log.entry(group, index)?;
                Some((index, entry.term, entry_of(&entry.descriptor?)?))
            });
            let committed = self.log.committed(group);
            self.hosting.replay_after(group, id, entries, committed);
        }
        self.heed_seal(group, id);
        self.moves.adopting.remove(&id);
    }

    /// The partition is another group's, and the manifest only lends its objects.
    pub(super) fn lent(&mut self, group: RaftGroupId, index: LogIndex, partition: PartitionId) {
        let is_left = |it: &Partition| it.origin().index < index;
        if self.hosting.of(group, partition).is_some_and(is_left) {
            self.hosting.remove(group, partition);
        }
    }

    /// Partitions take records or not as the manifest says.
    pub(super) fn heed_seals(&mut self, group: RaftGroupId) {
        let ids: Vec<_> = self.hosting.partitions(group).map(Partition::id).collect();
        ids.into_iter().for_each(|id| self.heed_seal(group, id));
    }

    pub(super) fn heed_seal(&mut self, group: RaftGroupId, partition: PartitionId) {
        let is_sealed = self.tiers[group].manifest.sealed(partition).is_some();
        if let Some((log, _)) = self.hosting.of_mut(group, partition) {
            log.set_sealed(is_sealed);
        }
    }
}

/// Has the manifest of a group neither that adoption nor a later one of the partition?
pub(super) fn is_news(manifest: &Manifest, adoption: &Adoption) -> bool {
    manifest.arrival(adoption.partition).is_none_or(|arrival| arrival.id < adoption.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_taken_back_only_for_a_later_move_that_has_none_yet() {
        let [earlier, moving, later] = [7, 8, 9].map(LogIndex::new);
        for is_proposed in [false, true] {
            assert_eq!(next_step(Some(moving), moving, is_proposed), Step::HandOver);
            assert_eq!(next_step(Some(later), moving, is_proposed), Step::Wait);
            assert_eq!(next_step(None, moving, is_proposed), Step::Seal);
        }
        assert_eq!(next_step(Some(earlier), moving, false), Step::Unseal);
        assert_eq!(next_step(Some(earlier), moving, true), Step::Wait);
    }
}
