//! One session at its node: the protocol core, and the bytes of its pipes' local ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use qpipe_proto::contact::Contact;
use qpipe_proto::fact::{Attempt, EndKind, Open, Opener};
use qpipe_proto::hello::{Instance, SessionId};
use qpipe_proto::limits::{KEPT_BYTES_MAX, PIPE_BUF};
use qpipe_proto::session::{Event, StreamVerdict};
use qpipe_proto::{Cause, PipeId, ReadOutcome, Session, WriteOutcome};
use quinn_proto::StreamId;
use xxhash_rust::xxh3::Xxh3;

use super::carrier::CarrierId;
use crate::clock::{self, Time};
use crate::planted::Planted;

/// A session at one node.
pub(super) struct Shared {
    pub(super) id: SessionId,
    pub(super) session: Session,
    pub(super) contact: Contact,
    /// The host that dialled its first connection.
    pub(super) dialled_by: usize,
    /// The run of the peer's node that it is shared with.
    pub(super) peer: Instance,
    pub(super) adopted: Option<CarrierId>,
    pub(super) rtt: Duration,
    pub(super) writers: BTreeMap<PipeId, WriterSide>,
    pub(super) readers: BTreeMap<PipeId, ReaderSide>,
    /// Pipes that may have something to send.
    pub(super) changed: BTreeSet<PipeId>,
    /// Groups that wait for an answer.
    pub(super) incoming: Vec<Vec<(PipeId, Open)>>,
    /// What an honest peer is said to have done.
    pub(super) contradictions: Vec<String>,
    /// More than one connection has carried it.
    pub(super) is_resumed: bool,
    pub(super) is_finished: bool,
    pub(super) is_over: bool,
    /// Memory that it reserved when it began, in bytes.
    pub(super) reserved: u64,
}

/// A write end's bytes.
#[derive(Default)]
pub(super) struct WriterSide {
    /// What was written and is not known to be consumed.
    replay: VecDeque<u8>,
    /// The offset of its first byte.
    base: u64,
    pub(super) written: u64,
    hash: Xxh3,
    pub(super) stream: Option<Outbound>,
    is_released: bool,
}

/// The stream that carries a write end's bytes.
pub(super) struct Outbound {
    pub(super) carrier: CarrierId,
    /// Not there yet while the peer allows no more streams.
    pub(super) stream: Option<StreamId>,
    pub(super) attempt: Attempt,
    /// The offset of what is handed to QUIC next.
    pub(super) next: u64,
    pub(super) pieces: Vec<Bytes>,
    pub(super) is_finished: bool,
}

/// A read end's bytes.
#[derive(Default)]
pub(super) struct ReaderSide {
    queue: VecDeque<Bytes>,
    hash: Xxh3,
    pub(super) received: u64,
    /// Handed to the program.
    taken: u64,
    is_held: bool,
}

impl WriterSide {
    /// Bytes `from..from + length`, as far as they are here.
    pub(super) fn copy(&self, from: u64, length: usize) -> Bytes {
        let start = from.saturating_sub(self.base).min(self.replay.len() as u64) as usize;
        self.replay.iter().skip(start).take(length).copied().collect()
    }

    /// Forgets what lies before `upto`.
    pub(super) fn trim(&mut self, upto: u64) {
        let count = upto.saturating_sub(self.base).min(self.replay.len() as u64);
        self.replay.drain(..count as usize);
        self.base += count;
    }
}

/// Whether the reader of this pipe keeps the last byte back: every other one of each side's.
fn keeps_last(id: PipeId) -> bool {
    id.number() & 4 != 0
}

impl Shared {
    pub(super) fn new(
        id: SessionId,
        session: Session,
        contact: Contact,
        dialled_by: usize,
        peer: Instance,
        adopted: CarrierId,
    ) -> Shared {
        Shared {
            id,
            session,
            contact,
            dialled_by,
            peer,
            adopted: Some(adopted),
            rtt: Duration::from_millis(100),
            writers: BTreeMap::new(),
            readers: BTreeMap::new(),
            changed: BTreeSet::new(),
            incoming: Vec::new(),
            contradictions: Vec::new(),
            is_resumed: false,
            is_finished: false,
            is_over: false,
            reserved: 0,
        }
    }

    /// Makes the local side of a pipe that a program will hold.
    pub(super) fn add_side(&mut self, id: PipeId, writes: bool) {
        if writes {
            self.writers.entry(id).or_default();
        } else {
            self.readers.entry(id).or_default().is_held = true;
        }
        self.changed.insert(id);
    }

