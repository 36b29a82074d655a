//! Heartbeats that tell nothing new, and the answers to them: hardly anything else happens in a
//! group in which nothing is written. Raft would do the same with them, in ten times as long.

use std::collections::BTreeMap;

use raft::eraftpb::MessageType;
use raft::{INVALID_INDEX, StateRole};

use crate::group::Group;
use crate::heartbeats::{Beat, Heartbeats};

impl Group {
    /// In every tick a leader says that it is there, and what is committed of what a voter has.
    pub(crate) fn beat_at_once(&self, heartbeats: &mut BTreeMap<u64, Heartbeats>) {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader {
            return;
        }
        for (to, progress) in raft.prs().iter().filter(|(to, _)| **to != raft.id) {
            let commit = progress.matched.min(raft.raft_log.committed);
            let all = heartbeats.entry(*to).or_insert_with(|| Heartbeats::new(raft.id, *to));
            all.beats.push(Beat { group: self.id, term: raft.term, commit });
        }
    }

    /// Raft says the same by itself in some of the ticks: once is enough.
    pub(crate) fn drop_own_beats(&mut self) {
        self.raw.raft.msgs.retain(|body| body.msg_type != MessageType::MsgHeartbeat);
    }

    /// Takes in a heartbeat and returns the answer; `None` if it is for raft.
    pub(crate) fn answer_at_once(&mut self, from: u64, beat: &Beat) -> Option<Beat> {
        let awaits_disk = self.awaits_disk();
        let raft = &mut self.raw.raft;
        let is_known = raft.state == StateRole::Follower
            && raft.leader_id == from
            && raft.term == beat.term
            && raft.raft_log.committed >= beat.commit
            && raft.pending_request_snapshot == INVALID_INDEX;
        if awaits_disk || !is_known {
            return None;
        }
        raft.election_elapsed = 0;
        Some(Beat { commit: raft.raft_log.committed, ..*beat })
    }

    /// Takes in an answer on the leader; false if it is for raft, as that of a node is which lacks
    /// something.
    pub(crate) fn note_at_once(&mut self, from: u64, answer: &Beat) -> bool {
        let awaits_disk = self.awaits_disk();
        let raft = &mut self.raw.raft;
        if awaits_disk || raft.state != StateRole::Leader || raft.term != answer.term {
            return false;
        }
        let last = raft.raft_log.last_index();
        let Some(progress) = raft.mut_prs().get_mut(from) else { return false };
        let lacks_nothing =
            progress.matched == last && progress.pending_request_snapshot == INVALID_INDEX;
        if lacks_nothing {
            progress.update_committed(answer.commit);
            progress.recent_active = true;
            progress.resume();
        }
        lacks_nothing
    }
}
