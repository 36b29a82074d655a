//! Committed offsets of a group: commit and fetch.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use super::classic::{Context, Group};
use super::coordinator::Coordinator;
use super::output::{Effect, InFlight, Outbox};
use super::{
    AppendToken, CommitOffset, CommitOffsetsRequest, CommittedOffset, FetchOffsetsRequest,
    GroupError, GroupResponse, GroupState, Name, Now, OffsetCommitted, OffsetFetched, Operation,
    ReplyToken, record,
};

/// Offsets that are in the log, and how many commits are on their way there.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    committed: BTreeMap<Name, BTreeMap<i32, Entry>>,
    in_flight: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) metadata: Name,
    pub(super) topic_id: Uuid,
    /// Unix milliseconds.
    pub(super) commit_ms: i64,
    /// Unix milliseconds; the group's retention applies if there is none.
    pub(super) expire_ms: Option<i64>,
    /// The append that brought it; 0 for one from a former run.
    pub(super) since: AppendToken,
}

/// A commit whose records are on their way into the log.
#[derive(Debug)]
pub(super) struct CommitInFlight {
    token: ReplyToken,
    entries: Vec<(Name, i32, Entry)>,
    /// As they will be if the append succeeds.
    results: Vec<OffsetCommitted>,
}

impl CommitInFlight {
    pub(super) fn answer(self, out: &mut Outbox, result: Result<(), GroupError>) {
        let mut results = self.results;
        if let Err(error) = result {
            results = results.iter().map(|offset| offset.refused(error)).collect();
        }
        out.reply(self.token, GroupResponse::CommitOffsets(results));
    }
}

impl Coordinator {
    pub(super) fn commit(
        &mut self,
        now: Now,
        token: ReplyToken,
        id: &Name,
        request: CommitOffsetsRequest,
    ) {
        // A consumer that only keeps its offsets here makes the group by its first commit.
        if request.generation < 0 {
            self.create(now, id);
        }
        let checked = self.groups.get(id).ok_or(GroupError::GroupNotFound);
        if let Err(error) = checked.and_then(|group| group.check_commit(&request)) {
            let operation = Operation::CommitOffsets(request);
            self.out.reply(token, GroupResponse::refuse(&operation, error));
            return;
        }
        let Some((group, mut cx)) = self.open(now, id) else { return };
        group.commit(&mut cx, token, request);
    }
}