    /// Takes the session's events.
    pub(super) fn settle(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Changed(id) => self.look(id),
                Event::Contradiction(id, contradiction) => {
                    self.contradictions.push(format!("pipe {id}: {contradiction}"));
                }
                Event::Finished => self.is_finished = true,
                Event::Incoming(members) => {
                    for (id, open) in &members {
                        self.add_side(*id, open.opener == Opener::Reader);
                    }
                    self.incoming.push(members);
                }
                Event::OpensAllowed => {}
            }
        }
    }

    fn look(&mut self, id: PipeId) {
        self.changed.insert(id);
        let consumed = self.session.facts(id).map(|facts| facts.consumed_at_least());
        let is_over = self.session.facts(id).is_none_or(|facts| facts.is_terminal());
        if let Some(side) = self.writers.get_mut(&id) {
            side.trim(consumed.unwrap_or(side.written));
            self.forget_writer(id);
        }
        if let Some(side) = self.readers.get_mut(&id) {
            if self.session.wants_checksum(id) {
                let checksum = side.hash.digest();
                self.session.verify(id, checksum);
            }
            if is_over && !side.is_held {
                self.readers.remove(&id);
            }
        }
    }

    fn forget_writer(&mut self, id: PipeId) {
        let is_over = self.session.facts(id).is_none_or(|facts| facts.is_terminal());
        if let Some(side) = self.writers.get(&id)
            && is_over
            && side.is_released
            && side.stream.is_none()
        {
            self.writers.remove(&id);
        }
    }

    /// Takes in content that came on `attempt`, which begins at `at` of the pipe.
    pub(super) fn deliver(
        &mut self,
        id: PipeId,
        attempt: Attempt,
        at: u64,
        mut bytes: Bytes,
        planted: Option<Planted>,
    ) -> StreamVerdict {
        let upto = at + bytes.len() as u64;
        let taken = self.session.received(id, attempt, upto);
        let Some(side) = self.readers.get_mut(&id) else { return StreamVerdict::Broken };
        let before = if planted == Some(Planted::DeliversTwice) { at } else { side.received };
        if taken.received > before && taken.verdict != StreamVerdict::Broken {
            bytes.truncate((taken.received.min(upto) - at.min(taken.received)) as usize);
            let fresh = bytes.split_off(((before - at.min(before)) as usize).min(bytes.len()));
            side.hash.update(&fresh);
            side.received += fresh.len() as u64;
            side.queue.push_back(fresh);
        }
        taken.verdict
    }

    /// How many bytes of a pipe's stream may be out of order.
    pub(super) fn unplaced_max(&self, id: PipeId, at: u64) -> u64 {
        2 * self.session.read_window(id, at) + qpipe_proto::limits::STREAM_OVERHEAD_BYTES
    }

    /// Whether a pipe's stream need not be read on.
    pub(super) fn is_unwanted(&self, id: PipeId, attempt: Attempt) -> bool {
        let is_over = self.session.facts(id).is_none_or(|facts| facts.is_terminal());
        let is_complete = self.session.read_outcome(id) == Some(ReadOutcome::Eof);
        !self.readers.contains_key(&id)
            || (is_over && !is_complete)
            || self.session.is_stale(id, attempt)
    }

    /// A writer's end may have become forgettable.
    pub(super) fn look_again(&mut self, id: PipeId) {
        self.forget_writer(id);
    }

    /// Takes a pipe for ended by its writer where its bytes end: a planted bug.
    pub(super) fn believe_eof(&mut self, id: PipeId, attempt: Option<Attempt>) {
        let Some(side) = self.readers.get(&id) else { return };
        if self.session.facts(id).is_none_or(|facts| facts.end.is_some()) {
            return;
        }
        let (length, checksum) = (side.received, side.hash.digest());
        let end = qpipe_proto::fact::End { kind: EndKind::Eof, length, checksum };
        self.session.trailer(id, attempt.unwrap_or_default(), end);
    }

    /// Takes every pipe that this node reads for ended where its bytes end: a planted bug.
    pub(super) fn end_readers(&mut self) {
        for id in self.readers.keys().copied().collect::<Vec<_>>() {
            self.believe_eof(id, None);
        }
        self.settle();
    }

    /// The session is over: its pipes end with `cause`.
    pub(super) fn lose(&mut self, cause: Cause) {
        if !self.is_over {
            self.is_over = true;
            self.adopted = None;
            self.writers.values_mut().for_each(|side| side.stream = None);
            self.session.lose(cause);
            self.settle();
        }
    }

    /// Whether nobody needs it any more.
    pub(super) fn is_forgettable(&self) -> bool {
        self.is_over && self.writers.is_empty() && self.readers.is_empty()
    }
}

