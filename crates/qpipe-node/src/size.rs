//! Amounts of bytes as people write them.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

/// A number of bytes, written as `256MiB`, `4GiB`, `64K`, `1.5GB` or plainly `4096`.
///
/// `K`, `M`, `G`, `T` (also in lower case) and `KiB`, `MiB`, `GiB`, `TiB` are powers of 1,024;
/// `kB`, `MB`, `GB`, `TB` are powers of 1,000; `B` or nothing is bytes. A space may stand before
/// the unit. A fraction is rounded down to whole bytes.
///
/// It is displayed in the shortest form that says exactly the same.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ByteSize(u64);

impl ByteSize {
    /// `bytes` bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// Every unit by its name; the first [`UNITS_DISPLAYED`] are also written, the others only read.
const UNITS: [(&str, u64); 18] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
    ("T", 1 << 40),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
];

/// The short forms after these could be taken for powers of 1,000.
const UNITS_DISPLAYED: usize = 10;

/// Longer numbers than this are not what somebody meant, and could overflow the arithmetic.
const DIGITS_MAX: usize = 20;

/// More digits after the point than this say nothing more, even of terabytes.
const FRACTION_DIGITS_MAX: usize = 12;

impl FromStr for ByteSize {
    type Err = ParseByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(unit_at);
        let unit = unit.strip_prefix(' ').filter(|unit| !unit.is_empty()).unwrap_or(unit);
        let (_, factor) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .filter(|_| unit_at > 0)
            .ok_or(ParseByteSizeError::Malformed)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let whole = digits(whole, DIGITS_MAX)?;
        let scale = 10_u128.pow(fraction.len().min(FRACTION_DIGITS_MAX) as u32);
        let fraction = digits(fraction, FRACTION_DIGITS_MAX)?;
        let factor = u128::from(*factor);
        let bytes = whole * factor + fraction * factor / scale;
        u64::try_from(bytes).map(Self).map_err(|_| ParseByteSizeError::TooLarge)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shortest = UNITS[..UNITS_DISPLAYED]
            .iter()
            .filter(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor))
            .map(|(name, factor)| (format!("{}{name}", self.0 / factor), *factor))
            .min_by_key(|(text, factor)| (text.len(), Reverse(*factor)));
        f.pad(shortest.as_ref().map_or("0", |(text, _)| text))
    }
}

/// Why a text is not a [`ByteSize`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseByteSizeError {
    /// Not a number and a unit.
    #[error(
        "not a size: write a number and a unit, as 256MiB or 64K \
         (K, M, G, T and KiB to TiB count in 1024, kB, MB, GB, TB in 1000)"
    )]
    Malformed,
    /// More than 2^64 - 1 bytes.
    #[error("the size is larger than a computer can count")]
    TooLarge,
}

fn digits(text: &str, length_max: usize) -> Result<u128, ParseByteSizeError> {
    if text.len() > length_max {
        return Err(ParseByteSizeError::TooLarge);
    }
    text.parse().map_err(|_| ParseByteSizeError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Result<u64, ParseByteSizeError> {
        text.parse::<ByteSize>().map(ByteSize::bytes)
    }

    #[test]
    fn units_are_binary_unless_they_end_in_a_lone_b() {
        assert_eq!(bytes("256MiB"), Ok(256 << 20));
        assert_eq!(bytes("4GiB"), Ok(4 << 30));
        assert_eq!(bytes("64K"), Ok(64 << 10));
        assert_eq!(bytes("64k"), Ok(64 << 10));
        assert_eq!(bytes("2T"), Ok(2 << 40));
        assert_eq!(bytes("10kB"), Ok(10_000));
        assert_eq!(bytes("10 MB"), Ok(10_000_000));
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("7B"), Ok(7));
        assert_eq!(bytes("1.5KiB"), Ok(1536));
        assert_eq!(bytes("18446744073709551615"), Ok(u64::MAX));
    }

    #[test]
    fn anything_else_is_an_error_and_not_a_guess() {
        let malformed = [
            "", "MiB", "x", "-1", "+1", "1.", ".5M", "1.2.3", "1 ", "1  K", "1Mb", "1kib", "1e3",
            "٣",
        ];
        for text in malformed {
            assert_eq!(bytes(text), Err(ParseByteSizeError::Malformed), "{text:?}");
        }
        let too_large =
            ["18446744073709551616", "16777216TiB", "999999999999999999999", "0.1234567890123"];
        for text in too_large {
            assert_eq!(bytes(text), Err(ParseByteSizeError::TooLarge), "{text:?}");
        }
    }

    #[test]
    fn display_is_short_and_reads_back_as_the_same() {
        let shown = |bytes| ByteSize::from_bytes(bytes).to_string();
        assert_eq!(shown(0), "0");
        assert_eq!(shown(1), "1");
        assert_eq!(shown(256 << 20), "256MiB");
        assert_eq!(shown(1024), "1KiB");
        assert_eq!(shown(10_000_000), "10MB");
        assert_eq!(shown(1_000_000_000_000), "1TB");
        for value in [0, 1, 999, 1000, 1024, 1025, 64 << 10, 1 << 40, 123_456_789, u64::MAX] {
            assert_eq!(bytes(&shown(value)), Ok(value));
        }
    }
}
