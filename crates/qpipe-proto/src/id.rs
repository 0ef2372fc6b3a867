//! Pipe ids and sets of them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Which of a session's two nodes: the one that dialled its first connection, or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Accepted the session's first connection. Its opens are odd.
    Acceptor,
    /// Dialled the session's first connection. Its opens are even.
    Dialler,
}

impl Side {
    /// The other side.
    pub fn peer(self) -> Side {
        match self {
            Side::Acceptor => Side::Dialler,
            Side::Dialler => Side::Acceptor,
        }
    }
}

/// A pipe's id in its session. Ids count up per opener and are never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PipeId(u64);

/// A map of pipes. Ids are looked up for each piece of content, so they are hashed more cheaply than
/// std does; the seed is a process's own, so no peer knows which ids collide.
pub type PipeMap<V> = HashMap<PipeId, V, foldhash::fast::RandomState>;

impl PipeId {
    /// The largest id: QUIC's variable-length integers end there (RFC 9000, section 16).
    pub const MAX: u64 = (1 << 62) - 1;

    /// The id with this number, if it is in range.
    pub fn new(number: u64) -> Option<PipeId> {
        (number <= Self::MAX).then_some(PipeId(number))
    }

    /// The `index`-th open (from 0) of `side`.
    ///
    /// # Panics
    /// Never in practice: a node would have to open 2^61 pipes.
    pub(crate) fn nth(side: Side, index: u64) -> PipeId {
        debug_assert!(index <= Self::MAX >> 1);
        PipeId(index << 1 | u64::from(side == Side::Acceptor))
    }

    /// The number on the wire.
    pub fn number(self) -> u64 {
        self.0
    }

    /// Whose open this id is.
    pub fn opener(self) -> Side {
        if self.0 & 1 == 0 { Side::Dialler } else { Side::Acceptor }
    }

    /// The how-manieth open of its side, from 0.
    pub fn index(self) -> u64 {
        self.0 >> 1
    }
}

impl fmt::Debug for PipeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pipe {}", self.0)
    }
}

impl fmt::Display for PipeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A set of numbers kept as ranges, for ids that are nearly consecutive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// First to last, both inclusive; disjoint and not adjacent.
    ranges: BTreeMap<u64, u64>,
}

impl Ranges {
    /// Whether `n` is in the set.
    pub fn contains(&self, n: u64) -> bool {
        self.ranges.range(..=n).next_back().is_some_and(|(_, last)| n <= *last)
    }

    /// Adds `n`; false if it was there.
    pub fn insert(&mut self, n: u64) -> bool {
        let (mut first, mut last) = (n, n);
        if let Some((f, l)) = self.ranges.range(..=n).next_back().map(|(f, l)| (*f, *l)) {
            if n <= l {
                return false;
            }
            if l + 1 == n {
                first = f;
            }
        }
        if let Some(next) = n.checked_add(1)
            && let Some(l) = self.ranges.remove(&next)
        {
            last = l;
        }
        self.ranges.insert(first, last);
        true
    }

    /// How many ranges the set takes.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Takes out up to `most` ranges, (first, last) inclusive, lowest first.
    pub fn take(&mut self, most: usize) -> Vec<(u64, u64)> {
        let mut out = Vec::with_capacity(most.min(self.ranges.len()));
        while out.len() < most
            && let Some(range) = self.ranges.pop_first()
        {
            out.push(range);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_of_the_two_sides_never_meet() {
        assert_eq!(PipeId::nth(Side::Dialler, 3).number(), 6);
        assert_eq!(PipeId::nth(Side::Acceptor, 3).number(), 7);
        assert_eq!(PipeId::nth(Side::Acceptor, 3).opener(), Side::Acceptor);
        assert_eq!(PipeId::nth(Side::Acceptor, 3).index(), 3);
        assert_eq!(PipeId::new(PipeId::MAX + 1), None);
    }

    proptest! {
        #[test]
        fn ranges_are_a_set(numbers in proptest::collection::vec(0u64..200, 0..300)) {
            let mut ranges = Ranges::default();
            let mut set = BTreeSet::new();
            for n in numbers {
                prop_assert_eq!(ranges.insert(n), set.insert(n));
            }
            for n in 0..200 {
                prop_assert_eq!(ranges.contains(n), set.contains(&n));
            }
            let parts = ranges.take(usize::MAX);
            prop_assert!(parts.windows(2).all(|w| w[0].1 + 1 < w[1].0));
            let total: u64 = parts.iter().map(|(first, last)| last - first + 1).sum();
            prop_assert_eq!(total, set.len() as u64);
            prop_assert!(ranges.is_empty());
        }
    }
}
