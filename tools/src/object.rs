//! `tailrace object ls|dump|verify`: looks at the objects and manifests of a store, read-only.
//!
//! A broker may go on writing meanwhile: see `view.rs` for what makes that safe.

mod content;
mod dump;
mod ls;
mod topics;
mod verify;
mod view;

use std::io::{self, Write};

use s3_uploader::{BucketError, OffsetRange, StoreUrl};

pub use dump::DumpArgs;
pub use ls::LsArgs;
pub use verify::VerifyArgs;

#[derive(Clone, Debug, clap::Subcommand)]
pub enum ObjectCommand {
    /// List what is in the store: each object, what it holds and whether a manifest names it.
    Ls(LsArgs),
    /// Print an object, batch by batch, or a manifest file.
    Dump(DumpArgs),
    /// Compare the store with its manifests and read everything; fails if anything is damaged.
    Verify(VerifyArgs),
}

/// Why a look at a store failed.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error("manifests of {url} change faster than its objects can be listed: try again later")]
    Unsettled { url: Box<StoreUrl> },
    #[error("`{key}` names neither an object nor a manifest file; see `tailrace object ls`")]
    Key { key: String },
    #[error("the store has no {key}; see `tailrace object ls`")]
    Absent { key: String },
    #[error("no topic is called `{topic}` in the newest metadata of the store")]
    Topic { topic: String },
    #[error("{what} is damaged: {count} error(s), listed above")]
    Damaged { what: String, count: u64 },
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl ObjectCommand {
    /// `progress` is for people who wait.
    pub fn run(&self, out: &mut dyn Write, progress: &mut dyn Write) -> Result<(), ObjectError> {
        match self {
            Self::Ls(args) => ls::ls(args, out),
            Self::Dump(args) => dump::dump(args, out),
            Self::Verify(args) => verify::verify(args, out, progress),
        }
    }
}

/// The end is exclusive.
fn offsets(range: &OffsetRange) -> String {
    format!("offsets {} to {}", range.base, range.end)
}

#[cfg(test)]
mod tests;
