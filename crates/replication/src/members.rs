//! Who takes part in a group, and the changes of that.
//!
//! A change is an entry of the group's log and takes effect where it is applied (raft-rs; the Raft
//! dissertation, section 4.3, for the joint configuration). raft-rs would have it as a protobuf
//! message in the entry's data; here it stands in the descriptor's application bytes. Normative:
//! `docs/formats/raft-entry.md`.
//!
//! ```text
//! offset  size  field      integers are little-endian
//!      0     1  kind       1 add a learner, 2 remove one, 3 a learner for a voter, 4 leave,
//!                          5 a learner votes, 6 remove a voter
//!      1     8  member     kinds 1 to 3, 5 and 6
//!      9     8  replaced   kind 3
//! ```

use bytes::{Buf, BufMut, BytesMut};
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2};
use raft::eraftpb::{ConfState, EntryType};

use crate::descriptor::{AppBytes, Descriptor};

/// Bytes of the counts that stand before the members themselves.
pub(crate) const COUNTS_SIZE: usize = 4;

/// Who takes part in a group, each list in ascending order. While a change replaces a voter, both
/// majorities count: of `voters` and of `outgoing`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Members {
    pub voters: Vec<u64>,
    /// They have the log and no vote.
    pub learners: Vec<u64>,
    /// The voters before the change that is under way; empty if there is none.
    pub outgoing: Vec<u64>,
}

/// A change of a group's members. One at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MemberChange {
    AddLearner(u64),
    RemoveLearner(u64),
    /// The learner votes from now on in place of a voter. Until [`Self::Leave`] both majorities
    /// count, the one with it and the one before.
    Replace {
        learner: u64,
        voter: u64,
    },
    /// Ends a replacement: the voters before it count no more.
    Leave,
    /// The learner votes from now on beside the others.
    Promote(u64),
    /// There is one voter less.
    RemoveVoter(u64),
}

impl Members {
    pub(crate) fn of_voters(mut voters: Vec<u64>) -> Self {
        voters.sort_unstable();
        Self { voters, ..Self::default() }
    }

    /// Is that one in the group, in whichever way?
    pub fn contains(&self, member: u64) -> bool {
        [&self.voters, &self.learners, &self.outgoing].iter().any(|list| list.contains(&member))
    }

    /// Everybody in the group, each once.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let left = self.outgoing.iter().filter(|member| !self.voters.contains(member));
        self.voters.iter().chain(left).chain(&self.learners).copied()
    }

    /// Is there none but that one?
    pub(crate) fn are_only(&self, member: u64) -> bool {
        self.voters == [member] && self.learners.is_empty() && self.outgoing.is_empty()
    }

    /// Has it a vote?
    pub fn is_voter(&self, member: u64) -> bool {
        self.voters.contains(&member) || self.outgoing.contains(&member)
    }

    /// Nobody: a node that is new to the group does not know its members.
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty()
    }

    /// Is a replacement under way?
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Are those for which `is_there` holds a majority, or two where two are needed?
    pub fn are_majority(&self, is_there: impl Fn(u64) -> bool) -> bool {
        let holds = |voters: &[u64]| {
            let there = voters.iter().filter(|voter| is_there(**voter)).count();
            voters.is_empty() || 2 * there > voters.len()
        };
        !self.is_empty() && holds(&self.voters) && holds(&self.outgoing)
    }

    /// Does a change make sense here? One that does not changes nothing where it is applied.
    pub fn allow(&self, change: MemberChange) -> bool {
        match change {
            MemberChange::AddLearner(member) => !self.is_joint() && !self.contains(member),
            MemberChange::RemoveLearner(member) => {
                !self.is_joint() && self.learners.contains(&member)
            }
            MemberChange::Replace { learner, voter } => {
                let known = self.learners.contains(&learner) && self.voters.contains(&voter);
                !self.is_joint() && known
            }
            MemberChange::Leave => self.is_joint(),
            MemberChange::Promote(member) => !self.is_joint() && self.learners.contains(&member),
            MemberChange::RemoveVoter(member) => {
                !self.is_joint() && self.voters.contains(&member) && self.voters.len() > 1
            }
        }
    }

    pub(crate) fn to_raft(&self) -> ConfState {
        ConfState {
            voters: self.voters.clone(),
            learners: self.learners.clone(),
            voters_outgoing: self.outgoing.clone(),
            ..ConfState::default()
        }
    }

    pub(crate) fn from_raft(state: &ConfState) -> Self {
        let mut members = Self {
            voters: state.voters.clone(),
            learners: state.learners.clone(),
            outgoing: state.voters_outgoing.clone(),
        };
        members.lists_mut().into_iter().for_each(|list| list.sort_unstable());
        members
    }

    fn lists_mut(&mut self) -> [&mut Vec<u64>; 3] {
        [&mut self.voters, &mut self.learners, &mut self.outgoing]
    }

    /// Could it be what a leader sends? raft panics at members that contradict each other.
    fn is_sound(&self) -> bool {
        let ascend = |list: &[u64]| list.is_sorted_by(|one, next| one < next);
        let known = |member: &u64| *member != raft::INVALID_ID;
        let apart = |member: &u64| !self.is_voter(*member);
        let lists = [&self.voters, &self.learners, &self.outgoing];
        lists.iter().all(|list| ascend(list) && list.iter().all(known))
            && self.learners.iter().all(apart)
    }

    /// How many there are of each kind: 2, 1 and 1 bytes.
    pub(crate) fn encode_counts(&self, out: &mut BytesMut) {
        const FEW: &str = "a group has a handful of members";
        out.put_u16_le(u16::try_from(self.voters.len()).expect(FEW));
        out.put_u8(u8::try_from(self.learners.len()).expect(FEW));
        out.put_u8(u8::try_from(self.outgoing.len()).expect(FEW));
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let members = [&self.voters, &self.learners, &self.outgoing];
        members.into_iter().flatten().for_each(|member| out.put_u64_le(*member));
    }

    /// Reads as many as `counts` say if there are as many, and if they fit together: nothing is
    /// reserved by a count alone.
    pub(crate) fn decode(counts: [u8; COUNTS_SIZE], rest: &mut &[u8]) -> Option<Self> {
        let [low, high, learners, outgoing] = counts;
        let voters = take_numbers(rest, u16::from_le_bytes([low, high]).into())?;
        let learners = take_numbers(rest, learners.into())?;
        let members = Self { voters, learners, outgoing: take_numbers(rest, outgoing.into())? };
        members.is_sound().then_some(members)
    }
}

