//! Counts of what happened in runs, each with its name.

/// Gives a report its counts: `add` sums those of another run and folds the hashes into one,
/// `counts` tells all of them.
macro_rules! counts {
    ($($count:ident)*) => {
        impl Report {
            /// Sums the counts; the hashes are folded into one.
            pub fn add(&mut self, other: &Self) {
                self.trace_hash ^= other.trace_hash;
                $(self.$count += other.$count;)*
            }

            /// Every count with its name.
            pub fn counts(&self) -> Vec<(&'static str, usize)> {
                vec![$((stringify!($count), self.$count)),*]
            }
        }
    };
}

pub(crate) use counts;
