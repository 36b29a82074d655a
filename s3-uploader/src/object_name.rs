//! The name of a sealed object, which is its key in the bucket, in one of two forms.
//!
//! ```text
//! group/{group}/term/{term}/{first index}-{last index}.seg           as offloaded by a group
//! partition/{partition}/term/{term}/{base offset}-{end offset}.seg   merged, of one partition
//! ```
//!
//! The indexes are inclusive, the end offset is exclusive. Each number has 20 digits, the most that
//! 64 bits need, so that a bucket's listing, which is in order of bytes, is in the order of `Ord`
//! here: form, group or partition, term, range.
//!
//! The term fences. A leader that has been replaced does not know it yet and may still be writing;
//! it writes under its own, lower term, so it can never put its bytes under a name that its
//! successor's manifest refers to. Within a term there is one leader, so a name that exists already
//! is a repeat of the same put; a put never replaces what is there.

use std::fmt;
use std::str::FromStr;

use model::{LogIndex, Offset, PartitionId, RaftGroupId, Term};

const DIGITS: usize = 20;

/// Names one object. Every value has a range that is not empty.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ObjectName {
    Range(RangeName),
    Merged(MergedName),
}

/// A range of a group's log, with all of its partitions.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct RangeName {
    group: RaftGroupId,
    term: Term,
    first: LogIndex,
    last: LogIndex,
}

/// A range of one partition, put together from smaller objects.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct MergedName {
    partition: PartitionId,
    term: Term,
    base: Offset,
    end: Offset,
}

/// Why a key of the bucket is not the name of an object.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ObjectNameError {
    #[error("`{key}` is neither group/N/term/N/N-N.seg nor partition/N/term/N/N-N.seg")]
    Form { key: String },
    #[error("`{key}` does not have the form manifest/N/N")]
    ManifestForm { key: String },
    #[error("range of indexes {first} to {last} is empty")]
    EmptyRange { first: LogIndex, last: LogIndex },
    #[error("offsets {base} to {end}, exclusive, are no range")]
    Offsets { base: Offset, end: Offset },
}

impl ObjectName {
    /// The object that holds a group's log from `first` to `last`, inclusive.
    ///
    /// # Errors
    ///
    /// The range is empty.
    pub fn range(
        group: RaftGroupId,
        term: Term,
        first: LogIndex,
        last: LogIndex,
    ) -> Result<Self, ObjectNameError> {
        if first > last {
            return Err(ObjectNameError::EmptyRange { first, last });
        }
        Ok(Self::Range(RangeName { group, term, first, last }))
    }

    /// The object that holds a partition's records from `base` up to but not including `end`.
    ///
    /// # Errors
    ///
    /// The range is empty or begins below zero.
    pub fn merged(
        partition: PartitionId,
        term: Term,
        base: Offset,
        end: Offset,
    ) -> Result<Self, ObjectNameError> {
        if base < Offset::ZERO || base >= end {
            return Err(ObjectNameError::Offsets { base, end });
        }
        Ok(Self::Merged(MergedName { partition, term, base, end }))
    }

    /// The term of the leader that sealed the object: a later leader's term is higher.
    pub fn term(&self) -> Term {
        match self {
            Self::Range(name) => name.term,
            Self::Merged(name) => name.term,
        }
    }

    /// What the keys of all ranges of a group begin with; to list them.
    pub fn group_prefix(group: RaftGroupId) -> String {
        format!("group/{:020}/", group.get())
    }

    /// What the keys of all merged objects of a partition begin with; to list them.
    pub fn partition_prefix(partition: PartitionId) -> String {
        format!("partition/{:020}/", partition.get())
    }
}

impl RangeName {
    pub fn group(&self) -> RaftGroupId {
        self.group
    }

    pub fn term(&self) -> Term {
        self.term
    }

    pub fn first(&self) -> LogIndex {
        self.first
    }

    /// Inclusive.
    pub fn last(&self) -> LogIndex {
        self.last
    }
}

impl MergedName {
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    pub fn term(&self) -> Term {
        self.term
    }

    pub fn base(&self) -> Offset {
        self.base
    }

    /// Exclusive.
    pub fn end(&self) -> Offset {
        self.end
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(RangeName { group, term, first, last }) => {
                f.write_str(&Self::group_prefix(*group))?;
                let (term, first, last) = (term.get(), first.get(), last.get());
                write!(f, "term/{term:020}/{first:020}-{last:020}.seg")
            }
            Self::Merged(MergedName { partition, term, base, end }) => {
                f.write_str(&Self::partition_prefix(*partition))?;
                let (term, base, end) = (term.get(), base.get(), end.get());
                write!(f, "term/{term:020}/{base:020}-{end:020}.seg")
            }
        }
    }
}

