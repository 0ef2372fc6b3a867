//! What the peer says: control messages, and the headers and trailers of pipe streams.

use std::time::Instant;

use super::opens::Joined;
use super::{Event, LocalEnd, Pipe, Session};
use crate::cause::Cause;
use crate::fact::{Closed, ClosedKind, Contradiction, End, EndKind, Facts, Kinds, Open, Opener};
use crate::id::PipeId;
use crate::read_end::ReadEnd;
use crate::wire::{ControlMessage, FactsMessage, StreamHeader};

/// What a peer did that ends the session: nothing sensible can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// A Hello where none may be.
    #[error("a second Hello")]
    Hello,
    /// An open beyond what was allowed.
    #[error("more opens than were allowed")]
    Opens,
}

/// What to do with a pipe stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamVerdict {
    /// The reader left: stop it, with the hint that Closed follows.
    Broken,
    /// The pipe is unknown, forgotten, or ended by a contradiction: stop it.
    Cut,
    /// Read on.
    Read,
}

impl Session {
    /// Takes in a control message.
    ///
    /// # Errors
    /// The session is to be ended. A contradiction about one pipe is not an error here: it ends
    /// that pipe.
    pub fn handle(&mut self, message: ControlMessage, now: Instant) -> Result<(), SessionError> {
        match message {
            ControlMessage::Hello(_) => Err(SessionError::Hello),
            ControlMessage::Facts(facts) => self.hear_facts(facts, now),
            ControlMessage::Bye(bye) => {
                self.hear_bye(bye.opens_seen);
                Ok(())
            }
        }
    }

    /// A pipe stream began with `header`.
    ///
    /// # Errors
    /// As [`Session::handle`].
    pub fn stream_opened(
        &mut self,
        header: &StreamHeader,
        now: Instant,
    ) -> Result<StreamVerdict, SessionError> {
        let id = header.id;
        if self.is_forgotten(id) {
            return Ok(StreamVerdict::Cut);
        }
        let heard = Facts { open: header.open.clone(), ..Facts::default() };
        if !self.pipes.contains_key(&id) && heard.open.is_none() {
            return Ok(StreamVerdict::Cut);
        }
        self.hear_pipe(id, heard, now)?;
        let Some(pipe) = self.pipes.get_mut(&id) else { return Ok(StreamVerdict::Cut) };
        let LocalEnd::Read(end) = &pipe.end else { return Ok(StreamVerdict::Cut) };
        if pipe.facts.closed.is_some() {
            return Ok(StreamVerdict::Broken);
        }
        if pipe.has_stream || header.offset != end.received {
            self.contradict(id, Contradiction("a stream that begins at the wrong offset"));
            return Ok(StreamVerdict::Cut);
        }
        pipe.has_stream = true;
        Ok(StreamVerdict::Read)
    }

    /// Bytes 0..`received` of the pipe are here, without a gap.
    pub fn received(&mut self, id: PipeId, received: u64) -> StreamVerdict {
        let Some(Pipe { end: LocalEnd::Read(end), facts, .. }) = self.pipes.get_mut(&id) else {
            return StreamVerdict::Cut;
        };
        if facts.closed.is_some() {
            return StreamVerdict::Broken;
        }
        if let Err(contradiction) = end.receive(facts, received) {
            self.contradict(id, contradiction);
            return StreamVerdict::Cut;
        }
        if !end.is_within_budget(facts) {
            self.close_read(id, Cause::Busy);
            return StreamVerdict::Broken;
        }
        self.announce(id);
        StreamVerdict::Read
    }

    /// The pipe's stream ended with the trailer `end`.
    pub fn trailer(&mut self, id: PipeId, end: End) -> StreamVerdict {
        let heard = Facts { end: Some(end), ..Facts::default() };
        match self.pipes.get_mut(&id).map(|pipe| pipe.hear(&heard)) {
            None => StreamVerdict::Cut,
            Some(Ok(())) => {
                self.look_at_end(id);
                self.announce(id);
                StreamVerdict::Read
            }
            Some(Err(contradiction)) => {
                self.contradict(id, contradiction);
                StreamVerdict::Cut
            }
        }
    }

