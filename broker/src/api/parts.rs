//! A response with a slot for each partition that was asked about, filled as the answers arrive.

use kafka_wire::{RequestHeader, Response};
use model::ShardId;

use super::{CallState, Progress, open};
use crate::shard::Shard;
use crate::shard::call::ReplyTo;
use crate::shard::message::PartRequest;

/// Topic and partition in the response.
pub(crate) type Place = (usize, usize);

/// A call that waits for its parts.
pub(crate) struct Parts<R> {
    pub(crate) response: R,
    /// By part.
    places: Vec<Place>,
    asks: Vec<(ShardId, PartRequest)>,
    outstanding: usize,
}

impl<R: Default> Parts<R> {
    pub(crate) fn new() -> Self {
        Self { response: R::default(), places: Vec::new(), asks: Vec::new(), outstanding: 0 }
    }

    /// The slot at `place` will be filled by the answer to this.
    pub(crate) fn ask(&mut self, place: Place, to: ShardId, request: PartRequest) {
        self.places.push(place);
        self.asks.push((to, request));
    }

    /// Asks the shards, or answers at once if there is nothing to ask.
    pub(crate) fn open(
        mut self,
        shard: &mut Shard,
        reply_to: ReplyTo,
        header: RequestHeader,
        whole: fn(R) -> Response,
        state: fn(Self) -> CallState,
    ) {
        let asks = std::mem::take(&mut self.asks);
        self.outstanding = asks.len();
        if asks.is_empty() {
            return shard.respond(reply_to, &header, whole(self.response));
        }
        open(shard, reply_to, header, state(self), None, asks);
    }

    /// Fills a part's slot; the response is whole with the last one.
    pub(crate) fn answered(
        &mut self,
        part: u32,
        fill: impl FnOnce(&mut R, Place),
        whole: fn(R) -> Response,
    ) -> Progress {
        fill(&mut self.response, self.places[part as usize]);
        self.outstanding -= 1;
        if self.outstanding > 0 {
            return Progress::Wait;
        }
        Progress::Done(whole(std::mem::take(&mut self.response)))
    }
}
