//! Variable-length integers: unsigned for lengths and tags, zigzag inside records.

use bytes::BufMut;

/// Bytes of the longest encoding of 32 bits.
pub(crate) const SIZE_MAX: usize = 5;
/// Bytes of the longest encoding of 64 bits.
pub(crate) const LONG_SIZE_MAX: usize = 10;

/// Why bytes are not a varint.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum VarintError {
    #[error("a varint ends before it is complete")]
    CutShort,
    #[error("a varint is longer than its type")]
    TooLong,
}

/// Reads an unsigned 32-bit varint; returns it and its size in bytes.
pub(crate) fn read_unsigned(bytes: &[u8]) -> Result<(u32, usize), VarintError> {
    let (value, size) = read(bytes, SIZE_MAX)?;
    let value = u32::try_from(value).map_err(|_| VarintError::TooLong)?;
    Ok((value, size))
}

/// Reads at most `size_max` bytes of a varint; the value may have up to 64 bits.
pub(crate) fn read(bytes: &[u8], size_max: usize) -> Result<(u64, usize), VarintError> {
    let mut state = Partial::default();
    for byte in bytes {
        if let Some(value) = state.push(*byte, size_max)? {
            return Ok((value, state.size));
        }
    }
    Err(VarintError::CutShort)
}

/// A varint whose bytes come one at a time.
#[derive(Default)]
pub(crate) struct Partial {
    value: u64,
    size: usize,
}

impl Partial {
    /// Takes the next byte; gives the value with the last one.
    pub(crate) fn push(&mut self, byte: u8, size_max: usize) -> Result<Option<u64>, VarintError> {
        if self.size >= size_max {
            return Err(VarintError::TooLong);
        }
        let bits = u64::from(byte & 0x7f);
        let shift = u32::try_from(self.size.saturating_mul(7)).map_err(|_| VarintError::TooLong)?;
        let shifted = bits.checked_shl(shift).ok_or(VarintError::TooLong)?;
        if shifted.checked_shr(shift) != Some(bits) {
            return Err(VarintError::TooLong);
        }
        self.value |= shifted;
        self.size = self.size.saturating_add(1);
        if byte & 0x80 == 0 {
            return Ok(Some(self.value));
        }
        if self.size == size_max { Err(VarintError::TooLong) } else { Ok(None) }
    }
}

pub(crate) fn put_unsigned(out: &mut impl BufMut, value: u32) {
    put_unsigned_long(out, u64::from(value));
}

pub(crate) fn put_unsigned_long(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(low_bits(value) | 0x80);
        value >>= 7;
    }
    out.put_u8(low_bits(value));
}

/// Writes a signed number in zigzag form. A 32-bit varint is the same bytes as the 64-bit one.
pub(crate) fn put_signed(out: &mut impl BufMut, value: i64) {
    put_unsigned_long(out, zigzag(value));
}

/// The signed number of a zigzag encoding.
pub(crate) fn unzigzag(value: u64) -> i64 {
    let magnitude = i64::try_from(value >> 1).unwrap_or(i64::MAX);
    if value & 1 == 0 { magnitude } else { !magnitude }
}

fn zigzag(value: i64) -> u64 {
    let doubled = value.wrapping_shl(1).cast_unsigned();
    if value < 0 { !doubled } else { doubled }
}

fn low_bits(value: u64) -> u8 {
    u8::try_from(value & 0x7f).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_numbers_survive() {
        for value in [0, -1, 1, 63, 64, -64, -65, 300, i64::from(i32::MAX), i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            put_signed(&mut bytes, value);
            let (raw, size) = read(&bytes, LONG_SIZE_MAX).expect("own encoding");
            assert_eq!((unzigzag(raw), size), (value, bytes.len()));
        }
    }

    #[test]
    fn more_than_five_bytes_or_33_bits_are_refused() {
        assert_eq!(read_unsigned(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok((u32::MAX, 5)));
        let too_long = Err(VarintError::TooLong);
        assert_eq!(read_unsigned(&[0xff, 0xff, 0xff, 0xff, 0x1f]), too_long);
        assert_eq!(read_unsigned(&[0x80, 0x80, 0x80, 0x80, 0x80, 0]), too_long);
        assert_eq!(read_unsigned(&[0x80, 0x80]), Err(VarintError::CutShort));
    }

    #[test]
    fn more_than_ten_bytes_or_65_bits_are_refused() {
        let mut bytes = [0xff; 10];
        bytes[9] = 1;
        assert_eq!(read(&bytes, LONG_SIZE_MAX), Ok((u64::MAX, 10)));
        bytes[9] = 2;
        assert_eq!(read(&bytes, LONG_SIZE_MAX), Err(VarintError::TooLong));
        bytes[9] = 0x81;
        assert_eq!(read(&bytes, LONG_SIZE_MAX), Err(VarintError::TooLong));
    }
}
