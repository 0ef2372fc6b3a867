//! What a link's lock protects of the ends that are read here: bytes until a program takes them.

use std::task::{Context, Waker};

use bytes::{Buf, Bytes};
use qpipe_proto::PipeId;
use qpipe_proto::fact::Attempt;
use qpipe_proto::session::StreamVerdict;

use super::state::{State, Wakers};
use crate::checksum::Checksum;
use crate::chunks::ChunkEnds;
use crate::queue::ByteQueue;

/// A read end's bytes.
#[derive(Default)]
pub(crate) struct ReaderSide {
    /// Received in order, not yet handed to the program.
    pub(crate) queue: ByteQueue,
    /// Where the chunks in it end.
    pub(crate) ends: ChunkEnds,
    /// Of all that was received.
    pub(super) hash: Checksum,
    /// Bytes received, without a gap.
    pub(super) received: u64,
    /// Who waits for the pipe to change.
    pub(crate) waiting: Wakers,
    /// The task that reads the stream, where it waits.
    pub(super) carrier: Option<Waker>,
    /// Whether a program has the end, or an open of it is being judged.
    pub(super) is_held: bool,
}

/// Content as it came on a stream.
#[derive(Default)]
pub(super) struct Content {
    pub(super) pieces: Vec<Bytes>,
    pub(super) bytes: u64,
    /// Where chunks end in it: no more than one for each piece.
    ends: Vec<u64>,
}

impl Content {
    pub(super) fn with_capacity(pieces: usize) -> Content {
        Content { pieces: Vec::with_capacity(pieces), ..Content::default() }
    }

    pub(super) fn push(&mut self, piece: Bytes, ends_chunk: bool) {
        self.bytes += piece.len() as u64;
        self.pieces.push(piece);
        if ends_chunk {
            self.ends.push(self.bytes);
        }
    }
}

impl State {
    /// Makes the side of a pipe whose stream came before anybody was asked about its open. It goes
    /// when the pipe is over, unless it was offered to somebody by then.
    pub(crate) fn expect_side(&mut self, id: PipeId) {
        self.readers.entry(id).or_default();
    }

    /// The program let go of a read end.
    pub(crate) fn release_reader(&mut self, id: PipeId) {
        self.session.release(id);
        if let Some(mut side) = self.readers.remove(&id) {
            side.waiting.wake();
            side.carrier.into_iter().for_each(Waker::wake);
        }
    }

    /// Takes in content of a pipe that came on the stream `attempt`, from the offset `from` on.
    pub(super) fn deliver(
        &mut self,
        id: PipeId,
        attempt: Attempt,
        from: u64,
        content: Content,
    ) -> StreamVerdict {
        let taken = self.session.received(id, attempt, from + content.bytes);
        let Some(side) = self.readers.get_mut(&id) else { return StreamVerdict::Broken };
        let mut at = from;
        for mut piece in content.pieces {
            let end = at + piece.len() as u64;
            let first = side.received.clamp(at, end);
            let last = taken.received.clamp(first, end);
            // What is held already is dropped, and what there is no room for. Mostly that is nothing,
            // and each cut counts references.
            piece.truncate((last - at) as usize);
            if first > at {
                piece.advance((first - at) as usize);
            }
            let fresh = piece;
            if !fresh.is_empty() {
                side.hash.update(&fresh);
                side.received += fresh.len() as u64;
                side.queue.push(fresh);
            }
            at = end;
        }
        // Behind what is held no chunk has ended yet.
        let ends = content.ends.iter().map(|end| from + end);
        ends.filter(|end| *end <= side.received).for_each(|end| side.ends.push(end));
        taken.verdict
    }

    /// How many bytes of a pipe's stream may be out of order: chunks of one byte with headers of
    /// one byte, from where the stream is up to Limit, and header and trailer.
    pub(crate) fn unplaced_max(&self, id: PipeId, position: u64) -> u64 {
        2 * self.session.read_window(id, position) + qpipe_proto::limits::STREAM_OVERHEAD_BYTES
    }

    /// A stream of this pipe begins: an older one, which reads on until now, looks up.
    pub(crate) fn stream_began(&mut self, id: PipeId) -> Option<Waker> {
        self.readers.get_mut(&id)?.carrier.take()
    }

    /// Whether this stream of the pipe need not be read on; if not, `cx` is woken at a change.
    pub(crate) fn is_unwanted(&mut self, id: PipeId, attempt: Attempt, cx: &Context<'_>) -> bool {
        if self.session.is_stale(id, attempt) {
            return true;
        }
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
}

impl ReaderSide {
    /// XXH3-64 of all that was received.
    pub(crate) fn checksum(&self) -> u64 {
        self.hash.value()
    }
}
