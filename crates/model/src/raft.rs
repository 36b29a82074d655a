//! Positions in the log of one raft group.

identifier! {
    /// A raft term; at most one leader of a group exists in each.
    Term(u64)
}

identifier! {
    /// Index of an entry in the log of one raft group; the first entry ever is 1.
    LogIndex(u64)
}

impl LogIndex {
    /// The next entry's index; saturates.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::new(self.get().saturating_add(1))
    }
}
