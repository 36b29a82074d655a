//! Reads from objects: by whole intervals of a section's index, through a cache of chunks.
//!
//! A chunk is a fixed slice of an object, not of a section: small sections of one object, as a
//! consumer of many partitions reads them, come with one request. Readers of one chunk share its
//! request, and a reader that goes on where it stopped has the next chunks asked for ahead of it,
//! the more the longer it does so.
//!
//! All of it lives on one thread, inside of a `LocalSet`.

mod cache;
mod read_ahead;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Buf, Bytes};
use futures_util::future::try_join_all;
use model::Offset;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use self::cache::Cache;
use self::read_ahead::{ReadAhead, Step};
use crate::object::{Extent, IndexPoint, ObjectError, decode_index};
use crate::object_name::ObjectName;
use crate::pieces::Pieces;
use crate::store::{Store, StoreError};

/// Bounds of what a [`Fetcher`] keeps and asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FetchConfig {
    pub chunk_size: u64,
    /// Of cached chunks. What is asked for ahead takes a quarter of it at most, so
    /// that what readers are at stays.
    pub cache_bytes: u64,
    /// Of decoded indexes.
    pub index_bytes: u64,
    /// Requests at a time that a reader waits for.
    pub requests_max: usize,
    /// Chunks asked for ahead of one reader.
    pub ahead_max: u64,
}

impl Default for FetchConfig {
    fn default() -> Self {
        Self {
            chunk_size: 1 << 20,
            cache_bytes: 256 << 20,
            index_bytes: 16 << 20,
            requests_max: 32,
            ahead_max: 8,
        }
    }
}

/// Why a read has no records.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{object}: {error}")]
    Object { object: ObjectName, error: ObjectError },
    #[error("{object} has offsets {base} to {end}, not {from}")]
    Outside { object: ObjectName, base: Offset, end: Offset, from: Offset },
}

/// Clones share one cache.
#[derive(Clone, Debug)]
pub struct Fetcher(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Rc<Store>,
    config: FetchConfig,
    chunks: RefCell<Cache<ChunkKey, Bytes>>,
    indexes: RefCell<Cache<IndexKey, Rc<[IndexPoint]>>>,
    /// Requests on their way.
    flights: RefCell<BTreeMap<ChunkKey, Rc<Flight>>>,
    readers: RefCell<ReadAhead>,
    /// Chunks asked for ahead of readers that have not come to them.
    unread: RefCell<BTreeSet<ChunkKey>>,
    requests: Semaphore,
    requests_ahead: Semaphore,
}

/// A slice of an object, counted from 0.
type ChunkKey = (ObjectName, u64);
/// An object and the position of an index in it.
type IndexKey = (ObjectName, u64);
type Arrival = Result<Bytes, StoreError>;

/// A request on its way. Who waits for it is woken in the order of coming, always: a channel of
/// tokio's wakes in an order that chance decides, which no simulation could repeat.
#[derive(Debug, Default)]
struct Flight {
    arrival: RefCell<Option<Arrival>>,
    landed: Notify,
}

impl Flight {
    fn land(&self, arrival: Arrival) {
        *self.arrival.borrow_mut() = Some(arrival);
        self.landed.notify_waiters();
    }

    async fn arrival(&self) -> Arrival {
        loop {
            let landed = self.landed.notified();
            if let Some(arrival) = self.arrival.borrow().clone() {
                return arrival;
            }
            landed.await;
        }
    }
}

/// Whether somebody waits for a chunk or may come to want it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Need {
    Now,
    Ahead,
}

impl Fetcher {
    pub fn new(store: Rc<Store>, config: FetchConfig) -> Self {
        Self(Rc::new(Shared {
            store,
            config,
            chunks: RefCell::new(Cache::new(config.cache_bytes)),
            indexes: RefCell::new(Cache::new(config.index_bytes)),
            flights: RefCell::default(),
            readers: RefCell::new(ReadAhead::new(config.ahead_max)),
            unread: RefCell::default(),
            requests: Semaphore::new(config.requests_max),
            requests_ahead: Semaphore::new(config.requests_max.div_ceil(2)),
        }))
    }

    /// Whole intervals of the extent's index: from the last one that begins at or before `from`, at
    /// least one, and more up to `max_bytes`. The caller walks the batches.
    ///
    /// # Errors
    ///
    /// The store failed, the object is damaged, or `from` is not in the extent.
    pub async fn read(
        &self,
        extent: &Extent,
        next: Option<&Extent>,
        from: Offset,
        max_bytes: u32,
    ) -> Result<Pieces, FetchError> {
        if !extent.holds(from) {
            let Extent { object, base, end, .. } = *extent;
            return Err(FetchError::Outside { object, base, end, from });
        }
        let points = self.index(extent).await?;
        let range = intervals(&points, extent, from, u64::from(max_bytes));
        let step = self.0.readers.borrow_mut().step(extent.object, &range, extent.data_range());
        // Before this read is waited for: the requests are under way together.
        self.read_ahead(extent, next, step);
        self.pieces(extent.object, range).await
    }

