//! The suite of all stores, on a real S3 server, and what is told when that refuses. The server is
//! started by `tools/s3/run.sh`, which says where it is.

#[macro_use]
mod store_suite;

use s3_uploader::{Store, StoreError, StoreOptions, StoreUrl};

/// Made by `tools/s3/run.sh`.
const BUCKET: &str = "suite";
/// On the server that checks who asks for what.
const GUARDED: &str = "guarded";

fn server(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run tools/s3/run.sh"))
}

/// A prefix of the test's own.
fn prefix(test: &str) -> StoreUrl {
    let endpoint = server("TAILRACE_TEST_S3");
    let url = format!("s3://{BUCKET}/{test}?region=us-east-1&endpoint={endpoint}&path-style=true");
    url.parse().expect("an address")
}

fn options() -> StoreOptions {
    StoreOptions::default()
}

all_checks!(prefix);

/// A store on the server that checks; keys are `user/secret`.
async fn guarded(bucket: &str, keys: &str) -> Store {
    let endpoint = server("TAILRACE_TEST_S3_GUARDED");
    let url = format!("s3://{bucket}/a?region=us-east-1&endpoint={endpoint}&path-style=true");
    let (id, secret) = keys.split_once('/').expect("an access key and its secret");
    let credentials = Some((id.to_owned(), secret.to_owned()));
    let options = StoreOptions { credentials, ..StoreOptions::default() };
    Store::open(&url.parse().expect("an address"), options).await.expect("the store opens")
}

fn line<T: std::fmt::Debug>(outcome: Result<T, StoreError>) -> String {
    let error = outcome.expect_err("refused").to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[tokio::test]
async fn each_refusal_says_what_to_do() {
    let (all, reader) = (server("TAILRACE_TEST_S3_ALL"), server("TAILRACE_TEST_S3_READER"));
    let store = guarded(GUARDED, &all).await;
    store.put_new("b", vec!["x".into()]).await.expect("one who may do all writes");
    assert_eq!(store.get("b").await.expect("and reads").0, "x");

    let absent = guarded("no-such-bucket", &all).await;
    let error = line(absent.put_new("b", Vec::new()).await);
    assert!(error.starts_with("the bucket `no-such-bucket` does not exist: create it"), "{error}");

    let unknown = guarded(GUARDED, "AKIAUNKNOWN/secret").await;
    let error = line(unknown.get("b").await);
    assert!(error.contains("correct AWS_ACCESS_KEY_ID"), "{error}");

    let id = all.split_once('/').expect("an access key and its secret").0;
    let wrong = guarded(GUARDED, &format!("{id}/wrong")).await;
    let error = line(wrong.get("b").await);
    assert!(error.contains("correct AWS_SECRET_ACCESS_KEY"), "{error}");

    let reader = guarded(GUARDED, &reader).await;
    assert_eq!(reader.get("b").await.expect("a reader reads").0, "x");
    let error = line(reader.put_new("c", vec!["x".into()]).await);
    let expected = "the store denies put: allow s3:PutObject of arn:aws:s3:::guarded/a/* to these";
    assert!(error.starts_with(expected), "{error}");
    let error = line(reader.list("", None).await);
    let expected = "the store denies list: allow s3:ListBucket of arn:aws:s3:::guarded to these";
    assert!(error.starts_with(expected), "{error}");
}
