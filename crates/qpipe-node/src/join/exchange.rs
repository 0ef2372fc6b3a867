//! The books of a named pipe: what several writers wrote, who of several readers has it, and what of
//! it was consumed. No I/O.
//!
//! Bytes go round in pieces, each of one writer; a piece is given to one reader. Until a reader has
//! consumed a piece the books keep it, so that what a reader leaves behind goes to the next one. The
//! bytes are shared with whoever sends them, not copied.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, Bytes};
use qpipe::Cause;

/// Bytes that may wait for a reader before no more are taken from writers, unless the pipe has a
/// capacity of its own.
pub(super) const QUEUE_BYTES_MAX: usize = 512 * 1024;

/// What is taken from a writer at once, in bytes: where there are few of them, and else, since each may
/// come with one. No less than a kernel pipe holds, so that no write of a program is cut in two.
const PIECE_BYTES_MAX: usize = 256 * 1024;
const SMALL_PIECE_BYTES_MAX: usize = 64 * 1024;

/// So many writers are few.
const FEW_WRITERS: usize = 16;

/// Pieces that a reader may have and not have consumed.
const GIVEN_MAX: usize = 4_096;

/// A writer or a reader of the pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number(u64);

#[derive(Debug, Default)]
pub(super) struct Exchange {
    next: u64,
    capacity: Capacity,
    /// What waits for a reader, in order.
    queue: VecDeque<Piece>,
    queued: usize,
    writers: BTreeMap<Number, Writer>,
    /// What each reader has and has not consumed, in order.
    readers: BTreeMap<Number, VecDeque<Piece>>,
    /// The writer that has put only a part of what is to stay together.
    midway: Option<Number>,
    /// Whether a reader has come to its end, or left.
    is_served: bool,
    /// No writer comes any more: when the queue is empty, readers are told the end.
    is_closed: bool,
    /// Why the end is none of a whole content: a writer aborted.
    aborted: Option<Cause>,
    /// Why no reader is left, and none comes any more.
    broken: Option<Cause>,
    /// Why the reader left that left last.
    left: Option<Cause>,
    /// The largest window of a reader's way.
    window: u64,
}

/// Bytes that may wait for a reader before no more are taken from writers.
#[derive(Debug)]
struct Capacity(usize);

/// A part of what one writer wrote.
#[derive(Clone, Debug)]
struct Piece {
    writer: Number,
    /// Its offset in what that writer wrote.
    start: u64,
    bytes: Bytes,
}

#[derive(Debug, Default)]
struct Writer {
    taken: u64,
    /// Bytes 0.. of it that are consumed.
    consumed: u64,
    /// What is consumed beyond those, from offset to offset, with a gap between any two: no more than
    /// pieces that readers have.
    beyond: BTreeMap<u64, u64>,
    has_ended: bool,
    /// It is unknown whether a reader that was lost consumed some of it.
    doubt: Option<Cause>,
}

/// What a reader gets next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Bytes(Bytes),
    /// Nothing more comes: EOF, or a writer aborted.
    End(Result<(), Cause>),
}

/// What became of what a writer wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All of it is consumed.
    Complete,
    /// No reader is left.
    Broken(Cause),
    /// A reader that had some of it was lost.
    Failed(Cause),
}

impl Exchange {
    /// The books of a pipe in which so many bytes may wait for a reader before no more are taken from
    /// writers.
    pub(super) fn with_capacity(bytes: usize) -> Exchange {
        Exchange { capacity: Capacity(bytes), ..Exchange::default() }
    }

    pub(super) fn capacity_bytes(&self) -> usize {
        self.capacity.0
    }

    pub(super) fn add_writer(&mut self) -> Number {
        let number = self.number();
        self.writers.insert(number, Writer::default());
        number
    }

    /// A writer's next piece is to be the next of all: a part of it is read already.
    pub(super) fn go_on(&mut self, writer: Number) {
        self.midway = Some(writer);
    }

