//! The write end of a pipe.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use qpipe_proto::fact::{EndKind, Priority};
use qpipe_proto::limits::{CHUNK_BYTES_MAX, PIPE_BUF};
use qpipe_proto::{Cause, PipeId};
use tokio::io::AsyncWrite;

use super::{Opened, WriterWatch, opened, over, wait};
use crate::clock;
use crate::error::PipeError;
use crate::link::{Link, State, carry_out};
use crate::session::Session;

/// What [`PipeWriter::write_chunk`] does not cut without need, in bytes: what a kernel pipe holds.
pub const WHOLE_BYTES_MAX: usize = 64 * 1024;

/// The write end of a pipe.
///
/// A write waits while the pipe is full. Once the reader is gone, writes fail with
/// [`io::ErrorKind::BrokenPipe`]; the error's source is a [`PipeError`], which says why and how
/// many bytes were consumed. A write of up to 4,096 bytes (`PIPE_BUF`, pipe(7)) is taken whole or
/// not at all.
///
/// [`PipeWriter::finish`] (or `shutdown`) closes the pipe and waits until the reader consumed every
/// byte. Dropping an unfinished writer aborts the pipe: its reader gets the bytes written so far
/// and then an error, never EOF.
pub struct PipeWriter {
    link: Arc<Link>,
    id: PipeId,
    written: u64,
}

impl PipeWriter {
    pub(crate) fn new(link: Arc<Link>, id: PipeId) -> PipeWriter {
        PipeWriter { link, id, written: 0 }
    }

    /// Writes all of `chunk`, without a copy if it is large. One of up to [`WHOLE_BYTES_MAX`] is sent
    /// as one, unless the window is smaller: what a kernel pipe held is full of small writes, and no
    /// other writer's bytes are to come between the parts of one.
    ///
    /// # Errors
    /// As a write to a pipe: [`io::ErrorKind::BrokenPipe`] when the reader is gone.
    ///
    /// # Cancel safety
    /// Not cancel safe: a part may have been written. [`PipeWriter::written`] tells how much.
    pub async fn write_chunk(&mut self, mut chunk: Bytes) -> io::Result<()> {
        let whole = if chunk.len() <= WHOLE_BYTES_MAX { chunk.len() } else { 1 };
        while !chunk.is_empty() {
            poll_fn(|cx| self.poll_write_chunk(cx, &mut chunk, whole)).await?;
        }
        Ok(())
    }

    /// How many bytes may be written and not consumed, from now on, at least 4,096: see
    /// [`OpenOptions::capacity`](crate::OpenOptions::capacity).
    pub fn set_capacity(&self, bytes: u64) {
        self.link.with(|state| state.session.set_capacity(self.id, bytes));
    }

    /// How the bytes are sent beside those of other pipes of the session, from now on.
    pub fn set_priority(&self, priority: Priority) {
        self.link.with(|state| state.session.set_priority(self.id, priority));
    }

