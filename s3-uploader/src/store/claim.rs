//! Whose the bucket is, and whether the store keeps the conditions of writes: both are asked once,
//! at start, because a wrong answer would let one writer overwrite what another one wrote.

use bytes::Bytes;
use futures_util::future::join_all;
use uuid::Uuid;

use crate::store::{Etag, Put, Store, StoreError, StoreOptions, StoreUrl};

pub(crate) const CLUSTER_KEY: &str = "cluster";
/// What the keys of probes begin with. One is left over if a broker dies while it starts.
pub const PROBE_PREFIX: &str = "probe/";
/// The first line of the object under that key; the cluster's id is the second.
const FIRST_LINE: &str = "tailrace cluster 1";
const RACERS: usize = 8;

/// Why the store does not belong to this cluster.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ClaimError {
    #[error(
        "the store belongs to cluster {other}: give each cluster a bucket or a prefix of its own"
    )]
    BelongsTo { other: Uuid },
    #[error("the object `cluster` in the store is not ours to read: was the right store given?")]
    Unreadable,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Makes the store this cluster's, if it is nobody's yet.
    ///
    /// # Errors
    ///
    /// It is another cluster's, or that cannot be found out.
    pub async fn claim(&self, cluster_id: Uuid) -> Result<(), ClaimError> {
        let text = Bytes::from(format!("{FIRST_LINE}\n{cluster_id}\n"));
        if self.put_new(CLUSTER_KEY, vec![text]).await? == Put::Created {
            return Ok(());
        }
        match self.owner().await? {
            Some(owner) if owner == cluster_id => Ok(()),
            Some(other) => Err(ClaimError::BelongsTo { other }),
            // Somebody deleted it just now: better to stop than to take turns.
            None => Err(ClaimError::Unreadable),
        }
    }

    /// Whose the store is; nobody's before the first claim.
    ///
    /// # Errors
    ///
    /// The store could not say, or says something that no cluster wrote.
    pub async fn owner(&self) -> Result<Option<Uuid>, ClaimError> {
        let bytes = match self.get(CLUSTER_KEY).await {
            Ok((bytes, _)) => bytes,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let text = std::str::from_utf8(&bytes).map_err(|_| ClaimError::Unreadable)?;
        let id = text.strip_prefix(FIRST_LINE).and_then(|rest| rest.trim().parse().ok());
        id.map(Some).ok_or(ClaimError::Unreadable)
    }

    /// Writes, overwrites and races for a name under [`PROBE_PREFIX`], and removes it again.
    ///
    /// # Errors
    ///
    /// A store that ignores conditions, as some S3 servers do, is refused.
    pub async fn probe_conditional_writes(&self) -> Result<(), StoreError> {
        let random = self.requests().random().borrow_mut().u64(..);
        let key = format!("{PROBE_PREFIX}{random:016x}");
        let outcome = self.probe(&key).await;
        let deleted = self.delete(&[key]).await;
        outcome.and(deleted)
    }

    async fn probe(&self, key: &str) -> Result<(), StoreError> {
        let content = |racer: usize| Bytes::from(format!("probe {racer}"));
        let race = (0..RACERS).map(|racer| self.put_new(key, vec![content(racer)]));
        let puts = join_all(race).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let winners: Vec<_> = (0..RACERS).filter(|racer| puts[*racer] == Put::Created).collect();
        if winners.len() > 1 {
            return Err(ignores("If-None-Match: *"));
        }
        let (found, etag) = self.get(key).await?;
        if winners.first().is_some_and(|winner| found != content(*winner)) {
            return Err(ignores("If-None-Match: *"));
        }
        // Not an etag of anything: S3's are quoted digests.
        let other = Etag("\"00000000000000000000000000000000\"".to_owned());
        match self.put_if_match(key, &other, content(RACERS)).await {
            Err(StoreError::PreconditionFailed { .. }) => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(ignores("If-Match")),
        }
        match self.put_if_match(key, &etag, content(RACERS)).await {
            // The condition may fail because an earlier attempt met it and its reply was lost.
            Ok(_) | Err(StoreError::PreconditionFailed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Opens a store for a cluster, from a thread without a runtime: makes sure that it is that
/// cluster's and keeps the conditions of writes. A store that cannot be reached now is opened all
/// the same, and comes back with the error: the first write claims it.
///
/// # Errors
///
/// The store is another cluster's, ignores conditions, or a setting or permission is wrong.
pub fn open_claimed(
    url: &StoreUrl,
    options: StoreOptions,
    cluster_id: Uuid,
) -> Result<(Store, Option<StoreError>), ClaimError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| StoreError::Config { advice: error.to_string() })?;
    runtime.block_on(async {
        let store = Store::open(url, options).await?;
        let claimed = async {
            store.claim(cluster_id).await?;
            Ok(store.probe_conditional_writes().await?)
        };
        match Box::pin(claimed).await {
            Ok(()) => Ok((store, None)),
            Err(ClaimError::Store(error)) if !error.is_permanent() => Ok((store, Some(error))),
            Err(error) => Err(error),
        }
    })
}

fn ignores(condition: &str) -> StoreError {
    let advice = format!(
        "the store ignores `{condition}` on writes, so a leader that was replaced could overwrite \
         its successor: use a store with conditional writes"
    );
    StoreError::Config { advice }
}
