//! Bytes waiting in order, in few allocations.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Smaller pieces are copied together: a piece as received may pin a whole batch of datagrams
/// (64 KiB), and writing many small pieces costs more than copying them once.
const COPY_BYTES_MAX: usize = 8 * 1024;

/// The size in which small pieces are gathered, in bytes.
const GATHER_BYTES: usize = 64 * 1024;

/// What a tail begins with, in bytes: a short message often comes in two pieces.
const TAIL_BYTES_MIN: usize = 2 * 1024;

/// A tail of this size is not moved to grow it, in bytes.
const MOVE_BYTES_MAX: usize = 4 * 1024;

/// A queue of bytes.
#[derive(Debug, Default)]
pub(crate) struct ByteQueue {
    whole: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl ByteQueue {
    /// Bytes in the queue.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends `bytes`, without a copy if they are many.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if bytes.len() <= COPY_BYTES_MAX {
            self.push_slice(&bytes);
        } else {
            self.seal();
            self.len += bytes.len();
            self.whole.push_back(bytes);
        }
    }

    /// Appends a copy of `bytes`.
    pub(crate) fn push_slice(&mut self, bytes: &[u8]) {
        let spare = self.tail.capacity() - self.tail.len();
        if spare < bytes.len() && self.tail.len() >= MOVE_BYTES_MAX {
            self.seal();
            self.tail = BytesMut::with_capacity(GATHER_BYTES.max(bytes.len()));
        } else if self.tail.capacity() == 0 {
            self.tail.reserve(TAIL_BYTES_MIN.max(bytes.len()));
        }
        self.tail.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Takes up to `max` bytes from the front, in one piece.
    pub(crate) fn pop(&mut self, max: usize) -> Option<Bytes> {
        if self.whole.is_empty() {
            self.seal();
        }
        let front = self.whole.front_mut()?;
        let piece = if front.len() > max {
            front.split_to(max)
        } else {
            self.whole.pop_front().unwrap_or_default()
        };
        self.len -= piece.len();
        Some(piece)
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.whole.push_back(std::mem::take(&mut self.tail).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(
            steps in proptest::collection::vec((any::<bool>(), 1usize..20_000), 1..60)
        ) {
            let mut queue = ByteQueue::default();
            let (mut put, mut got) = (0usize, 0usize);
            for (is_push, n) in steps {
                if is_push {
                    let bytes: Vec<u8> = (put..put + n).map(|i| (i % 251) as u8).collect();
                    put += n;
                    queue.push(bytes.into());
                } else if let Some(piece) = queue.pop(n) {
                    prop_assert!(!piece.is_empty() && piece.len() <= n);
                    for byte in piece {
                        prop_assert_eq!(byte, (got % 251) as u8);
                        got += 1;
                    }
                }
                prop_assert_eq!(queue.len(), put - got);
            }
        }
    }

    #[test]
    fn a_small_piece_of_a_large_buffer_does_not_pin_it() {
        let large = Bytes::from(vec![7; 64 * 1024]);
        let mut queue = ByteQueue::default();
        queue.push(large.slice(..1000));
        assert!(large.is_unique());
        assert_eq!(queue.pop(2000).unwrap(), vec![7; 1000]);
    }
}
