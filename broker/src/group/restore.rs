//! Partitions of `__consumer_offsets` coming to this shard and going.

use bytes::Bytes;

use super::classic::Group;
use super::coordinator::{Coordinator, Phase};
use super::member::Member;
use super::record::{self, GroupRecord, Key, MemberRecord, RecordError};
use super::{AppendToken, GroupError, GroupState, JoinRequest, Name, Now, Protocol};

impl Coordinator {
    /// This shard has begun to lead the partition. Its groups are refused until
    /// [`Self::end_load`].
    pub fn begin_load(&mut self, partition: i32) {
        self.groups.retain(|_, group| group.partition != partition);
        self.partitions.insert(partition, Phase::Loading);
    }

    /// One committed record of the partition, in the order of the log. A record that is not
    /// understood changes nothing; [`Self::load_fault`] tells of it.
    pub fn load(&mut self, partition: i32, key: &[u8], value: Option<&[u8]>) {
        if let Err(fault) = self.try_load(partition, key, value) {
            let (count, _) = self.load_fault.unwrap_or((0, fault));
            self.load_fault = Some((count.saturating_add(1), fault));
        }
    }

    /// How many records were not understood since the start, and why the last one was not.
    pub fn load_fault(&self) -> Option<(u64, RecordError)> {
        self.load_fault
    }

    fn try_load(
        &mut self,
        partition: i32,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), RecordError> {
        match record::decode_key(key)? {
            Key::Offset { group, topic, partition: of } => {
                let entry = value.map(record::decode_offset).transpose()?;
                let group = self.loaded_group(partition, &group);
                match entry {
                    Some(entry) => group.offsets.put(topic, of, entry),
                    None => group.offsets.remove(&topic, of, AppendToken(0)),
                }
            }
            Key::Group { group } => {
                let metadata = value.map(record::decode_group).transpose()?;
                let group = self.loaded_group(partition, &group);
                group.restore(metadata);
                group.in_log = value.map(Bytes::copy_from_slice);
            }
            Key::Other { .. } => {}
        }
        Ok(())
    }

    /// The whole log has been loaded: sessions start now and requests are served.
    pub fn end_load(&mut self, now: Now, partition: i32) {
        self.partitions.insert(partition, Phase::Serving);
        let here = |group: &&Group| group.partition == partition;
        let ids: Vec<Name> = self.groups.values().filter(here).map(|g| g.id.clone()).collect();
        for id in ids {
            let Some((group, mut cx)) = self.open(now, &id) else { continue };
            if group.state_since_ms < 0 {
                group.state_since_ms = now.unix_ms;
            }
            let members: Vec<Name> = group.members.keys().cloned().collect();
            for member in members {
                group.touch(&mut cx, &member);
            }
            if !group.recorded && group.is_forgettable() {
                self.groups.remove(&id);
            }
        }
    }

    /// Another shard or broker leads the partition: whoever waits is told to look for it.
    pub fn unload(&mut self, partition: i32) {
        self.partitions.remove(&partition);
        let here = |group: &&Group| group.partition == partition;
        let ids: Vec<Name> = self.groups.values().filter(here).map(|g| g.id.clone()).collect();
        for id in ids {
            if let Some(group) = self.groups.remove(&id) {
                group.abandon(&mut self.out, GroupError::NotCoordinator);
            }
        }
        self.out.abandon(partition);
    }

    fn loaded_group(&mut self, partition: i32, id: &Name) -> &mut Group {
        let new = || Group::new(id.clone(), partition, -1);
        self.groups.entry(id.clone()).or_insert_with(new)
    }
}

impl Group {
    /// Takes the membership from a record; a tombstone leaves the offsets.
    fn restore(&mut self, record: Option<GroupRecord>) {
        let offsets = std::mem::take(&mut self.offsets);
        *self = Self { offsets, ..Self::new(self.id.clone(), self.partition, -1) };
        let Some(record) = record else { return };
        self.recorded = true;
        self.generation = record.generation;
        self.protocol_type = record.protocol_type;
        self.state_since_ms = record.state_since_ms;
        self.protocol = record.protocol;
        for member in record.members {
            if let Some(instance_id) = &member.instance_id {
                self.instances.insert(instance_id.clone(), member.id.clone());
            }
            let member = member.restored(&self.protocol_type, self.protocol.as_ref());
            self.members.insert(member.id.clone(), member);
        }
        if !self.members.is_empty() {
            self.state = GroupState::Stable;
            let known = record.leader.filter(|id| self.members.contains_key(id));
            self.leader = known.or_else(|| self.members.keys().next().cloned());
        }
    }
}

impl MemberRecord {
    /// The member as it was, of whose protocols only the chosen one is recorded.
    fn restored(self, protocol_type: &Name, protocol: Option<&Name>) -> Member {
        let protocol = Protocol {
            name: protocol.cloned().unwrap_or_else(|| Name::from("")),
            metadata: self.subscription,
        };
        let join = JoinRequest {
            member_id: self.id.clone(),
            instance_id: self.instance_id,
            client_id: self.client_id,
            client_host: self.client_host,
            member_id_required: false,
            skip_assignment_known: false,
            session_timeout_ms: self.session_timeout_ms,
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            protocol_type: protocol_type.clone(),
            protocols: vec![protocol],
        };
        let mut member = Member::new(self.id, join);
        member.assignment = self.assignment;
        member.new = false;
        member
    }
}
