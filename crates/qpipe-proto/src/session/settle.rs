//! Which pipes are alive, and how they are forgotten.

use super::{Pipe, Session};
use crate::fact::Kinds;
use crate::id::PipeId;
use crate::planted::{self, Planted};

impl Session {
    /// Index of a set of ids by whose opens they are: ours first.
    pub(super) fn owner(&self, id: PipeId) -> usize {
        usize::from(id.opener() != self.side)
    }

    pub(super) fn is_forgotten(&self, id: PipeId) -> bool {
        !planted::has(Planted::ForgetsForgotten)
            && self.forgotten[self.owner(id)].contains(id.index())
    }

    /// Both sides are through with the pipe, or as good as.
    pub(super) fn settle(&mut self, id: PipeId, tell: bool) {
        let owner = self.owner(id);
        let is_new = self.forgotten[owner].insert(id.index());
        // A repeated answer is left out rather than let a peer that reads none fill memory.
        if tell && (is_new || !self.is_congested()) {
            self.unsettled[owner].insert(id.index());
        }
        if is_new && owner == 1 {
            self.allowance.hear(id);
            // An open that its opener took back counts until it is answered: the node holds it.
            let pipe = self.pipes.get_mut(&id);
            let is_held = pipe.is_some_and(|pipe| {
                pipe.is_owed = pipe.facts.answer.is_none() && !pipe.is_released;
                pipe.is_owed || pipe.is_free
            });
            if !is_held {
                self.allowance.release();
            }
        }
        self.retire(id);
    }

    pub(super) fn insert(&mut self, id: PipeId, pipe: Pipe) {
        let owner = self.owner(id);
        self.live[owner].insert(id.index());
        self.inbound += u64::from(pipe.peer_writes());
        self.pipes.insert(id, pipe);
    }

    /// Nothing more is said of the pipe; what its local end needs stays until it is released.
    pub(super) fn retire(&mut self, id: PipeId) {
        let owner = self.owner(id);
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        if self.live[owner].remove(&id.index()) {
            self.inbound -= u64::from(pipe.peer_writes());
        }
        pipe.is_settled = true;
        pipe.untold = Kinds::default();
        pipe.in_band = Kinds::default();
        self.drop_if_done(id);
    }

    pub(super) fn drop_if_done(&mut self, id: PipeId) {
        if self.pipes.get(&id).is_some_and(|pipe| pipe.is_settled && pipe.is_released) {
            self.pipes.remove(&id);
            self.lazy.remove(&id);
            self.idle.remove(&id);
        }
    }
}
