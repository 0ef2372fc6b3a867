//! One pipe of a session: its facts, its local end, and what was not told of it yet.

use crate::cause::Cause;
use crate::fact::{Contradiction, Facts, Kinds, Opener};
use crate::read_end::ReadEnd;
use crate::write_end::WriteEnd;

/// The end of a pipe that is on this node.
#[derive(Debug)]
pub(super) enum LocalEnd {
    Read(ReadEnd),
    Write(WriteEnd),
    /// The open is not answered yet, or was refused.
    Unanswered,
}

#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) facts: Facts,
    pub(super) end: LocalEnd,
    /// Whether this node opened it.
    pub(super) is_ours: bool,
    /// Facts that the peer is still to be told.
    pub(super) untold: Kinds,
    /// Whether it stands in the session's queue of pipes with untold facts.
    pub(super) is_queued: bool,
    /// Whether a change of it is among the session's events.
    pub(super) is_announced: bool,
    /// Whether it counts as an open that costs nothing beyond its floor.
    pub(super) is_free: bool,
    /// Whether a pipe stream carries it now.
    pub(super) has_stream: bool,
    /// Whether both sides are through with it.
    pub(super) is_settled: bool,
    /// Whether the local end is no longer in use.
    pub(super) is_released: bool,
}

impl Pipe {
    pub(super) fn new(is_ours: bool, facts: Facts, end: LocalEnd) -> Pipe {
        Pipe {
            facts,
            end,
            is_ours,
            untold: Kinds::default(),
            is_queued: false,
            is_announced: false,
            is_free: false,
            has_stream: false,
            is_settled: false,
            is_released: false,
        }
    }

    /// Takes in what the peer states.
    pub(super) fn hear(&mut self, heard: &Facts) -> Result<(), Contradiction> {
        let opener = match (&self.facts.open, &heard.open) {
            (Some(open), _) | (None, Some(open)) => open.opener,
            (None, None) => return Err(Contradiction("a fact of a pipe that was never opened")),
        };
        crate::read_end::check_teller(heard, !self.is_ours, opener)?;
        self.facts.merge(heard)?;
        match &mut self.end {
            LocalEnd::Read(end) => {
                if self.facts.end.is_some_and(|e| e.length < end.received) {
                    return Err(Contradiction("an End before bytes that were sent"));
                }
                if heard.returned.is_some() {
                    end.take_back(&self.facts);
                }
            }
            LocalEnd::Write(end) => check_consumed(end, &self.facts)?,
            LocalEnd::Unanswered => {}
        }
        Ok(())
    }

    /// Ends the local end for a cause that no fact states.
    pub(super) fn fail(&mut self, cause: Cause) {
        match &mut self.end {
            LocalEnd::Read(end) => end.fail(cause),
            LocalEnd::Write(end) => end.fail(cause),
            LocalEnd::Unanswered => {}
        }
    }

    /// Whether the peer's node writes.
    pub(super) fn peer_writes(&self) -> bool {
        match &self.facts.open {
            Some(open) => (open.opener == Opener::Writer) != self.is_ours,
            None => false,
        }
    }
}

fn check_consumed(end: &WriteEnd, facts: &Facts) -> Result<(), Contradiction> {
    if facts.consumed_at_least() > end.written {
        return Err(Contradiction("more consumed than was sent"));
    }
    let complete = facts.closed.is_some_and(|c| c.kind == crate::fact::ClosedKind::Complete);
    if complete && facts.end.is_none() {
        return Err(Contradiction("a pipe said to be complete before its End"));
    }
    Ok(())
}
