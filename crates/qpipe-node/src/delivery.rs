//! From the end of a pipe to a descriptor.

use std::{collections::VecDeque, io, os::fd::OwnedFd};

use bytes::Bytes;
use qpipe::{Cause, PipeError, PipeReader};
use qpipe_proto::limits::KEPT_BYTES_MAX;

use crate::fd::Sink;

/// What is carried at once, in bytes: more than a kernel pipe usually holds. A chunk of a quarter of a mebibyte costs
/// no more per byte than larger ones.
pub const PIECE_BYTES_MAX: usize = 256 * 1024;

/// Writes what comes out of a pipe to a standard output that was taken over. Bytes count as consumed when the
/// write of them has succeeded, not before; of what may still fail when it is closed, the last one only
/// after that. Dropping it closes the output.
#[derive(Debug)]
pub struct Delivery {
    sink: Sink,
    /// So many bytes of what was written do not count as consumed before the output is closed.
    kept_max: u64,
    kept: u64,
}

/// Why no more is delivered.
#[derive(Debug)]
pub enum Undelivered {
    /// The output cannot be written; a broken pipe if nobody reads it any more.
    Output(io::Error),
    /// The pipe is over.
    Pipe(PipeError),
}

impl Delivery {
    /// Takes `output` over. The description that it shares with other processes stays as it is.
    ///
    /// # Errors
    /// [`io::ErrorKind::BrokenPipe`] for a FIFO that nobody reads any more; `EBADF` if it is not open for
    /// writing; [`io::ErrorKind::Unsupported`] for a socket that is no byte stream; what the system says to
    /// watching it.
    ///
    /// # Panics
    /// Outside of a tokio runtime with its I/O driver.
    pub fn take(output: OwnedFd) -> io::Result<Self> {
        Sink::take(output).map(Self::to)
    }

    pub(crate) fn to(sink: Sink) -> Self {
        let kept_max = if sink.may_fail_late() { KEPT_BYTES_MAX } else { 0 };
        Self { sink, kept_max, kept: 0 }
    }

    /// Resolves as soon as nobody reads the output any more; never for files and what else has no reader.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn broken(&self) {
        self.sink.broken().await;
    }

    /// Writes all that comes out of the pipe, and closes the output behind it. At most `max` bytes are taken out
    /// of the pipe at once, and go when `pay` is done for that many; `written` hears how many have gone. The
    /// end of an empty pipe counts as taken when the output is closed.
    ///
    /// # Errors
    /// See [`Undelivered`]. When it is the pipe, all that came out of it was written.
    ///
    /// # Cancel safety
    /// What was written counts as consumed, except for what the blocking pool may still be writing. The output is
    /// closed.
    pub async fn deliver(
        mut self,
        reader: &mut PipeReader,
        max: Option<usize>,
        mut pay: impl AsyncFnMut(usize),
        mut written: impl FnMut(u64),
    ) -> Result<(), Undelivered> {
        let piece_max = max.unwrap_or(PIECE_BYTES_MAX).min(PIECE_BYTES_MAX);
        reader.hold_eof();
        loop {
            let piece = self.unless_broken(reader.read_chunk(piece_max)).await?;
            let piece = match piece {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => {
                    reader.consume(self.kept);
                    // How much was consumed is known now that everything is written.
                    let over = reader.over().await.err();
                    return Err(Undelivered::Pipe(
                        over.unwrap_or_else(|| PipeError::or_lost(&error)),
                    ));
                }
            };
            self.unless_broken(pay(piece.len())).await?;
            let mut pieces = VecDeque::from([piece]);
            while !pieces.is_empty() {
                if max.is_none() {
                    fill_up(&mut pieces, self.sink.wants_bytes(), || reader.ready_chunk(piece_max));
                }
                let bytes = self.sink.write_pieces(&mut pieces).await? as u64;
                let unsaid = self.kept + bytes;
                self.kept = unsaid.min(self.kept_max);
                reader.consume(unsaid - self.kept);
                written(bytes);
            }
        }
        self.sink.finish().await?;
        reader.consume(self.kept);
        reader.watch().take_eof();
        Ok(())
    }

    async fn unless_broken<T>(&self, done: impl Future<Output = T>) -> io::Result<T> {
        tokio::select! {
            biased;
            () = self.sink.broken() => Err(broken()),
            done = done => Ok(done),
        }
    }
}

impl From<io::Error> for Undelivered {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// What the writer hears of an output that failed.
pub(crate) fn cause_of_output(error: &io::Error) -> Cause {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Cause::ReaderClosed,
        _ => Cause::Io,
    }
}

/// Adds pieces as long as `next` has some, until they are `bytes` together.
pub(crate) fn fill_up(
    pieces: &mut VecDeque<Bytes>,
    bytes: usize,
    mut next: impl FnMut() -> Option<Bytes>,
) {
    let mut has: usize = pieces.iter().map(Bytes::len).sum();
    while has < bytes
        && let Some(piece) = next()
    {
        has += piece.len();
        pieces.push_back(piece);
    }
}

/// Nobody reads the output any more.
pub(crate) fn broken() -> io::Error {
    rustix::io::Errno::PIPE.into()
}
