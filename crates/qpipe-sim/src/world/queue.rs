//! What is to happen when.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::clock::Time;
use crate::net::Packet;
use crate::plan::Happening;

/// Something that is due at a time.
#[derive(Debug)]
pub(super) enum Due {
    Arrives(Packet),
    FaultsEnd,
    Happens(Happening),
    Restarts(usize),
    Resumes(usize),
    Unreachable(usize),
}

#[derive(Debug)]
struct Entry {
    at: Time,
    number: u64,
    due: Due,
}

/// What is to happen, in order.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: BinaryHeap<Reverse<Entry>>,
    number: u64,
}

impl Queue {
    /// `due` happens at `at`, after all that was pushed for that time before.
    pub(super) fn push(&mut self, at: Time, due: Due) {
        self.number += 1;
        self.entries.push(Reverse(Entry { at, number: self.number, due }));
    }

    /// When the next is due.
    pub(super) fn next(&self) -> Option<Time> {
        self.entries.peek().map(|Reverse(entry)| entry.at)
    }

    /// Takes out the next.
    pub(super) fn pop(&mut self) -> Option<Due> {
        self.entries.pop().map(|Reverse(entry)| entry.due)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
