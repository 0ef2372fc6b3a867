//! What the driver asks and tells beyond the ends' own operations.

use super::{LocalEnd, Pipe, Session};
use crate::fact::{Open, Opener, Priority};
use crate::id::PipeId;

impl Session {
    /// The Open that this node's pipe stream repeats in its header: that of a pipe that this node
    /// opened and writes.
    pub(super) fn own_open(&self, id: PipeId) -> Option<Open> {
        let pipe = self.pipes.get(&id).filter(|pipe| pipe.is_ours)?;
        pipe.facts.open.clone().filter(|open| open.opener == Opener::Writer)
    }

    /// How the bytes of a pipe are to be sent beside those of others.
    pub fn priority(&self, id: PipeId) -> Priority {
        let Some(pipe) = self.pipes.get(&id) else { return Priority::default() };
        let own = match &pipe.end {
            LocalEnd::Write(end) => end.priority,
            _ => None,
        };
        let open = || pipe.facts.open.as_ref().map(|open| open.priority);
        own.or_else(open).unwrap_or_default()
    }

    /// How the bytes of a pipe that is written here are sent from now on, whatever its open says.
    pub fn set_priority(&mut self, id: PipeId, priority: Priority) {
        if let Some(Pipe { end: LocalEnd::Write(end), .. }) = self.pipes.get_mut(&id) {
            end.priority = Some(priority);
        }
    }

    /// How many bytes of a pipe may be written and not consumed from now on, as far as this side has
    /// a say in it: see [`OpenOptions::capacity`](super::OpenOptions::capacity).
    pub fn set_capacity(&mut self, id: PipeId, bytes: u64) {
        match self.pipes.get_mut(&id).map(|pipe| &mut pipe.end) {
            Some(LocalEnd::Read(end)) => end.set_capacity(bytes),
            Some(LocalEnd::Write(end)) => end.set_capacity(bytes),
            Some(LocalEnd::Unanswered) | None => {}
        }
    }

    /// Whether one of the sides said or wants to say Bye, or the session is lost.
    pub fn is_closing(&self) -> bool {
        self.lost.is_some() || self.bye.wanted || self.bye.heard
    }

    /// Whether both sides said Bye.
    pub fn is_finished(&self) -> bool {
        self.bye.said.is_some() && self.bye.heard
    }

    /// Whether both sides are through with the pipe, or it is not known.
    pub fn is_settled(&self, id: PipeId) -> bool {
        self.pipes.get(&id).is_none_or(|pipe| pipe.is_settled)
    }

    /// What the peer may send on a pipe of its own before it hears Limit, in bytes.
    pub fn initial_limit(&self) -> u64 {
        self.ours.initial_limit
    }

    /// How many bytes beyond `received` the peer may send on a pipe.
    pub fn read_window(&self, id: PipeId, received: u64) -> u64 {
        let Some(pipe) = self.pipes.get(&id) else { return 0 };
        let limit = pipe.facts.effective_limit().unwrap_or(self.ours.initial_limit);
        limit.saturating_sub(received)
    }
}