impl MemberChange {
    /// The change that an entry is, if it is one.
    pub(crate) fn of(descriptor: &Descriptor) -> Option<Self> {
        if !descriptor.changes_members {
            return None;
        }
        let (kind, mut rest) = descriptor.app.split_first()?;
        let mut member = || rest.try_get_u64_le().ok();
        let change = match kind {
            1 => Self::AddLearner(member()?),
            2 => Self::RemoveLearner(member()?),
            3 => Self::Replace { learner: member()?, voter: member()? },
            4 => Self::Leave,
            5 => Self::Promote(member()?),
            6 => Self::RemoveVoter(member()?),
            _ => return None,
        };
        rest.is_empty().then_some(change)
    }

    pub(crate) fn descriptor(self) -> Descriptor {
        let mut app = BytesMut::new();
        let (kind, members): (u8, &[u64]) = match &self {
            Self::AddLearner(member) => (1, &[*member]),
            Self::RemoveLearner(member) => (2, &[*member]),
            Self::Replace { learner, voter } => (3, &[*learner, *voter]),
            Self::Leave => (4, &[]),
            Self::Promote(member) => (5, &[*member]),
            Self::RemoveVoter(member) => (6, &[*member]),
        };
        app.put_u8(kind);
        members.iter().for_each(|member| app.put_u64_le(*member));
        let app = AppBytes::new(&app).expect("17 bytes fit");
        let descriptor = Descriptor::of(&[], false, app).expect("no payload is small");
        Descriptor { changes_members: true, ..descriptor }
    }

    pub(crate) fn to_raft(self) -> ConfChangeV2 {
        let single = |change_type, node_id| ConfChangeSingle {
            change_type,
            node_id,
            ..ConfChangeSingle::default()
        };
        let (changes, transition) = match self {
            Self::AddLearner(member) => {
                (vec![single(ConfChangeType::AddLearnerNode, member)], ConfChangeTransition::Auto)
            }
            Self::RemoveLearner(member) | Self::RemoveVoter(member) => {
                (vec![single(ConfChangeType::RemoveNode, member)], ConfChangeTransition::Auto)
            }
            Self::Promote(member) => {
                (vec![single(ConfChangeType::AddNode, member)], ConfChangeTransition::Auto)
            }
            Self::Replace { learner, voter } => {
                let added = single(ConfChangeType::AddNode, learner);
                let removed = single(ConfChangeType::RemoveNode, voter);
                (vec![added, removed], ConfChangeTransition::Explicit)
            }
            Self::Leave => (Vec::new(), ConfChangeTransition::Auto),
        };
        ConfChangeV2 { changes: changes.into(), transition, ..ConfChangeV2::default() }
    }
}

