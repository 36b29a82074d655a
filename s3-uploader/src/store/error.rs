//! Why a store did not do what was asked, in one line that says what to do about it.

use std::time::Duration;

/// What kind of request it was; requests are counted and billed by this.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Verb {
    Put,
    Get,
    List,
    Delete,
    /// A request of a multipart upload: begin, part, complete, abort.
    Multipart,
}

impl Verb {
    pub const ALL: [Self; 5] = [Self::Put, Self::Get, Self::List, Self::Delete, Self::Multipart];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Multipart => "multipart",
        }
    }

    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Put => 0,
            Self::Get => 1,
            Self::List => 2,
            Self::Delete => 3,
            Self::Multipart => 4,
        }
    }
}

impl std::fmt::Display for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Cloned to every reader that waited for one request.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StoreError {
    #[error("the store has no object {key}")]
    NotFound { key: String },
    #[error("the object {key} is not as the condition of the write demands")]
    PreconditionFailed { key: String },
    #[error("the store denies {verb}: {advice}")]
    Denied { verb: Verb, advice: String },
    #[error("the store throttles {verb}: {reason}")]
    Throttled { verb: Verb, reason: String },
    #[error("the store fails to {verb}: {reason}")]
    Unavailable { verb: Verb, reason: String },
    #[error("the store took longer than {} ms to {verb}", after.as_millis())]
    Timeout { verb: Verb, after: Duration },
    #[error("{key} is cut short: {found} of {expected} bytes")]
    Truncated { key: String, expected: u64, found: u64 },
    #[error("{key} arrived damaged: {reason}")]
    Checksum { key: String, reason: String },
    #[error("{advice}")]
    Config { advice: String },
}

impl StoreError {
    /// Names of the kinds, in the order of [`Self::kind_index`]; a label in metrics.
    pub const KINDS: [&str; 9] = [
        "not_found",
        "precondition_failed",
        "denied",
        "throttled",
        "unavailable",
        "timeout",
        "truncated",
        "checksum",
        "config",
    ];

    pub fn kind(&self) -> &'static str {
        Self::KINDS[self.kind_index()]
    }

    pub(crate) fn kind_index(&self) -> usize {
        match self {
            Self::NotFound { .. } => 0,
            Self::PreconditionFailed { .. } => 1,
            Self::Denied { .. } => 2,
            Self::Throttled { .. } => 3,
            Self::Unavailable { .. } => 4,
            Self::Timeout { .. } => 5,
            Self::Truncated { .. } => 6,
            Self::Checksum { .. } => 7,
            Self::Config { .. } => 8,
        }
    }

    /// The same request may well succeed later, with nobody doing anything.
    pub fn is_retryable(&self) -> bool {
        self.is_failure_of_the_store()
            || matches!(self, Self::Truncated { .. } | Self::Checksum { .. })
    }

    /// Somebody has to change a setting or a permission before the request can succeed.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Denied { .. } | Self::Config { .. })
    }

    /// The store is slow, overloaded or away, as opposed to answering with something unwelcome.
    pub(crate) fn is_failure_of_the_store(&self) -> bool {
        matches!(self, Self::Throttled { .. } | Self::Unavailable { .. } | Self::Timeout { .. })
    }
}

/// What a server or a system says, as part of one line.
pub(crate) fn one_line(text: &str) -> String {
    const CHARS_MAX: usize = 300;
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(CHARS_MAX).collect()
}