/// What programs do with their ends.
impl Shared {
    /// Writes what of `bytes` there is room for; returns how much that is.
    pub(super) fn write(&mut self, id: PipeId, bytes: &[u8], now: Time) -> usize {
        // Taken whole or not at all, if it is to be atomic.
        let whole = if bytes.len() <= PIPE_BUF as usize { bytes.len() } else { 1 };
        let room = self.session.room(id, bytes.len() as u64) as usize;
        if room < whole {
            return 0;
        }
        if let Some(side) = self.writers.get_mut(&id) {
            side.replay.extend(&bytes[..room]);
            side.hash.update(&bytes[..room]);
            side.written += room as u64;
            self.session.wrote(id, room as u64, clock::instant(now));
            self.changed.insert(id);
        }
        room
    }

    /// Closes a write end.
    pub(super) fn finish(&mut self, id: PipeId) {
        let checksum = self.writers.get(&id).map_or(0, |side| side.hash.digest());
        self.session.finish(id, checksum);
        self.changed.insert(id);
    }

    /// Aborts a write end.
    pub(super) fn abort(&mut self, id: PipeId, cause: Cause, planted: Option<Planted>) {
        if planted == Some(Planted::FinishOnDrop) {
            return self.finish(id);
        }
        self.session.abort(id, cause);
        if planted == Some(Planted::ResetsOnAbort)
            && let Some(side) = self.writers.get_mut(&id)
        {
            side.trim(side.written);
        }
        self.changed.insert(id);
    }

    /// Lets go of a write end.
    pub(super) fn release_writer(&mut self, id: PipeId) {
        self.session.release(id);
        if let Some(side) = self.writers.get_mut(&id) {
            side.is_released = true;
        }
        self.forget_writer(id);
        self.changed.insert(id);
    }

    /// Hands at most `max` bytes to the program, which consumes them at once. Some programs keep back what they
    /// may, until they have come to the end.
    pub(super) fn read(&mut self, id: PipeId, max: usize, now: Time) -> Option<Bytes> {
        let side = self.readers.get_mut(&id)?;
        let mut piece = side.queue.pop_front()?;
        if piece.len() > max {
            side.queue.push_front(piece.split_off(max));
        }
        side.taken += piece.len() as u64;
        let kept = if keeps_last(id) { KEPT_BYTES_MAX } else { 0 };
        let consumed = side.taken.saturating_sub(kept);
        self.session.consume(id, consumed, clock::instant(now), self.rtt);
        self.changed.insert(id);
        Some(piece)
    }

    /// Says that what was received is consumed, though no program has it.
    pub(super) fn consume_early(&mut self, id: PipeId, now: Time) {
        if let Some(side) = self.readers.get(&id) {
            self.session.consume(id, side.received, clock::instant(now), self.rtt);
        }
    }

    /// The reader leaves, or was handed its end.
    pub(super) fn release_reader(&mut self, id: PipeId, cause: Cause) {
        self.session.close_read(id, cause);
        self.session.release(id);
        self.readers.remove(&id);
        self.changed.insert(id);
    }

    /// What became of a write end, and how many bytes were consumed as far as its node heard.
    pub(super) fn write_outcome(&self, id: PipeId) -> (Option<WriteOutcome>, u64) {
        let consumed = self.session.facts(id).map_or(0, |facts| facts.consumed_at_least());
        (self.session.write_outcome(id), consumed)
    }

    /// What the reader is told, once it has all that came.
    pub(super) fn read_outcome(&mut self, id: PipeId, now: Time) -> Option<ReadOutcome> {
        let has_more = self.readers.get(&id).is_some_and(|side| !side.queue.is_empty());
        let outcome = self.session.read_outcome(id).filter(|_| !has_more)?;
        if let Some(side) = self.readers.get(&id) {
            self.session.consume(id, side.taken, clock::instant(now), self.rtt);
        }
        if outcome == ReadOutcome::Eof {
            self.session.take_eof(id);
        }
        Some(outcome)
    }
}
