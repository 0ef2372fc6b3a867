//! Ends of a pipe as descriptors: a real kernel pipe for a program that knows nothing of qpipe.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use qpipe_proto::Cause;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use super::{PipeReader, PipeWriter};

/// What is read from a kernel pipe at once, in bytes: its default capacity (pipe(7)).
const READ_BYTES: usize = 64 * 1024;

/// The task that carries bytes between a kernel pipe and an end: resolves, when the pipe is over,
/// with the number of bytes carried.
///
/// Dropping it does not stop the task: the descriptor's other user decides when the pipe ends.
#[derive(Debug)]
pub struct Pumping(JoinHandle<io::Result<u64>>);

impl Future for Pumping {
    type Output = io::Result<u64>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.0).poll(cx).map(|joined| joined.unwrap_or_else(|e| Err(e.into())))
    }
}

impl PipeWriter {
    /// The write end of a kernel pipe whose bytes go into this pipe: something to give to a child
    /// as its stdout, with [`std::process::Stdio::from`].
    ///
    /// As in the kernel, the pipe gets EOF when the last copy of the descriptor is closed, however
    /// that came to be; a reader that leaves makes writes to it fail with EPIPE.
    ///
    /// # Errors
    /// No kernel pipe could be made.
    pub fn into_fd(self) -> io::Result<(OwnedFd, Pumping)> {
        // Each end of a kernel pipe is an open file description of its own, so that O_NONBLOCK on
        // ours does not show on the child's.
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let ours = pipe::Receiver::from_owned_fd(ours)?;
        Ok((theirs, Pumping(tokio::spawn(pump_in(ours, self)))))
    }
}

impl PipeReader {
    /// The read end of a kernel pipe that gives this pipe's bytes: something to give to a child as
    /// its stdin, with [`std::process::Stdio::from`].
    ///
    /// What the kernel pipe took counts as consumed. A kernel pipe has no in-band error: after an
    /// abort the child sees EOF, and the [`Pumping`] is an error.
    ///
    /// # Errors
    /// No kernel pipe could be made.
    pub fn into_fd(self) -> io::Result<(OwnedFd, Pumping)> {
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let ours = pipe::Sender::from_owned_fd(ours)?;
        Ok((theirs, Pumping(tokio::spawn(pump_out(self, ours)))))
    }
}

/// Kernel pipe to pipe.
async fn pump_in(mut from: pipe::Receiver, mut to: PipeWriter) -> io::Result<u64> {
    loop {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        // Neither side of this is a copy that could be cut in half: a read takes what is there or
        // nothing, and an end that is over takes nothing more.
        let read = tokio::select! {
            biased;
            read = from.read_buf(&mut buffer) => read,
            ended = to.over() => {
                ended?;
                return Ok(to.written());
            }
        };
        match read {
            Ok(0) => break,
            Ok(_) => to.write_chunk(buffer.freeze()).await?,
            Err(error) => {
                to.abort(Cause::Io);
                return Err(error);
            }
        }
    }
    // The kernel pipe stays open until the reader has everything, so that its end is not taken
    // for more than it is: the last writer closed it.
    to.finish().await?;
    Ok(to.written())
}

/// Pipe to kernel pipe.
async fn pump_out(mut from: PipeReader, mut to: pipe::Sender) -> io::Result<u64> {
    loop {
        let chunk = tokio::select! {
            biased;
            chunk = from.read_chunk(READ_BYTES) => chunk?,
            // An idle child that exits is noticed at once, not at the next write.
            _ = to.ready(Interest::ERROR) => {
                from.stop(Cause::ReaderClosed);
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        };
        let Some(chunk) = chunk else { return Ok(from.delivered()) };
        to.write_all(&chunk).await?;
        from.consume(chunk.len() as u64);
    }
}
