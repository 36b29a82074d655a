//! What happened, as a hash that a replay must repeat, and as lines to read if it went wrong.

use crate::random::mix;

/// Lines kept for the report of a failure.
const LINES_MAX: usize = 2000;

#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    /// Nothing is written down until a run is known to fail and is repeated for its lines.
    lines: Option<std::collections::VecDeque<String>>,
}

impl Trace {
    pub(crate) fn new(readable: bool) -> Self {
        Self { hash: 0, lines: readable.then(std::collections::VecDeque::new) }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default().into()
    }

    /// What is too frequent for the timeline.
    pub(crate) fn note_silently(&mut self, now: u64, node: u64, facts: &[u64]) {
        self.hash = mix(self.hash ^ mix(now ^ (node << 56)));
        for fact in facts {
            self.hash = mix(self.hash ^ *fact);
        }
    }

    /// Notes an event of `node` at `now` microseconds. The facts go into the hash, the text into
    /// the timeline.
    pub(crate) fn note(
        &mut self,
        now: u64,
        node: u64,
        facts: &[u64],
        text: impl FnOnce() -> String,
    ) {
        self.note_silently(now, node, facts);
        if let Some(lines) = &mut self.lines {
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(format!(
                "{:>9}.{:03} ms  node {node}  {}",
                now / 1000,
                now % 1000,
                text()
            ));
        }
    }
}