/// What raft has to take an entry for: it refuses to campaign on members that are not applied.
pub(crate) fn entry_type(descriptor: &Descriptor) -> EntryType {
    if descriptor.changes_members { EntryType::EntryConfChangeV2 } else { EntryType::EntryNormal }
}

/// Reads `count` numbers if there are as many.
pub(crate) fn take_numbers(rest: &mut &[u8], count: u32) -> Option<Vec<u64>> {
    let size = usize::try_from(count).ok()?.checked_mul(size_of::<u64>())?;
    let (mut bytes, after) = rest.split_at_checked(size)?;
    *rest = after;
    let mut numbers = Vec::with_capacity(size / size_of::<u64>());
    while bytes.has_remaining() {
        numbers.push(bytes.get_u64_le());
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGES: [MemberChange; 6] = [
        MemberChange::AddLearner(1 << 40),
        MemberChange::RemoveLearner(2),
        MemberChange::Replace { learner: 3, voter: 4 },
        MemberChange::Leave,
        MemberChange::Promote(2),
        MemberChange::RemoveVoter(4),
    ];

    fn members(voters: &[u64], learners: &[u64], outgoing: &[u64]) -> Members {
        let [voters, learners, outgoing] = [voters, learners, outgoing].map(<[u64]>::to_vec);
        Members { voters, learners, outgoing }
    }

    #[test]
    fn a_change_is_read_as_it_was_written_and_nothing_else_is_one() {
        for change in CHANGES {
            let descriptor = change.descriptor();
            assert_eq!(MemberChange::of(&descriptor), Some(change));
            let app = Descriptor { changes_members: false, ..descriptor };
            assert_eq!(MemberChange::of(&app), None);
            for wrong in [&descriptor.app[..descriptor.app.len() - 1], &[9], &[4, 0]] {
                let app = AppBytes::new(wrong).expect("short");
                assert_eq!(MemberChange::of(&Descriptor { app, ..descriptor }), None, "{wrong:?}");
            }
        }
    }

    #[test]
    fn reads_and_writes_the_bytes_of_version_1() {
        let golden = include_bytes!("../testdata/raft-change.v1.bin").as_slice();
        let change = MemberChange::Replace { learner: 1 << 32 | 3, voter: 3 };
        let mut bytes = BytesMut::new();
        change.descriptor().encode(&mut bytes);
        assert_eq!(bytes, golden);
        assert_eq!(Descriptor::decode(golden), Ok(change.descriptor()));
    }

    #[test]
    fn what_changes_make_sense() {
        let table = [
            (members(&[2, 4], &[3], &[]), [true, false, true, false, false, true]),
            (members(&[4, 5], &[2], &[]), [true, true, false, false, true, true]),
            (members(&[5, 1 << 40], &[], &[]), [false; 6]),
            (members(&[4], &[1 << 40], &[]), [false; 6]),
            (members(&[3, 5], &[2], &[4, 5]), [false, false, false, true, false, false]),
        ];
        for (members, allowed) in table {
            assert_eq!(CHANGES.map(|change| members.allow(change)), allowed, "{members:?}");
        }
    }

    #[test]
    fn members_that_contradict_each_other_are_refused() {
        let decoded = |members: &Members| {
            let (mut counts, mut numbers) = (BytesMut::new(), BytesMut::new());
            members.encode_counts(&mut counts);
            members.encode(&mut numbers);
            let counts = counts[..].try_into().expect("four bytes");
            Members::decode(counts, &mut &numbers[..])
        };
        let sound = members(&[1, 2], &[3], &[1, 4]);
        assert_eq!(decoded(&sound), Some(sound));
        let wrong: [[&[u64]; 3]; 5] = [
            [&[2, 1], &[], &[]],
            [&[1, 1], &[], &[]],
            [&[0], &[], &[]],
            [&[1], &[1], &[]],
            [&[1], &[2], &[2]],
        ];
        for [voters, learners, outgoing] in wrong {
            assert_eq!(decoded(&members(voters, learners, outgoing)), None);
        }
    }

    #[test]
    fn both_majorities_count_while_a_voter_is_replaced() {
        let joint = members(&[1, 2, 4], &[9], &[1, 2, 3]);
        let are = |there: &[u64]| joint.are_majority(|voter| there.contains(&voter));
        assert!(are(&[1, 2]) && are(&[1, 3, 4]));
        assert!(!are(&[1, 4]) && !are(&[1, 3]) && !are(&[1, 9]) && !are(&[]));
        assert!(!Members::default().are_majority(|_| true), "of nobody there is no majority");
    }
}
