//! A bucket, through AWS's SDK: any server that speaks S3 and keeps the conditions of writes.
//!
//! Endpoint, region and credentials come from the address, else from where every AWS program takes
//! them: environment, profile, web identity, container, machine. The SDK's own retries and
//! time-outs are off but that for connecting; [`Requests`] has ours.
//!
//! [`Requests`]: crate::retry::Requests

mod refusal;
#[cfg(test)]
mod tests;
mod upload;

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::pin::Pin;
use std::time::Duration;

use aws_config::meta::region::RegionProviderChain;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use aws_smithy_http_client::tls;
use bytes::Bytes;
use tokio::time::Instant;

use self::refusal::Request;
use crate::store::{
    Etag, Listed, PAGE_KEYS_MAX, Page, Put, S3Url, Store, StoreError, StoreOptions, Verb, one_line,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Where a server of one's own says nothing about regions, this one is meant.
const REGION_OF_ENDPOINT: &str = "us-east-1";
/// Credentials that the store does not take are looked up anew, at most this often.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct S3Store {
    client: RefCell<Client>,
    /// The store did not take the credentials.
    refused: Cell<bool>,
    renewed_at: Cell<Instant>,
    options: StoreOptions,
    url: S3Url,
    region: String,
}

/// The futures are boxed here, in functions that are not `async`: else every crate that uses a
/// store would compile all that it uses of the SDK once more.
type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + 'a>>;

impl S3Store {
    pub(super) fn open<'a>(url: &'a S3Url, options: &'a StoreOptions) -> Answer<'a, Self> {
        Box::pin(Self::connect(url, options))
    }

    pub(super) fn put_new<'a>(
        &'a self,
        store: &'a Store,
        key: &'a str,
        parts: &'a [Bytes],
    ) -> Answer<'a, Put> {
        Box::pin(self.write_new(store, key, parts))
    }

    pub(super) fn put_if_match<'a>(
        &'a self,
        key: &'a str,
        etag: &'a Etag,
        bytes: Bytes,
    ) -> Answer<'a, Etag> {
        Box::pin(self.replace(key, etag, bytes))
    }

    pub(super) fn get<'a>(&'a self, key: &'a str) -> Answer<'a, (Bytes, Etag)> {
        Box::pin(self.read_all(key))
    }

    /// Fewer bytes if the object ends before.
    pub(super) fn get_range<'a>(&'a self, key: &'a str, range: Range<u64>) -> Answer<'a, Bytes> {
        Box::pin(self.read_range(key, range))
    }

    pub(super) fn size<'a>(&'a self, key: &'a str) -> Answer<'a, u64> {
        Box::pin(self.head(key))
    }

    pub(super) fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> Answer<'a, Page> {
        Box::pin(self.list_page(prefix, after))
    }

    /// At most 1000 of them.
    pub(super) fn delete<'a>(&'a self, keys: &'a [String]) -> Answer<'a, ()> {
        Box::pin(self.delete_page(keys))
    }

    async fn connect(url: &S3Url, options: &StoreOptions) -> Result<Self, StoreError> {
        let (client, region) = client_of(url, options).await?;
        Ok(Self {
            client: RefCell::new(client),
            refused: Cell::new(false),
            renewed_at: Cell::new(Instant::now()),
            options: options.clone(),
            url: url.clone(),
            region,
        })
    }

    /// The client for a request. If the store did not take the credentials, they are looked up
    /// anew first: the SDK reads a file or the environment once, and somebody may have renewed it.
    async fn client(&self) -> Client {
        if self.refused.get() && self.renewed_at.get().elapsed() >= RENEWAL_INTERVAL {
            self.refused.set(false);
            self.renewed_at.set(Instant::now());
            if let Ok((client, _)) = Box::pin(client_of(&self.url, &self.options)).await {
                self.client.replace(client);
            }
        }
        self.client.borrow().clone()
    }

    async fn replace(&self, key: &str, etag: &Etag, bytes: Bytes) -> Result<Etag, StoreError> {
        let put = self.client().await.put_object().bucket(&self.url.bucket).key(self.full(key));
        let put = put.if_match(&etag.0).body(ByteStream::from(bytes)).send().await;
        let request = Request { verb: Verb::Put, action: "s3:PutObject", key };
        let stored = put.map_err(|error| self.refused(request, &error))?;
        self.etag(key, stored.e_tag)
    }

    async fn read_all(&self, key: &str) -> Result<(Bytes, Etag), StoreError> {
        let get = self.client().await.get_object().bucket(&self.url.bucket).key(self.full(key));
        let found = get.send().await.map_err(|error| self.refused(get_of(key), &error))?;
        let etag = self.etag(key, found.e_tag)?;
        Ok((collected(found.body).await?, etag))
    }

    async fn read_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let inclusive = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        let get = self.client().await.get_object().bucket(&self.url.bucket).key(self.full(key));
        let found = get.range(inclusive).send().await;
        let found = match found.map_err(|error| self.refused(get_of(key), &error)) {
            // The object ends before the range begins.
            Err(StoreError::Truncated { .. }) => return Ok(Bytes::new()),
            found => found?,
        };
        // A server that knows no ranges sends the object from its first byte.
        let start = format!("bytes {}-", range.start);
        if !found.content_range().is_some_and(|of| of.starts_with(&start)) && range.start > 0 {
            let advice = format!("the server of s3://{} ignores ranges of reads", self.url);
            return Err(StoreError::Config { advice });
        }
        collected(found.body).await
    }

    async fn head(&self, key: &str) -> Result<u64, StoreError> {
        let head = self.client().await.head_object().bucket(&self.url.bucket).key(self.full(key));
        let found = head.send().await.map_err(|error| self.refused(get_of(key), &error))?;
        let size = found.content_length().and_then(|size| u64::try_from(size).ok());
        size.ok_or_else(|| unusable(Verb::Get, "a HEAD answer without the object's size"))
    }

    async fn list_page(&self, prefix: &str, after: Option<&str>) -> Result<Page, StoreError> {
        let list = self.client().await.list_objects_v2().bucket(&self.url.bucket);
        let list = list.prefix(self.full(prefix)).set_start_after(after.map(|key| self.full(key)));
        let keys_max = i32::try_from(PAGE_KEYS_MAX).expect("a page is small");
        let listed = list.max_keys(keys_max).send().await;
        let request = Request { verb: Verb::List, action: "s3:ListBucket", key: prefix };
        let listed = listed.map_err(|error| self.refused(request, &error))?;
        let above = self.full("");
        let mut page = Page { more: listed.is_truncated() == Some(true), objects: Vec::new() };
        for object in listed.contents.unwrap_or_default() {
            let key = object.key.as_deref().and_then(|key| key.strip_prefix(&above));
            let size = object.size.and_then(|size| u64::try_from(size).ok());
            let modified = object.last_modified.and_then(|at| at.to_millis().ok());
            let (Some(key), Some(size), Some(modified_ms)) = (key, size, modified) else {
                return Err(unusable(Verb::List, "a listing without keys, sizes or times"));
            };
            page.objects.push(Listed { key: key.to_owned(), size, modified_ms });
        }
        if page.more && page.objects.is_empty() {
            return Err(unusable(Verb::List, "an empty page with more to come"));
        }
        Ok(page)
    }

    async fn delete_page(&self, keys: &[String]) -> Result<(), StoreError> {
        let request = Request { verb: Verb::Delete, action: "s3:DeleteObject", key: "objects" };
        let identifier = |key: &String| ObjectIdentifier::builder().key(self.full(key)).build();
        let objects = keys.iter().map(identifier).collect::<Result<Vec<_>, _>>();
        let delete = objects
            .and_then(|objects| Delete::builder().set_objects(Some(objects)).quiet(true).build());
        let delete = delete.map_err(|error| unusable(Verb::Delete, &error.to_string()))?;
        let deleted = self.client().await.delete_objects().bucket(&self.url.bucket).delete(delete);
        let deleted = deleted.send().await.map_err(|error| self.refused(request, &error))?;
        let refused = deleted.errors().iter().find(|error| error.code() != Some("NoSuchKey"));
        match refused {
            None => Ok(()),
            Some(error) => {
                let (code, message) = (error.code(), error.message());
                Err(self.refused_by_code(request, None, code, message.unwrap_or_default()))
            }
        }
    }

    /// The key as the bucket has it.
    fn full(&self, key: &str) -> String {
        match self.url.prefix.as_str() {
            "" => key.to_owned(),
            prefix => format!("{prefix}/{key}"),
        }
    }

    fn etag(&self, key: &str, etag: Option<String>) -> Result<Etag, StoreError> {
        etag.map(Etag).ok_or_else(|| {
            let advice = format!("the server of s3://{} gives no ETag for {key}", self.url);
            StoreError::Config { advice }
        })
    }
}