impl FromStr for ObjectName {
    type Err = ObjectNameError;

    fn from_str(key: &str) -> Result<Self, ObjectNameError> {
        let form = || ObjectNameError::Form { key: key.to_owned() };
        let (kind, rest) = key.split_once('/').ok_or_else(form)?;
        let (owner, rest) = rest.split_once("/term/").ok_or_else(form)?;
        let (term, rest) = rest.split_once('/').ok_or_else(form)?;
        let (from, rest) = rest.split_once('-').ok_or_else(form)?;
        let to = rest.strip_suffix(".seg").ok_or_else(form)?;
        let number = |text: &str| parse_number(text).ok_or_else(form);
        let offset = |number: u64| i64::try_from(number).map(Offset::new).map_err(|_| form());
        let (owner, term) = (number(owner)?, Term::new(number(term)?));
        let (from, to) = (number(from)?, number(to)?);
        match kind {
            "group" => {
                Self::range(RaftGroupId::new(owner), term, LogIndex::new(from), LogIndex::new(to))
            }
            "partition" => Self::merged(PartitionId::new(owner), term, offset(from)?, offset(to)?),
            _ => Err(form()),
        }
    }
}

/// A number of a key: exactly 20 digits, no sign.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    let digits = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RANGE: &str = "group/00000000000000000003/term/00000000000000000012/\
                         00000000000000004711-00000000000000004999.seg";
    const MERGED: &str = "partition/00000000000000000007/term/00000000000000000012/\
                          00000000000000000100-00000000000000000250.seg";

    fn range(group: u64, term: u64, first: u64, last: u64) -> ObjectName {
        let (first, last) = (LogIndex::new(first), LogIndex::new(last));
        ObjectName::range(RaftGroupId::new(group), Term::new(term), first, last).expect("a range")
    }

    fn merged(partition: u64, term: u64, base: i64, end: i64) -> ObjectName {
        let (base, end) = (Offset::new(base), Offset::new(end));
        ObjectName::merged(PartitionId::new(partition), Term::new(term), base, end)
            .expect("a range")
    }

    fn any_name() -> impl Strategy<Value = ObjectName> {
        let range = (any::<u64>(), any::<u64>(), any::<u64>())
            .prop_map(|(group, term, first)| range(group, term, first, u64::MAX));
        let merged = (any::<u64>(), any::<u64>(), 0..i64::MAX)
            .prop_map(|(partition, term, base)| merged(partition, term, base, i64::MAX));
        prop_oneof![range, merged]
    }

    #[test]
    fn the_keys_are_as_documented() {
        assert_eq!(range(3, 12, 4711, 4999).to_string(), RANGE);
        assert_eq!(RANGE.parse(), Ok(range(3, 12, 4711, 4999)));
        assert!(RANGE.starts_with(&ObjectName::group_prefix(RaftGroupId::new(3))));
        assert_eq!(merged(7, 12, 100, 250).to_string(), MERGED);
        assert_eq!(MERGED.parse(), Ok(merged(7, 12, 100, 250)));
        assert!(MERGED.starts_with(&ObjectName::partition_prefix(PartitionId::new(7))));
    }

    #[test]
    fn other_keys_are_refused() {
        for key in [RANGE, MERGED] {
            for cut in 0..key.len() {
                assert!(key[..cut].parse::<ObjectName>().is_err(), "cut at {cut}");
            }
            let (kind, rest) = key.split_once('/').expect("a kind");
            for wrong in [
                key.replace("12/", "+2/"),
                key.replace("term", "tern"),
                format!("{key}x"),
                format!("/{key}"),
                format!("{kind}s/{rest}"),
            ] {
                assert!(wrong.parse::<ObjectName>().is_err(), "{wrong}");
            }
        }
        let backwards = RANGE.replace("4999", "0001");
        assert!(matches!(backwards.parse::<ObjectName>(), Err(ObjectNameError::EmptyRange { .. })));
        let empty = MERGED.replace("250", "100");
        assert!(matches!(empty.parse::<ObjectName>(), Err(ObjectNameError::Offsets { .. })));
        let beyond = MERGED.replace("00000000000000000250", "09223372036854775808");
        assert!(matches!(beyond.parse::<ObjectName>(), Err(ObjectNameError::Form { .. })));
        let (negative, end) = (Offset::new(-1), Offset::new(5));
        ObjectName::merged(PartitionId::new(1), Term::new(1), negative, end)
            .expect_err("below zero");
    }

    proptest! {
        #[test]
        fn a_listing_is_in_order_of_names(a in any_name(), b in any_name()) {
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
        }
    }
}
