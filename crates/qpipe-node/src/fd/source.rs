//! A descriptor that is read.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use bytes::Bytes;
use rustix::{
    buffer::spare_capacity,
    io::{Errno, ioctl_fionread, read},
    net::{RecvFlags, recv},
};
use tokio::task::coop::consume_budget;

use super::{
    descriptor::{Descriptor, Side, Way},
    pooled::Pooled,
};

/// The largest read. A chunk of a quarter of a mebibyte costs no more per byte than larger ones.
const READ_BYTES_MAX: usize = 256 * 1024;

/// The smallest read: what is asked for when nothing is known to wait.
const READ_BYTES_MIN: usize = 512;

/// A standard input that was taken over. Dropping it closes it, so that the producer gets SIGPIPE.
#[derive(Debug)]
pub(crate) struct Source {
    pub(super) descriptor: Descriptor,
    /// What was read and not handed out, or what a cancelled splice did not get written.
    pub(super) held: Bytes,
    reading: Pooled<Bytes>,
    /// A step of a splice.
    pub(super) moving: Pooled<usize>,
    /// Bytes that such steps moved, and that nobody was told of yet.
    pub(super) moved: u64,
    ended: bool,
}

impl Source {
    /// Takes `fd` over. See the module for what becomes of the description that others share.
    ///
    /// # Errors
    /// `EBADF` if it is not open for reading; [`io::ErrorKind::Unsupported`] for a socket that is
    /// no byte stream; what the system says to watching it.
    ///
    /// # Panics
    /// Outside of a tokio runtime with its I/O driver.
    pub(crate) fn take(fd: OwnedFd) -> io::Result<Self> {
        Descriptor::take(fd, Side::Read).map(Self::new)
    }

    pub(super) fn new(descriptor: Descriptor) -> Self {
        Self {
            descriptor,
            held: Bytes::new(),
            reading: Pooled::idle(),
            moving: Pooled::idle(),
            moved: 0,
            ended: false,
        }
    }

    /// The next bytes, never none and at most `max`, which is not 0. `None` at EOF, from then on
    /// always: a FIFO that is opened for writing again is another pipe.
    ///
    /// A chunk is no larger in memory than twice its length.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Cancel safety
    /// No byte is lost: a read that runs in the blocking pool is picked up by the next call.
    pub(crate) async fn next(&mut self, max: usize) -> io::Result<Option<Bytes>> {
        // A read of nothing would look like EOF.
        let max = max.max(1);
        // The bytes of a step come before those that are read now.
        self.settle().await;
        if self.held.is_empty() && !self.ended {
            self.held = self.read(max).await?;
            self.ended = self.held.is_empty();
        }
        if self.held.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.held.split_to(self.held.len().min(max))))
    }

    /// What lies ready now, in bytes: what remains to be taken for a command that was killed. 0
    /// where it is not known, and for files, where nobody put it there for us.
    pub(crate) fn ready_bytes(&self) -> u64 {
        let in_kernel = match self.descriptor.way() {
            Way::Own | Way::Socket | Way::Waited => ioctl_fionread(self.descriptor.shared()).ok(),
            Way::Pooled | Way::Prompt => None,
        };
        self.held.len() as u64 + in_kernel.unwrap_or(0)
    }

    /// Whether nothing is left of what was written so far. False where that is not known.
    pub(crate) fn is_drained(&self) -> bool {
        let in_kernel = match self.descriptor.way() {
            Way::Own | Way::Socket | Way::Waited => ioctl_fionread(self.descriptor.shared()).ok(),
            Way::Pooled | Way::Prompt => None,
        };
        let is_empty = self.ended || in_kernel == Some(0);
        self.held.is_empty() && !self.reading.is_busy() && !self.moving.is_busy() && is_empty
    }

    /// Whether there are, or may be, bytes on our side of the kernel.
    pub(super) fn is_midway(&self) -> bool {
        !self.held.is_empty() || self.reading.is_busy() || self.ended
    }

    /// Waits for a step of a splice that a dropped future left behind. Its error comes again.
    pub(super) async fn settle(&mut self) {
        if let Some(Ok(Ok(moved))) = self.moving.finish().await {
            self.moved += moved as u64;
        }
    }

    /// None at EOF.
    async fn read(&mut self, max: usize) -> io::Result<Bytes> {
        consume_budget().await;
        let way = self.descriptor.way();
        if matches!(way, Way::Own | Way::Prompt | Way::Socket) {
            return self.descriptor.attempt(|fd| read_some(fd, way, max)).await;
        }
        loop {
            if !self.reading.is_busy() {
                self.descriptor.ready_unless_pooled().await?;
                let fd = self.descriptor.shared();
                self.reading.start(move || read_some(fd.as_fd(), way, max));
            }
            match self.reading.finish().await {
                // Another process made the description non-blocking, and was quicker.
                None | Some(Ok(Err(Errno::AGAIN))) => {}
                Some(result) => return Ok(result??),
            }
        }
    }
}

fn read_some(fd: BorrowedFd<'_>, way: Way, max: usize) -> Result<Bytes, Errno> {
    let wanted = match way {
        Way::Pooled | Way::Prompt => READ_BYTES_MAX,
        // Exactly what waits: no copy, and nothing to spare.
        Way::Own | Way::Socket | Way::Waited => match ioctl_fionread(fd) {
            Ok(waiting) => usize::try_from(waiting).unwrap_or(READ_BYTES_MAX),
            Err(_) => READ_BYTES_MAX,
        },
    };
    let mut buffer = Vec::with_capacity(wanted.clamp(READ_BYTES_MIN, READ_BYTES_MAX).min(max));
    match way {
        Way::Socket => recv(fd, spare_capacity(&mut buffer), RecvFlags::DONTWAIT)?.0,
        Way::Own | Way::Pooled | Way::Prompt | Way::Waited => {
            read(fd, spare_capacity(&mut buffer))?
        }
    };
    Ok(snug(buffer))
}

/// A chunk lives until the peer has consumed it, so a short one is copied rather than letting it
/// keep a large buffer alive.
fn snug(buffer: Vec<u8>) -> Bytes {
    if buffer.len() < buffer.capacity() / 2 {
        return Bytes::copy_from_slice(&buffer);
    }
    buffer.into()
}

#[cfg(test)]
mod tests;
