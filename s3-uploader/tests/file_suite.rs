//! The suite of all stores, on a folder.

#[macro_use]
mod store_suite;

use std::fs;
use std::path::PathBuf;

use s3_uploader::{StoreOptions, StoreUrl};

/// An empty folder of the test's own.
fn folder(test: &str) -> StoreUrl {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("file_suite").join(test);
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("an old folder goes");
    }
    StoreUrl::folder(&folder)
}

fn options() -> StoreOptions {
    StoreOptions::default()
}

all_checks!(folder);
