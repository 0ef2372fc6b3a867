//! Facts: statements about one pipe that, once true, stay true, and their merge.
//!
//! What is known of a pipe is a set of facts. [`Facts::merge`] is commutative, associative and
//! idempotent, so hearing a fact twice, late or in another order changes nothing; results are
//! computed from the set alone. `consumed` merges by maximum, Limit and Held by their number, the
//! others are assigned once, and a second value is a [`Contradiction`].

use crate::cause::Cause;
use crate::id::PipeId;
use crate::name::PipeName;
use crate::planted::{self, Planted};
use crate::ticket::Secret;

/// Who opened a pipe: its writer's node or its reader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opener {
    /// The reader's node.
    Reader,
    /// The writer's node.
    Writer,
}

/// What an open asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenTarget {
    /// A named pipe on the other node.
    Name(PipeName),
    /// What a ticket of the other node grants.
    Ticket(Secret),
    /// Something that this node does not understand, as a name that is none: to be refused.
    Unknown,
}

/// Pipes that are answered together: `size` ids from `first` in steps of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// The first member.
    pub first: PipeId,
    /// How many members, at least one.
    pub size: u32,
}

/// The fact that begins a pipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Whether the opener's node writes or reads.
    pub opener: Opener,
    /// What it asks for.
    pub target: OpenTarget,
    /// Refuse at once if nobody is at the other end.
    pub no_wait: bool,
    /// How its bytes are sent beside those of other pipes.
    pub priority: Priority,
    /// The group it belongs to.
    pub group: Group,
}

/// How the writer's node sends a pipe's bytes beside those of other pipes of the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// When no other pipe has anything to send.
    Low,
    /// In turns with the others; what is little goes first.
    #[default]
    Normal,
    /// Before all others.
    High,
}

/// How the writer ended the pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndKind {
    /// The writer closed it: every byte, then EOF.
    Eof,
    /// The writer ended without closing it.
    Aborted(Cause),
}

/// The fact that ends a pipe at its writer: one value per pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// How it ended.
    pub kind: EndKind,
    /// Bytes in all. Of an abort: those that can still come.
    pub length: u64,
    /// XXH3-64 of bytes 0..length. Looked at only for [`EndKind::Eof`].
    pub checksum: u64,
}

/// A numbered offset: of Limit, up to where the writer may send; of Returned, what a Limit of that
/// number is capped at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limit {
    /// The k of "the k-th Limit", from 1; 0 is the initial limit.
    pub number: u64,
    /// An offset in the pipe, in bytes.
    pub offset: u64,
}

/// One of the streams that carry a pipe, as one follows the other: newer ones replace older ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt {
    /// The epoch of the connection that carries it.
    pub epoch: u64,
    /// Which stream of the pipe on that connection, from 0.
    pub number: u64,
}

/// What the reader's node has without a gap: the writer's node starts one stream there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The stream that is asked for.
    pub attempt: Attempt,
    /// Bytes 0..offset are here.
    pub offset: u64,
}

/// How the reader's end was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedKind {
    /// The reader was told of the writer's abort.
    Aborted,
    /// The reader left: EPIPE for the writer.
    Broken(Cause),
    /// The reader consumed every byte, and the checksum was right.
    Complete,
    /// Length or checksum did not match.
    Corrupt,
}

/// The fact that ends a pipe at its reader: exactly one per pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// How it was over.
    pub kind: ClosedKind,
    /// The first so many bytes were consumed.
    pub consumed: u64,
}

/// What the node that did not open the pipe said of the open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Allowed, and memory is reserved.
    Accepted,
    /// Not allowed, or not possible.
    Refused(Cause),
}