    /// The first interval with a batch whose timestamp is at least that, if there is one.
    ///
    /// # Errors
    ///
    /// The store failed or the object is damaged.
    pub async fn find(
        &self,
        extent: &Extent,
        timestamp: i64,
    ) -> Result<Option<Pieces>, FetchError> {
        if extent.max_timestamp < timestamp {
            return Ok(None);
        }
        let points = self.index(extent).await?;
        let Some(at) = points.iter().position(|point| point.max_timestamp >= timestamp) else {
            return Ok(None);
        };
        let end = points.get(at + 1).map_or_else(|| extent.data_range().end, |next| next.position);
        self.pieces(extent.object, points[at].position..end).await.map(Some)
    }

    /// Lets go of what is cached of an extent: the next reader asks the store again.
    pub fn forget_extent(&self, extent: &Extent) {
        self.0.indexes.borrow_mut().remove((extent.object, extent.index_position));
        self.forget(extent.object, extent.index_range());
        self.forget(extent.object, extent.data_range());
    }

    async fn index(&self, extent: &Extent) -> Result<Rc<[IndexPoint]>, FetchError> {
        let key = (extent.object, extent.index_position);
        if let Some(points) = self.0.indexes.borrow_mut().get(key) {
            return Ok(points);
        }
        let points = match self.decoded(extent).await {
            // What was damaged on its way is asked for once more; on the store it stays damaged.
            Err(FetchError::Object { .. }) => {
                self.forget(extent.object, extent.index_range());
                self.decoded(extent).await?
            }
            points => points?,
        };
        let size = u64::try_from(size_of_val(&*points)).unwrap_or(u64::MAX);
        self.0.indexes.borrow_mut().insert(key, points.clone(), size);
        Ok(points)
    }

    async fn decoded(&self, extent: &Extent) -> Result<Rc<[IndexPoint]>, FetchError> {
        let mut pieces = self.pieces(extent.object, extent.index_range()).await?;
        let points = decode_index(&pieces.copy_to_bytes(pieces.remaining()), extent);
        points.map(Rc::from).map_err(|error| FetchError::Object { object: extent.object, error })
    }

    /// Exactly this range of the object.
    async fn pieces(&self, object: ObjectName, range: Range<u64>) -> Result<Pieces, FetchError> {
        let (first, count) = (range.start / self.0.config.chunk_size, self.count(&range));
        let wanted = (first..first + count).map(|chunk| self.part(object, chunk, &range));
        try_join_all(wanted).await.map(Pieces::from)
    }

    /// Chunks that a range touches.
    fn count(&self, range: &Range<u64>) -> u64 {
        let chunk_size = self.0.config.chunk_size;
        range.end.div_ceil(chunk_size).saturating_sub(range.start / chunk_size)
    }

    /// What of the range is in that chunk.
    async fn part(
        &self,
        object: ObjectName,
        chunk: u64,
        range: &Range<u64>,
    ) -> Result<Bytes, FetchError> {
        let start = chunk * self.0.config.chunk_size;
        let from = range.start.saturating_sub(start);
        let to = range.end.min(start + self.0.config.chunk_size) - start;
        let (Ok(from), Ok(to)) = (usize::try_from(from), usize::try_from(to)) else {
            unreachable!("a chunk is in memory");
        };
        let mut bytes = self.chunk((object, chunk)).await?;
        if to > bytes.len() {
            // Cut short on its way, perhaps: it is asked for once more.
            self.0.remove((object, chunk));
            bytes = self.chunk((object, chunk)).await?;
        }
        if to > bytes.len() {
            let (expected, found) = (range.end, start + u64::try_from(bytes.len()).unwrap_or(0));
            return Err(StoreError::Truncated { key: object.to_string(), expected, found }.into());
        }
        Ok(bytes.slice(from..to))
    }

    async fn chunk(&self, key: ChunkKey) -> Arrival {
        let metrics = self.0.store.metrics();
        self.0.unread.borrow_mut().remove(&key);
        if let Some(bytes) = self.0.chunks.borrow_mut().get(key) {
            metrics.cache_hits.fetch_add(1, Relaxed);
            return Ok(bytes);
        }
        metrics.cache_misses.fetch_add(1, Relaxed);
        self.fly(key, Need::Now).arrival().await
    }

