//! Writing an object under a new name: in one request, or in parts if it is large.
//!
//! Either way the condition is on the request that makes the object appear. An upload that is given
//! up leaves its parts behind if the process dies before it can abort: a rule of the bucket should
//! remove incomplete uploads after a day.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use futures_util::stream::{StreamExt, TryStreamExt, iter};

use super::refusal::Request;
use super::{S3Store, unusable};
use crate::fail_point::{FailPoint, fail_point};
use crate::store::{Put, Store, StoreError, Verb, joined, size_of};

/// Parts in flight at a time: what bounds the memory of one upload.
const PARTS_IN_FLIGHT: usize = 4;
/// S3's own bound.
const PARTS_MAX: usize = 10_000;
const ACTION: &str = "s3:PutObject";

impl S3Store {
    pub(super) async fn write_new(
        &self,
        store: &Store,
        key: &str,
        parts: &[Bytes],
    ) -> Result<Put, StoreError> {
        let size = size_of(parts);
        if size > self.options.multipart_above {
            return Box::pin(self.put_in_parts(store, key, parts)).await;
        }
        let body = joined(parts);
        let attempt = async || {
            store.before(Verb::Put).await?;
            let put = self.client().await.put_object().bucket(&self.url.bucket).key(self.full(key));
            let put = put.if_none_match("*").body(ByteStream::from(body.clone())).send().await;
            let request = Request { verb: Verb::Put, action: ACTION, key };
            put.map_err(|error| self.refused(request, &error))?;
            store.after(Verb::Put).await
        };
        created(Box::pin(store.requests().run(Verb::Put, size, attempt)).await)
    }

    async fn put_in_parts(
        &self,
        store: &Store,
        key: &str,
        parts: &[Bytes],
    ) -> Result<Put, StoreError> {
        // Spares the upload; what decides is the condition on its end.
        if store.exists(key).await? {
            return Ok(Put::Exists);
        }
        let upload = self.begin(store, key).await?;
        let sent = self.send_parts(store, key, &upload, parts).await;
        let outcome = match sent {
            Ok(sent) => {
                fail_point(FailPoint::PutWritten);
                self.complete(store, key, &upload, sent).await
            }
            Err(error) => Err(error),
        };
        if !matches!(outcome, Ok(Put::Created)) {
            // Only spares storage: what the caller is told is why there is something to abort.
            let _ = self.abort(store, key, &upload).await;
        }
        outcome
    }

    async fn begin(&self, store: &Store, key: &str) -> Result<String, StoreError> {
        let attempt = async || {
            store.before(Verb::Multipart).await?;
            let begin = self.client().await.create_multipart_upload().bucket(&self.url.bucket);
            let begin = begin.key(self.full(key)).checksum_algorithm(ChecksumAlgorithm::Crc32);
            let begun = begin.send().await;
            let begun = begun.map_err(|error| self.refused(request(key), &error))?;
            store.after(Verb::Multipart).await?;
            begun.upload_id.ok_or_else(|| unusable(Verb::Multipart, "an upload without an id"))
        };
        Box::pin(store.requests().run(Verb::Multipart, 0, attempt)).await
    }

    async fn send_parts(
        &self,
        store: &Store,
        key: &str,
        upload: &str,
        parts: &[Bytes],
    ) -> Result<Vec<CompletedPart>, StoreError> {
        let size = usize::try_from(size_of(parts)).expect("it is in memory");
        let part_size = self.options.part_size.max(size.div_ceil(PARTS_MAX));
        let cut = cut(parts, part_size);
        let sends = (1..)
            .zip(&cut)
            .map(|(number, part)| Box::pin(self.send_part(store, key, upload, number, part)));
        // In the order of their numbers, as the end of the upload lists them.
        iter(sends).buffered(PARTS_IN_FLIGHT).try_collect().await
    }