/// Two facts about one pipe that cannot both be true, or one that its teller may not state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("facts contradict: {0}")]
pub struct Contradiction(pub &'static str);

/// All that is known about one pipe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The open.
    pub open: Option<Open>,
    /// Its answer.
    pub answer: Option<Answer>,
    /// A partner is there.
    pub joined: bool,
    /// The writer's end.
    pub end: Option<End>,
    /// The highest Limit.
    pub limit: Option<Limit>,
    /// Credit given back, for the highest Limit that any was given back of.
    pub returned: Option<Limit>,
    /// So many bytes were consumed.
    pub consumed: u64,
    /// What the reader's node had when it last asked for a stream.
    pub held: Option<Held>,
    /// The reader's end.
    pub closed: Option<Closed>,
}

impl Facts {
    /// Takes in what `heard` states.
    ///
    /// # Errors
    /// A contradiction between the two sets or inside their union: nothing of `heard` was believed
    /// then, and the pipe is to be ended with [`Cause::Protocol`].
    pub fn merge(&mut self, heard: &Facts) -> Result<(), Contradiction> {
        if let (Some(mine), Some(heard)) = (&self.open, &heard.open)
            && mine != heard
        {
            return Err(Contradiction("a second Open"));
        }
        let union = Facts {
            // Only moved at the end: it holds a name, and this runs for every Consumed.
            open: None,
            answer: assigned(self.answer, heard.answer, "both accepted and refused")?,
            joined: self.joined || heard.joined,
            end: assigned(self.end, heard.end, "a second End")?,
            limit: highest_limit(self.limit, heard.limit)?,
            returned: lowest_cap(self.returned, heard.returned),
            consumed: self.consumed.max(heard.consumed),
            held: newest_held(self.held, heard.held)?,
            closed: assigned(self.closed, heard.closed, "a second Closed")?,
        };
        union.check()?;
        let open = self.open.take().or_else(|| heard.open.clone());
        *self = Facts { open, ..union };
        Ok(())
    }

    /// Up to which offset the writer's node may send, if any Limit was stated.
    pub fn effective_limit(&self) -> Option<u64> {
        let limit = self.limit?;
        Some(match self.returned {
            Some(cap) if cap.number == limit.number => limit.offset.min(cap.offset),
            _ => limit.offset,
        })
    }

    /// The most that any fact says was consumed.
    pub fn consumed_at_least(&self) -> u64 {
        self.consumed.max(self.closed.map_or(0, |closed| closed.consumed))
    }

    /// Whether a terminal fact is known: nothing more will be said of the pipe.
    pub fn is_terminal(&self) -> bool {
        self.closed.is_some() || matches!(self.answer, Some(Answer::Refused(_)))
    }

    fn check(&self) -> Result<(), Contradiction> {
        if let Some(end) = self.end
            && self.consumed_at_least() > end.length
        {
            return Err(Contradiction("more consumed than there was"));
        }
        let Some(closed) = self.closed else { return Ok(()) };
        if self.consumed > closed.consumed {
            return Err(Contradiction("consumed after Closed"));
        }
        match (closed.kind, self.end) {
            (ClosedKind::Complete, Some(End { kind: EndKind::Aborted(_), .. })) => {
                Err(Contradiction("an aborted pipe said to be complete"))
            }
            (ClosedKind::Complete, Some(end)) if end.length != closed.consumed => {
                Err(Contradiction("complete before every byte was consumed"))
            }
            (ClosedKind::Aborted, Some(End { kind: EndKind::Eof, .. })) => {
                Err(Contradiction("an ended pipe said to be aborted"))
            }
            _ => Ok(()),
        }
    }
}

/// A set of kinds of facts, for "what was not told yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u16);

