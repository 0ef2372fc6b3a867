//! Ends of pipes as blocking programs use them.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use qpipe::Pumping;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;

use crate::differences::Ending;
use crate::hosts::slowness;

/// The end that a program writes to.
pub(crate) trait WriteEnd: Send + 'static {
    /// write(2).
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// write(2) with O_NONBLOCK.
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Waits, without writing, until the reader is gone.
    fn hear_of_break(&mut self);
    /// Waits a moment for room that comes without a reader's doing; whether there is some.
    fn has_room_after_all(&mut self) -> bool;
    /// Closes the end, as a program does that is done.
    fn close(self) -> io::Result<()>;
    /// The program dies.
    fn die(self);
}

/// The end that a program reads from. Dropped, the reader is gone.
pub(crate) trait ReadEnd: Send + 'static {
    /// read(2).
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// read(2) with O_NONBLOCK.
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
}

pub(crate) fn write_all(writer: &mut impl WriteEnd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = writer.write(bytes)?;
        assert!(n > 0 && n <= bytes.len());
        bytes = &bytes[n..];
    }
    Ok(())
}

/// Writes pieces of 4,096 bytes until the pipe is full; how many bytes went in.
pub(crate) fn fill(writer: &mut impl WriteEnd, piece: &[u8; 4096]) -> usize {
    let mut filled = 0;
    loop {
        match writer.try_write(piece) {
            Ok(n) => {
                assert_eq!(n, piece.len(), "PIPE_BUF bytes go in whole or not at all");
                filled += n;
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                if !writer.has_room_after_all() {
                    return filled;
                }
            }
        }
    }
}

pub(crate) fn read_exact(reader: &mut impl ReadEnd, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut got = 0;
    while got < length {
        let n = reader.read(&mut bytes[got..]).unwrap();
        assert!(n > 0, "the end of the pipe after {got} of {length} bytes");
        got += n;
    }
    bytes
}

/// Everything up to the end, and which end it is.
pub(crate) fn read_to_end(reader: &mut impl ReadEnd) -> (Vec<u8>, Ending) {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 100_000];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return (bytes, Ending::Eof),
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted, "{error}");
                return (bytes, Ending::Abort);
            }
        }
    }
}

/// Work that goes on in the background of a descriptor.
pub(crate) struct Background {
    pub(crate) pumping: Pumping,
    pub(crate) runtime: Handle,
}

/// A write end that is a descriptor.
pub(crate) struct FdWriter {
    pub(crate) fd: OwnedFd,
    pub(crate) background: Option<Background>,
}

/// A read end that is a descriptor.
pub(crate) struct FdReader {
    pub(crate) fd: OwnedFd,
    /// Kept: whoever closes the descriptor ends it.
    pub(crate) _background: Option<Background>,
}

/// How long a pipe that is full for its writer stays so before it counts as full, on loopback: the
/// tasks behind a descriptor may be about to make room.
const SETTLE: Duration = Duration::from_millis(500);

fn without_blocking<T>(
    fd: BorrowedFd<'_>,
    mut call: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<T>,
) -> io::Result<T> {
    rustix::io::ioctl_fionbio(fd, true)?;
    let result = retry_on_intr(|| call(fd));
    rustix::io::ioctl_fionbio(fd, false)?;
    Ok(result?)
}

fn is_ready(fd: BorrowedFd<'_>, flags: PollFlags, timeout: Option<&Timespec>) -> bool {
    let mut fds = [PollFd::new(&fd, flags)];
    retry_on_intr(|| poll(&mut fds, timeout)).unwrap() > 0
}

impl WriteEnd for FdWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(retry_on_intr(|| rustix::io::write(&self.fd, bytes))?)
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        without_blocking(self.fd.as_fd(), |fd| rustix::io::write(fd, bytes))
    }

    fn hear_of_break(&mut self) {
        // POLLERR is reported whatever is asked for.
        assert!(is_ready(self.fd.as_fd(), PollFlags::empty(), None));
    }

    fn has_room_after_all(&mut self) -> bool {
        let settled = Timespec::try_from(SETTLE * slowness()).unwrap();
        self.background.is_some() && is_ready(self.fd.as_fd(), PollFlags::OUT, Some(&settled))
    }

    fn close(self) -> io::Result<()> {
        drop(self.fd);
        match self.background {
            Some(Background { pumping, runtime }) => runtime.block_on(pumping).map(drop),
            None => Ok(()),
        }
    }

    fn die(self) {}
}

impl ReadEnd for FdReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::read(&self.fd, &mut *buffer) {
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        without_blocking(self.fd.as_fd(), |fd| rustix::io::read(fd, &mut *buffer))
    }
}

/// qpipe's own write end, used by a blocking thread.
pub(crate) struct QpipeWriter {
    /// Always there, but while it changes its form.
    pub(crate) end: Option<qpipe::blocking::PipeWriter>,
    pub(crate) runtime: Handle,
}

/// qpipe's own read end, used by a blocking thread.
pub(crate) struct QpipeReader {
    /// Always there, but while it changes its form.
    pub(crate) end: Option<qpipe::blocking::PipeReader>,
    pub(crate) runtime: Handle,
}

impl QpipeWriter {
    fn with<T>(&mut self, act: impl FnOnce(&mut qpipe::PipeWriter) -> T) -> T {
        let _inside = self.runtime.enter();
        let mut end = self.end.take().unwrap().into_inner();
        let result = act(&mut end);
        self.end = Some(end.into_blocking());
        result
    }
}

impl QpipeReader {
    fn with<T>(&mut self, act: impl FnOnce(&mut qpipe::PipeReader) -> T) -> T {
        let _inside = self.runtime.enter();
        let mut end = self.end.take().unwrap().into_inner();
        let result = act(&mut end);
        self.end = Some(end.into_blocking());
        result
    }
}

fn would_block<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl WriteEnd for QpipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.end.as_mut().unwrap().write(bytes)
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut cx = Context::from_waker(Waker::noop());
        self.with(|end| would_block(Pin::new(end).poll_write(&mut cx, bytes)))
    }

    fn hear_of_break(&mut self) {
        let runtime = self.runtime.clone();
        self.with(|end| runtime.block_on(end.over())).unwrap_err();
    }

    fn has_room_after_all(&mut self) -> bool {
        false
    }

    fn close(mut self) -> io::Result<()> {
        self.end.take().unwrap().finish()
    }

    fn die(self) {}
}

impl ReadEnd for QpipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.end.as_mut().unwrap().read(buffer)
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut cx = Context::from_waker(Waker::noop());
        self.with(|end| {
            let mut buffer = ReadBuf::new(buffer);
            let read = Pin::new(end).poll_read(&mut cx, &mut buffer);
            would_block(read).map(|()| buffer.filled().len())
        })
    }
}
