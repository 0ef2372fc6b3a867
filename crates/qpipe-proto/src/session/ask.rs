//! What the driver asks and tells beyond the ends' own operations.

use super::Session;
use crate::fact::{Open, Opener};
use crate::id::PipeId;

impl Session {
    /// The Open that this node's pipe stream repeats in its header: that of a pipe that this node
    /// opened and writes.
    pub(super) fn own_open(&self, id: PipeId) -> Option<Open> {
        let pipe = self.pipes.get(&id).filter(|pipe| pipe.is_ours)?;
        pipe.facts.open.clone().filter(|open| open.opener == Opener::Writer)
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