impl Kinds {
    /// Open.
    pub const OPEN: Kinds = Kinds(1);
    /// Accepted or Refused.
    pub const ANSWER: Kinds = Kinds(2);
    /// Joined.
    pub const JOINED: Kinds = Kinds(4);
    /// End.
    pub const END: Kinds = Kinds(8);
    /// Limit.
    pub const LIMIT: Kinds = Kinds(16);
    /// Returned.
    pub const RETURNED: Kinds = Kinds(32);
    /// Consumed.
    pub const CONSUMED: Kinds = Kinds(64);
    /// Closed.
    pub const CLOSED: Kinds = Kinds(128);
    /// Held.
    pub const HELD: Kinds = Kinds(256);
    /// What a pipe's stream brings as well: its End, and its Open where the writer's node made it.
    pub const IN_BAND: Kinds = Kinds(1 | 8);
    /// What the node that did not open the pipe states.
    pub const ANSWERS: Kinds = Kinds(2 | 4);
    /// What the writer's node states.
    pub const WRITERS: Kinds = Kinds(8 | 32);
    /// What the reader's node states.
    pub const READERS: Kinds = Kinds(16 | 64 | 128 | 256);

    /// Whether every kind of `other` is in it.
    pub fn has(self, other: Kinds) -> bool {
        self.0 & other.0 == other.0
    }

    /// Adds the kinds of `other`.
    pub fn add(&mut self, other: Kinds) {
        self.0 |= other.0;
    }

    /// Takes out the kinds that are in `kinds` as well.
    pub fn take(&mut self, kinds: Kinds) -> Kinds {
        let taken = Kinds(self.0 & kinds.0);
        self.0 &= !taken.0;
        taken
    }

    /// Whether it is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The facts of these kinds out of `facts`.
    pub fn select(self, facts: &Facts) -> Facts {
        Facts {
            open: if self.has(Self::OPEN) { facts.open.clone() } else { None },
            answer: facts.answer.filter(|_| self.has(Self::ANSWER)),
            joined: facts.joined && self.has(Self::JOINED),
            end: facts.end.filter(|_| self.has(Self::END)),
            limit: facts.limit.filter(|_| self.has(Self::LIMIT)),
            returned: facts.returned.filter(|_| self.has(Self::RETURNED)),
            consumed: if self.has(Self::CONSUMED) { facts.consumed } else { 0 },
            held: facts.held.filter(|_| self.has(Self::HELD)),
            closed: facts.closed.filter(|_| self.has(Self::CLOSED)),
        }
    }
}

fn assigned<T: Copy + PartialEq>(
    mine: Option<T>,
    heard: Option<T>,
    what: &'static str,
) -> Result<Option<T>, Contradiction> {
    match (mine, heard) {
        (Some(mine), Some(heard)) if mine != heard => Err(Contradiction(what)),
        (mine, heard) => Ok(mine.or(heard)),
    }
}

fn highest_limit(
    mine: Option<Limit>,
    heard: Option<Limit>,
) -> Result<Option<Limit>, Contradiction> {
    match (mine, heard) {
        (Some(a), Some(b)) if a.number == b.number && a.offset != b.offset => {
            Err(Contradiction("one Limit with two offsets"))
        }
        (Some(a), Some(_)) if planted::has(Planted::LimitLowest) => Ok(Some(a)),
        (a, b) => Ok(a.max(b)),
    }
}

fn newest_held(mine: Option<Held>, heard: Option<Held>) -> Result<Option<Held>, Contradiction> {
    match (mine, heard) {
        (Some(a), Some(b)) if a.attempt == b.attempt && a.offset != b.offset => {
            Err(Contradiction("one Held with two offsets"))
        }
        (Some(a), Some(_)) if planted::has(Planted::HeldOldest) => Ok(Some(a)),
        (Some(a), Some(b)) => Ok(Some(if b.attempt > a.attempt { b } else { a })),
        (a, b) => Ok(a.or(b)),
    }
}

fn lowest_cap(mine: Option<Limit>, heard: Option<Limit>) -> Option<Limit> {
    match (mine, heard) {
        // Of the same Limit the lower cap holds: credit once given back is gone for ever.
        (Some(a), Some(b)) if a.number == b.number => {
            Some(Limit { number: a.number, offset: a.offset.min(b.offset) })
        }
        (a, b) => a.max(b),
    }
}
