//! A descriptor that nobody waits for when it is closed.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use rustix::{fs::CWD, io::Errno};
use tokio::{runtime::Handle, task::spawn_blocking};

/// close(2).
pub(super) type Close = fn(OwnedFd) -> Result<(), Errno>;

/// A descriptor that was taken over, or its description of our own.
///
/// close(2) may take long, and may fail: a file of another host is written only then, a serial line
/// sends what it holds, a socket may linger. Dropped, it is closed in the blocking pool, what
/// keeps nobody waiting at once.
#[derive(Debug)]
pub(super) struct Taken {
    /// `None` only while it is dropped.
    fd: Option<OwnedFd>,
    /// Closing it keeps nobody waiting.
    is_quick: bool,
    /// Tests lie about it.
    close: Close,
}

impl Taken {
    pub(super) fn new(fd: OwnedFd, is_quick: bool) -> Self {
        Self { fd: Some(fd), is_quick, close }
    }

    /// Whether closing it keeps nobody waiting, and cannot fail.
    pub(super) fn is_quick(&self) -> bool {
        self.is_quick
    }

    /// Closes it, in the blocking pool unless that keeps nobody waiting.
    ///
    /// # Errors
    /// What close(2) says: of NFS, that what was written before did not fit.
    ///
    /// # Cancel safety
    /// It is closed, but nobody hears of the error.
    pub(super) async fn close(mut self) -> io::Result<()> {
        let (Some(fd), close) = (self.fd.take(), self.close) else { return Ok(()) };
        if self.is_quick {
            return close(fd).map_err(io::Error::from);
        }
        // Only a runtime that shuts down drops a call.
        spawn_blocking(move || close(fd)).await.map_err(io::Error::other)?.map_err(io::Error::from)
    }

    #[cfg(test)]
    pub(super) fn close_with(&mut self, close: Close) {
        self.close = close;
    }
}

impl AsFd for Taken {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().map_or(CWD, OwnedFd::as_fd)
    }
}

impl AsRawFd for Taken {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Some(fd) = self.fd.take() else { return };
        let close = self.close;
        // Whoever wants to know how it went, asks: see `close`.
        match Handle::try_current() {
            Ok(runtime) if !self.is_quick => drop(runtime.spawn_blocking(move || close(fd))),
            _ => drop(close(fd)),
        }
    }
}

fn close(fd: OwnedFd) -> Result<(), Errno> {
    match nix::unistd::close(fd) {
        // It is closed all the same.
        Ok(()) | Err(nix::Error::EINTR) => Ok(()),
        Err(error) => Err(Errno::from_raw_os_error(error as i32)),
    }
}
