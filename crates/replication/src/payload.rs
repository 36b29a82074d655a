//! Payloads of the last entries of a log, each beside its entry until nobody needs it from memory.

use std::collections::VecDeque;

use bytes::Bytes;

/// A run of log indexes with a payload each, or none where it was not kept.
#[derive(Debug, Default)]
pub(crate) struct PayloadWindow {
    /// Index of the first slot.
    base: u64,
    slots: VecDeque<Option<Bytes>>,
    /// Bytes of all payloads held.
    size: usize,
}

impl PayloadWindow {
    /// Bytes of all payloads held.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn get(&self, index: u64) -> Option<&Bytes> {
        let slot = usize::try_from(index.checked_sub(self.base)?).ok()?;
        self.slots.get(slot)?.as_ref()
    }

    /// Keeps the payload of an index above every index seen so far.
    pub(crate) fn push(&mut self, index: u64, payload: Bytes) {
        if self.slots.is_empty() {
            self.base = index;
        }
        assert!(index >= self.end(), "payload {index} pushed below {}", self.end());
        while self.end() < index {
            self.slots.push_back(None);
        }
        self.size += payload.len();
        self.slots.push_back(Some(payload));
    }

    /// Drops every payload at `from` and above.
    pub(crate) fn truncate(&mut self, from: u64) {
        while self.end() > from {
            let Some(slot) = self.slots.pop_back() else { break };
            self.size -= slot.map_or(0, |payload| payload.len());
        }
    }

    /// Index of the first payload, unless there is none.
    pub(crate) fn first(&self) -> Option<u64> {
        (!self.slots.is_empty()).then_some(self.base)
    }

    /// Drops the first slot.
    pub(crate) fn release_first(&mut self) {
        if let Some(slot) = self.slots.pop_front() {
            self.base += 1;
            self.size -= slot.map_or(0, |payload| payload.len());
        }
    }

    fn end(&self) -> u64 {
        self.base + self.slots.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_it_holds_through_gaps_truncation_and_release() {
        let mut window = PayloadWindow::default();
        window.push(5, Bytes::from_static(b"five"));
        window.push(8, Bytes::from_static(b"eight"));
        assert_eq!((window.size(), window.first()), (9, Some(5)));
        assert_eq!(window.get(8).map(|b| &b[..]), Some(&b"eight"[..]));
        assert_eq!((window.get(4), window.get(6), window.get(9)), (None, None, None));
        window.release_first();
        assert_eq!((window.size(), window.first()), (5, Some(6)));
        window.truncate(7);
        assert_eq!((window.size(), window.first()), (0, Some(6)));
        window.truncate(0);
        assert_eq!(window.first(), None);
        window.push(2, Bytes::from_static(b"two"));
        assert_eq!(window.get(2).map(|b| &b[..]), Some(&b"two"[..]));
    }
}
