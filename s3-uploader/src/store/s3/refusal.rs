//! From what a server or the SDK says to a line that says what to do.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::S3Store;
use crate::store::{StoreError, Verb, one_line};

/// What was asked, for the message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) verb: Verb,
    /// As IAM policies name it.
    pub(super) action: &'static str,
    pub(super) key: &'a str,
}

/// What of an HTTP answer tells refusals apart that have no body, as those of HEAD.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    /// The bucket's region, by `x-amz-bucket-region`.
    pub(super) region: Option<&'a str>,
}

impl S3Store {
    pub(super) fn refused<E>(
        &self,
        request: Request<'_>,
        error: &SdkError<E, HttpResponse>,
    ) -> StoreError
    where
        E: Error + ProvideErrorMetadata + 'static,
    {
        let verb = request.verb;
        match error {
            SdkError::ServiceError(refusal) => {
                let raw = refusal.raw();
                let region = raw.headers().get("x-amz-bucket-region");
                let answer = Answer { status: raw.status().as_u16(), region };
                let (code, message) = (refusal.err().code(), refusal.err().message());
                let message = one_line(message.unwrap_or_default());
                self.refused_by_code(request, Some(answer), code, &message)
            }
            _ => match cause::<CredentialsError>(error) {
                Some(error) => self.no_credentials(verb, error),
                None => {
                    let endpoint = self.url.endpoint.as_deref().unwrap_or("AWS");
                    let reason = one_line(&chain(error));
                    let reason = format!("no answer from {endpoint}: {reason}");
                    StoreError::Unavailable { verb, reason }
                }
            },
        }
    }

    /// A code is in the body of an answer, if that has one, or in a list of deletions.
    pub(super) fn refused_by_code(
        &self,
        request: Request<'_>,
        answer: Option<Answer<'_>>,
        code: Option<&str>,
        message: &str,
    ) -> StoreError {
        let Request { verb, action, key } = request;
        let (url, region) = (&self.url, &self.region);
        let key = key.to_owned();
        let status = answer.map_or(0, |answer| answer.status);
        let config = |advice: String| StoreError::Config { advice };
        let code = code.unwrap_or_default();
        let reason = format!("{code} {message} (status {status})");
        if let Some(advice) = advice_on_identity(code) {
            self.refused.set(true);
            return config(advice.to_owned());
        }
        match (code, status) {
            ("NoSuchBucket", _) => config(format!(
                "the bucket `{}` does not exist: create it in {region}, or correct s3://{url}",
                url.bucket
            )),
            (
                "PermanentRedirect"
                | "AuthorizationHeaderMalformed"
                | "IllegalLocationConstraintException",
                _,
            )
            | (_, 301 | 307) => {
                let named = answer.and_then(|answer| answer.region);
                let named = named.map_or(String::new(), |named| format!(": it is in {named}"));
                config(format!(
                    "the bucket `{}` is not in region {region}{named}: add ?region=... to \
                     s3://{url} or set AWS_REGION ({message})",
                    url.bucket
                ))
            }
            ("NoSuchKey" | "NoSuchUpload" | "NotFound", _) | (_, 404) => {
                StoreError::NotFound { key }
            }
            ("PreconditionFailed", _) | (_, 412) => StoreError::PreconditionFailed { key },
            ("InvalidRange", _) | (_, 416) => StoreError::Truncated { key, expected: 1, found: 0 },
            ("BadDigest" | "InvalidDigest" | "XAmzContentChecksumMismatch", _) => {
                StoreError::Checksum { key, reason }
            }
            ("SlowDown" | "Throttling" | "ThrottlingException" | "RequestLimitExceeded", _)
            | (_, 429) => StoreError::Throttled { verb, reason },
            // Another conditional write of the same name is under way.
            ("ConditionalRequestConflict" | "OperationAborted", _) | (_, 409) => {
                StoreError::Unavailable { verb, reason }
            }
            ("RequestTimeout" | "InternalError" | "ServiceUnavailable", _) => {
                StoreError::Unavailable { verb, reason }
            }
            ("NotImplemented", _) | (_, 501) => {
                config(format!("the server of s3://{url} does not know {action}: use another one"))
            }
            ("AccessDenied" | "AllAccessDisabled" | "AccountProblem", _) | (_, 401 | 403) => {
                StoreError::Denied { verb, advice: self.policy(request) }
            }
            (_, 400..=499) => config(format!("s3://{url} refuses {action} of {key}: {reason}")),
            _ => StoreError::Unavailable { verb, reason },
        }
    }

    fn policy(&self, request: Request<'_>) -> String {
        let (url, action) = (&self.url, request.action);
        // Without leave to list, a bucket answers so for an object that it does not have.
        let also = match request.verb {
            Verb::Get => " and s3:ListBucket of the bucket",
            _ => "",
        };
        let what = match (request.verb, url.prefix.is_empty()) {
            (Verb::List, _) => format!("arn:aws:s3:::{}", url.bucket),
            (_, true) => format!("arn:aws:s3:::{}/*", url.bucket),
            (_, false) => format!("arn:aws:s3:::{}/{}/*", url.bucket, url.prefix),
        };
        format!("allow {action} of {what}{also} to these credentials")
    }

    fn no_credentials(&self, verb: Verb, error: &CredentialsError) -> StoreError {
        let said = one_line(&chain(error));
        match error {
            CredentialsError::CredentialsNotLoaded(_)
            | CredentialsError::InvalidConfiguration(_) => {
                let advice = format!(
                    "no credentials were found for s3://{}: set AWS_ACCESS_KEY_ID and \
                     AWS_SECRET_ACCESS_KEY, a profile or a role ({said})",
                    self.url
                );
                StoreError::Config { advice }
            }
            // Where they come from may be away for a while.
            _ => StoreError::Unavailable { verb, reason: format!("no credentials: {said}") },
        }
    }
}

/// The first cause of that type.
fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// An error with its causes, each of which says what the one before does not.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = error.source();
    }
    text
}

/// What to do if the store does not take this process for whom it says it is.
fn advice_on_identity(code: &str) -> Option<&'static str> {
    Some(match code {
        "InvalidAccessKeyId" => {
            "the store does not know the access key: correct AWS_ACCESS_KEY_ID, or where else the \
             credentials come from"
        }
        "SignatureDoesNotMatch" => {
            "the secret does not belong to the access key: correct AWS_SECRET_ACCESS_KEY, or where \
             else the credentials come from"
        }
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
            "the session token is not valid any more: renew AWS_SESSION_TOKEN, or use credentials \
             that renew themselves"
        }
        "RequestTimeTooSkewed" => {
            "this machine's clock is too far from the store's: synchronize it (NTP)"
        }
        _ => return None,
    })
}
