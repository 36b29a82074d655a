//! A number of bytes as people write it: `256MiB`, `1GiB`, `65536`.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Size(u64);

/// Why a text is not a size.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SizeError {
    #[error("`{text}` is not a size: expected a number of bytes, or one with KiB, MiB, GiB or TiB")]
    Malformed { text: String },
    #[error("`{text}` is more bytes than 64 bits can count")]
    TooLarge { text: String },
}

/// Largest first, so that a size prints with the largest unit that divides it.
const UNITS: [(&str, u64); 4] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Size {
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// The size in bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let (digits, unit) = split_unit(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(SizeError::Malformed { text: text.to_owned() });
        }
        digits
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(unit))
            .map(Self)
            .ok_or_else(|| SizeError::TooLarge { text: text.to_owned() })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (suffix, unit) in UNITS {
            if self.0 > 0 && self.0.is_multiple_of(unit) {
                return write!(f, "{}{suffix}", self.0 / unit);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// The digits before the unit, and the bytes one unit stands for.
fn split_unit(text: &str) -> (&str, u64) {
    for (suffix, unit) in UNITS {
        if let Some(digits) = text.strip_suffix(suffix) {
            return (digits, unit);
        }
    }
    (text, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_bytes_and_binary_units() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65536),
            ("512KiB", 512 << 10),
            ("256MiB", 256 << 20),
            ("1GiB", 1 << 30),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size::bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_ambiguous() {
        for text in ["", "GiB", "1GB", "1 GiB", "1gib", "-1", "+1", "1.5GiB", "0x10", "1GiBGiB"] {
            assert_eq!(text.parse::<Size>(), Err(SizeError::Malformed { text: text.into() }));
        }
        for text in ["18446744073709551616", "16777216TiB"] {
            assert_eq!(text.parse::<Size>(), Err(SizeError::TooLarge { text: text.into() }));
        }
    }

    #[test]
    fn prints_what_it_reads() {
        for text in ["0", "1000", "1KiB", "256MiB", "1GiB", "1025MiB"] {
            assert_eq!(text.parse::<Size>().expect(text).to_string(), text);
        }
    }
}
