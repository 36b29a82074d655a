//! The suite of all stores, on the simulator's bucket.

#[macro_use]
mod store_suite;

use s3_uploader::{Bucket, StoreOptions, StoreUrl};

const NOW_MS: i64 = 1_800_000_000_000;

thread_local! {
    /// A test's own: each has a thread.
    static BUCKET: Bucket = {
        let bucket = Bucket::default();
        bucket.set_now_ms(NOW_MS);
        bucket
    };
}

fn prefix(test: &str) -> StoreUrl {
    format!("file:///{test}").parse().expect("an address")
}

fn options() -> StoreOptions {
    StoreOptions { bucket: Some(BUCKET.with(Bucket::clone)), ..StoreOptions::default() }
}

all_checks!(prefix);