    pub(super) fn add_reader(&mut self) -> Number {
        let number = self.number();
        self.readers.insert(number, VecDeque::new());
        number
    }

    /// How many writers have not ended.
    pub(super) fn open_writers(&self) -> usize {
        self.writers.values().filter(|writer| !writer.has_ended).count()
    }

    pub(super) fn readers(&self) -> usize {
        self.readers.len()
    }

    /// How much more is to be taken from this writer at once, in bytes, if any.
    pub(super) fn wants(&self, writer: Number) -> Option<usize> {
        let is_its_turn = self.midway.is_none_or(|midway| midway == writer);
        let wants = is_its_turn && !self.readers.is_empty() && self.queued < self.capacity.0;
        let piece =
            if self.writers.len() > FEW_WRITERS { SMALL_PIECE_BYTES_MAX } else { PIECE_BYTES_MAX };
        wants.then_some(piece.min(self.capacity.0.max(SMALL_PIECE_BYTES_MAX)))
    }

    /// Takes a piece from a writer, unless another one is amid a write. One that is not whole goes on
    /// with the writer's next: no other writer's bytes come in between. Whether it is taken.
    pub(super) fn put(&mut self, number: Number, bytes: &Bytes, is_whole: bool) -> bool {
        let Some(writer) = self.writers.get_mut(&number) else { return true };
        if self.midway.is_some_and(|midway| midway != number) {
            return false;
        }
        let bytes = bytes.clone();
        self.midway = (!is_whole).then_some(number);
        let start = writer.taken;
        writer.taken += bytes.len() as u64;
        self.queued += bytes.len();
        self.queue.push_back(Piece { writer: number, start, bytes });
        true
    }

    /// A writer has written everything, or aborts with a cause.
    pub(super) fn end(&mut self, number: Number, aborted: Option<Cause>) {
        if let Some(writer) = self.writers.get_mut(&number) {
            writer.has_ended = true;
            self.aborted = self.aborted.or(aborted);
        }
        self.midway = self.midway.filter(|midway| *midway != number);
    }

    /// A writer has heard its verdict.
    pub(super) fn forget(&mut self, number: Number) {
        self.end(number, None);
        self.writers.remove(&number);
    }

    /// No writer comes any more.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    /// No reader comes any more, and none is left.
    pub(super) fn break_off(&mut self) {
        self.broken = self.broken.or(self.left).or(Some(Cause::ReaderClosed));
        self.queue.clear();
        self.queued = 0;
    }

    /// What a reader gets now, if there is something.
    pub(super) fn next(&mut self, reader: Number) -> Option<Next> {
        if self.readers.get(&reader)?.len() >= GIVEN_MAX {
            return None;
        }
        if let Some(bytes) = self.next_piece(reader) {
            return Some(Next::Bytes(bytes));
        }
        // What another one leaves behind would come here.
        let others = self.readers.iter().filter(|(number, _)| **number != reader);
        let is_over = self.is_closed && others.into_iter().all(|(_, given)| given.is_empty());
        is_over.then(|| Next::End(self.aborted.map_or(Ok(()), Err)))
    }

    /// The piece that a reader gets now, if one waits for it.
    pub(super) fn next_piece(&mut self, reader: Number) -> Option<Bytes> {
        let given = self.readers.get_mut(&reader).filter(|given| given.len() < GIVEN_MAX)?;
        let piece = self.queue.pop_front()?;
        self.queued -= piece.bytes.len();
        let bytes = piece.bytes.clone();
        given.push_back(piece);
        Some(bytes)
    }

    /// A reader has consumed `bytes` more of what it got.
    pub(super) fn consumed(&mut self, reader: Number, mut bytes: u64) {
        let Some(given) = self.readers.get_mut(&reader) else { return };
        while bytes > 0
            && let Some(piece) = given.front_mut()
        {
            let part = bytes.min(piece.bytes.len() as u64);
            if let Some(writer) = self.writers.get_mut(&piece.writer) {
                writer.consumed(piece.start, part);
            }
            bytes -= part;
            piece.start += part;
            piece.bytes.advance(part as usize);
            if piece.bytes.is_empty() {
                given.pop_front();
            }
        }
    }

