//! Where the chunks of a pipe's content end: no write of up to `PIPE_BUF` bytes goes on behind such a
//! place.

use std::collections::VecDeque;

/// Places that are remembered. Of more, every other is forgotten: chunks then look larger.
const ENDS_MAX: usize = 128;

/// So many are kept room for where there are none: idle pipes are many.
const ENDS_KEPT: usize = 8;

/// The ends of the chunks that were received and not handed out, as offsets.
#[derive(Debug, Default)]
pub(crate) struct ChunkEnds(VecDeque<u64>);

impl ChunkEnds {
    /// A chunk ends at `end`; one that is known already, or lies before such a one, changes nothing.
    pub(crate) fn push(&mut self, end: u64) {
        if self.0.back().is_some_and(|last| *last >= end) {
            return;
        }
        if self.0.len() == ENDS_MAX {
            let mut is_kept = false;
            self.0.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
        self.0.push_back(end);
    }

    /// Up to where to hand out, having handed out up to `taken`, so that only whole chunks are, if
    /// possible no more than `max` bytes; none while there is no whole one.
    pub(crate) fn next(&mut self, taken: u64, max: u64) -> Option<u64> {
        self.forget(taken);
        let fitting = self.0.partition_point(|end| end - taken <= max);
        self.0.get(fitting.saturating_sub(1)).copied()
    }

    /// What was handed out is of no interest any more.
    pub(crate) fn forget(&mut self, taken: u64) {
        while self.0.front().is_some_and(|end| *end <= taken) {
            self.0.pop_front();
        }
        if self.0.is_empty() && self.0.capacity() > ENDS_KEPT {
            self.0 = VecDeque::new();
        }
    }

    /// Whether everything up to `taken` is whole chunks: asked right after [`ChunkEnds::next`] gave
    /// this place, or one behind it.
    pub(crate) fn is_end(&self, taken: u64) -> bool {
        self.0.iter().take_while(|end| **end <= taken).any(|end| *end == taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_kept_of_what_was_handed_out() {
        let mut ends = ChunkEnds::default();
        (1..=100).for_each(|end| ends.push(end));

        ends.forget(100);

        assert_eq!(ends.0.capacity(), 0);
    }

    #[test]
    fn as_many_whole_chunks_as_fit_are_handed_out_and_at_least_one() {
        let mut ends = ChunkEnds::default();
        for end in [10, 20, 20, 15, 100] {
            ends.push(end);
        }
        assert_eq!(ends.next(0, 25), Some(20));
        assert!(ends.is_end(20) && !ends.is_end(15));
        assert_eq!(ends.next(20, 25), Some(100));
        assert_eq!(ends.next(100, 25), None);
    }

    proptest! {
        #[test]
        fn places_are_those_of_chunks_and_few(lengths in proptest::collection::vec(1u64..100, 1..5_000)) {
            let mut ends = ChunkEnds::default();
            let (mut all, mut end) = (Vec::new(), 0);
            for length in lengths {
                end += length;
                all.push(end);
                ends.push(end);
                prop_assert!(ends.0.len() <= ENDS_MAX);
            }
            let mut taken = 0;
            while let Some(next) = ends.next(taken, 200) {
                prop_assert!(next > taken && all.binary_search(&next).is_ok());
                taken = next;
            }
            prop_assert_eq!(taken, end);
        }
    }
}
