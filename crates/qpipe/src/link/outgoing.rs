//! What a link's lock protects of the ends that are written here: bytes until they are consumed.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

use bytes::Bytes;
use qpipe_proto::fact::{Attempt, End, Priority};
use qpipe_proto::limits::{CHUNK_BYTES_MAX, KEPT_BYTES_MAX};
use qpipe_proto::session::StreamStart;
use qpipe_proto::{PipeId, Session, WriteOutcome};

use super::precedence::Sent;
use super::state::{State, Wakers};
use super::wire::Wire;
use crate::checksum::Checksum;
use crate::clock;
use crate::replay::Replay;

/// A write end's bytes.
#[derive(Default)]
pub(crate) struct WriterSide {
    /// Written by the program, and not consumed.
    pub(super) replay: Replay,
    /// Up to where the stream that carries it now has been given to quinn.
    pub(super) sent: Option<u64>,
    /// Of all that was written.
    pub(super) hash: Checksum,
    /// Who waits for the pipe to change.
    pub(super) waiting: Wakers,
    /// The task that carries the bytes, where it waits for some.
    pub(super) carrier: Option<Waker>,
    /// The same task, until nothing more is wanted on the stream that it carries them on.
    pub(super) watch: Option<(Attempt, Waker)>,
    pub(super) has_carrier: bool,
    pub(super) is_released: bool,
}

/// What the task that carries a write end's bytes does next.
pub(crate) enum Outgoing {
    /// Send one chunk.
    Chunk { pieces: Vec<Bytes>, sent: Sent, priority: Priority },
    /// Send the trailer.
    End(End),
    /// Nothing more is wanted.
    Over,
}

impl State {
    /// Takes `room` bytes from the program: no more than the session just said there is room for.
    pub(crate) fn write(
        &mut self,
        id: PipeId,
        room: usize,
        now: Instant,
        put: impl FnOnce(&mut Replay, &mut Checksum, usize),
    ) {
        if let Some(side) = self.writers.get_mut(&id) {
            put(&mut side.replay, &mut side.hash, room);
            self.session.wrote(id, room as u64, now);
        }
    }

    /// Whether the reader has consumed everything that was written, but what it may keep back.
    pub(crate) fn is_all_consumed(&self, id: PipeId) -> bool {
        let consumed = self.session.facts(id).map_or(0, |facts| facts.consumed_at_least());
        self.writers.get(&id).is_none_or(|side| side.replay.end() <= consumed + KEPT_BYTES_MAX)
    }

    /// Whether a task that carries the bytes is to be started now.
    pub(crate) fn starts_carrier(&mut self, id: PipeId) -> bool {
        let is_due = self.wire.is_some() && self.session.wants_stream(id);
        let starts = self.writers.get_mut(&id).is_some_and(|side| {
            let starts = is_due && !side.has_carrier;
            side.has_carrier |= starts;
            starts
        });
        if starts {
            self.session.goes_in_band(id, clock::now());
        }
        starts
    }

    /// The stream that the task that carries a write end's bytes is to open now, and where. If there
    /// is none, the task has to end: it no longer counts.
    pub(crate) fn next_stream(&mut self, id: PipeId) -> Option<(Arc<Wire>, StreamStart)> {
        let wire = self.wire.clone();
        let start = wire.and_then(|wire| Some((wire, self.session.next_stream(id)?)));
        if let Some(side) = self.writers.get_mut(&id) {
            side.sent = start.as_ref().map(|(_, start)| start.offset);
            side.has_carrier = start.is_some();
        }
        if start.is_none() {
            self.look_at_writer(id);
        }
        start
    }

    /// Wakes the task that carries a write end's bytes.
    pub(crate) fn take_carrier(&mut self, id: PipeId) -> Option<Waker> {
        self.writers.get_mut(&id)?.carrier.take()
    }

    /// The XXH3-64 of all that was written.
    pub(crate) fn checksum_written(&self, id: PipeId) -> u64 {
        self.writers.get(&id).map_or(0, |side| side.hash.value())
    }