impl Group {
    fn check_commit(&self, request: &CommitOffsetsRequest) -> Result<(), GroupError> {
        if request.generation < 0 && self.state == GroupState::Empty {
            return Ok(());
        }
        let named = !request.member_id.is_empty() || request.instance_id.is_some();
        if request.generation < 0 && !named {
            return Err(GroupError::UnknownMember); // The group belongs to its members.
        }
        self.check_member(&request.member_id, request.instance_id.as_ref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if self.state == GroupState::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    fn commit(&mut self, cx: &mut Context<'_>, token: ReplyToken, request: CommitOffsetsRequest) {
        self.touch(cx, &request.member_id);
        let expire_ms = request.retention_ms.map(|r| cx.now.unix_ms.saturating_add(r));
        let mut commit = CommitInFlight { token, entries: Vec::new(), results: Vec::new() };
        let mut records = Vec::new();
        for offset in request.offsets {
            let entry = Entry::new(&offset, cx.now.unix_ms, expire_ms);
            let record = self.commit_record(cx, &offset, &entry);
            commit.results.push(offset.outcome(record.as_ref().map(|_| ()).map_err(|e| *e)));
            if let Ok(record) = record {
                records.push(record);
                commit.entries.push((offset.topic, offset.partition, entry));
            }
        }
        if records.is_empty() {
            commit.answer(cx.out, Ok(()));
            return;
        }
        self.offsets.in_flight += 1;
        let (partition, group) = (self.partition, self.id.clone());
        let effect = Effect::Commit(commit);
        cx.out.append(records, InFlight { partition, group, metadata: None, effect });
    }

    fn commit_record(
        &self,
        cx: &Context<'_>,
        offset: &CommitOffset,
        entry: &Entry,
    ) -> Result<(Bytes, Option<Bytes>), GroupError> {
        if offset.metadata.len() > cx.config.offset_metadata_size_max {
            return Err(GroupError::OffsetMetadataTooLarge);
        }
        record::offset_commit(&self.id, &offset.topic, offset.partition, entry)
            .map_err(|_| GroupError::RecordTooLarge)
    }

    /// The offsets of a commit are in the log, or the old ones stay.
    pub(super) fn committed(
        &mut self,
        cx: &mut Context<'_>,
        append: AppendToken,
        mut commit: CommitInFlight,
        result: Result<(), GroupError>,
    ) {
        self.offsets.in_flight = self.offsets.in_flight.saturating_sub(1);
        if result.is_ok() {
            for (topic, partition, mut entry) in commit.entries.drain(..) {
                entry.since = append;
                self.offsets.put(topic, partition, entry);
            }
        }
        commit.answer(cx.out, result);
    }
}

impl Entry {
    fn new(offset: &CommitOffset, commit_ms: i64, expire_ms: Option<i64>) -> Self {
        Self {
            offset: offset.offset,
            leader_epoch: offset.leader_epoch,
            // A copy of its own: the request's text may be part of a larger buffer.
            metadata: Name::from(&*offset.metadata),
            topic_id: offset.topic_id,
            commit_ms,
            expire_ms,
            since: AppendToken(0),
        }
    }

    fn read(&self) -> CommittedOffset {
        CommittedOffset {
            offset: self.offset,
            leader_epoch: self.leader_epoch,
            metadata: self.metadata.clone(),
        }
    }

    /// Whether it was committed for the topic of this id, as far as both ids are known.
    pub(super) fn is_of(&self, topic_id: Uuid) -> bool {
        topic_id.is_nil() || self.topic_id.is_nil() || self.topic_id == topic_id
    }
}

impl Offsets {
    pub(super) fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.in_flight == 0
    }

    /// Keeps the entry of the later append.
    pub(super) fn put(&mut self, topic: Name, partition: i32, entry: Entry) {
        let slot = self.committed.entry(topic).or_default();
        if slot.get(&partition).is_none_or(|old| old.since <= entry.since) {
            slot.insert(partition, entry);
        }
    }

    /// Removes an entry that is not younger than this append.
    pub(super) fn remove(&mut self, topic: &str, partition: i32, append: AppendToken) {
        let Some(partitions) = self.committed.get_mut(topic) else { return };
        if partitions.get(&partition).is_some_and(|entry| entry.since <= append) {
            partitions.remove(&partition);
        }
        if partitions.is_empty() {
            self.committed.remove(topic);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Name, i32, &Entry)> {
        self.committed.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(partition, entry)| (topic, *partition, entry))
        })
    }
}

/// The committed offsets asked for; a group that does not exist has none.
pub(super) fn fetch(offsets: Option<&Offsets>, request: FetchOffsetsRequest) -> Vec<OffsetFetched> {
    let Some(topics) = request.topics else {
        let all = offsets.into_iter().flat_map(Offsets::iter);
        let fetched = |(topic, partition, entry): (&Name, i32, &Entry)| OffsetFetched {
            topic: topic.clone(),
            topic_id: entry.topic_id,
            partition,
            result: Ok(Some(entry.read())),
        };
        return all.map(fetched).collect();
    };
    let mut fetched = Vec::new();
    for wanted in topics {
        let found = offsets.and_then(|offsets| offsets.committed.get(&wanted.topic));
        for partition in wanted.partitions {
            let entry = found.and_then(|partitions| partitions.get(&partition));
            let entry = entry.filter(|entry| entry.is_of(wanted.topic_id));
            fetched.push(OffsetFetched {
                topic: wanted.topic.clone(),
                topic_id: wanted.topic_id,
                partition,
                result: Ok(entry.map(Entry::read)),
            });
        }
    }
    fetched
}
