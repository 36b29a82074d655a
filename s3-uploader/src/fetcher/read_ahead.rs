//! Who reads on where it stopped: for those the next chunks are asked for before they are wanted.

use std::ops::Range;

use super::cache::Cache;
use crate::object_name::ObjectName;

/// Readers remembered at a time; each costs a few dozen bytes.
const READERS_MAX: u64 = 4096;

/// Readers by the section that they are in. Two readers of one section at different places look
/// like one that jumps, and then nothing is read ahead for them beyond the first chunk.
#[derive(Debug)]
pub(super) struct ReadAhead {
    readers: Cache<(ObjectName, u64), Reader>,
    ahead_max: u64,
}

#[derive(Clone, Debug)]
struct Reader {
    /// What it read last.
    last: Range<u64>,
    /// Chunks that it had asked for ahead of it.
    ahead: u64,
}

/// What to do about one read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Step {
    /// Where the read ends and reading ahead begins.
    pub(super) end: u64,
    /// Chunks.
    pub(super) ahead: u64,
}

impl ReadAhead {
    pub(super) fn new(ahead_max: u64) -> Self {
        Self { readers: Cache::new(READERS_MAX), ahead_max }
    }

    /// A read of `range` in the section whose data is at `data`.
    pub(super) fn step(
        &mut self,
        object: ObjectName,
        range: &Range<u64>,
        data: Range<u64>,
    ) -> Step {
        let key = (object, data.start);
        let ahead = match self.readers.get(key) {
            // It may not have taken all that it was given, and then asks for the rest again.
            Some(reader) if range.start >= reader.last.start && range.start <= reader.last.end => {
                let goes_on = range.end > reader.last.end || range.end == data.end;
                let ahead = if goes_on { reader.ahead.max(1) * 2 } else { reader.ahead };
                ahead.min(self.ahead_max)
            }
            // From the start of a section it is likely to go on, from elsewhere it is not known.
            _ if range.start == data.start => 1.min(self.ahead_max),
            _ => 0,
        };
        self.readers.insert(key, Reader { last: range.clone(), ahead }, 1);
        Step { end: range.end, ahead }
    }

    /// A reader is about to come from the section before.
    pub(super) fn expect(&mut self, object: ObjectName, start: u64, ahead: u64) {
        if !self.readers.contains((object, start)) {
            self.readers.insert((object, start), Reader { last: start..start, ahead }, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{LogIndex, RaftGroupId, Term};

    use super::*;

    fn object(first: u64) -> ObjectName {
        let first = LogIndex::new(first);
        ObjectName::range(RaftGroupId::new(1), Term::new(1), first, first).expect("a range")
    }

    fn ahead_of(readers: &mut ReadAhead, range: Range<u64>) -> u64 {
        let step = readers.step(object(1), &range, 100..1000);
        assert_eq!(step.end, range.end);
        step.ahead
    }

    #[test]
    fn a_reader_that_goes_on_is_read_ahead_of_ever_more() {
        let mut readers = ReadAhead::new(8);
        assert_eq!(ahead_of(&mut readers, 100..200), 1);
        assert_eq!(ahead_of(&mut readers, 200..300), 2);
        assert_eq!(ahead_of(&mut readers, 250..350), 4, "it had not taken all");
        assert_eq!(ahead_of(&mut readers, 250..350), 4, "the same again is no progress");
        assert_eq!(ahead_of(&mut readers, 350..400), 8);
        assert_eq!(ahead_of(&mut readers, 400..500), 8);
        assert_eq!(ahead_of(&mut readers, 700..800), 0, "a jump");
        assert_eq!(ahead_of(&mut readers, 800..900), 2);
    }

    #[test]
    fn a_reader_is_known_in_the_next_section() {
        let mut readers = ReadAhead::new(8);
        readers.expect(object(1), 100, 4);
        assert_eq!(ahead_of(&mut readers, 100..200), 8);
        readers.expect(object(1), 100, 1);
        assert_eq!(ahead_of(&mut readers, 200..300), 8, "who is known is not expected anew");
    }
}
