//! What pipe streams from the peer bring: headers, bytes, trailers, cuts.

use std::time::Instant;

use super::{Event, LocalEnd, Pipe, Session, SessionError};
use crate::cause::Cause;
use crate::fact::{Attempt, ClosedKind, Contradiction, End, EndKind, Facts, Kinds};
use crate::id::PipeId;
use crate::wire::StreamHeader;

/// What to do with a pipe stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamVerdict {
    /// The reader left: stop it, with the hint that Closed follows.
    Broken,
    /// This stream is not wanted: the pipe is unknown, forgotten, or ended by a contradiction, a
    /// newer stream carries it, or there is no memory now. Stop it.
    Cut,
    /// Read on.
    Read,
}

/// What became of bytes that arrived on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Up to this offset of the pipe bytes are held now. What lies beyond is to be dropped.
    pub received: u64,
    /// What to do with the stream.
    pub verdict: StreamVerdict,
}

impl Session {
    /// A pipe stream began with `header` on the connection `epoch`.
    ///
    /// # Errors
    /// As [`Session::handle`].
    pub fn stream_opened(
        &mut self,
        header: &StreamHeader,
        epoch: u64,
        now: Instant,
    ) -> Result<StreamVerdict, SessionError> {
        if self.lost.is_some() {
            return Ok(StreamVerdict::Cut);
        }
        let id = header.id;
        let heard = Facts { open: header.open.clone(), ..Facts::default() };
        self.hear_pipe(id, heard, epoch, now)?;
        let Some(pipe) = self.pipes.get_mut(&id) else { return Ok(StreamVerdict::Cut) };
        let LocalEnd::Read(end) = &mut pipe.end else { return Ok(StreamVerdict::Cut) };
        if pipe.facts.is_terminal() {
            return Ok(StreamVerdict::Broken);
        }
        let attempt = Attempt { epoch, number: header.attempt };
        match end.begin(&pipe.facts, attempt, header.offset) {
            Ok(true) => Ok(StreamVerdict::Read),
            Ok(false) => Ok(StreamVerdict::Cut),
            Err(contradiction) => {
                self.contradict(id, contradiction);
                Ok(StreamVerdict::Cut)
            }
        }
    }

    /// Whether a newer stream carries the pipe than `attempt`, or none is wanted.
    pub fn is_stale(&self, id: PipeId, attempt: Attempt) -> bool {
        match self.pipes.get(&id) {
            Some(Pipe { end: LocalEnd::Read(end), .. }) => !end.is_current(attempt),
            _ => true,
        }
    }

    /// Bytes up to the offset `upto` of the pipe have come on the stream `attempt`, in order from
    /// where it began.
    pub fn received(&mut self, id: PipeId, attempt: Attempt, upto: u64) -> Taken {
        let Some(Pipe { end: LocalEnd::Read(end), facts, .. }) = self.pipes.get_mut(&id) else {
            return Taken { received: 0, verdict: StreamVerdict::Cut };
        };
        let before = end.received;
        if facts.is_terminal() {
            return Taken { received: before, verdict: StreamVerdict::Broken };
        }
        if !end.is_current(attempt) {
            return Taken { received: before, verdict: StreamVerdict::Cut };
        }
        match end.receive(facts, upto) {
            Ok(taken) => {
                let received = end.received;
                let is_whole = taken >= upto;
                self.announce(id);
                let verdict = if is_whole { StreamVerdict::Read } else { StreamVerdict::Cut };
                Taken { received, verdict }
            }
            Err(contradiction) => {
                self.contradict(id, contradiction);
                Taken { received: before, verdict: StreamVerdict::Cut }
            }
        }
    }

    /// The stream `attempt` ended with the trailer `end`. [`Session::received`] was told before of
    /// all the bytes that came ahead of it.
    pub fn trailer(&mut self, id: PipeId, attempt: Attempt, end: End) -> StreamVerdict {
        let heard = Facts { end: Some(end), ..Facts::default() };
        let Some(pipe) = self.pipes.get_mut(&id) else { return StreamVerdict::Cut };
        if let Err(contradiction) = pipe.hear(&heard) {
            self.contradict(id, contradiction);
            return StreamVerdict::Cut;
        }
        let LocalEnd::Read(read) = &pipe.end else { return StreamVerdict::Cut };
        let is_short = read.is_current(attempt) && read.received < end.length;
        if is_short && !pipe.facts.is_terminal() {
            self.close_short(id, end);
            return StreamVerdict::Cut;
        }
        self.look_at_end(id);
        self.announce(id);
        StreamVerdict::Read
    }

    /// The stream `attempt` ended without a trailer, whatever QUIC says of it: another is asked for,
    /// if there is need of one.
    pub fn stream_cut(&mut self, id: PipeId, attempt: Attempt) {
        let Some(Pipe { end: LocalEnd::Read(end), facts, .. }) = self.pipes.get_mut(&id) else {
            return;
        };
        // Of an older connection: the newer one was asked for a stream when it was adopted.
        let is_current = end.is_current(attempt) && attempt.epoch == self.epoch;
        let is_whole = facts.end.is_some_and(|e| e.length <= end.received);
        if is_current && !is_whole && !facts.is_terminal() {
            end.ask(facts, self.epoch);
            self.mark(id, Kinds::HELD);
        }
    }

    /// The stream is over and bytes are missing: they never come.
    fn close_short(&mut self, id: PipeId, end: End) {
        let short = Contradiction("a stream shorter than its trailer says");
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        if end.kind != EndKind::Eof {
            self.contradict(id, short);
            return;
        }
        pipe.fail(Cause::Corrupt);
        self.events.push_back(Event::Contradiction(id, short));
        self.state_closed(id, ClosedKind::Corrupt);
    }
}
