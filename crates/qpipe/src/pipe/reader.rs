//! The read end of a pipe.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use qpipe_proto::{Cause, PipeId};
use tokio::io::{AsyncRead, ReadBuf};

use super::{Opened, ReaderWatch, ending, opened, over, wait};
use crate::clock;
use crate::error::PipeError;
use crate::link::{Link, State};
use crate::session::Session;

/// The read end of a pipe.
///
/// EOF is given only after every byte that the writer wrote, with the right checksum; a writer that
/// ended in any other way is an error, after the bytes that came through. Dropping the reader breaks
/// the pipe: its writer's writes fail with EPIPE.
///
/// What [`AsyncRead`] hands over is consumed. [`PipeReader::read_chunk`] leaves it to the caller to
/// say so, with [`PipeReader::consume`], once the bytes are where they have to be.
pub struct PipeReader {
    link: Arc<Link>,
    id: PipeId,
    taken: u64,
    consumed: u64,
    holds_eof: bool,
    /// Whether what was taken are whole chunks.
    is_whole: bool,
}

impl PipeReader {
    pub(crate) fn new(link: Arc<Link>, id: PipeId) -> PipeReader {
        PipeReader { link, id, taken: 0, consumed: 0, holds_eof: false, is_whole: true }
    }

    /// The next bytes, at most `max`; `None` is EOF. They are not consumed by this: see
    /// [`PipeReader::consume`].
    ///
    /// # Errors
    /// The pipe ended without EOF ([`PipeError`]).
    ///
    /// # Cancel safety
    /// Cancel safe: bytes are either returned or still to be read.
    pub async fn read_chunk(&mut self, max: usize) -> io::Result<Option<Bytes>> {
        poll_fn(|cx| self.poll_chunk(cx, max)).await
    }

    /// As [`PipeReader::read_chunk`], if there are bytes already; `None` also at EOF and when the pipe
    /// is over, which `read_chunk` tells.
    pub fn ready_chunk(&mut self, max: usize) -> Option<Bytes> {
        match self.poll_chunk(&mut Context::from_waker(Waker::noop()), max) {
            Poll::Ready(Ok(chunk)) => chunk,
            _ => None,
        }
    }

    /// As [`PipeReader::read_chunk`]; tells as well whether what was read so far are whole chunks as the
    /// writer's node sent them, behind which no write of up to `PIPE_BUF` bytes goes on. `whole` begins
    /// no other: it waits until a chunk is here to its end. For relays with several writers.
    ///
    /// # Errors
    /// As [`PipeReader::read_chunk`].
    ///
    /// # Cancel safety
    /// As [`PipeReader::read_chunk`].
    pub async fn read_part(
        &mut self,
        max: usize,
        whole: bool,
    ) -> io::Result<Option<(Bytes, bool)>> {
        let piece = poll_fn(|cx| self.poll_piece(cx, max, whole && self.is_whole)).await?;
        Ok(piece.map(|piece| (piece, self.is_whole)))
    }

    /// How many bytes may be written and not consumed, from now on, at least 4,096: see
    /// [`OpenOptions::capacity`](crate::OpenOptions::capacity). What the writer may send already is
    /// not taken back.
    pub fn set_capacity(&self, bytes: u64) {
        self.link.with(|state| state.session.set_capacity(self.id, bytes));
    }

    /// Says that `bytes` more of those that [`PipeReader::read_chunk`] gave are consumed: handed to
    /// the reading program, or written without error. The writer's `finish` waits for this.
    pub fn consume(&mut self, bytes: u64) {
        self.consumed = (self.consumed + bytes).min(self.taken);
        let consumed = self.consumed;
        self.link.with(|state| {
            let rtt = state.rtt;
            state.session.consume(self.id, consumed, clock::now(), rtt);
        });
    }

