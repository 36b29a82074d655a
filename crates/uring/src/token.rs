//! What a completion belongs to, packed into the 64 bits that the kernel hands back untouched.
//!
//! ```text
//! bits 56..64  kind
//! bits 32..56  low 24 bits of the slot's generation
//! bits  0..32  index of the slot
//! ```
//!
//! A slot is reused only when all of its requests are done, so the generation is a check and not
//! the protection: a completion of an earlier owner is a bug, and is dropped instead of delivered.

const GENERATION_MASK: u32 = 0x00ff_ffff;

/// A slot in one of the reactor's tables.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SlotRef {
    pub(crate) index: u32,
    /// Only the low 24 bits travel through the kernel.
    pub(crate) generation: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Token {
    /// Multishot accept of a listener.
    Accept(SlotRef),
    /// Multishot receive of a connection.
    Recv(SlotRef),
    Send(SlotRef),
    /// Cancellation of a connection's requests.
    Cancel(SlotRef),
    /// A read or write of a registered file.
    Disk(SlotRef),
    /// The read of our own eventfd: another thread rang.
    Wake,
    /// Posted into our ring by another reactor: it rang.
    Rung,
    /// Our request to ring another reactor.
    Ring(SlotRef),
    /// Cancellation of everything, when the ring is torn down.
    CancelAll,
}

impl Token {
    pub(crate) fn encode(self) -> u64 {
        let none = SlotRef { index: 0, generation: 0 };
        let (kind, slot) = match self {
            Self::Accept(slot) => (1_u64, slot),
            Self::Recv(slot) => (2, slot),
            Self::Send(slot) => (3, slot),
            Self::Cancel(slot) => (4, slot),
            Self::Disk(slot) => (5, slot),
            Self::Wake => (6, none),
            Self::Rung => (7, none),
            Self::Ring(slot) => (8, slot),
            Self::CancelAll => (9, none),
        };
        kind << 56 | u64::from(slot.generation & GENERATION_MASK) << 32 | u64::from(slot.index)
    }

    /// `None` for bits that `encode` never makes: another process's ring rang us by mistake.
    #[expect(clippy::cast_possible_truncation, reason = "cuts the fields out of the 64 bits")]
    pub(crate) fn decode(bits: u64) -> Option<Self> {
        let slot =
            SlotRef { index: bits as u32, generation: (bits >> 32) as u32 & GENERATION_MASK };
        Some(match bits >> 56 {
            1 => Self::Accept(slot),
            2 => Self::Recv(slot),
            3 => Self::Send(slot),
            4 => Self::Cancel(slot),
            5 => Self::Disk(slot),
            6 => Self::Wake,
            7 => Self::Rung,
            8 => Self::Ring(slot),
            9 => Self::CancelAll,
            _ => return None,
        })
    }
}

/// Values in numbered slots; a slot's generation grows each time it is emptied.
pub(crate) struct Slots<T> {
    entries: Vec<Slot<T>>,
    free: Vec<u32>,
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slots<T> {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, value: T) -> SlotRef {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Slot { generation: 0, value: None });
            u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 requests fit in memory")
        });
        let slot = &mut self.entries[index as usize];
        slot.value = Some(value);
        SlotRef { index, generation: slot.generation }
    }

    pub(crate) fn get(&self, at: SlotRef) -> Option<&T> {
        self.entries.get(at.index as usize).filter(|slot| slot.is(at))?.value.as_ref()
    }

    pub(crate) fn get_mut(&mut self, at: SlotRef) -> Option<&mut T> {
        self.entries.get_mut(at.index as usize).filter(|slot| slot.is(at))?.value.as_mut()
    }

    pub(crate) fn remove(&mut self, at: SlotRef) -> Option<T> {
        let slot = self.entries.get_mut(at.index as usize).filter(|slot| slot.is(at))?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(at.index);
        Some(value)
    }

    /// Every slot that is taken.
    pub(crate) fn refs(&self) -> Vec<SlotRef> {
        let taken = |(index, slot): (usize, &Slot<T>)| {
            let index = u32::try_from(index).ok()?;
            slot.value.as_ref().map(|_| SlotRef { index, generation: slot.generation })
        };
        self.entries.iter().enumerate().filter_map(taken).collect()
    }

    pub(crate) fn for_each(&mut self, f: impl FnMut(&mut T)) {
        self.entries.iter_mut().filter_map(|slot| slot.value.as_mut()).for_each(f);
    }

    /// The full reference of what a token carries in 24 bits of generation.
    pub(crate) fn resolve(&self, token: SlotRef) -> Option<SlotRef> {
        let slot = self.entries.get(token.index as usize)?;
        let same = slot.generation & GENERATION_MASK == token.generation & GENERATION_MASK;
        (same && slot.value.is_some())
            .then_some(SlotRef { index: token.index, generation: slot.generation })
    }
}

impl<T> Slot<T> {
    fn is(&self, at: SlotRef) -> bool {
        self.generation == at.generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        let slot = SlotRef { index: u32::MAX - 1, generation: 0x00ab_cdef };
        for token in [
            Token::Accept(slot),
            Token::Recv(slot),
            Token::Send(slot),
            Token::Cancel(slot),
            Token::Disk(slot),
            Token::Wake,
            Token::Rung,
            Token::Ring(slot),
            Token::CancelAll,
        ] {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(0), None);
        assert_eq!(Token::decode(u64::MAX), None);
    }

    #[test]
    fn a_reused_slot_does_not_answer_to_its_earlier_reference() {
        let mut slots = Slots::new();
        let first = slots.insert("first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");
        assert_eq!(second.index, first.index);
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.resolve(first), None);
        assert_eq!(slots.get(second), Some(&"second"));
    }

    #[test]
    fn a_token_names_its_slot_after_2_to_the_24_generations() {
        let mut slots = Slots::new();
        let mut at = slots.insert(());
        slots.remove(at);
        slots.entries[0].generation = GENERATION_MASK + 5;
        at = slots.insert(());
        let Some(Token::Recv(cut)) = Token::decode(Token::Recv(at).encode()) else { panic!() };
        assert_ne!(cut, at);
        assert_eq!(slots.resolve(cut), Some(at));
    }
}