    /// Waits until the other node has accepted the open.
    ///
    /// # Errors
    /// It refused, or the pipe is over for another reason.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn accepted(&self) -> Result<(), PipeError> {
        opened(&self.link, self.id, true, Opened::Accepted).await
    }

    /// Waits until a reader is at the other end, as the open of a FIFO does.
    ///
    /// # Errors
    /// As [`PipeWriter::accepted`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn joined(&self) -> Result<(), PipeError> {
        opened(&self.link, self.id, true, Opened::Joined).await
    }

    /// Waits until the pipe is over: the reader consumed everything, left, or is lost. Lets an idle
    /// writer hear of its reader's end.
    ///
    /// # Errors
    /// Any end but that the reader consumed everything that a finished writer wrote.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn over(&self) -> Result<(), PipeError> {
        over(&self.link, self.id, true).await
    }

    /// Closes the pipe without waiting: the reader gets every byte and then EOF.
    /// [`PipeWriter::finish`] tells what became of them.
    pub fn close(&mut self) {
        self.link.with(|state| {
            let checksum = state.checksum_written(self.id);
            state.session.finish(self.id, checksum);
        });
    }

    /// Closes the pipe, and waits until the reader consumed every byte.
    ///
    /// # Errors
    /// The reader left before ([`PipeError::Broken`]), or the pipe failed.
    ///
    /// # Cancel safety
    /// Cancel safe: the pipe stays closed, and a second call waits on.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.close();
        Ok(self.over().await?)
    }

    /// Aborts the pipe: the reader gets what was written, then an error with this cause. Without
    /// effect after [`PipeWriter::close`].
    pub fn abort(self, cause: Cause) {
        self.link.with(|state| state.session.abort(self.id, cause));
    }

    /// Bytes written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes that the reader consumed, as far as this node has heard.
    pub fn consumed(&self) -> u64 {
        self.link.lock().session.facts(self.id).map_or(0, |facts| facts.consumed_at_least())
    }

    /// A handle that looks at this end while it is in use elsewhere.
    pub fn watch(&self) -> WriterWatch {
        WriterWatch::new(self.link.clone(), self.id)
    }

    /// XXH3-64 of everything written.
    pub fn checksum(&self) -> u64 {
        self.link.lock().checksum_written(self.id)
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

    fn poll_write_chunk(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
        whole: usize,
    ) -> Poll<io::Result<()>> {
        let wanted = chunk.len();
        let taken = self.poll_put(cx, wanted, whole, |replay, hash, room| {
            let piece = chunk.split_to(room);
            hash.update(&piece);
            replay.push(piece);
        });
        taken.map(|taken| taken.map(drop))
    }

    fn poll_put(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
        whole: usize,
        put: impl FnOnce(&mut crate::replay::Replay, &mut crate::checksum::Checksum, usize),
    ) -> Poll<io::Result<usize>> {
        let wanted = wanted.min(CHUNK_BYTES_MAX as usize);
        let mut starts_carrier = false;
        let mut carrier = None;
        let taken = self.link.with(|state| {
            // Taken whole or not at all, so that another writer's bytes cannot come between.
            let room = state.session.room(self.id, wanted as u64) as usize;
            let least = match wanted {
                wanted if wanted as u64 <= PIPE_BUF => wanted,
                // A window that has room for it all when it is empty is waited for.
                wanted if !state.is_all_consumed(self.id) => whole.min(wanted),
                _ => 1,
            };
            if room < least {
                if let Some(error) = closed_to_writes(state, self.id) {
                    return Err(Some(error));
                }
                wait(state, self.id, cx);
                return Err(None);
            }
            state.write(self.id, room, clock::now(), put);
            starts_carrier = state.starts_carrier(self.id);
            carrier = state.take_carrier(self.id);
            Ok(room)
        });
        if let Some(waker) = carrier {
            waker.wake();
        }
        if starts_carrier {
            self.link.spawn(carry_out(self.link.clone(), self.id));
        }
        match taken {
            Ok(taken) => {
                self.written += taken as u64;
                Poll::Ready(Ok(taken))
            }
            Err(Some(error)) => Poll::Ready(Err(error.into())),
            Err(None) => Poll::Pending,
        }
    }
}

/// Why nothing can be written any more, if that is so.
fn closed_to_writes(state: &State, id: PipeId) -> Option<PipeError> {
    if let Some(Err(error)) = super::ending(state, id, true) {
        return Some(error);
    }
    let facts = state.session.facts(id)?;
    let cause = match facts.end?.kind {
        EndKind::Aborted(cause) => cause,
        EndKind::Eof => Cause::Protocol,
    };
    Some(PipeError::Failed { cause, consumed: facts.consumed_at_least() })
}

impl AsyncWrite for PipeWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_put(cx, bytes.len(), 1, |replay, hash, room| {
            hash.update(&bytes[..room]);
            replay.push_slice(&bytes[..room]);
        })
    }

    /// Nothing to do: bytes are on their way as soon as they are written.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// [`PipeWriter::finish`].
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        let mut state = self.link.lock();
        if let Some(ending) = super::ending(&state, self.id, true) {
            return Poll::Ready(ending.map_err(io::Error::from));
        }
        wait(&mut state, self.id, cx);
        Poll::Pending
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        self.link.with(|state| {
            state.session.abort(self.id, Cause::WriterDropped);
            state.release_writer(self.id);
        });
    }
}

impl fmt::Debug for PipeWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeWriter").field("id", &self.id).field("written", &self.written).finish()
    }
}