    /// Waits until the other node has accepted the open.
    ///
    /// # Errors
    /// It refused, or the pipe is over for another reason.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn accepted(&self) -> Result<(), PipeError> {
        opened(&self.link, self.id, false, Opened::Accepted).await
    }

    /// Waits until a writer is at the other end, as the open of a FIFO does.
    ///
    /// # Errors
    /// As [`PipeReader::accepted`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn joined(&self) -> Result<(), PipeError> {
        opened(&self.link, self.id, false, Opened::Joined).await
    }

    /// Waits until the pipe is over: EOF, or an error, is what reads will give after the bytes that
    /// are here.
    ///
    /// # Errors
    /// The pipe ended without EOF.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn over(&self) -> Result<(), PipeError> {
        over(&self.link, self.id, false).await
    }

    /// Waits until the writer's node has heard how the pipe ended, or is lost. A process that exits
    /// earlier may leave its writer in doubt. Without a bound of its own.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn settled(&self) {
        poll_fn(|cx| {
            let mut state = self.link.lock();
            if state.session.is_settled(self.id) {
                return Poll::Ready(());
            }
            wait(&mut state, self.id, cx);
            Poll::Pending
        })
        .await
    }

    /// Breaks the pipe with a cause: what the writer hears. Without effect after its end.
    pub fn close(self, cause: Cause) {
        self.stop(cause);
    }

    /// As [`PipeReader::close`], for a reader that is still to be asked whether it is
    /// [settled](PipeReader::settled).
    pub fn stop(&self, cause: Cause) {
        self.link.with(|state| state.session.close_read(self.id, cause));
    }

    /// Bytes handed over.
    pub fn delivered(&self) -> u64 {
        self.taken
    }

    /// From now on EOF does not count as taken by being read: the writer of an empty pipe is told
    /// that it is complete only after [`ReaderWatch::take_eof`]. For a relay, whose reader may not
    /// have come yet.
    pub fn hold_eof(&mut self) {
        self.holds_eof = true;
    }

    /// A handle that looks at this end while it is in use elsewhere.
    pub fn watch(&self) -> ReaderWatch {
        ReaderWatch::new(self.link.clone(), self.id)
    }

    /// XXH3-64 of everything received so far.
    pub fn checksum(&self) -> u64 {
        self.link.lock().readers.get(&self.id).map_or(0, |side| side.checksum())
    }

    /// States that a partner is there: what the opener's `joined` waits for. For nodes that accept
    /// an open before they have a partner for it.
    pub fn join(&self) {
        self.link.with(|state| state.session.join(self.id));
    }

    /// The session that carries the pipe.
    pub fn session(&self) -> Session {
        Session::new(self.link.clone())
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<Option<Bytes>>> {
        let mut state = self.link.lock();
        if let Some(side) = state.readers.get_mut(&self.id)
            && let Some(piece) = side.queue.pop(max.max(1))
        {
            self.taken += piece.len() as u64;
            side.ends.forget(self.taken);
            return Poll::Ready(Ok(Some(piece)));
        }
        self.poll_end(state, cx)
    }

    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        whole: bool,
    ) -> Poll<io::Result<Option<Bytes>>> {
        let mut state = self.link.lock();
        if let Some(side) = state.readers.get_mut(&self.id) {
            let max = max.max(1) as u64;
            let end = side.ends.next(self.taken, max);
            // Beyond the last whole chunk nothing can come any more once the pipe is over.
            let max = match end {
                Some(end) => Some(max.min(end - self.taken)),
                None if whole && ending(&state, self.id, false).is_none() => None,
                None => Some(max),
            };
            let side = state.readers.get_mut(&self.id);
            if let Some(max) = max
                && let Some(piece) = side.and_then(|side| side.queue.pop(max as usize))
            {
                self.taken += piece.len() as u64;
                self.is_whole = end.is_some_and(|end| end <= self.taken)
                    || state.readers.get(&self.id).is_some_and(|side| side.ends.is_end(self.taken));
                return Poll::Ready(Ok(Some(piece)));
            }
        }
        self.poll_end(state, cx)
    }

    /// What comes behind the last byte.
    fn poll_end(
        &self,
        mut state: MutexGuard<'_, State>,
        cx: &Context<'_>,
    ) -> Poll<io::Result<Option<Bytes>>> {
        match ending(&state, self.id, false) {
            Some(Ok(())) => {
                drop(state);
                if !self.holds_eof {
                    self.link.with(|state| state.session.take_eof(self.id));
                }
                Poll::Ready(Ok(None))
            }
            Some(Err(error)) => Poll::Ready(Err(error.into())),
            None => {
                wait(&mut state, self.id, cx);
                Poll::Pending
            }
        }
    }
}

impl AsyncRead for PipeReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let piece = std::task::ready!(self.poll_chunk(cx, buffer.remaining()))?;
        if let Some(piece) = piece {
            buffer.put_slice(&piece);
            self.consume(piece.len() as u64);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        self.link.with(|state| {
            state.session.close_read(self.id, Cause::ReaderClosed);
            state.release_reader(self.id);
        });
    }
}

impl fmt::Debug for PipeReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeReader").field("id", &self.id).field("taken", &self.taken).finish()
    }
}
