use kafka_wire::{Request, RequestHeader};
use super::Progress;
use crate::shard::Shard;
use crate::shard::call::ReplyTo;
use crate::group::GroupResponse;
pub(crate) struct GroupCall {}
pub(crate) fn serve(_: &mut Shard, _: ReplyTo, _: RequestHeader, _: Request) {}
impl GroupCall { pub(crate) fn answered(&mut self, _: i16, _: u32, _: GroupResponse) -> Progress { Progress::Wait } }
