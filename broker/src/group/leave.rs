//! LeaveGroup: by the member itself, or by an administrator who knows the instance id.

use super::classic::{Context, Group};
use super::{GroupError, LeaveRequest, LeavingMember, MemberLeft, Name};

impl Group {
    pub(super) fn leave(&mut self, cx: &mut Context<'_>, request: LeaveRequest) -> Vec<MemberLeft> {
        let (members, pending) = (self.members.len(), self.pending.len());
        let mut left = Vec::new();
        for member in request.members {
            let result = self.leave_one(cx, &member);
            left.push(MemberLeft { member, result });
        }
        if self.members.len() < members {
            self.rebalance(cx);
        } else if self.pending.len() < pending {
            self.go_on(cx);
        }
        left
    }

    fn leave_one(
        &mut self,
        cx: &mut Context<'_>,
        leaving: &LeavingMember,
    ) -> Result<(), GroupError> {
        let instance_id = leaving.instance_id.as_ref();
        if self.pending.contains_key(&leaving.member_id) {
            if instance_id.is_some() {
                return Err(GroupError::UnknownMember);
            }
            self.pending.remove(&leaving.member_id);
            return Ok(());
        }
        let id: Name = match instance_id {
            Some(instance_id) if leaving.member_id.is_empty() => {
                self.instances.get(instance_id).cloned().ok_or(GroupError::UnknownMember)?
            }
            _ => leaving.member_id.clone(),
        };
        self.check_member(&id, instance_id)?;
        self.remove(cx, &id, GroupError::UnknownMember);
        Ok(())
    }
}

impl LeaveRequest {
    /// The answer of a group that has no members.
    pub(super) fn unknown(&self) -> Vec<MemberLeft> {
        let unknown = |member: &LeavingMember| MemberLeft {
            member: member.clone(),
            result: Err(GroupError::UnknownMember),
        };
        self.members.iter().map(unknown).collect()
    }
}
