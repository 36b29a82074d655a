//! Numbers in as few bytes as they need. Most of a manifest follows from what stands before it: an
//! object begins where the one before ended, and is about as large. So a number is written as its
//! distance from the expected one, which is mostly one byte. Normative: `docs/formats/manifest.md`.

use crate::codec::{DecodeError, Reader};

const NOT_A_NUMBER: DecodeError = DecodeError::Inconsistent { field: "the form of a number" };
const MORE: u8 = 0x80;
const BITS: u32 = 7;

/// Unsigned LEB128: seven bits a byte, low ones first, the top bit says that more follow.
pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= MORE.into() {
        out.push(number.to_le_bytes()[0] | MORE);
        number >>= BITS;
    }
    out.push(number.to_le_bytes()[0]);
}

/// The distance from `expected`, modulo 2^64, as a varint: 0, -1, 1, -2 and so on.
pub(super) fn put_near(out: &mut Vec<u8>, number: u64, expected: u64) {
    let distance = number.wrapping_sub(expected);
    put_varint(out, (distance << 1) ^ sign(distance));
}

pub(super) fn put_count(out: &mut Vec<u8>, len: usize) {
    put_varint(out, u64::try_from(len).expect("a length in memory has at most 64 bits"));
}

/// A number that has at most 32 bits where it is kept.
pub(super) fn narrow(number: u64) -> Result<u32, DecodeError> {
    u32::try_from(number).map_err(|_| NOT_A_NUMBER)
}

/// All ones for a negative distance.
fn sign(distance: u64) -> u64 {
    0_u64.wrapping_sub(distance >> (u64::BITS - 1))
}

impl Reader<'_> {
    /// Takes a number in its shortest form only, so that it has one.
    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & !MORE);
            number |= bits << shift;
            if byte & MORE == 0 {
                let is_shortest = (bits << shift) >> shift == bits && (bits > 0 || shift == 0);
                return is_shortest.then_some(number).ok_or(NOT_A_NUMBER);
            }
        }
        Err(NOT_A_NUMBER)
    }

    pub(super) fn near(&mut self, expected: u64) -> Result<u64, DecodeError> {
        let folded = self.varint()?;
        Ok(expected.wrapping_add((folded >> 1) ^ 0_u64.wrapping_sub(folded & 1)))
    }

    /// A list whose elements have `element_size` bytes or more.
    pub(super) fn near_list<T>(
        &mut self,
        element_size: usize,
        element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.varint()?;
        self.elements(count, element_size, element)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out);
        out
    }

    #[test]
    fn small_distances_take_one_byte() {
        let bytes = |number: u64, expected| written(|out| put_near(out, number, expected));
        assert_eq!([bytes(5, 5), bytes(4, 5), bytes(6, 5)], [[0], [1], [2]]);
        assert_eq!([bytes(0, 64), bytes(63, 0)], [[127], [126]]);
        assert_eq!(bytes(64, 0), [0x80, 1]);
        assert_eq!(bytes(u64::MAX, 0), [1], "-1 modulo 2^64");
        assert_eq!(written(|out| put_varint(out, u64::MAX)).len(), 10);
    }

    #[test]
    fn other_forms_of_a_number_are_refused() {
        let longest = [&[0xff; 9][..], &[1]].concat();
        assert_eq!(Reader::new(&longest).varint(), Ok(u64::MAX));
        let too_large = [&[0xff; 9][..], &[2]].concat();
        let endless = [0xff; 12];
        for bytes in [&[0x80, 0][..], &[0xff, 0], &too_large, &endless] {
            assert_eq!(Reader::new(bytes).varint(), Err(NOT_A_NUMBER), "{bytes:02x?}");
        }
        assert!(matches!(Reader::new(&[0x80]).varint(), Err(DecodeError::Short { .. })));
        assert_eq!(narrow(1 << 32), Err(NOT_A_NUMBER));
        let count = Reader::new(&[3, 0, 0]).near_list(1, Reader::u8);
        assert_eq!(count, Err(DecodeError::Count { count: 3, left: 2 }));
    }

    proptest! {
        #[test]
        fn numbers_are_read_back(numbers in any::<[u64; 2]>(), shifts in any::<[u8; 2]>()) {
            let [number, expected] = [0, 1].map(|at| numbers[at] >> (shifts[at] % 64));
            let bytes = written(|out| {
                put_varint(out, number);
                put_near(out, number, expected);
            });
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Ok(number));
            prop_assert_eq!(reader.near(expected), Ok(number));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn what_is_read_is_the_only_form(bytes in prop::collection::vec(any::<u8>(), 1..12)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(number) = reader.varint() {
                let used = bytes.len() - reader.rest().len();
                prop_assert_eq!(&written(|out| put_varint(out, number))[..], &bytes[..used]);
            }
        }
    }
}
