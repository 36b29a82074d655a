//! Forgetting: offsets past their retention, offsets of deleted topics, groups with nothing left.

use uuid::Uuid;

use super::classic::{Context, Group};
use super::coordinator::{Coordinator, Phase};
use super::offsets::Entry;
use super::output::{Effect, InFlight};
use super::{AppendToken, GroupConfig, GroupError, GroupState, Name, Now, record};

impl Coordinator {
    /// Drops the offsets of topics, by name and id, that no longer exist. They stay visible until
    /// the tombstones are committed.
    pub fn topics_deleted(&mut self, now: Now, topics: &[(Name, Uuid)]) {
        let is_deleted = |(name, _, entry): &(&Name, i32, &Entry)| {
            topics.iter().any(|(deleted, id)| deleted == *name && entry.is_of(*id))
        };
        let ids: Vec<Name> = self.groups.keys().cloned().collect();
        for id in ids {
            let Some((group, mut cx)) = self.open(now, &id) else { continue };
            let doomed = group.offsets.iter().filter(is_deleted);
            let doomed: Vec<_> = doomed.map(|(topic, p, _)| (topic.clone(), p)).collect();
            group.forget(&mut cx, doomed, false);
        }
    }

    /// Drops what is past its retention, and groups that are left with nothing.
    pub(super) fn expire_offsets(&mut self, now: Now) {
        let serving =
            |group: &&Group| self.partitions.get(&group.partition) == Some(&Phase::Serving);
        let ids: Vec<Name> =
            self.groups.values().filter(serving).map(|group| group.id.clone()).collect();
        for id in ids {
            let Some((group, mut cx)) = self.open(now, &id) else { continue };
            if !group.recorded && group.is_forgettable() {
                self.groups.remove(&id);
                continue;
            }
            let doomed = group.offsets.iter().filter(|(.., e)| group.is_over(e, now, cx.config));
            let doomed: Vec<_> = doomed.map(|(topic, p, _)| (topic.clone(), p)).collect();
            let whole = doomed.len() == group.offsets.iter().count();
            let idle = group.state == GroupState::Empty && group.pending.is_empty();
            group.forget(&mut cx, doomed, whole && idle && group.recorded);
        }
    }
}

impl Group {
    /// Whether an offset is past its retention: its own, or else the group's, which runs from the
    /// moment the group has been without members.
    fn is_over(&self, entry: &Entry, now: Now, config: &GroupConfig) -> bool {
        if let Some(expire_ms) = entry.expire_ms {
            return expire_ms <= now.unix_ms;
        }
        let grouped = !self.protocol_type.is_empty();
        let since =
            if grouped { self.state_since_ms.max(entry.commit_ms) } else { entry.commit_ms };
        let end = since.saturating_add(config.offsets_retention_ms);
        self.state == GroupState::Empty && end <= now.unix_ms
    }

    fn forget(&mut self, cx: &mut Context<'_>, offsets: Vec<(Name, i32)>, whole: bool) {
        let keys = offsets.iter().map(|(topic, p)| record::offset_key(&self.id, topic, *p));
        let keys = keys.chain(whole.then(|| record::group_key(&self.id)));
        let Ok(keys) = keys.collect::<Result<Vec<_>, _>>() else { return };
        if keys.is_empty() {
            return;
        }
        let records = keys.into_iter().map(|key| (key, None)).collect();
        let (partition, group) = (self.partition, self.id.clone());
        let effect = Effect::Expire { offsets, group: whole };
        cx.out.append(records, InFlight { partition, group, metadata: None, effect });
    }

    /// The tombstones are in the log, or everything stays until the next time.
    pub(super) fn expired(
        &mut self,
        append: AppendToken,
        offsets: &[(Name, i32)],
        result: Result<(), GroupError>,
    ) {
        if result.is_ok() {
            for (topic, partition) in offsets {
                self.offsets.remove(topic, *partition, append);
            }
        }
    }
}
