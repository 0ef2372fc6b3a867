//! What pipes carry: byte `offset` of pipe `pipe` is a hash of seed, pipe and offset, so that any
//! byte that is lost, doubled or mixed up shows.

use crate::rng::mix;

/// Bytes that one hash gives.
const BLOCK_BYTES: u64 = 8;

/// `length` bytes of `pipe` from `offset` on.
pub fn bytes(seed: u64, pipe: usize, offset: u64, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + BLOCK_BYTES as usize);
    let mut block = offset / BLOCK_BYTES;
    let mut skip = (offset % BLOCK_BYTES) as usize;
    while out.len() < length {
        out.extend_from_slice(&hash(seed, pipe, block)[skip..]);
        skip = 0;
        block += 1;
    }
    out.truncate(length);
    out
}

/// Where `bytes` differ from what stands at `offset` of `pipe`, if they do.
pub fn difference(seed: u64, pipe: usize, offset: u64, seen: &[u8]) -> Option<u64> {
    let right = bytes(seed, pipe, offset, seen.len());
    let at = right.iter().zip(seen).position(|(right, seen)| right != seen)?;
    Some(offset + at as u64)
}

fn hash(seed: u64, pipe: usize, block: u64) -> [u8; BLOCK_BYTES as usize] {
    mix(mix(seed ^ (pipe as u64) << 48) ^ block).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_slice_is_the_same_bytes() {
        let whole = bytes(1, 2, 0, 100);
        for from in 0..40 {
            assert_eq!(bytes(1, 2, from, 60), &whole[from as usize..from as usize + 60]);
        }
    }

    #[test]
    fn another_pipe_offset_or_seed_shows() {
        let right = bytes(1, 2, 16, 64);
        assert_eq!(difference(1, 2, 16, &right), None);
        assert!(difference(1, 3, 16, &right).is_some());
        assert!(difference(1, 2, 17, &right).is_some());
        assert!(difference(2, 2, 16, &right).is_some());
    }
}
