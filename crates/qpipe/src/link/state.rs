//! What a link's lock protects: the session, and the bytes of its local ends.

use std::collections::HashMap;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use qpipe_proto::cause::Cause;
use qpipe_proto::fact::{End, Open, OpenTarget, Opener};
use qpipe_proto::limits::CHUNK_BYTES_MAX;
use qpipe_proto::session::{Event, OpenError, StreamVerdict};
use qpipe_proto::{PipeId, Session, WriteOutcome};
use xxhash_rust::xxh3::Xxh3;

use crate::queue::ByteQueue;
use crate::session::SessionEnd;

/// Everything behind a link's lock.
pub(crate) struct State {
    pub(crate) session: Session,
    pub(crate) writers: HashMap<PipeId, WriterSide>,
    pub(crate) readers: HashMap<PipeId, ReaderSide>,
    /// Pipe streams that are being read.
    pub(crate) streams_in: usize,
    /// Those of them that said which pipe they carry.
    pub(crate) streams_begun: usize,
    /// Pipe streams that the peer may have open, as quinn was told.
    pub(crate) slots: u64,
    /// The connection's round trip, as of a moment ago.
    pub(crate) rtt: Duration,
    pub(crate) ended: Option<SessionEnd>,
    /// What the control stream's writer does.
    pub(crate) control: ControlWriter,
}

/// What the task that writes the control stream does, and so whether it has to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ControlWriter {
    /// It sleeps, until a time or until it is woken.
    Asleep(Option<Instant>),
    /// It is about to ask the session for messages and timeouts.
    Awake,
}

/// A write end's bytes.
#[derive(Default)]
pub(crate) struct WriterSide {
    /// Written by the program, not yet given to quinn.
    queue: ByteQueue,
    /// Of all that was written.
    hash: Xxh3,
    /// Who waits for the pipe to change.
    waiting: Wakers,
    /// The task that carries the bytes, where it waits for some.
    carrier: Option<Waker>,
    has_carrier: bool,
    is_released: bool,
}

/// A read end's bytes.
#[derive(Default)]
pub(crate) struct ReaderSide {
    /// Received in order, not yet handed to the program.
    pub(crate) queue: ByteQueue,
    /// Of all that was received.
    hash: Xxh3,
    /// Bytes received, without a gap.
    received: u64,
    /// Who waits for the pipe to change.
    pub(crate) waiting: Wakers,
    /// The task that reads the stream, where it waits.
    carrier: Option<Waker>,
    /// Whether a program has the end, or an open of it is being judged.
    is_held: bool,
}

/// The few tasks that wait for one pipe.
#[derive(Default)]
pub(crate) struct Wakers(Vec<Waker>);

/// What the task that carries a write end's bytes does next.
pub(crate) enum Outgoing {
    /// Send one chunk, of these pieces.
    Chunk(Vec<Bytes>),
    /// Send the trailer.
    End(End),
    /// Nothing more is wanted.
    Over,
}

/// What is to be done after the lock is released.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) has_message: bool,
    pub(crate) opens_allowed: bool,
    pub(crate) finished: bool,
    pub(crate) wakers: Vec<Waker>,
    pub(crate) incoming: Vec<Vec<(PipeId, Open)>>,
}

