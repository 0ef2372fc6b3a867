//! A descriptor that is written.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, OwnedFd},
};

use bytes::{Buf, Bytes};
use rustix::{
    io::{Errno, write},
    net::{SendFlags, send},
    pipe::PIPE_BUF,
};
use tokio::task::coop::consume_budget;

use super::{
    bounce::Bounce,
    descriptor::{Descriptor, Side, Way},
    pooled::Pooled,
};
use crate::{delivery::PIECE_BYTES_MAX, traffic::Traffic};

/// Less is written as it is: splice(2) after that would be one call more.
const BOUNCED_BYTES_MIN: usize = 32 * 1024;

/// A standard output that was taken over. Dropping it closes it, so that the program behind it sees
/// EOF; [`Sink::finish`] says how that went.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(super) descriptor: Descriptor,
    pub(super) writing: Pooled<usize>,
    traffic: Traffic,
    /// Where much passes.
    bounce: Option<Bounce>,
}

impl Sink {
    /// Takes `fd` over. See the module for what becomes of the description that others share.
    ///
    /// # Errors
    /// [`io::ErrorKind::BrokenPipe`] for a FIFO that nobody reads any more; `EBADF` if it is not
    /// open for writing; [`io::ErrorKind::Unsupported`] for a socket that is no byte stream; what
    /// the system says to watching it.
    ///
    /// # Panics
    /// Outside of a tokio runtime with its I/O driver.
    pub(crate) fn take(fd: OwnedFd) -> io::Result<Self> {
        Descriptor::take(fd, Side::Write).map(Self::new)
    }

    pub(super) fn new(descriptor: Descriptor) -> Self {
        Self { descriptor, writing: Pooled::idle(), traffic: Traffic::default(), bounce: None }
    }

    /// Writes some of `bytes`, takes that off its front, and says how many it was: 0 only where
    /// `bytes` is empty.
    ///
    /// # Errors
    /// [`io::ErrorKind::BrokenPipe`] when nobody reads any more; what the system says.
    ///
    /// # Cancel safety
    /// `bytes` is what was not written yet, except for a write that runs in the blocking pool: the
    /// next call takes that off. It has to be made with the same bytes, until they are written or
    /// [`Sink::settle`] was called.
    pub(crate) async fn write(&mut self, bytes: &mut Bytes) -> io::Result<usize> {
        let written = self.write_some(std::slice::from_ref(bytes)).await?;
        bytes.advance(written);
        Ok(written)
    }

    /// As [`Sink::write`], with bytes in several pieces.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub(crate) async fn write_pieces(&mut self, pieces: &mut VecDeque<Bytes>) -> io::Result<usize> {
        pieces.retain(|piece| !piece.is_empty());
        let written = self.write_some(pieces.make_contiguous()).await?;
        let mut left = written;
        while let Some(piece) = pieces.front_mut().filter(|_| left > 0) {
            let part = left.min(piece.len());
            left -= part;
            piece.advance(part);
            if piece.is_empty() {
                pieces.pop_front();
            }
        }
        Ok(written)
    }

    /// How many bytes are best written at once, if it matters that they are many.
    pub(crate) fn wants_bytes(&self) -> usize {
        if self.bounce.is_some() { Bounce::BYTES_MAX } else { 0 }
    }

    async fn write_some(&mut self, pieces: &[Bytes]) -> io::Result<usize> {
        let Some(bytes) = pieces.first().filter(|first| !first.is_empty()) else { return Ok(0) };
        consume_budget().await;
        if let Some(bounce) = &mut self.bounce
            && (bytes.len() >= BOUNCED_BYTES_MIN || pieces.len() > 1 || !bounce.is_empty())
        {
            return self.descriptor.attempt(|fd| bounce.write(fd, pieces)).await;
        }
        let written = match self.descriptor.way() {
            Way::Own | Way::Prompt => self.descriptor.attempt(|fd| write(fd, bytes)).await?,
            Way::Socket => {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                self.descriptor.attempt(|fd| send(fd, bytes, flags)).await?
            }
            Way::Pooled => self.write_pooled(bytes, PIECE_BYTES_MAX).await?,
            // As much as a pipe takes at once that is not full.
            Way::Waited => self.write_pooled(bytes, PIPE_BUF).await?,
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let written = written.min(bytes.len());
        if self.traffic.note(self.descriptor.as_fd(), written) {
            self.bounce = self.descriptor.bounce();
        }
        Ok(written)
    }

    /// Resolves as soon as nobody reads any more, also while there is nothing to write; never for
    /// files and what else has no reader. A FIFO whose last reader left is broken, even if another
    /// one opens it before this is noticed.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn broken(&self) {
        self.descriptor.closed().await;
    }

    /// Waits for a write that a dropped future left behind: how many of the bytes that are left were
    /// written after all. From then on other bytes can be written.
    pub(crate) async fn settle(&mut self) -> usize {
        self.forget_bounced();
        match self.writing.finish().await {
            Some(Ok(Ok(written))) => written,
            _ => 0,
        }
    }

    /// What of the bytes that are left was to go on from a pipe of ours stays there.
    pub(super) fn forget_bounced(&mut self) {
        self.bounce = self.bounce.take().filter(Bounce::is_empty);
    }

    /// Whether [`Sink::finish`] may fail: until then it is open whether all was written.
    pub(crate) fn may_fail_late(&self) -> bool {
        !self.descriptor.shared().is_quick()
    }

    /// Closes it after the last byte, and says whether everything was written: a file of another host
    /// may tell only now that there was no room. A reader that did not wait for this says nothing of
    /// how it went.
    ///
    /// # Errors
    /// What the system says to a write that a dropped future left behind, or to close(2).
    ///
    /// # Cancel safety
    /// It is closed, but nobody hears of an error.
    pub(crate) async fn finish(mut self) -> io::Result<()> {
        if let Some(written) = self.writing.finish().await {
            written??;
        }
        self.descriptor.close().await
    }

    async fn write_pooled(&mut self, bytes: &Bytes, max: usize) -> io::Result<usize> {
        loop {
            if !self.writing.is_busy() {
                self.descriptor.ready_unless_pooled().await?;
                let fd = self.descriptor.shared();
                let bytes = bytes.slice(..bytes.len().min(max));
                self.writing.start(move || write(fd.as_fd(), &bytes));
            }
            match self.writing.finish().await {
                // Another process made the description non-blocking, and was quicker.
                None | Some(Ok(Err(Errno::AGAIN))) => {}
                Some(result) => return Ok(result??),
            }
        }
    }
}

#[cfg(test)]
mod tests;
