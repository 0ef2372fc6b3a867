//! One pipe of a session: its facts, its local end, and what was not told of it yet.

use crate::cause::Cause;
use crate::fact::{Contradiction, Facts, Kinds, Opener};
use crate::read_end::{ReadEnd, check_teller};
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
    /// Facts that its stream brings to the peer, who may be told of them later or not at all.
    pub(super) in_band: Kinds,
    /// Whether it stands in the session's queue of pipes with untold facts.
    pub(super) is_queued: bool,
    /// Whether a change of it is among the session's events.
    pub(super) is_announced: bool,
    /// Whether it counts as an open that costs nothing beyond its floor.
    pub(super) is_free: bool,
    /// Whether it is settled and still counts as an open, since nobody has answered it.
    pub(super) is_owed: bool,
    /// The connection on which the peer first said something of it: by the next one, at the latest,
    /// the peer knew it.
    pub(super) heard_at: Option<u64>,
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
            in_band: Kinds::default(),
            is_queued: false,
            is_announced: false,
            is_free: false,
            is_owed: false,
            heard_at: None,
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
        check_teller(heard, !self.is_ours, opener)?;
        match &self.end {
            LocalEnd::Read(end) => end.check(&self.facts, heard)?,
            LocalEnd::Write(end) => WriteEnd::check(end.written, &self.facts, heard)?,
            LocalEnd::Unanswered => WriteEnd::check(0, &self.facts, heard)?,
        }
        let returned = self.facts.returned;
        self.facts.merge(heard)?;
        let limit = self.facts.limit.map(|limit| limit.number);
        if let LocalEnd::Read(end) = &mut self.end
            && self.facts.returned != returned
            && self.facts.returned.map(|cap| cap.number) == limit
        {
            end.take_back(&self.facts);
        }
        Ok(())
    }

    /// The facts that are this node's to tell.
    pub(super) fn own_facts(&self) -> Kinds {
        let mut kinds = Kinds::default();
        kinds.add(if self.is_ours { Kinds::OPEN } else { Kinds::ANSWERS });
        kinds.add(if self.peer_writes() { Kinds::READERS } else { Kinds::WRITERS });
        kinds
    }

    /// Ends the local end for a cause that no fact states, unless it is over.
    pub(super) fn fail(&mut self, cause: Cause) {
        match &mut self.end {
            LocalEnd::Read(end) => end.fail(&self.facts, cause),
            LocalEnd::Write(end) => end.fail(&self.facts, cause),
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
