//! The name of a sealed object: group, term and the range of log indexes that it holds.
//!
//! ```text
//! group/{group}/term/{term}/{first index}-{last index}.seg
//! ```
//!
//! Each number has 20 digits, the most that 64 bits need, so that a bucket's listing, which is in
//! order of bytes, is in order of group, term and first index.

use std::fmt;
use std::str::FromStr;

use model::{LogIndex, RaftGroupId, Term};

const DIGITS: usize = 20;

/// Names one object. The range is inclusive and never empty.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ObjectName {
    group: RaftGroupId,
    term: Term,
    first: LogIndex,
    last: LogIndex,
}

/// Why a key of the bucket is not the name of an object.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ObjectNameError {
    #[error("`{key}` does not have the form group/N/term/N/N-N.seg")]
    Form { key: String },
    #[error("range {first} to {last} is empty")]
    EmptyRange { first: LogIndex, last: LogIndex },
}

impl ObjectName {
    /// # Errors
    ///
    /// The range is empty.
    pub fn new(
        group: RaftGroupId,
        term: Term,
        first: LogIndex,
        last: LogIndex,
    ) -> Result<Self, ObjectNameError> {
        if first > last {
            return Err(ObjectNameError::EmptyRange { first, last });
        }
        Ok(Self { group, term, first, last })
    }

    pub fn group(&self) -> RaftGroupId {
        self.group
    }

    /// The term of the leader that sealed the object: a later leader's term is higher.
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

    /// What all keys of a group begin with; to list them.
    pub fn group_prefix(group: RaftGroupId) -> String {
        format!("group/{:020}/", group.get())
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.first.get(), self.last.get());
        f.write_str(&Self::group_prefix(self.group))?;
        write!(f, "term/{:020}/{first:020}-{last:020}.seg", self.term.get())
    }
}

impl FromStr for ObjectName {
    type Err = ObjectNameError;

    fn from_str(key: &str) -> Result<Self, ObjectNameError> {
        let form = || ObjectNameError::Form { key: key.to_owned() };
        let rest = key.strip_prefix("group/").ok_or_else(form)?;
        let (group, rest) = rest.split_once("/term/").ok_or_else(form)?;
        let (term, rest) = rest.split_once('/').ok_or_else(form)?;
        let (first, rest) = rest.split_once('-').ok_or_else(form)?;
        let last = rest.strip_suffix(".seg").ok_or_else(form)?;
        let number = |text: &str| {
            let digits = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u64>().ok()).flatten().ok_or_else(form)
        };
        Self::new(
            RaftGroupId::new(number(group)?),
            Term::new(number(term)?),
            LogIndex::new(number(first)?),
            LogIndex::new(number(last)?),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "group/00000000000000000003/term/00000000000000000012/\
                       00000000000000004711-00000000000000004999.seg";

    fn name(group: u64, term: u64, first: u64, last: u64) -> ObjectName {
        let (first, last) = (LogIndex::new(first), LogIndex::new(last));
        ObjectName::new(RaftGroupId::new(group), Term::new(term), first, last).expect("a range")
    }

    #[test]
    fn the_key_is_as_documented() {
        assert_eq!(name(3, 12, 4711, 4999).to_string(), KEY);
        assert_eq!(KEY.parse(), Ok(name(3, 12, 4711, 4999)));
        assert!(KEY.starts_with(&ObjectName::group_prefix(RaftGroupId::new(3))));
    }

    #[test]
    fn other_keys_are_refused() {
        for cut in 0..KEY.len() {
            assert!(KEY[..cut].parse::<ObjectName>().is_err(), "cut at {cut}");
        }
        for wrong in [KEY.replace("12/", "+2/"), KEY.replace("term", "tern"), format!("{KEY}x")] {
            assert!(wrong.parse::<ObjectName>().is_err(), "{wrong}");
        }
        let backwards = KEY.replace("4999", "0001");
        assert!(matches!(backwards.parse::<ObjectName>(), Err(ObjectNameError::EmptyRange { .. })));
    }

    proptest! {
        #[test]
        fn a_listing_is_in_order_of_group_term_and_index(
            a in (any::<u64>(), any::<u64>(), any::<u64>()),
            b in (any::<u64>(), any::<u64>(), any::<u64>()),
        ) {
            let [a, b] = [a, b].map(|(group, term, first)| name(group, term, first, u64::MAX));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
        }
    }
}