    async fn send_part(
        &self,
        store: &Store,
        key: &str,
        upload: &str,
        number: i32,
        part: &[Bytes],
    ) -> Result<CompletedPart, StoreError> {
        let body = joined(part);
        let attempt = async || {
            store.before(Verb::Multipart).await?;
            let send =
                self.client().await.upload_part().bucket(&self.url.bucket).key(self.full(key));
            let send = send.upload_id(upload).part_number(number);
            let sent = send.body(ByteStream::from(body.clone())).send().await;
            let sent = sent.map_err(|error| self.refused(request(key), &error))?;
            store.after(Verb::Multipart).await?;
            let part = CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag);
            Ok(part.set_checksum_crc32(sent.checksum_crc32).build())
        };
        Box::pin(store.requests().run(Verb::Multipart, size_of(part), attempt)).await
    }

    async fn complete(
        &self,
        store: &Store,
        key: &str,
        upload: &str,
        parts: Vec<CompletedPart>,
    ) -> Result<Put, StoreError> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let attempt = async || {
            store.before(Verb::Multipart).await?;
            let end = self.client().await.complete_multipart_upload().bucket(&self.url.bucket);
            let end = end.key(self.full(key)).upload_id(upload).multipart_upload(parts.clone());
            let ended = end.if_none_match("*").send().await;
            ended.map_err(|error| self.refused(request(key), &error))?;
            store.after(Verb::Multipart).await
        };
        let ended = Box::pin(store.requests().run(Verb::Multipart, 0, attempt)).await;
        match created(ended) {
            // The upload is gone: an earlier attempt completed it, or somebody aborted it.
            Err(StoreError::NotFound { .. }) if store.exists(key).await? => Ok(Put::Exists),
            Err(StoreError::NotFound { .. }) => {
                Err(unusable(Verb::Multipart, "the upload is gone and so is the object"))
            }
            ended => ended,
        }
    }

    async fn abort(&self, store: &Store, key: &str, upload: &str) -> Result<(), StoreError> {
        let attempt = async || {
            let abort = self.client().await.abort_multipart_upload().bucket(&self.url.bucket);
            let aborted = abort.key(self.full(key)).upload_id(upload).send().await;
            let action = "s3:AbortMultipartUpload";
            let request = Request { verb: Verb::Multipart, action, key };
            aborted.map(drop).map_err(|error| self.refused(request, &error))
        };
        Box::pin(store.requests().run(Verb::Multipart, 0, attempt)).await
    }
}

fn request(key: &str) -> Request<'_> {
    Request { verb: Verb::Multipart, action: ACTION, key }
}

fn created(written: Result<(), StoreError>) -> Result<Put, StoreError> {
    match written {
        Ok(()) => Ok(Put::Created),
        Err(StoreError::PreconditionFailed { .. }) => Ok(Put::Exists),
        Err(error) => Err(error),
    }
}

/// The same bytes in runs of `part_size`, the last one shorter; nothing is copied.
fn cut(parts: &[Bytes], part_size: usize) -> Vec<Vec<Bytes>> {
    let mut runs = Vec::new();
    let mut run: Vec<Bytes> = Vec::new();
    let mut room = part_size;
    for part in parts {
        let mut part = part.clone();
        while part.len() >= room {
            run.push(part.split_to(room));
            runs.push(std::mem::take(&mut run));
            room = part_size;
        }
        room -= part.len();
        if !part.is_empty() {
            run.push(part);
        }
    }
    if !run.is_empty() {
        runs.push(run);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_cut_into_runs_of_one_size() {
        let bytes = Bytes::from((0..=255).collect::<Vec<u8>>());
        let splits = [vec![], vec![10], vec![10, 10, 11], vec![1, 64, 128, 200], vec![64, 128]];
        for at in splits {
            let mut parts = Vec::new();
            let mut rest = bytes.clone();
            for at in at {
                parts.push(rest.split_to(at.min(rest.len())));
            }
            parts.push(rest);
            for part_size in [1, 7, 64, 255, 256, 300] {
                let runs = cut(&parts, part_size);
                let sizes: Vec<_> = runs.iter().map(|run| size_of(run)).collect();
                let (last, full) = sizes.split_last().expect("some");
                let part_size = u64::try_from(part_size).expect("small");
                assert!(full.iter().all(|size| *size == part_size), "{sizes:?}");
                assert!(*last <= part_size);
                assert_eq!(joined(&runs.concat()), bytes);
            }
        }
    }
}
