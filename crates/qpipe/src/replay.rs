//! The bytes that a write end has taken and the reader has not consumed: what is sent, and sent again
//! on another connection.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Pieces up to this size are copied together, in bytes: many small ones cost more than a copy, here
/// and in quinn, whose send buffer is searched one by one.
const MERGE_BYTES_MAX: usize = 64 * 1024;

/// A window onto a pipe's bytes, from what is not consumed to what was written.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    pieces: VecDeque<Piece>,
    /// What was written last, in small pieces.
    tail: BytesMut,
    /// The offset behind the tail.
    end: u64,
}

#[derive(Debug)]
struct Piece {
    start: u64,
    bytes: Bytes,
}

impl Replay {
    /// Appends `bytes`, without a copy if they are many.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if bytes.len() <= MERGE_BYTES_MAX / 8 {
            return self.push_slice(&bytes);
        }
        self.seal();
        let start = self.end;
        self.end += bytes.len() as u64;
        self.pieces.push_back(Piece { start, bytes });
    }

    /// Appends a copy of `bytes`.
    pub(crate) fn push_slice(&mut self, bytes: &[u8]) {
        if self.tail.len() + bytes.len() > MERGE_BYTES_MAX {
            self.seal();
        }
        self.tail.extend_from_slice(bytes);
        self.end += bytes.len() as u64;
    }

    /// The offset behind what was written.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Whether there are bytes from `offset` on.
    #[cfg(test)]
    pub(crate) fn has(&self, offset: u64) -> bool {
        offset < self.end
    }

    /// Up to `max` bytes from `offset` on, which is not below what was trimmed. They end with a piece if
    /// one ends there: small writes are not cut in two.
    pub(crate) fn read(&mut self, offset: u64, max: usize) -> Vec<Bytes> {
        if self.pieces.back().is_none_or(|last| last.end() <= offset) {
            self.seal();
        }
        let first = self.pieces.partition_point(|piece| piece.end() <= offset);
        let (mut at, mut left) = (offset, max);
        let mut out = Vec::new();
        for piece in self.pieces.range(first..) {
            let skip = at.saturating_sub(piece.start) as usize;
            let fits = piece.bytes.len() - skip <= left;
            if at < piece.start || !(fits || out.is_empty()) {
                break;
            }
            let length = left.min(piece.bytes.len() - skip);
            out.push(piece.bytes.slice(skip..skip + length));
            at += length as u64;
            left -= length;
        }
        out
    }

    /// Forgets what lies wholly below `offset`.
    pub(crate) fn trim(&mut self, offset: u64) {
        while let Some(first) = self.pieces.front_mut() {
            if first.end() <= offset {
                self.pieces.pop_front();
                continue;
            }
            let skip = offset.saturating_sub(first.start) as usize;
            first.start += skip as u64;
            first.bytes = first.bytes.split_off(skip);
            break;
        }
        if self.pieces.is_empty() && offset >= self.end {
            self.tail = BytesMut::new();
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.trim(self.end);
    }

    /// Makes the tail readable. Small pieces are joined with those of their size before them, as in
    /// a binary counter, so that a byte is copied a few times and pieces stay few.
    fn seal(&mut self) {
        if self.tail.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.tail).freeze();
        let mut last = Piece { start: self.end - bytes.len() as u64, bytes };
        while let Some(before) = self.pieces.back()
            && before.end() == last.start
            && before.bytes.len() <= 2 * last.bytes.len()
            && before.bytes.len() + last.bytes.len() <= MERGE_BYTES_MAX
        {
            let joined = [&before.bytes[..], &last.bytes[..]].concat();
            last = Piece { start: before.start, bytes: joined.into() };
            self.pieces.pop_back();
        }
        self.pieces.push_back(last);
    }
}

impl Piece {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn byte(offset: u64) -> u8 {
        (offset % 251) as u8
    }

    proptest! {
        #[test]
        fn what_was_written_can_be_read_again_until_it_is_trimmed(
            steps in proptest::collection::vec((0u8..4, 1usize..40_000, any::<prop::sample::Index>()), 1..80)
        ) {
            let mut replay = Replay::default();
            let (mut written, mut trimmed) = (0u64, 0u64);
            for (what, n, index) in steps {
                match what {
                    0 | 1 => {
                        let n = if what == 0 { n } else { n % 50 + 1 };
                        let bytes: Vec<u8> = (written..written + n as u64).map(byte).collect();
                        written += n as u64;
                        replay.push(bytes.into());
                    }
                    2 => {
                        let from = trimmed + index.index((written - trimmed) as usize + 1) as u64;
                        let mut at = from;
                        loop {
                            let pieces = replay.read(at, n);
                            prop_assert_eq!(pieces.is_empty(), at == written);
                            if pieces.is_empty() { break; }
                            prop_assert!(pieces.iter().map(Bytes::len).sum::<usize>() <= n);
                            for b in pieces.iter().flatten() {
                                prop_assert_eq!(*b, byte(at));
                                at += 1;
                            }
                        }
                    }
                    _ => {
                        trimmed += index.index((written - trimmed) as usize + 1) as u64;
                        replay.trim(trimmed);
                    }
                }
                prop_assert_eq!(replay.has(trimmed), trimmed < written);
            }
            replay.clear();
            prop_assert!(!replay.has(written) && replay.pieces.is_empty());
        }
    }

    #[test]
    fn bytes_written_and_sent_one_by_one_take_few_pieces() {
        let mut replay = Replay::default();
        for offset in 0..100_000 {
            replay.push_slice(&[byte(offset)]);
            assert_eq!(replay.read(offset, 10).len(), 1);
        }
        assert!(replay.pieces.len() < 32, "{}", replay.pieces.len());
        assert_eq!(replay.read(0, usize::MAX).concat().len(), 100_000);
    }
}
