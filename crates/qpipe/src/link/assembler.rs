//! Reads a QUIC stream in any order and gives its bytes in order.
//!
//! quinn's ordered reads end the connection after 1,024 gaps, which a fast lossy path reaches;
//! unordered ones do not, and count what is out of order as read, so that a hole does not close the
//! window. They cost more, so a stream is read in order until its first gap.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use quinn::{ReadError, RecvStream, VarInt};

/// What is taken from quinn in one go, in bytes.
const BATCH_BYTES: usize = 256 * 1024;

/// What an out-of-order piece is charged beyond its bytes: its place in the map.
const PIECE_OVERHEAD_BYTES: u64 = 64;

/// Smaller out-of-order pieces are copied, so that they do not pin the datagrams around them.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// A stream, read in any order.
pub(crate) struct Assembler {
    recv: RecvStream,
    pieces: Pieces,
    reads: Reads,
}

/// How quinn is asked for bytes. It lets nobody go back to ordered reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// In order: quinn need not note which bytes came, which costs a look into a tree for each packet.
    Ordered,
    /// As before, and since nothing was there nothing has been read. If the next look finds nothing, while
    /// something woke it, then what came is behind a gap.
    OrderedAndWaiting,
    /// As they come.
    Unordered,
}

/// What reading gave.
#[derive(Debug)]
pub(crate) enum Assembled {
    /// The next bytes of the stream, in order.
    Bytes(Vec<Bytes>),
    /// The stream's FIN, after all its bytes.
    Fin,
}

/// Why a stream cannot be read on.
#[derive(Debug)]
pub(crate) enum ReadFailure {
    /// So many pieces are out of order that their places take more than the bytes may. What a
    /// well-behaved peer sends in tiny packets comes to that if one of the first is lost.
    Crowded,
    /// More is out of order than a well-behaved peer can send.
    Overrun,
    /// quinn's word.
    Quic(ReadError),
}

/// More is out of order than there may be.
#[derive(Debug, PartialEq, Eq)]
enum Excess {
    /// Bytes.
    Bytes,
    /// Pieces.
    Pieces,
}

/// Bytes that are put in order.
#[derive(Default)]
struct Pieces {
    /// Where the next bytes in order begin.
    next: u64,
    out_of_order: BTreeMap<u64, Bytes>,
    /// What those are, in bytes: what they are charged is their places as well.
    held: u64,
    /// What they may be, as it was last asked for.
    held_max: u64,
}

impl Assembler {
    pub(crate) fn new(recv: RecvStream) -> Assembler {
        Assembler { recv, pieces: Pieces::default(), reads: Reads::Ordered }
    }

    /// Reads what is there; holds at most `held_max` bytes that are out of order. It is asked for
    /// where it counts: while this waited, the peer may have been allowed more.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        held_max: impl Fn() -> u64,
    ) -> Poll<Result<Assembled, ReadFailure>> {
        let mut out = Vec::new();
        let mut taken = 0;
        while taken < BATCH_BYTES {
            // A read that is dropped unfinished has taken nothing.
            let is_ordered = self.reads != Reads::Unordered;
            let read = pin!(self.recv.read_chunk(usize::MAX, is_ordered)).poll(cx);
            match read {
                Poll::Pending if !out.is_empty() => break,
                Poll::Pending => match self.reads {
                    Reads::OrderedAndWaiting => self.reads = Reads::Unordered,
                    Reads::Ordered => {
                        self.reads = Reads::OrderedAndWaiting;
                        return Poll::Pending;
                    }
                    Reads::Unordered => return Poll::Pending,
                },
                Poll::Ready(Ok(Some(chunk))) => {
                    if is_ordered {
                        self.reads = Reads::Ordered;
                    }
                    taken += chunk.bytes.len();
                    match self.pieces.place(chunk.offset, chunk.bytes, &held_max, &mut out) {
                        Ok(()) => {}
                        Err(Excess::Bytes) => return Poll::Ready(Err(ReadFailure::Overrun)),
                        Err(Excess::Pieces) => return Poll::Ready(Err(ReadFailure::Crowded)),
                    }
                }
                // The end is reported again at the next call.
                Poll::Ready(_) if !out.is_empty() => break,
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(Assembled::Fin)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(ReadFailure::Quic(error))),
            }
        }
        if out.is_empty() {
            // All of a full batch was out of order: come back for more.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(Assembled::Bytes(out)))
    }

    /// Waits for the next bytes.
    ///
    /// # Cancel safety
    /// Bytes are either returned or still to be read.
    pub(crate) async fn read(&mut self, held_max: u64) -> Result<Assembled, ReadFailure> {
        std::future::poll_fn(|cx| self.poll_read(cx, || held_max)).await
    }

    /// Tells the peer to send no more.
    pub(crate) fn stop(&mut self, code: VarInt) {
        // An error says that the stream is over, which is what is wanted.
        let _ = self.recv.stop(code);
    }
}

impl Pieces {
    /// Takes in a piece, which overlaps no other, and gives what is in order now.
    ///
    /// # Errors
    /// More is out of order than there may be.
    fn place(
        &mut self,
        offset: u64,
        bytes: Bytes,
        held_max: impl Fn() -> u64,
        out: &mut Vec<Bytes>,
    ) -> Result<(), Excess> {
        if offset != self.next {
            self.held += bytes.len() as u64;
            let bytes =
                if bytes.len() < COPY_BYTES_MAX { Bytes::copy_from_slice(&bytes) } else { bytes };
            self.out_of_order.insert(offset, bytes);
            if self.charged() > self.held_max {
                self.held_max = held_max();
            }
            return match (self.held > self.held_max, self.charged() > self.held_max) {
                (true, _) => Err(Excess::Bytes),
                (false, true) => Err(Excess::Pieces),
                (false, false) => Ok(()),
            };
        }
        self.next += bytes.len() as u64;
        out.push(bytes);
        while let Some(entry) = self.out_of_order.first_entry()
            && *entry.key() == self.next
        {
            let bytes = entry.remove();
            self.held -= bytes.len() as u64;
            self.next += bytes.len() as u64;
            out.push(bytes);
        }
        Ok(())
    }

    /// What the pieces out of order are charged, in bytes.
    fn charged(&self) -> u64 {
        self.held + self.out_of_order.len() as u64 * PIECE_OVERHEAD_BYTES
    }
}

#[cfg(test)]
mod tests;
