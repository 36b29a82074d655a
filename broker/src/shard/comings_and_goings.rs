//! Brokers and groups that come and go while this one runs, as the metadata says; and what those
//! hear of a group that have no copy of it: who leads.

use std::time::Duration;

use model::{LeaderEpoch, NodeId, RaftGroupId, Term};

use super::Shard;
use super::message::AppendRefused;
use super::metadata::METADATA_SHARD;
use crate::cluster::Image;
use crate::partition::{Partition, leader_epoch};
use crate::peer::frame::Control;

/// How often brokers without a copy of a group are told who leads it: what was said may be lost.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

impl Shard {
    /// Talks to the brokers that an image names, and to no others; before there is a cluster, to
    /// those of the configuration.
    pub(super) fn meet_members(&mut self, image: &Image) {
        if !self.node.has_peers() || image.cluster_id().is_none() {
            return;
        }
        let mut members = image.members();
        members.remove(&self.node.id);
        if let Some(dialer) = self.node.dialer().filter(|_| self.id == METADATA_SHARD) {
            let address = |node: &NodeId| Some((*node, image.address_of(*node)?));
            members.iter().filter_map(address).for_each(|(node, at)| dialer.meet(node, at));
        }
        self.peers.meet(&members, self.now.instant);
        self.log.set_has_peers(!members.is_empty());
    }

    /// Makes the groups that an image puts on this shard, and forgets those that it does not.
    pub(super) fn keep_groups(&mut self, image: &Image) {
        let (id, own) = (self.node.id, self.node.voter());
        let here: Vec<_> = image
            .data_groups()
            .filter(|group| group.copies().any(|it| it.node == id && it.shard == self.id))
            .collect();
        for group in &here {
            if !self.log.has_group(group.id) {
                let is_founder = group.founders.contains(&own);
                let voters = if is_founder { &group.founders[..] } else { &[] };
                self.log.create_group(group.id, voters);
                self.tiers.insert(group.id);
            }
        }
        for group in self.tiers.groups().iter().copied() {
            // One that the image does not know at all is younger than it.
            let has_left = image.group(group).is_some() && here.iter().all(|it| it.id != group);
            if has_left {
                self.forget_group(group);
            }
        }
    }

    /// Others have this broker's place in a group.
    fn forget_group(&mut self, group: RaftGroupId) {
        self.log.remove_group(group);
        self.tier_steps_down(group);
        let partitions: Vec<_> = self.hosting.partitions(group).map(Partition::id).collect();
        for waiter in self.hosting.install(group, Vec::new()) {
            self.tell(waiter, Err(AppendRefused::NotLeader));
        }
        partitions.into_iter().for_each(|partition| self.wake_readers(partition));
        self.tiers.remove(group);
        self.joining.forget(group);
        self.leadership.forget(group);
        let shard = self.id;
        self.notes.push(format!("shard {shard}, group {group}: it has left this broker"));
    }

    /// At the tick: says to the brokers that have no copy of a group that this one leads it.
    pub(super) fn tell_leads(&mut self) {
        let now = self.now.instant;
        let is_due = |at| now.saturating_duration_since(at) >= TELL_INTERVAL;
        if self.peers.is_alone() || !self.led_told.is_none_or(is_due) {
            return;
        }
        self.led_told = Some(now);
        let nodes: Vec<_> = self.peers.nodes().collect();
        nodes.into_iter().for_each(|node| self.tell_leads_to(node));
    }

    /// The same to one of them.
    pub(super) fn tell_leads_to(&mut self, node: NodeId) {
        let image = self.metadata.image();
        let lacks = |group: &RaftGroupId| {
            image.group(*group).is_some_and(|it| it.copies().all(|copy| copy.node != node))
        };
        let groups = self.tiers.groups();
        let led = groups.iter().filter(|group| lacks(group));
        let led: Vec<_> =
            led.filter_map(|it| Some((it.get(), self.log.leads(*it)?.get()))).collect();
        if !led.is_empty() {
            self.peers.send_control(node, &Control::Leads { led });
        }
    }

    /// Another broker leads these groups.
    pub(super) fn hear_leads(&mut self, from: NodeId, led: &[(u64, u64)]) {
        for (group, term) in led {
            let group = RaftGroupId::new(*group);
            let is_older =
                |(_, epoch): (NodeId, LeaderEpoch)| epoch > leader_epoch(Term::new(*term));
            // Of a group that is here raft knows better.
            if !self.log.has_group(group) && !self.node.leader(group).is_some_and(is_older) {
                self.node.set_leader(group, Some(from), Term::new(*term));
            }
        }
    }
}