impl Wakers {
    /// Wakes this task, too, at the next change.
    pub(crate) fn register(&mut self, cx: &Context<'_>) {
        if !self.0.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.0.push(cx.waker().clone());
        }
    }

    fn wake(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

impl State {
    pub(crate) fn new(session: Session, rtt: Duration) -> State {
        State {
            session,
            writers: HashMap::new(),
            readers: HashMap::new(),
            streams_in: 0,
            streams_begun: 0,
            slots: 0,
            rtt,
            ended: None,
            control: ControlWriter::Awake,
        }
    }

    /// Opens a group of pipes, with the local sides of its ends.
    pub(crate) fn open(
        &mut self,
        target: &OpenTarget,
        no_wait: bool,
        openers: &[Opener],
        now: Instant,
    ) -> Result<Vec<PipeId>, OpenError> {
        let ids = self.session.open(target, no_wait, openers, now)?;
        for (id, opener) in ids.iter().zip(openers) {
            self.add_side(*id, *opener == Opener::Writer);
        }
        Ok(ids)
    }

    /// Makes the local side of a pipe, if there is none yet.
    pub(crate) fn add_side(&mut self, id: PipeId, writes: bool) {
        if writes {
            self.writers.entry(id).or_default();
        } else {
            self.readers.entry(id).or_default().is_held = true;
        }
    }

    /// Makes the side of a pipe whose stream came before anybody was asked about its open. It goes
    /// when the pipe is over, unless it was offered to somebody by then.
    pub(crate) fn expect_side(&mut self, id: PipeId) {
        self.readers.entry(id).or_default();
    }

    /// Takes `room` bytes from the program: no more than the session just said there is room for.
    pub(crate) fn write(
        &mut self,
        id: PipeId,
        room: usize,
        now: Instant,
        put: impl FnOnce(&mut ByteQueue, &mut Xxh3, usize),
    ) {
        if let Some(side) = self.writers.get_mut(&id) {
            put(&mut side.queue, &mut side.hash, room);
            self.session.wrote(id, room as u64, now);
        }
    }

    /// Whether a task that carries the bytes is to be started now.
    pub(crate) fn starts_carrier(&mut self, id: PipeId) -> bool {
        self.writers.get_mut(&id).is_some_and(|side| {
            let starts = !side.has_carrier && !side.queue.is_empty();
            side.has_carrier |= starts;
            starts
        })
    }

    /// Wakes the task that carries a write end's bytes.
    pub(crate) fn take_carrier(&mut self, id: PipeId) -> Option<Waker> {
        self.writers.get_mut(&id)?.carrier.take()
    }

    /// The XXH3-64 of all that was written.
    pub(crate) fn checksum_written(&self, id: PipeId) -> u64 {
        self.writers.get(&id).map_or(0, |side| side.hash.digest())
    }

    /// Whether nothing more of a pipe is to be sent; if not, `cx` is woken at its next change.
    pub(crate) fn is_over_for_carrier(&mut self, id: PipeId, cx: &Context<'_>) -> bool {
        let is_over = self.is_unwritable(id);
        if let Some(side) = self.writers.get_mut(&id)
            && !is_over
        {
            side.waiting.register(cx);
            return false;
        }
        true
    }

    /// Whether a write end's pipe ended otherwise than by the reader having everything. One that was
    /// let go of and is settled has no outcome any more: it is over as well.
    fn is_unwritable(&self, id: PipeId) -> bool {
        let outcome = self.session.write_outcome(id);
        self.session.facts(id).is_none()
            || outcome.is_some_and(|o| !matches!(o, WriteOutcome::Complete { .. }))
    }

    /// What to send next; `None` when there is nothing yet, and `cx` is woken when there is.
    pub(crate) fn next_outgoing(&mut self, id: PipeId, cx: &Context<'_>) -> Option<Outgoing> {
        let is_over = self.is_unwritable(id);
        let Some(side) = self.writers.get_mut(&id).filter(|_| !is_over) else {
            return Some(Outgoing::Over);
        };
        let mut pieces = Vec::new();
        let mut room = CHUNK_BYTES_MAX as usize;
        while room > 0
            && let Some(piece) = side.queue.pop(room)
        {
            room -= piece.len();
            pieces.push(piece);
        }
        if !pieces.is_empty() {
            return Some(Outgoing::Chunk(pieces));
        }
        if let Some(end) = self.session.facts(id).and_then(|facts| facts.end) {
            return Some(Outgoing::End(end));
        }
        side.carrier = Some(cx.waker().clone());
        None
    }

    /// The task that carried a write end's bytes has ended.
    pub(crate) fn carried(&mut self, id: PipeId) {
        if let Some(side) = self.writers.get_mut(&id) {
            side.has_carrier = false;
            side.queue.clear();
            self.forget_writer(id);
        }
    }

    /// The program let go of a write end.
    pub(crate) fn release_writer(&mut self, id: PipeId) {
        self.session.release(id);
        if let Some(side) = self.writers.get_mut(&id) {
            side.waiting.wake();
            side.is_released = true;
            self.forget_writer(id);
        }
    }

    /// Forgets a write end that nobody uses and whose pipe is over: until then somebody may look at
    /// it, and waits for that.
    fn forget_writer(&mut self, id: PipeId) {
        let is_over = self.session.facts(id).is_none_or(|facts| facts.is_terminal());
        if let Some(side) = self.writers.get_mut(&id)
            && is_over
            && side.is_released
            && !side.has_carrier
        {
            side.waiting.wake();
            self.writers.remove(&id);
        }
    }

    /// The program let go of a read end.
    pub(crate) fn release_reader(&mut self, id: PipeId) {
        self.session.release(id);
        if let Some(mut side) = self.readers.remove(&id) {
            side.waiting.wake();
            side.carrier.into_iter().for_each(Waker::wake);
        }
    }

    /// Takes in content of a pipe, in order.
    pub(crate) fn deliver(&mut self, id: PipeId, pieces: Vec<Bytes>) -> StreamVerdict {
        let bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        let received = self.readers.get(&id).map_or(0, |side| side.received) + bytes;
        let verdict = self.session.received(id, received);
        let Some(side) = self.readers.get_mut(&id) else { return StreamVerdict::Broken };
        if verdict == StreamVerdict::Read {
            side.received = received;
            for piece in pieces {
                side.hash.update(&piece);
                side.queue.push(piece);
            }
        }
        verdict
    }

    /// How many bytes of a pipe's stream may be out of order: chunks of one byte with headers of
    /// one byte, up to Limit, and header and trailer.
    pub(crate) fn unplaced_max(&self, id: PipeId) -> u64 {
        let received = self.readers.get(&id).map_or(0, |side| side.received);
        2 * self.session.read_window(id, received) + qpipe_proto::limits::STREAM_OVERHEAD_BYTES
    }

    /// Whether the stream of this pipe need not be read on; if not, `cx` is woken at a change.
    pub(crate) fn is_unwanted(&mut self, id: PipeId, cx: &Context<'_>) -> bool {
        let is_over = self.session.facts(id).is_none_or(|facts| facts.is_terminal());
        // A pipe that is complete ends with its stream's trailer, which is on its way. Once its
        // reader is let go, nobody waits for that.
        let is_complete = self.session.read_outcome(id) == Some(qpipe_proto::ReadOutcome::Eof);
        match self.readers.get_mut(&id) {
            Some(side) if !is_over || is_complete => {
                side.carrier = Some(cx.waker().clone());
                false
            }
            _ => true,
        }
    }

    /// Ends every unfinished pipe of this side for `cause`.
    pub(crate) fn abort_all(&mut self, cause: Cause) {
        let writers: Vec<PipeId> = self.writers.keys().copied().collect();
        let readers: Vec<PipeId> = self.readers.keys().copied().collect();
        writers.into_iter().for_each(|id| self.session.abort(id, cause));
        readers.into_iter().for_each(|id| self.session.close_read(id, cause));
    }

    /// Takes the session's events, and gathers what is to be done outside of the lock.
    pub(crate) fn settle(&mut self) -> Effects {
        let mut effects = Effects::default();
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Changed(id) => self.changed(id, &mut effects.wakers),
                Event::Contradiction(id, contradiction) => {
                    tracing::warn!(pipe = %id, %contradiction, "the peer broke the protocol");
                }
                Event::Finished => {
                    self.ended.get_or_insert(SessionEnd::Bye);
                    effects.finished = true;
                }
                Event::Incoming(members) => {
                    for (id, open) in &members {
                        self.add_side(*id, open.opener == Opener::Reader);
                    }
                    effects.incoming.push(members);
                }
                Event::OpensAllowed => effects.opens_allowed = true,
            }
        }
        let is_overslept = match (self.control, self.session.poll_timeout()) {
            (ControlWriter::Asleep(until), Some(at)) => until.is_none_or(|until| at < until),
            _ => false,
        };
        effects.has_message = self.session.has_message() || is_overslept;
        effects
    }

    fn changed(&mut self, id: PipeId, wakers: &mut Vec<Waker>) {
        if let Some(side) = self.writers.get_mut(&id) {
            wakers.append(&mut side.waiting.0);
            wakers.extend(side.carrier.take());
            self.forget_writer(id);
        }
        if let Some(side) = self.readers.get_mut(&id) {
            if self.session.wants_checksum(id) {
                let checksum = side.hash.digest();
                self.session.verify(id, checksum);
            }
            wakers.append(&mut side.waiting.0);
            if self.session.facts(id).is_none_or(|facts| facts.is_terminal()) {
                wakers.extend(side.carrier.take());
                if !side.is_held {
                    self.readers.remove(&id);
                }
            }
        }
    }
}

impl ReaderSide {
    /// XXH3-64 of all that was received.
    pub(crate) fn checksum(&self) -> u64 {
        self.hash.digest()
    }
}

impl WriterSide {
    /// Wakes the task behind `cx` at the pipe's next change.
    pub(crate) fn wait(&mut self, cx: &Context<'_>) {
        self.waiting.register(cx);
    }
}

#[cfg(test)]
mod tests;
