//! Brokers and groups that come and go while this one runs, as the metadata says; and what those
//! hear of a group that have no copy of it: who leads.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use model::{LeaderEpoch, LogIndex, NodeId, RaftGroupId, Term};

use super::Shard;
use super::message::AppendRefused;
use super::metadata::METADATA_SHARD;
use crate::cluster::{Command, Group, Image};
use crate::config::HostPort;
use crate::partition::{Partition, leader_epoch};
use crate::peer::frame::Control;

/// How often that is said again: it may be lost.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

impl Shard {
    /// Talks to the brokers that an image names, and to no others; before there is a cluster, to
    /// those of the configuration.
    pub(super) fn meet_members(&mut self, image: &Image) {
        if !self.node.has_peers() || image.cluster_id().is_none() {
            return;
        }
        let mut members = image.members();
        let address = |node: &NodeId| Some((*node, image.address_of(*node)?.clone()));
        let mut addresses: BTreeMap<_, _> = members.iter().filter_map(address).collect();
        // There may be no majority without a broker that was added by what is not applied here.
        let (version, heard) = &self.metadata.heard_added;
        let heard = heard.clone().into_iter().filter(|_| *version > image.version());
        for (node, address) in self.log_adds().into_iter().chain(heard) {
            members.insert(node);
            addresses.insert(node, address);
        }
        members.remove(&self.node.id);
        if let Some(dialer) = self.node.dialer().filter(|_| self.id == METADATA_SHARD) {
            addresses.iter().for_each(|(node, address)| dialer.meet(*node, address));
        }
        self.peers.meet(&members, self.now.instant);
        self.log.set_has_peers(!members.is_empty());
    }

    /// Brokers that group 0's log adds behind what is applied, committed or not.
    fn log_adds(&self) -> BTreeMap<NodeId, HostPort> {
        let group = RaftGroupId::METADATA;
        if self.id != METADATA_SHARD || !self.log.has_group(group) {
            return BTreeMap::new();
        }
        self.log.payloads_after(group, self.metadata.applied()).filter_map(added).collect()
    }

    /// A command of group 0's leader is on its way into the log.
    pub(super) fn command_appended(&mut self, payload: &Bytes) {
        if added(payload).is_some()
            && let Some(image) = self.metadata.applied_image()
        {
            self.meet_members(&image);
        }
    }

    /// Tells a broker of those that were added: if it is behind with the metadata, it may need one
    /// of them to catch up, and would not let it in.
    pub(super) fn tell_added_to(&mut self, node: NodeId) {
        if self.id != METADATA_SHARD {
            return;
        }
        let image = self.metadata.image();
        let added = |it: NodeId| {
            let address = image.address_of(it)?.clone();
            Some(Bytes::from(Command::AddNode { node: it, address }.encode()))
        };
        let commands: Vec<_> = image.members().into_iter().filter_map(added).collect();
        if !commands.is_empty() {
            let version = image.version().get();
            self.peers.send_control(node, &Control::Added { version, commands });
        }
    }

    /// Another broker knows of these.
    pub(super) fn hear_added(&mut self, version: LogIndex, commands: &[Bytes]) {
        let Some(image) = self.metadata.applied_image() else { return };
        if version > self.metadata.heard_added.0.max(image.version()) {
            self.metadata.heard_added = (version, commands.iter().filter_map(added).collect());
            self.meet_members(&image);
        }
    }

    /// Makes the groups that an image puts on this shard, and forgets those that it does not.
    pub(super) fn keep_groups(&mut self, image: &Image) {
        let (id, shard, own) = (self.node.id, self.id, self.node.voter());
        let is_here = |group: &Group| group.copy_on(id).is_some_and(|it| it.shard == shard);
        for group in image.data_groups().filter(|group| is_here(group)) {
            if !self.tiers.contains(group.id) {
                let is_founder = group.founders.contains(&own);
                let voters = if is_founder { &group.founders[..] } else { &[] };
                self.log.create_group(group.id, voters);
                self.tiers.insert(group.id);
            }
        }
        for group in self.tiers.groups().iter().copied() {
            // One that the image does not know at all is younger than it.
            let has_left = image.group(group).is_some_and(|group| !is_here(group));
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

    /// At the tick: says to the brokers that have no copy of a group that this one leads it, and to
    /// all which were added.
    pub(super) fn tell_others(&mut self) {
        let now = self.now.instant;
        let is_due = |at| now.saturating_duration_since(at) >= TELL_INTERVAL;
        if self.peers.is_alone() || !self.led_told.is_none_or(is_due) {
            return;
        }
        self.led_told = Some(now);
        let nodes: Vec<_> = self.peers.nodes().collect();
        for node in nodes {
            self.tell_leads_to(node);
            self.tell_added_to(node);
        }
    }

    /// Says to a broker which groups this one leads that it has no copy of.
    pub(super) fn tell_leads_to(&mut self, node: NodeId) {
        let image = self.metadata.image();
        let lacks = |group: &RaftGroupId| {
            image.group(*group).is_some_and(|group| group.copy_on(node).is_none())
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

/// The broker that a command adds, and where that listens to the others.
fn added(command: &Bytes) -> Option<(NodeId, HostPort)> {
    match Command::decode(command) {
        Ok(Command::AddNode { node, address }) => Some((node, address)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_command_that_adds_a_broker_tells_of_one() {
        let (node, address) = (NodeId::new(4), HostPort::new("node-4.example", 9192));
        let add = Command::AddNode { node, address: address.clone() };
        assert_eq!(added(&add.encode().into()), Some((node, address)));
        let settled = Command::GroupSettled { group: RaftGroupId::new(1), asked: LogIndex::new(1) };
        assert_eq!(added(&settled.encode().into()), None);
        assert_eq!(added(&Bytes::from_static(b"?")), None);
    }
}
