//! Identifiers that two crates exchange. Each is a newtype, so that an offset is never passed where
//! a log index is meant. No logic but arithmetic lives here.

/// Declares an identifier: a number with a name, compared and printed as that number.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident($number:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name($number);

        impl $name {
            pub const fn new(value: $number) -> Self {
                Self(value)
            }

            pub const fn get(self) -> $number {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

mod epoch;
mod id;
mod offset;
mod raft;

pub use epoch::LeaderEpoch;
pub use id::{NodeId, PartitionId, RaftGroupId, ShardId};
pub use offset::Offset;
pub use raft::{LogIndex, Term};
