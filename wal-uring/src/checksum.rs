//! CRC-32C of bytes that follow each other, from the checksums of the pieces: large ones are read
//! once, by whoever checks them first, and not again for every checksum that covers them.
//!
//! A checksum is the remainder of a polynomial over GF(2), so that of `front` and `back` together
//! is `front · x^(8·len(back)) + back` modulo the generator. RFC 3720, appendix B.4, has the
//! generator. The crc32c crate does this, too, in 10 to 50 us, in which all can be read again.

/// Castagnoli's generator without its highest term; the highest bit is the coefficient of x^0.
const GENERATOR: u32 = 0x82f6_3b78;
const ONE: u32 = 1 << 31;
/// Shorter pieces are read again sooner than their checksum is joined, bytes.
pub(crate) const JOINED_MIN: usize = 4096;

/// x^(8·2^k), by k.
const POWERS: [u32; usize::BITS as usize] = {
    let mut powers = [ONE >> 8; usize::BITS as usize];
    let mut k = 1;
    while k < powers.len() {
        powers[k] = multiply(powers[k - 1], powers[k - 1]);
        k += 1;
    }
    powers
};

/// The product of two polynomials, modulo the generator.
const fn multiply(a: u32, b: u32) -> u32 {
    let (mut product, mut shifted, mut terms) = (0, b, a);
    while terms != 0 {
        // No branch on the terms: which of them are there is a matter of chance.
        product ^= shifted & (terms >> 31).wrapping_neg();
        shifted = (shifted >> 1) ^ (GENERATOR & (shifted & 1).wrapping_neg());
        terms <<= 1;
    }
    product
}

/// What a checksum is multiplied by when so many bytes follow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shift(u32);

impl Shift {
    pub(crate) fn over(len: usize) -> Self {
        let bits = POWERS.iter().enumerate().filter(|(k, _)| len >> k & 1 == 1);
        Self(bits.fold(ONE, |product, (_, power)| multiply(product, *power)))
    }

    pub(crate) const fn join(self, front: u32, back: u32) -> u32 {
        multiply(self.0, front) ^ back
    }
}

/// The CRC-32C of bytes, of which those from `at` on have the checksum `rest_crc`. Nothing looks
/// whether they do.
///
/// # Panics
///
/// If there are fewer than `at` bytes.
pub fn crc_of(bytes: &[u8], at: usize, rest_crc: u32) -> u32 {
    let (front, rest) = bytes.split_at(at);
    if rest.len() < JOINED_MIN {
        return crc32c::crc32c(bytes);
    }
    Shift::over(rest.len()).join(crc32c::crc32c(front), rest_crc)
}

/// The CRC-32C of bytes with the checksum `front`, followed by `back`, whose checksum is `back_crc`
/// if that is known.
pub(crate) fn crc_with(front: u32, back: &[u8], back_crc: Option<u32>) -> u32 {
    match back_crc.filter(|_| back.len() >= JOINED_MIN) {
        Some(back_crc) => Shift::over(back.len()).join(front, back_crc),
        None => crc32c::crc32c_append(front, back),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_joined_checksum_is_that_of_all_bytes(
            bytes in proptest::collection::vec(any::<u8>(), 0..3 * JOINED_MIN),
            cut in any::<proptest::sample::Index>(),
        ) {
            let cut = cut.index(bytes.len() + 1);
            let (front, back) = bytes.split_at(cut);
            let (whole, known) = (crc32c::crc32c(&bytes), crc32c::crc32c(back));
            let front = crc32c::crc32c(front);
            prop_assert_eq!(Shift::over(back.len()).join(front, known), whole);
            prop_assert_eq!(crc_with(front, back, Some(known)), whole);
            prop_assert_eq!(crc_with(front, back, None), whole);
            prop_assert_eq!(crc_of(&bytes, cut, known), whole);
        }
    }

    #[test]
    fn lengths_beyond_memory_are_powers_too() {
        // By definition: a byte that follows is a multiplication by x^8.
        let by_bytes = (0..1 << 20).fold(ONE, |product, _| multiply(product, ONE >> 8));
        assert_eq!(Shift::over(1 << 20).0, by_bytes);
        assert_eq!(Shift::over(3 << 40).0, {
            let half = Shift::over(3 << 39).0;
            multiply(half, half)
        });
    }
}