    /// A reader has come to its end.
    pub(super) fn finish(&mut self, reader: Number) {
        if self.readers.remove(&reader).is_some() {
            self.is_served = true;
        }
    }

    /// A reader leaves: what it has not consumed goes to the next one.
    pub(super) fn leave(&mut self, reader: Number, cause: Cause) {
        let Some(given) = self.readers.remove(&reader) else { return };
        self.left = Some(cause);
        self.is_served = true;
        for piece in given.into_iter().rev() {
            self.queued += piece.bytes.len();
            self.queue.push_front(piece);
        }
    }

    /// A reader is lost: nobody knows whether it consumed what it got last, so nobody else gets that,
    /// and its writers fail.
    pub(super) fn lose(&mut self, reader: Number, cause: Cause) {
        let Some(given) = self.readers.remove(&reader) else { return };
        self.left = Some(cause);
        self.is_served = true;
        for piece in given {
            if let Some(writer) = self.writers.get_mut(&piece.writer) {
                writer.doubt = writer.doubt.or(Some(cause));
            }
        }
    }

    /// What a reader said it consumed turns out not to be where it had to be: writers that wait for
    /// their verdict fail.
    pub(super) fn spoil(&mut self, reader: Number, cause: Cause) {
        self.finish(reader);
        for writer in self.writers.values_mut() {
            writer.doubt = writer.doubt.or(Some(cause));
        }
    }

    /// Bytes 0.. of a writer that are consumed.
    pub(super) fn consumed_of(&self, writer: Number) -> u64 {
        self.writers.get(&writer).map_or(0, |writer| writer.consumed)
    }

    /// What became of what a writer wrote, once that is known.
    pub(super) fn verdict(&self, number: Number) -> Option<Verdict> {
        let Some(writer) = self.writers.get(&number) else { return Some(Verdict::Complete) };
        if let Some(cause) = writer.doubt {
            return Some(Verdict::Failed(cause));
        }
        // Of an empty pipe, too, somebody is to have read the end. While others write there is none.
        let is_read = self.is_served || self.open_writers() > 0;
        if writer.has_ended && writer.consumed == writer.taken && is_read {
            return Some(Verdict::Complete);
        }
        self.broken.map(Verdict::Broken)
    }

    /// A reader's way has a window of so many bytes.
    pub(super) fn widen(&mut self, window: u64) {
        self.window = self.window.max(window);
    }

    /// How far beyond what is consumed a writer is to be let go, in bytes, so that it holds what is
    /// under way to it and to the readers; a reader that stops keeps back what it has, and not what
    /// others could read.
    pub(super) fn window_of(&self, number: Number) -> u64 {
        let kept = self.writers.get(&number).map_or(0, |writer| writer.taken - writer.consumed);
        let kept = if self.readers.len() > 1 { kept } else { 0 };
        kept.saturating_add(self.window.saturating_mul(2))
    }

    fn number(&mut self) -> Number {
        self.next += 1;
        Number(self.next)
    }
}

impl Default for Capacity {
    fn default() -> Capacity {
        Capacity(QUEUE_BYTES_MAX)
    }
}

impl Writer {
    fn consumed(&mut self, start: u64, bytes: u64) {
        let (mut start, mut end) = (start, start + bytes);
        if let Some(next) = self.beyond.remove(&end) {
            end = next;
        }
        if let Some((&before, _)) =
            self.beyond.range(..start).last().filter(|(_, to)| **to == start)
        {
            self.beyond.remove(&before);
            start = before;
        }
        if start == self.consumed {
            self.consumed = end;
        } else {
            self.beyond.insert(start, end);
        }
    }
}

#[cfg(test)]
mod tests;
