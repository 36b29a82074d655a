//! Position of a record in one partition.

identifier! {
    /// Offset of a record in one partition: 0 for the first ever written, then dense.
    Offset(i64)
}

impl Offset {
    pub const ZERO: Self = Self::new(0);

    /// The offset `count` records further on; saturates at the largest offset.
    #[must_use]
    pub const fn plus(self, count: i64) -> Self {
        Self::new(self.get().saturating_add(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_wraps_into_the_past() {
        assert_eq!(Offset::new(i64::MAX - 1).plus(5), Offset::new(i64::MAX));
        assert_eq!(Offset::new(7).plus(5), Offset::new(12));
    }
}
