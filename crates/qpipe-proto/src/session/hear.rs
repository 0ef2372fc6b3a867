//! What the peer says: control messages, and the headers and trailers of pipe streams.

use std::time::Instant;

use super::opens::Joined;
use super::{Event, LocalEnd, Pipe, Session};
use crate::cause::Cause;
use crate::fact::{
    Answer, Closed, ClosedKind, Contradiction, End, EndKind, Facts, Kinds, Open, Opener,
};
use crate::id::PipeId;
use crate::read_end::ReadEnd;
use crate::wire::{ControlMessage, FactsMessage};

const NEVER_OPENED: Contradiction = Contradiction("a fact of a pipe that was never opened");

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

impl Session {
    /// Takes in a control message that came on the connection `epoch`, be it the adopted one or an
    /// older.
    ///
    /// # Errors
    /// The session is to be ended. A contradiction about one pipe is not an error here: it ends
    /// that pipe.
    pub fn handle(
        &mut self,
        message: ControlMessage,
        epoch: u64,
        now: Instant,
    ) -> Result<(), SessionError> {
        if self.lost.is_some() {
            return Ok(());
        }
        match message {
            // Where the peer is concerns whoever dials it, not its pipes.
            ControlMessage::Addresses(_) => Ok(()),
            ControlMessage::Hello(_) => Err(SessionError::Hello),
            ControlMessage::Facts(facts) => self.hear_facts(facts, epoch, now),
            ControlMessage::Bye(bye) => {
                self.hear_bye(bye.opens_seen);
                Ok(())
            }
        }
    }

