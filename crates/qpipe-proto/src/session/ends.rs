//! What the local program does with its ends.

use std::time::{Duration, Instant};

use super::{LocalEnd, Pipe, Session};
use crate::cause::Cause;
use crate::fact::{ClosedKind, End, EndKind, Kinds};
use crate::id::PipeId;
use crate::planted::{self, Planted};
use crate::read_end::ReadOutcome;
use crate::write_end::WriteOutcome;

impl Session {
    /// How many of the `wanted` bytes the program may write now.
    pub fn room(&mut self, id: PipeId, wanted: u64) -> u64 {
        match self.pipes.get_mut(&id) {
            Some(Pipe { end: LocalEnd::Write(end), facts, .. }) => end.room(facts, wanted),
            _ => 0,
        }
    }

    /// The program wrote `bytes`: no more than [`Session::room`] said, with no other input in
    /// between.
    pub fn wrote(&mut self, id: PipeId, bytes: u64, now: Instant) {
        if let Some(Pipe { end: LocalEnd::Write(end), facts, .. }) = self.pipes.get_mut(&id) {
            debug_assert!(end.written + bytes <= end.limit(facts));
            end.wrote(bytes, now);
            self.watch_idle(id);
        }
    }

    /// The program closed the write end: states End(eof). Without effect if an End is stated.
    pub fn finish(&mut self, id: PipeId, checksum: u64) {
        self.end(id, EndKind::Eof, checksum);
    }

    /// The write end ends without having been closed: states End(aborted). Without effect if an
    /// End is stated.
    pub fn abort(&mut self, id: PipeId, cause: Cause) {
        self.end(id, EndKind::Aborted(cause), 0);
    }

    /// The pipe's outcome at its write end, once there is one.
    pub fn write_outcome(&self, id: PipeId) -> Option<WriteOutcome> {
        match self.pipes.get(&id) {
            Some(Pipe { end: LocalEnd::Write(end), facts, .. }) => end.outcome(facts),
            _ => None,
        }
    }

    /// The window that the reader's node grants a write end: Limit − consumed, in bytes.
    pub fn write_window(&self, id: PipeId) -> u64 {
        match self.pipes.get(&id) {
            Some(Pipe { end: LocalEnd::Write(end), facts, .. }) => {
                end.limit(facts).saturating_sub(facts.consumed_at_least())
            }
            _ => 0,
        }
    }

    /// The program consumed bytes 0..`consumed` at the read end. `rtt` is the connection's.
    pub fn consume(&mut self, id: PipeId, consumed: u64, now: Instant, rtt: Duration) {
        let Some(Pipe { end: LocalEnd::Read(end), facts, .. }) = self.pipes.get_mut(&id) else {
            return;
        };
        if facts.closed.is_some() {
            return;
        }
        let kinds = end.consume(facts, consumed, now, rtt);
        let tell_at = now + end.consumed_delay(facts, rtt);
        if end.closing(facts).is_some() {
            self.look_at_end(id);
            self.announce(id);
        } else if kinds.is_empty() {
            self.tell_consumed_by(id, tell_at);
        } else {
            self.mark(id, kinds);
        }
        self.look_at_hunger(id);
    }

    /// Whether every byte of the pipe is here, and [`Session::verify`] wants their checksum.
    pub fn wants_checksum(&self, id: PipeId) -> bool {
        match self.pipes.get(&id) {
            Some(Pipe { end: LocalEnd::Read(end), facts, .. }) => end.wants_checksum(facts),
            _ => false,
        }
    }

    /// Compares the XXH3-64 of all bytes received with the one that End states.
    pub fn verify(&mut self, id: PipeId, checksum: u64) {
        let Some(Pipe { end: LocalEnd::Read(end), facts, .. }) = self.pipes.get_mut(&id) else {
            return;
        };
        if !end.wants_checksum(facts) {
            return;
        }
        if end.verify(facts, checksum) {
            self.look_at_end(id);
        } else {
            self.state_closed(id, ClosedKind::Corrupt);
        }
        self.announce(id);
    }

    /// The reader was handed EOF. Only then is an empty pipe complete.
    pub fn take_eof(&mut self, id: PipeId) {
        if let Some(Pipe { end: LocalEnd::Read(end), .. }) = self.pipes.get_mut(&id)
            && end.take_eof()
        {
            self.look_at_end(id);
            self.announce(id);
        }
    }

    /// The reader leaves: states Closed(broken), or Refused if the open was not answered yet.
    /// Without effect if the pipe is over.
    pub fn close_read(&mut self, id: PipeId, cause: Cause) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        let is_over = self.lost.is_some() || pipe.facts.is_terminal();
        if is_over || !matches!(pipe.end, LocalEnd::Read(_)) {
            return;
        }
        self.state_closed(id, ClosedKind::Broken(cause));
    }

    /// Asks for a window of at least `wanted` bytes at a read end, as a relay does whose other leg
    /// has one.
    pub fn widen(&mut self, id: PipeId, wanted: u64) {
        if let Some(Pipe { end: LocalEnd::Read(end), facts, .. }) = self.pipes.get_mut(&id) {
            let kinds = end.widen(facts, wanted);
            self.mark(id, kinds);
        }
    }

    /// What to tell the reader once it was handed every byte that is here.
    pub fn read_outcome(&self, id: PipeId) -> Option<ReadOutcome> {
        match self.pipes.get(&id) {
            Some(Pipe { end: LocalEnd::Read(end), facts, .. }) => end.outcome(facts),
            _ => None,
        }
    }

    fn end(&mut self, id: PipeId, kind: EndKind, checksum: u64) {
        let Some(Pipe { end: LocalEnd::Write(end), facts, .. }) = self.pipes.get_mut(&id) else {
            return;
        };
        if facts.end.is_some() || facts.is_terminal() {
            return;
        }
        let missing = u64::from(planted::has(Planted::EndShort)).min(end.written);
        facts.end = Some(End { kind, length: end.written - missing, checksum });
        self.mark(id, Kinds::END);
        self.announce(id);
    }
}