    /// The pipe's stream ended without a trailer, whatever QUIC says of it.
    pub fn stream_cut(&mut self, id: PipeId) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        pipe.has_stream = false;
        if let LocalEnd::Read(end) = &pipe.end
            && pipe.facts.end.is_none_or(|e| e.length > end.received)
        {
            self.close_read(id, Cause::Cut);
        }
    }

    /// The peer broke the protocol on this pipe alone: it ends, at both ends.
    pub fn contradict(&mut self, id: PipeId, contradiction: Contradiction) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        self.events.push_back(Event::Contradiction(id, contradiction));
        pipe.fail(Cause::Protocol);
        let kinds = match &pipe.end {
            LocalEnd::Read(_) if pipe.facts.closed.is_none() => {
                let consumed = pipe.facts.consumed;
                let kind = ClosedKind::Broken(Cause::Protocol);
                pipe.facts.closed = Some(Closed { kind, consumed });
                Kinds::CLOSED
            }
            LocalEnd::Write(end) if pipe.facts.end.is_none() => {
                let kind = EndKind::Aborted(Cause::Protocol);
                pipe.facts.end = Some(End { kind, length: end.written, checksum: 0 });
                Kinds::END
            }
            LocalEnd::Unanswered if pipe.facts.answer.is_none() && !pipe.is_ours => {
                self.refuse(&[id], Cause::Protocol);
                return;
            }
            _ => Kinds::default(),
        };
        self.recount(id);
        self.mark(id, kinds);
        self.announce(id);
    }

    /// A pipe that was accepted and is over counts again as an open until it is settled.
    pub(super) fn recount(&mut self, id: PipeId) {
        if let Some(pipe) = self.pipes.get_mut(&id)
            && pipe.is_free
            && pipe.facts.is_terminal()
        {
            pipe.is_free = false;
            self.allowance.charge();
        }
    }

    fn hear_facts(&mut self, message: FactsMessage, now: Instant) -> Result<(), SessionError> {
        if let Some(opens) = message.opens_allowed
            && opens > self.theirs.opens_allowed
        {
            self.theirs.opens_allowed = opens;
            self.events.push_back(Event::OpensAllowed);
        }
        for (id, facts) in message.pipes {
            self.hear_pipe(id, facts, now)?;
        }
        for (first, last) in message.settled {
            self.hear_settled(first, last);
        }
        Ok(())
    }

    fn hear_pipe(&mut self, id: PipeId, heard: Facts, now: Instant) -> Result<(), SessionError> {
        if self.is_forgotten(id) {
            self.settle(id, true);
            return Ok(());
        }
        if !self.pipes.contains_key(&id) {
            return self.hear_unknown(id, heard, now);
        }
        let Some(pipe) = self.pipes.get_mut(&id) else { return Ok(()) };
        if let Err(contradiction) = pipe.hear(&heard) {
            self.contradict(id, contradiction);
        } else {
            self.look_at_end(id);
        }
        self.recount(id);
        self.announce(id);
        if heard.is_terminal() {
            self.settle(id, true);
        }
        Ok(())
    }

    /// A fact of a pipe that is neither known nor forgotten.
    fn hear_unknown(&mut self, id: PipeId, heard: Facts, now: Instant) -> Result<(), SessionError> {
        let is_theirs = self.owner(id) == 1;
        if is_theirs && !self.allowance.allows(id) {
            return Err(SessionError::Opens);
        }
        let Some(open) = heard.open.clone().filter(|_| is_theirs && !self.bye.said) else {
            // There is no such pipe, and there will be none: the peer may forget it.
            self.settle(id, true);
            return Ok(());
        };
        self.allowance.hear(id);
        let end = match open.opener {
            Opener::Writer => LocalEnd::Read(ReadEnd::new(self.ours.initial_limit)),
            Opener::Reader => LocalEnd::Unanswered,
        };
        let mut pipe = Pipe::new(false, Facts::default(), end);
        let heard_well = pipe.hear(&heard);
        self.pipes.insert(id, pipe);
        if let Err(contradiction) = heard_well {
            self.events.push_back(Event::Contradiction(id, contradiction));
            self.refuse(&[id], Cause::Protocol);
            return Ok(());
        }
        match self.groups.join(id, &open, now) {
            Joined::Complete(ids) => self.offer(ids),
            Joined::Misfit => self.refuse(&[id], Cause::Protocol),
            Joined::Waiting => {}
        }
        if heard.is_terminal() {
            self.settle(id, true);
        }
        Ok(())
    }

    fn offer(&mut self, ids: Vec<PipeId>) {
        let opens: Vec<(PipeId, Open)> = ids
            .iter()
            .filter_map(|id| Some((*id, self.pipes.get(id)?.facts.open.clone()?)))
            .collect();
        if opens.len() == ids.len() {
            self.events.push_back(Event::Incoming(opens));
        } else {
            self.refuse(&ids, Cause::Incomplete);
        }
    }

    fn hear_settled(&mut self, first: PipeId, last: PipeId) {
        // Only pipes that are known matter, so a huge range costs no more than they do.
        let owner = self.owner(first);
        let range = first.index()..=last.index();
        let ids: Vec<PipeId> = self
            .pipes
            .iter()
            .filter(|(id, pipe)| {
                !pipe.is_settled && self.owner(**id) == owner && range.contains(&id.index())
            })
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            let Some(pipe) = self.pipes.get_mut(&id) else { continue };
            if !pipe.facts.is_terminal() {
                pipe.fail(Cause::Protocol);
            }
            self.announce(id);
            self.settle(id, false);
        }
    }

    fn hear_bye(&mut self, opens_seen: u64) {
        self.bye.heard = true;
        let unseen: Vec<PipeId> = self
            .pipes
            .keys()
            .filter(|id| self.owner(**id) == 0 && id.index() >= opens_seen)
            .copied()
            .collect();
        for id in unseen {
            if let Some(pipe) = self.pipes.get_mut(&id) {
                pipe.fail(Cause::Stopping);
            }
            self.announce(id);
            self.settle(id, false);
        }
        self.events.push_back(Event::OpensAllowed);
        if self.bye.said {
            self.events.push_back(Event::Finished);
        }
    }

    /// An End was heard: a read end that consumed everything may be over.
    fn look_at_end(&mut self, id: PipeId) {
        let Some(Pipe { end: LocalEnd::Read(end), facts, .. }) = self.pipes.get_mut(&id) else {
            return;
        };
        if let Some(closed) = end.closing(facts) {
            facts.closed = Some(closed);
            self.recount(id);
            self.mark(id, Kinds::CLOSED);
        }
    }
}