    /// Whether nothing more of a pipe is to be sent on this stream; if not, `cx` is woken when that
    /// is so.
    pub(crate) fn is_over_for_carrier(
        &mut self,
        id: PipeId,
        attempt: Attempt,
        cx: &Context<'_>,
    ) -> bool {
        let is_over = is_stream_over(&self.session, id, attempt);
        if let Some(side) = self.writers.get_mut(&id)
            && !is_over
        {
            match &mut side.watch {
                // Mostly it is the same one, which is not counted again.
                Some((watched, carrier)) => {
                    *watched = attempt;
                    carrier.clone_from(cx.waker());
                }
                watch => *watch = Some((attempt, cx.waker().clone())),
            }
            return false;
        }
        true
    }

    /// What to send next; `None` when there is nothing yet, and `cx` is woken when there is.
    pub(crate) fn next_outgoing(
        &mut self,
        id: PipeId,
        attempt: Attempt,
        cx: &Context<'_>,
    ) -> Option<Outgoing> {
        let is_over = is_stream_over(&self.session, id, attempt);
        let Some(side) = self.writers.get_mut(&id).filter(|_| !is_over) else {
            return Some(Outgoing::Over);
        };
        let start = side.sent.unwrap_or(0);
        let pieces = side.replay.read(start, CHUNK_BYTES_MAX as usize);
        if !pieces.is_empty() {
            let bytes = pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
            side.sent = Some(start + bytes);
            let consumed = self.session.facts(id).map_or(0, |facts| facts.consumed_at_least());
            let under_way = (start + bytes).saturating_sub(consumed);
            let sent = Sent { bytes, under_way, window: self.session.write_window(id) };
            let priority = self.session.priority(id);
            return Some(Outgoing::Chunk { pieces, sent, priority });
        }
        if let Some(end) = self.session.facts(id).and_then(|facts| facts.end) {
            return Some(Outgoing::End(end));
        }
        side.carrier = Some(cx.waker().clone());
        None
    }

    /// Lets go of what the reader consumed, and of everything once the pipe is over.
    pub(super) fn look_at_writer(&mut self, id: PipeId) {
        let is_over = self.session.write_outcome(id).is_some();
        let consumed = self.session.facts(id).map_or(0, |facts| facts.consumed_at_least());
        if let Some(side) = self.writers.get_mut(&id) {
            match side.sent.filter(|_| side.has_carrier) {
                _ if is_over => side.replay.clear(),
                // What an older stream brought late may be consumed before this one has sent it.
                Some(sent) => side.replay.trim(consumed.min(sent)),
                None => side.replay.trim(consumed),
            }
            self.forget_writer(id);
        }
    }

    /// The program let go of a write end.
    pub(crate) fn release_writer(&mut self, id: PipeId) {
        self.session.release(id);
        if let Some(side) = self.writers.get_mut(&id) {
            side.wake_all();
            side.is_released = true;
            self.forget_writer(id);
        }
    }

    /// Forgets a write end that nobody uses and whose pipe is over: until then somebody may look at
    /// it, and waits for that.
    pub(super) fn forget_writer(&mut self, id: PipeId) {
        let is_over = self.session.facts(id).is_none_or(|facts| facts.is_terminal());
        if let Some(side) = self.writers.get_mut(&id)
            && is_over
            && side.is_released
            && !side.has_carrier
        {
            side.wake_all();
            self.writers.remove(&id);
        }
    }
}

impl WriterSide {
    /// Wakes the task behind `cx` at the pipe's next change.
    pub(crate) fn wait(&mut self, cx: &Context<'_>) {
        self.waiting.register(cx);
    }

    fn wake_all(&mut self) {
        self.waiting.wake();
        self.watch.take().into_iter().for_each(|(_, carrier)| carrier.wake());
    }
}

/// Whether nothing more of a pipe is to be sent on this stream: another one carries it now, or the pipe
/// ended otherwise than by the reader having everything. One that was let go of and is settled has no
/// outcome any more: it is over as well.
pub(super) fn is_stream_over(session: &Session, id: PipeId, attempt: Attempt) -> bool {
    let outcome = session.write_outcome(id);
    session.facts(id).is_none()
        || outcome.is_some_and(|o| !matches!(o, WriteOutcome::Complete { .. }))
        || session.is_superseded(id, attempt)
}
