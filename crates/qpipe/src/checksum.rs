//! The checksum of a pipe's content: XXH3, 64 bits, without a seed.

use std::hash::Hasher;

use twox_hash::XxHash3_64;

/// The checksum of the bytes so far. The fastest instructions of the processor are chosen when the
/// program runs: at build time there would be SSE2 alone, which takes twice as long.
#[derive(Default)]
pub(crate) struct Checksum(XxHash3_64);

impl Checksum {
    /// Takes in the bytes that follow.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// Of all bytes up to here.
    pub(crate) fn value(&self) -> u64 {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_checksum_of_the_whole() {
        let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        for piece in [1, 7, 239, 1400, 65_536] {
            for length in [0, 1, 3, 16, 17, 128, 240, 241, 1024, 100_000] {
                let mut checksum = Checksum::default();
                content[..length].chunks(piece).for_each(|bytes| checksum.update(bytes));

                // Another implementation.
                let whole = xxhash_rust::xxh3::xxh3_64(&content[..length]);
                assert_eq!(checksum.value(), whole, "{length} bytes in pieces of {piece}");
            }
        }
    }
}