/// A client with the credentials as they are now, and the region that it asks.
#[cfg_attr(
    not(any(test, feature = "faults")),
    expect(unused_variables, reason = "only tests give credentials")
)]
async fn client_of(url: &S3Url, options: &StoreOptions) -> Result<(Client, String), StoreError> {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    let region = url.region.clone().map(Region::new);
    let region = RegionProviderChain::first_try(region).or_default_provider();
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .region(region)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(endpoint) = &url.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    #[cfg(any(test, feature = "faults"))]
    if let Some((id, secret)) = options.credentials.clone() {
        let source = "StoreOptions";
        let keys = aws_credential_types::Credentials::new(id, secret, None, None, source);
        loader = loader.credentials_provider(keys);
    }
    let shared = Box::pin(loader.load()).await;
    let mut config = aws_sdk_s3::config::Builder::from(&shared);
    let region = match shared.region() {
        Some(region) => region.to_string(),
        None if shared.endpoint_url().is_some() => {
            config = config.region(Region::from_static(REGION_OF_ENDPOINT));
            REGION_OF_ENDPOINT.to_owned()
        }
        None => {
            let advice = format!(
                "no region is given for s3://{url}: set AWS_REGION or add ?region=... to it"
            );
            return Err(StoreError::Config { advice });
        }
    };
    let config = config.force_path_style(url.path_style).build();
    Ok((Client::from_conf(config), region))
}

fn get_of(key: &str) -> Request<'_> {
    Request { verb: Verb::Get, action: "s3:GetObject", key }
}

fn unusable(verb: Verb, what: &str) -> StoreError {
    StoreError::Unavailable { verb, reason: format!("an answer of no use: {what}") }
}

/// The body of an answer. The HTTP client sees to it that it has the length that was announced.
async fn collected(body: ByteStream) -> Result<Bytes, StoreError> {
    let body = body.collect().await.map_err(|error| {
        let reason = format!("the answer broke off: {}", one_line(&error.to_string()));
        StoreError::Unavailable { verb: Verb::Get, reason }
    })?;
    Ok(body.into_bytes())
}
