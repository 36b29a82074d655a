//! What servers say that no test server does, from one that says what it is told.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::retry::RetryPolicy;
use crate::store::{Store, StoreError, StoreOptions, Verb};

/// A store whose server gives each of these answers to one request; an empty one is none at all.
async fn store(answers: &[String]) -> Store {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let answers = answers.to_vec();
    tokio::spawn(async move {
        let mut silent = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                let count = stream.read(&mut buffer).await.expect("a request");
                request.extend_from_slice(&buffer[..count]);
            }
            match answer.as_str() {
                "" => silent.push(stream),
                answer => stream.write_all(answer.as_bytes()).await.expect("it is read"),
            }
        }
    });
    let url = format!("s3://bucket/a?region=us-east-1&endpoint=http://127.0.0.1:{port}");
    let url = format!("{url}&path-style=true").parse().expect("an address");
    let retry = RetryPolicy {
        deadline: Duration::from_millis(500),
        delay: Duration::from_millis(1),
        ..RetryPolicy::default()
    };
    let credentials = Some(("key".to_owned(), "secret".to_owned()));
    let options = StoreOptions { retry, credentials, ..StoreOptions::default() };
    Store::open(&url, options).await.expect("the store opens")
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let size = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {size}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn refusal(status: &str, code: &str) -> String {
    let body = format!("<Error><Code>{code}</Code><Message>said\nso</Message></Error>");
    answer(status, "", &body)
}

/// What a read says to that answer, which it does not ask for twice.
async fn line(answer: String) -> String {
    let store = store(&[answer]).await;
    let error = store.get("key").await.expect_err("refused");
    assert_eq!(store.metrics().verb(Verb::Get).requests(), 1, "{error}");
    let error = error.to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[tokio::test]
async fn each_refusal_has_its_own_advice() {
    for (status, code, expected) in [
        ("404 Not Found", "NoSuchBucket", "the bucket `bucket` does not exist: create it"),
        ("301 Moved", "PermanentRedirect", "the bucket `bucket` is not in region us-east-1: add"),
        ("400 Bad", "AuthorizationHeaderMalformed", "is not in region us-east-1: add ?region="),
        ("403 No", "InvalidAccessKeyId", "correct AWS_ACCESS_KEY_ID"),
        ("403 No", "SignatureDoesNotMatch", "correct AWS_SECRET_ACCESS_KEY"),
        ("400 Bad", "ExpiredToken", "renew AWS_SESSION_TOKEN"),
        ("403 No", "RequestTimeTooSkewed", "clock is too far"),
        (
            "403 No",
            "AccessDenied",
            "allow s3:GetObject of arn:aws:s3:::bucket/a/* and s3:ListBucket",
        ),
        ("501 No", "NotImplemented", "does not know s3:GetObject"),
        ("400 Bad", "Strange", "refuses s3:GetObject of key: Strange said so (status 400)"),
        ("404 Not Found", "NoSuchKey", "the store has no object key"),
    ] {
        let error = line(refusal(status, code)).await;
        assert!(error.contains(expected), "{code}: {error}");
    }
}

#[tokio::test]
async fn an_answer_without_a_body_is_told_by_its_status() {
    let region = answer("301 Moved", "x-amz-bucket-region: eu-west-1\r\n", "");
    let error = store(&[region]).await.size("key").await.expect_err("refused").to_string();
    assert!(error.contains("is not in region us-east-1: it is in eu-west-1: add"), "{error}");
    let denied = store(&[answer("403 Forbidden", "", "")]).await.size("key").await;
    assert!(matches!(denied, Err(StoreError::Denied { verb: Verb::Get, .. })), "{denied:?}");
    let absent = store(&[answer("404 Not Found", "", "")]).await.size("key").await;
    assert!(matches!(absent, Err(StoreError::NotFound { .. })), "{absent:?}");
}

#[tokio::test]
async fn what_passes_is_asked_again() {
    let found = answer("200 OK", "ETag: \"1\"\r\n", "data");
    let cut = "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 9\r\nConnection: close\r\n\r\ncut";
    for (first, kind) in [
        (refusal("503 Slow Down", "SlowDown"), "throttled"),
        (refusal("429 Too Many", "TooMany"), "throttled"),
        (refusal("500 Internal", "InternalError"), "unavailable"),
        (answer("502 Bad Gateway", "", "<html>no XML"), "unavailable"),
        (cut.to_owned(), "unavailable"),
        (String::new(), "timeout"),
    ] {
        let store = store(&[first.clone(), found.clone()]).await;
        let (bytes, _) = store.get("key").await.expect(kind);
        assert_eq!(bytes, "data");
        let errors: Vec<_> =
            store.metrics().errors().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(errors, [(kind, 1)], "{first}");
    }
}

#[tokio::test]
async fn a_server_that_ignores_ranges_is_found_out() {
    let whole = answer("200 OK", "ETag: \"1\"\r\n", "0123456789");
    let error = store(&[whole]).await.get_range("key", 4..6).await.expect_err("not the range");
    assert!(error.to_string().contains("ignores ranges"), "{error}");
}

#[tokio::test]
async fn nobody_there_is_said_with_the_address() {
    let closed = store(&[]).await;
    let error = closed.get("key").await.expect_err("nobody listens").to_string();
    assert!(error.contains("no answer from http://127.0.0.1:"), "{error}");
}