    /// The peer broke the protocol on this pipe alone: it ends, at both ends.
    pub fn contradict(&mut self, id: PipeId, contradiction: Contradiction) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        self.events.push_back(Event::Contradiction(id, contradiction));
        pipe.fail(Cause::Protocol);
        let kinds = match &pipe.end {
            LocalEnd::Read(_) if !pipe.facts.is_terminal() => {
                return self.state_closed(id, ClosedKind::Broken(Cause::Protocol));
            }
            LocalEnd::Write(end) if pipe.facts.end.is_none() => {
                let kind = EndKind::Aborted(Cause::Protocol);
                pipe.facts.end = Some(End { kind, length: end.written, checksum: 0 });
                Kinds::END
            }
            // Not released: it may have been offered, and then it waits for what is done with it.
            LocalEnd::Unanswered if pipe.facts.answer.is_none() => {
                pipe.facts.answer = Some(Answer::Refused(Cause::Protocol));
                Kinds::ANSWER
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

    fn hear_facts(
        &mut self,
        message: FactsMessage,
        epoch: u64,
        now: Instant,
    ) -> Result<(), SessionError> {
        if let Some(opens) = message.opens_allowed
            && opens > self.theirs.opens_allowed
        {
            self.theirs.opens_allowed = opens;
            self.events.push_back(Event::OpensAllowed);
        }
        for (id, facts) in message.pipes {
            self.hear_pipe(id, facts, epoch, now)?;
        }
        for (first, last) in message.settled {
            self.hear_settled(first, last);
        }
        Ok(())
    }

    pub(super) fn hear_pipe(
        &mut self,
        id: PipeId,
        heard: Facts,
        epoch: u64,
        now: Instant,
    ) -> Result<(), SessionError> {
        if self.is_forgotten(id) {
            self.settle(id, true);
            return Ok(());
        }
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return self.hear_unknown(id, heard, epoch, now);
        };
        pipe.heard_at.get_or_insert(epoch);
        if let Err(contradiction) = pipe.hear(&heard) {
            self.contradict(id, contradiction);
        } else {
            if let LocalEnd::Write(end) = &mut pipe.end
                && heard.limit.is_some()
            {
                end.granted(now);
                self.watch_idle(id);
            }
            self.look_at_end(id);
        }
        if heard.held.is_some() {
            // Its stream was cut: the trailer may have been lost with it.
            self.tell_in_band(id);
        }
        self.recount(id);
        self.announce(id);
        if heard.is_terminal() {
            self.settle(id, true);
        }
        Ok(())
    }

    /// A fact of a pipe that is neither known nor forgotten.
    fn hear_unknown(
        &mut self,
        id: PipeId,
        heard: Facts,
        epoch: u64,
        now: Instant,
    ) -> Result<(), SessionError> {
        if self.owner(id) == 0 {
            // Not answered, not noted: the id may still become that of a pipe.
            self.events.push_back(Event::Contradiction(id, NEVER_OPENED));
            return Ok(());
        }
        if !self.allowance.allows(id) {
            return Err(SessionError::Opens);
        }
        let Some(open) = heard.open.clone().filter(|_| self.bye.said.is_none()) else {
            // There is no such pipe, and there will be none: the peer may forget it.
            if heard.open.is_none() {
                self.events.push_back(Event::Contradiction(id, NEVER_OPENED));
            }
            self.settle(id, true);
            return Ok(());
        };
        self.allowance.hear(id);
        let end = match open.opener {
            Opener::Writer => {
                LocalEnd::Read(ReadEnd::new(self.ours.initial_limit, self.reserve.draft()))
            }
            Opener::Reader => LocalEnd::Unanswered,
        };
        let mut pipe = Pipe::new(false, Facts::default(), end);
        pipe.heard_at = Some(epoch);
        // What contradicts itself is refused, but as the open that it is.
        let heard_well = pipe.hear(&heard);
        pipe.facts.open.get_or_insert_with(|| open.clone());
        self.insert(id, pipe);
        match heard_well.map(|()| self.groups.join(id, &open, now)) {
            Ok(Joined::Complete(ids)) => self.offer(ids),
            Ok(Joined::Waiting) => {}
            Ok(Joined::Misfit) => self.refuse_for(id, Contradiction("a group that cannot be")),
            Err(contradiction) => self.refuse_for(id, contradiction),
        }
        if heard.is_terminal() {
            self.settle(id, true);
        }
        Ok(())
    }

    fn refuse_for(&mut self, id: PipeId, contradiction: Contradiction) {
        self.events.push_back(Event::Contradiction(id, contradiction));
        self.refuse(&[id], Cause::Protocol);
    }

    fn offer(&mut self, ids: Vec<PipeId>) {
        let opens: Vec<(PipeId, Open)> = ids
            .iter()
            .filter_map(|id| Some((*id, self.pipes.get(id)?)))
            .filter(|(_, pipe)| pipe.facts.answer.is_none())
            .filter_map(|(id, pipe)| Some((id, pipe.facts.open.clone()?)))
            .collect();
        if opens.len() == ids.len() {
            self.events.push_back(Event::Incoming(opens));
        } else {
            self.refuse(&ids, Cause::Incomplete);
        }
    }

    fn hear_settled(&mut self, first: PipeId, last: PipeId) {
        if first > last {
            return;
        }
        // Only what is live is looked at, and then no longer is: a huge range costs no more.
        let owner = self.owner(first);
        let live = self.live[owner].range(first.index()..=last.index());
        let ids: Vec<PipeId> = live.map(|index| PipeId::nth(first.opener(), *index)).collect();
        for id in ids {
            let Some(pipe) = self.pipes.get_mut(&id) else { continue };
            if !pipe.facts.is_terminal() {
                if self.bye.heard && owner == 0 {
                    pipe.fail(Cause::Stopping);
                } else {
                    self.contradict(id, Contradiction("settled before it was over"));
                }
            }
            self.announce(id);
            self.settle(id, false);
        }
    }

    fn hear_bye(&mut self, opens_seen: u64) {
        self.bye.heard = true;
        let unseen = self.live[0].range(opens_seen..);
        let ids: Vec<PipeId> = unseen.map(|index| PipeId::nth(self.side, *index)).collect();
        for id in ids {
            if let Some(pipe) = self.pipes.get_mut(&id) {
                pipe.fail(Cause::Stopping);
            }
            self.announce(id);
            self.settle(id, false);
        }
        self.events.push_back(Event::OpensAllowed);
        if self.bye.said.is_some() {
            self.events.push_back(Event::Finished);
        }
    }

    /// The read end is over. Before the open is answered that is a refusal: a writer is not to hear
    /// of a reader that never was.
    pub(super) fn state_closed(&mut self, id: PipeId, kind: ClosedKind) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        let kinds = if pipe.is_ours || pipe.facts.answer.is_some() {
            pipe.facts.closed = Some(Closed { kind, consumed: pipe.facts.consumed });
            Kinds::CLOSED
        } else {
            let cause = if let ClosedKind::Broken(cause) = kind { cause } else { Cause::Corrupt };
            pipe.facts.answer = Some(Answer::Refused(cause));
            Kinds::ANSWER
        };
        self.recount(id);
        self.mark(id, kinds);
        self.announce(id);
    }

    /// An End was heard: a read end that consumed everything may be over.
    pub(super) fn look_at_end(&mut self, id: PipeId) {
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