    /// The request for a chunk: one that is on its way, or a new one, which goes on even if the
    /// reader that began it does not.
    fn fly(&self, key: ChunkKey, need: Need) -> Rc<Flight> {
        let mut flights = self.0.flights.borrow_mut();
        if let Some(flight) = flights.get(&key) {
            return flight.clone();
        }
        let flight = Rc::new(Flight::default());
        flights.insert(key, flight.clone());
        let (shared, own) = (self.0.clone(), flight.clone());
        tokio::task::spawn_local(async move {
            let arrival = shared.load(key, need).await;
            shared.flights.borrow_mut().remove(&key);
            // Nobody may be waiting any more; the chunk is in the cache then.
            own.land(arrival);
        });
        flight
    }

    fn read_ahead(&self, extent: &Extent, next: Option<&Extent>, step: Step) {
        let chunk_size = self.0.config.chunk_size;
        let end = extent.data_range().end;
        let here = step.end..end.min(step.end.saturating_add(step.ahead * chunk_size));
        let used = if here.is_empty() { 0 } else { self.count(&here) };
        self.ask(extent.object, here);
        let left = step.ahead.saturating_sub(used);
        if let (Some(next), true) = (next, left > 0) {
            self.ask(next.object, next.index_range());
            let data = next.data_range();
            let end = data.end.min(data.start.saturating_add(left * chunk_size));
            self.ask(next.object, data.start..end);
            self.0.readers.borrow_mut().expect(next.object, data.start, step.ahead);
        }
    }

    /// Asks for chunks that nobody waits for yet.
    fn ask(&self, object: ObjectName, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = range.start / self.0.config.chunk_size;
        for chunk in first..first + self.count(&range) {
            let key = (object, chunk);
            if self.0.is_here_or_coming(key) {
                continue;
            }
            if !self.0.has_room_ahead() {
                return;
            }
            self.0.store.metrics().read_ahead.fetch_add(1, Relaxed);
            self.0.unread.borrow_mut().insert(key);
            self.fly(key, Need::Ahead);
        }
    }

    /// Drops the chunks of a range: what is in them was damaged on its way.
    pub(crate) fn forget(&self, object: ObjectName, range: Range<u64>) {
        let first = range.start / self.0.config.chunk_size;
        (first..first + self.count(&range)).for_each(|chunk| self.0.remove((object, chunk)));
    }
}

impl Shared {
    async fn load(&self, key: ChunkKey, need: Need) -> Arrival {
        // What nobody waits for yet leaves half of the requests to those who wait.
        let _ahead = match need {
            Need::Ahead => Some(permit(&self.requests_ahead).await),
            Need::Now => None,
        };
        let _permit = permit(&self.requests).await;
        let (object, chunk) = key;
        let start = chunk * self.config.chunk_size;
        let range = start..start + self.config.chunk_size;
        let bytes = self.store.get_upto(&object.to_string(), range).await?;
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.chunks.borrow_mut().insert(key, bytes.clone(), size);
        self.show_size();
        Ok(bytes)
    }

    fn is_here_or_coming(&self, key: ChunkKey) -> bool {
        self.chunks.borrow().contains(key) || self.flights.borrow().contains_key(&key)
    }

    /// Whether one more chunk can be asked for without pushing out others before they are read.
    fn has_room_ahead(&self) -> bool {
        let has_room = |unread: &BTreeSet<_>| {
            let bytes = self.config.chunk_size.saturating_mul(unread.len() as u64 + 1);
            bytes <= self.config.cache_bytes / 4
        };
        let mut unread = self.unread.borrow_mut();
        if !has_room(&unread) {
            // Readers that went elsewhere leave chunks behind, which the cache lets go in time.
            unread.retain(|&key| self.is_here_or_coming(key));
        }
        has_room(&unread)
    }

    fn remove(&self, key: ChunkKey) {
        self.chunks.borrow_mut().remove(key);
        self.show_size();
    }

    fn show_size(&self) {
        self.store.metrics().cache_bytes.store(self.chunks.borrow().size(), Relaxed);
    }
}

async fn permit(requests: &Semaphore) -> SemaphorePermit<'_> {
    requests.acquire().await.expect("it is never closed")
}

/// From the interval that `from` is in, up to `max_bytes` but at least that one.
fn intervals(points: &[IndexPoint], extent: &Extent, from: Offset, max_bytes: u64) -> Range<u64> {
    let first = points.partition_point(|point| point.base_offset <= from).saturating_sub(1);
    let start = points[first].position;
    let ends = points[first + 1..].iter().map(|point| point.position);
    let mut ends = ends.chain([extent.data_range().end]);
    let least = ends.next().expect("the last interval ends with the data");
    let most = ends.take_while(|end| end - start <= max_bytes).last();
    start..most.unwrap_or(least)
}
