//! The name of a sealed object, which is its key in the bucket, in one of two forms.
//!
//! ```text
//! group/{group}/term/{term}/{first index}-{last index}.seg   as offloaded by a group
//! merged/{group}/term/{term}/{number}.seg                    put together from a group's objects
//! ```
//!
//! The indexes are inclusive. Each number has 20 digits, the most that 64 bits need, so that a
//! bucket's listing, which is in order of bytes, is in the order of `Ord` here: form, group, term,
//! range or number.
//!
//! The term fences. A leader that has been replaced does not know it yet and may still be writing;
//! it writes under its own, lower term, so it can never put its bytes under a name that its
//! successor's manifest refers to. Within a term there is one leader, so a name that exists already
//! is a repeat of the same put; a put never replaces what is there. A merge may be tried again with
//! other contents, so merged objects are counted: each attempt has a number of its own.

use std::fmt;
use std::str::FromStr;

use model::{LogIndex, RaftGroupId, Term};

const DIGITS: usize = 20;

/// Names one object.
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

/// Sections of one or more partitions, put together from smaller objects of the group.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct MergedName {
    group: RaftGroupId,
    term: Term,
    number: u64,
}

/// Why a key of the bucket is not the name of an object.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ObjectNameError {
    #[error("`{key}` is neither group/N/term/N/N-N.seg nor merged/N/term/N/N.seg")]
    Form { key: String },
    #[error("`{key}` does not have the form manifest/N/N")]
    ManifestForm { key: String },
    #[error("range of indexes {first} to {last} is empty")]
    EmptyRange { first: LogIndex, last: LogIndex },
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

    /// The object that the leader of that term made in its merge of that number.
    pub fn merged(group: RaftGroupId, term: Term, number: u64) -> Self {
        Self::Merged(MergedName { group, term, number })
    }

    /// The group whose manifest may name the object.
    pub fn group(&self) -> RaftGroupId {
        match self {
            Self::Range(name) => name.group,
            Self::Merged(name) => name.group,
        }
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

    /// What the keys of all merged objects of a group begin with; to list them.
    pub fn merged_prefix(group: RaftGroupId) -> String {
        format!("merged/{:020}/", group.get())
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
    pub fn group(&self) -> RaftGroupId {
        self.group
    }

    pub fn term(&self) -> Term {
        self.term
    }

    pub fn number(&self) -> u64 {
        self.number
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
            Self::Merged(MergedName { group, term, number }) => {
                f.write_str(&Self::merged_prefix(*group))?;
                write!(f, "term/{:020}/{number:020}.seg", term.get())
            }
        }
    }
}

impl FromStr for ObjectName {
    type Err = ObjectNameError;

    fn from_str(key: &str) -> Result<Self, ObjectNameError> {
        let form = || ObjectNameError::Form { key: key.to_owned() };
        let number = |text: &str| parse_number(text).ok_or_else(form);
        let (kind, rest) = key.split_once('/').ok_or_else(form)?;
        let (group, rest) = rest.split_once("/term/").ok_or_else(form)?;
        let (term, rest) = rest.split_once('/').ok_or_else(form)?;
        let rest = rest.strip_suffix(".seg").ok_or_else(form)?;
        let (group, term) = (RaftGroupId::new(number(group)?), Term::new(number(term)?));
        match (kind, rest.split_once('-')) {
            ("group", Some((first, last))) => {
                let (first, last) = (LogIndex::new(number(first)?), LogIndex::new(number(last)?));
                Self::range(group, term, first, last)
            }
            ("merged", None) => Ok(Self::merged(group, term, number(rest)?)),
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
    const MERGED: &str = "merged/00000000000000000003/term/00000000000000000012/\
                          00000000000000000007.seg";

    fn range(group: u64, term: u64, first: u64, last: u64) -> ObjectName {
        let (first, last) = (LogIndex::new(first), LogIndex::new(last));
        ObjectName::range(RaftGroupId::new(group), Term::new(term), first, last).expect("a range")
    }

    fn merged(group: u64, term: u64, number: u64) -> ObjectName {
        ObjectName::merged(RaftGroupId::new(group), Term::new(term), number)
    }

    fn any_name() -> impl Strategy<Value = ObjectName> {
        let range = (any::<u64>(), any::<u64>(), any::<u64>())
            .prop_map(|(group, term, first)| range(group, term, first, u64::MAX));
        let merged = (any::<u64>(), any::<u64>(), any::<u64>())
            .prop_map(|(group, term, number)| merged(group, term, number));
        prop_oneof![range, merged]
    }

    #[test]
    fn the_keys_are_as_documented() {
        assert_eq!(range(3, 12, 4711, 4999).to_string(), RANGE);
        assert_eq!(RANGE.parse(), Ok(range(3, 12, 4711, 4999)));
        assert!(RANGE.starts_with(&ObjectName::group_prefix(RaftGroupId::new(3))));
        assert_eq!(merged(3, 12, 7).to_string(), MERGED);
        assert_eq!(MERGED.parse(), Ok(merged(3, 12, 7)));
        assert!(MERGED.starts_with(&ObjectName::merged_prefix(RaftGroupId::new(3))));
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
        let crossed = RANGE.replace("group", "merged");
        assert!(matches!(crossed.parse::<ObjectName>(), Err(ObjectNameError::Form { .. })));
    }

    proptest! {
        #[test]
        fn a_listing_is_in_order_of_names(a in any_name(), b in any_name()) {
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
        }
    }
}
