//! A session over one connection after another.

use std::time::Instant;

use super::{LocalEnd, Pipe, Session};
use crate::fact::{Attempt, Kinds, Open};
use crate::hello::Limits;
use crate::id::PipeId;

/// A stream that the driver is to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamStart {
    /// Which one it is: the epoch of the connection that is to carry it, and its number there.
    pub attempt: Attempt,
    /// Of its first byte, in the pipe.
    pub offset: u64,
    /// The Open that its header repeats.
    pub open: Option<Open>,
}

impl Session {
    /// The connection `epoch` is adopted: Hellos of this session were exchanged on it. Whatever is
    /// known of pipes that are not settled is told again, for nobody knows how much of it arrived.
    pub fn connected(&mut self, epoch: u64, theirs: Limits, now: Instant) {
        debug_assert!(epoch > self.epoch);
        self.epoch = epoch;
        self.is_connected = true;
        self.allowance.doubt();
        self.groups.begin_anew(now);
        self.theirs.opens_allowed = self.theirs.opens_allowed.max(theirs.opens_allowed);
        self.events.push_back(super::Event::OpensAllowed);
        self.bye.told = false;
        let mut ids: Vec<PipeId> = self.pipes.keys().copied().collect();
        // Busy pipes first (ruling 11); by their ids, since equal runs are to be equal.
        ids.sort_unstable_by_key(|id| (!self.is_busy(*id), *id));
        for id in ids {
            let Some(pipe) = self.pipes.get_mut(&id) else { continue };
            if let LocalEnd::Read(end) = &mut pipe.end
                && !pipe.facts.is_terminal()
            {
                end.ask(&mut pipe.facts, epoch);
            }
            if let LocalEnd::Write(end) = &mut pipe.end {
                end.granted(now);
            }
            let kinds = pipe.own_facts();
            self.mark(id, kinds);
            self.announce(id);
        }
    }

    /// The adopted connection is gone. Nothing is told until there is another.
    pub fn disconnected(&mut self) {
        self.is_connected = false;
    }

    /// The connection that is adopted, or was last.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a connection is adopted.
    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// What this side's Hello says on another connection.
    pub fn limits(&self) -> Limits {
        Limits { opens_allowed: self.allowance.told(), ..self.ours }
    }

    /// Whether [`Session::next_stream`] has something to give.
    pub fn wants_stream(&self, id: PipeId) -> bool {
        self.is_connected && self.stream_due(id).is_some()
    }

    /// The stream that is to be started now for a pipe written here, if one is: it replaces any
    /// other of this pipe. The caller sends the bytes from its offset on.
    pub fn next_stream(&mut self, id: PipeId) -> Option<StreamStart> {
        let (attempt, offset) = self.stream_due(id).filter(|_| self.is_connected)?;
        if let Some(Pipe { end: LocalEnd::Write(end), .. }) = self.pipes.get_mut(&id) {
            end.started(attempt);
        }
        Some(StreamStart { attempt, offset, open: self.own_open(id) })
    }

    /// The stream `attempt` of a pipe written here ended on its connection, which lives, and not because
    /// the peer stopped it: another is due. The reader's node cannot ask for it if it has not even
    /// seen the header.
    pub fn stream_lost(&mut self, id: PipeId, attempt: Attempt) {
        if let Some(Pipe { end: LocalEnd::Write(end), .. }) = self.pipes.get_mut(&id) {
            end.stream_lost(attempt);
        }
        self.announce(id);
    }

    /// Whether a stream other than `attempt` is to carry the pipe, or will be asked for.
    pub fn is_superseded(&self, id: PipeId, attempt: Attempt) -> bool {
        let Some(Pipe { end: LocalEnd::Write(end), .. }) = self.pipes.get(&id) else { return true };
        !end.is_newest(attempt) || attempt.epoch != self.epoch || self.wants_stream(id)
    }

    fn stream_due(&self, id: PipeId) -> Option<(Attempt, u64)> {
        let Some(Pipe { end: LocalEnd::Write(end), facts, heard_at, .. }) = self.pipes.get(&id)
        else {
            return None;
        };
        let is_new = heard_at.is_none_or(|at| at >= self.epoch);
        end.next_stream(facts, self.epoch, is_new)
    }

    /// Whether something of a pipe waits for the peer: bytes, an end, an answer.
    pub fn is_waiting(&self) -> bool {
        self.pipes.values().any(|pipe| {
            let facts = &pipe.facts;
            let has_bytes = match &pipe.end {
                LocalEnd::Write(end) => {
                    end.written > facts.consumed_at_least() || facts.end.is_some()
                }
                _ => false,
            };
            let is_unanswered = pipe.is_ours && facts.answer.is_none();
            !pipe.is_settled && (has_bytes || is_unanswered || facts.is_terminal())
        })
    }

    fn is_busy(&self, id: PipeId) -> bool {
        match self.pipes.get(&id) {
            Some(Pipe { end: LocalEnd::Write(end), facts, .. }) => {
                end.written > facts.consumed_at_least()
            }
            Some(Pipe { end: LocalEnd::Read(end), facts, .. }) => {
                end.received > 0 && facts.end.is_none()
            }
            _ => false,
        }
    }

    /// A read end has room again after its stream was stopped for want of it.
    pub(super) fn look_at_hunger(&mut self, id: PipeId) {
        if let Some(Pipe { end: LocalEnd::Read(end), facts, .. }) = self.pipes.get_mut(&id)
            && end.is_sated(facts)
        {
            end.ask(facts, self.epoch);
            self.mark(id, Kinds::HELD);
        }
    }
}
