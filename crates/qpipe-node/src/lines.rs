//! Keeping lines whole: what several programs write into one pipe is mixed between lines only.

use bytes::{Bytes, BytesMut};

/// A longer line is cut, in bytes: so much fits every window that a pipe has unless its host is short of
/// memory.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// Bytes that are given out as whole lines. Holds less than a line and what was put in last.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    held: BytesMut,
}

impl Lines {
    /// Takes what was read.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// As many whole lines as `max` bytes and [`LINE_BYTES_MAX`] allow; the beginning of one that is
    /// longer than that; none if there is no line to its end.
    pub(crate) fn next(&mut self, max: usize) -> Option<Bytes> {
        let max = max.clamp(1, LINE_BYTES_MAX);
        let fitting = self.held.get(..max).unwrap_or(&self.held);
        let length = match fitting.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => last + 1,
            None if fitting.len() == max => max,
            None => return None,
        };
        Some(self.held.split_to(length).freeze())
    }

    /// What is left at the end of the input: a line that has no end, if anything.
    pub(crate) fn rest(&mut self) -> Option<Bytes> {
        let rest = std::mem::take(&mut self.held).freeze();
        (!rest.is_empty()).then_some(rest)
    }

    /// Whether nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_whole_lines_are_given_out_and_the_rest_at_the_end() {
        let mut lines = Lines::default();
        lines.push(b"one\ntw");
        assert_eq!(lines.next(100).unwrap(), "one\n");
        assert_eq!(lines.next(100), None);
        lines.push(b"o\nthree");
        assert_eq!(lines.next(100).unwrap(), "two\n");
        assert_eq!(lines.next(100), None);
        assert_eq!(lines.rest().unwrap(), "three");
        assert_eq!(lines.rest(), None);
    }

    #[test]
    fn line_that_is_too_long_is_cut() {
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; LINE_BYTES_MAX + 1]);
        assert_eq!(lines.next(usize::MAX).unwrap().len(), LINE_BYTES_MAX);
        assert_eq!(lines.next(usize::MAX), None);
    }

    proptest! {
        #[test]
        fn content_is_the_same_and_cut_behind_lines(
            pieces in proptest::collection::vec("[ab\n]{1,40}", 1..50), max in 1usize..60
        ) {
            let mut lines = Lines::default();
            let mut out = Vec::new();
            for piece in &pieces {
                lines.push(piece.as_bytes());
                while let Some(piece) = lines.next(max) {
                    prop_assert!(piece.len() <= max);
                    prop_assert!(piece.ends_with(b"\n") || piece.len() == max);
                    out.extend_from_slice(&piece);
                }
            }
            out.extend(lines.rest().unwrap_or_default());
            prop_assert_eq!(out, pieces.concat().into_bytes());
        }
    }
}
