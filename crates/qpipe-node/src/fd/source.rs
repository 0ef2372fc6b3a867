//! A descriptor that is read.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use bytes::Bytes;
use rustix::{
    buffer::spare_capacity,
    io::{Errno, ioctl_fionread, read},
    net::{RecvFlags, recv},
    pipe::PIPE_BUF,
};
use tokio::task::coop::consume_budget;

use super::{
    bounce::Bounce,
    descriptor::{Descriptor, Side, Way},
    pooled::Pooled,
};
use crate::{delivery::PIECE_BYTES_MAX, lines::Lines, traffic::Traffic};

/// What a kernel pipe usually holds, in bytes: [`Source::fit`] makes none larger.
const FIT_BYTES_MAX: usize = 64 * 1024;

/// The smallest read: what is asked for when nothing is known to wait.
const READ_BYTES_MIN: usize = 512;

/// A standard input that was taken over. Dropping it closes it, so that the producer gets SIGPIPE.
#[derive(Debug)]
pub struct Source {
    pub(super) descriptor: Descriptor,
    /// What was read and not handed out, or what a cancelled splice did not get written.
    pub(super) held: Bytes,
    reading: Pooled<Bytes>,
    /// Keeps lines whole, where that is wanted.
    lines: Option<Lines>,
    /// What was read last was not all that there was.
    is_cut: bool,
    keeps_writes: bool,
    /// The size that a kernel pipe was given.
    size: Option<usize>,
    traffic: Traffic,
    /// Where much passes.
    bounce: Option<Bounce>,
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
    pub fn take(fd: OwnedFd) -> io::Result<Self> {
        Descriptor::take(fd, Side::Read).map(Self::new)
    }

    pub(super) fn new(descriptor: Descriptor) -> Self {
        Self {
            descriptor,
            held: Bytes::new(),
            reading: Pooled::idle(),
            lines: None,
            is_cut: false,
            keeps_writes: false,
            size: None,
            traffic: Traffic::default(),
            bounce: None,
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
    pub async fn next(&mut self, max: usize) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(lines) = self.lines.as_mut().and_then(|lines| lines.next(max)) {
                return Ok(Some(lines));
            }
            let bytes = self.next_bytes(max).await?;
            let Some(lines) = &mut self.lines else { return Ok(bytes) };
            match bytes {
                Some(bytes) => lines.push(&bytes),
                None => return Ok(lines.rest()),
            }
        }
    }

    /// From now on whole lines are given out, of up to [`crate::LINE_BYTES_MAX`].
    pub fn keep_lines(&mut self) {
        self.lines.get_or_insert_default();
    }

    /// Whether whole lines are given out.
    pub(crate) fn keeps_lines(&self) -> bool {
        self.lines.is_some()
    }

    async fn next_bytes(&mut self, max: usize) -> io::Result<Option<Bytes>> {
        // A read of nothing would look like EOF.
        let max = max.max(1);
        // The bytes of a step come before those that are read now.
        self.settle().await;
        if self.held.is_empty() && !self.ended {
            self.held = self.read(max).await?;
            if !self.keeps_writes && self.traffic.note(self.descriptor.as_fd(), self.held.len()) {
                self.bounce = self.descriptor.bounce();
            }
            self.ended = self.held.is_empty();
            self.is_cut = self.held.len() >= max.min(PIECE_BYTES_MAX) && self.in_kernel() > Some(0);
        }
        if self.held.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.held.split_to(self.held.len().min(max))))
    }

    /// Takes what the kernel holds to what is here already, so that this ends where a write of a
    /// program does. To be called when no step of a splice is under way.
    pub(crate) async fn gather(&mut self) {
        let mut left = usize::try_from(self.in_kernel().unwrap_or(0)).unwrap_or(0);
        let mut gathered = vec![std::mem::take(&mut self.held)];
        while left > 0 {
            // What was there a moment ago is read without waiting, unless somebody else has taken it;
            // an error comes again.
            let read = tokio::time::timeout(Duration::ZERO, self.read(left)).await;
            let Some(bytes) = read.ok().and_then(Result::ok).filter(|bytes| !bytes.is_empty())
            else {
                break;
            };
            left -= bytes.len().min(left);
            gathered.push(bytes);
        }
        self.held = gathered.concat().into();
        self.is_cut = false;
    }

    /// Whether a write of a program may have been cut behind what was given out last: what comes next
    /// goes on with it.
    pub(crate) fn goes_on(&self) -> bool {
        !self.held.is_empty() || self.is_cut
    }

    /// From now on [`Source::fit`] is asked for.
    pub(crate) fn keep_writes(&mut self) {
        self.keeps_writes = true;
    }

    /// Has a kernel pipe hold no more than half of `window`, in bytes (of the rest the reader's node may
    /// not have said yet that it is free), so that all it holds, which is whole writes
    /// where they are small, can be sent at once; and no less than `PIPE_BUF`. A pipe that holds more
    /// already stays as it is until the next call.
    pub(crate) fn fit(&mut self, window: u64) {
        let window = usize::try_from(window).unwrap_or(usize::MAX);
        let size = 1 << (window / 2).clamp(PIPE_BUF, FIT_BYTES_MAX).ilog2();
        if self.keeps_writes
            && self.size != Some(size)
            && self.descriptor.is_pipe()
            && set_size(&self.descriptor, size)
        {
            self.size = Some(size);
        }
    }

    /// What lies ready now, in bytes: what remains to be taken for a command that was killed. 0
    /// where it is not known, and for files, where nobody put it there for us.
    pub(crate) fn ready_bytes(&self) -> u64 {
        self.held.len() as u64 + self.in_kernel().unwrap_or(0)
    }

    /// What lies in the kernel, where that is known.
    fn in_kernel(&self) -> Option<u64> {
        match self.descriptor.way() {
            Way::Own | Way::Socket | Way::Waited => ioctl_fionread(self.descriptor.shared()).ok(),
            Way::Pooled | Way::Prompt => None,
        }
    }

    /// Whether nothing is left of what was written so far. False where that is not known.
    pub fn is_drained(&self) -> bool {
        let is_empty = self.ended || self.in_kernel() == Some(0);
        let has_line = self.lines.as_ref().is_some_and(|lines| !lines.is_empty());
        !has_line
            && self.held.is_empty()
            && !self.reading.is_busy()
            && !self.moving.is_busy()
            && is_empty
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
        if let Some(bounce) = &mut self.bounce {
            return self.descriptor.attempt(|fd| bounce.read(fd, max)).await;
        }
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

#[cfg(target_os = "linux")]
fn set_size(descriptor: &Descriptor, size: usize) -> bool {
    rustix::pipe::fcntl_setpipe_size(descriptor.shared(), size).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn set_size(_descriptor: &Descriptor, _size: usize) -> bool {
    true
}

/// Reads exactly what waits, up to `max`: no copy, nothing to spare, and no part of a write that is just
/// being made.
fn read_some(fd: BorrowedFd<'_>, way: Way, max: usize) -> Result<Bytes, Errno> {
    let waiting = || match way {
        Way::Pooled | Way::Prompt => PIECE_BYTES_MAX,
        Way::Own | Way::Socket | Way::Waited => match ioctl_fionread(fd) {
            Ok(waiting) => usize::try_from(waiting).unwrap_or(PIECE_BYTES_MAX),
            Err(_) => PIECE_BYTES_MAX,
        },
    };
    let into = |buffer: &mut Vec<u8>| match way {
        Way::Socket => {
            recv(fd, spare_capacity(buffer), RecvFlags::DONTWAIT).map(|(bytes, _)| bytes)
        }
        Way::Own | Way::Pooled | Way::Prompt | Way::Waited => read(fd, spare_capacity(buffer)),
    };
    let first = waiting();
    let bytes = if first == 0 { READ_BYTES_MIN } else { first.min(PIECE_BYTES_MAX) };
    let mut buffer = Vec::with_capacity(bytes.min(max));
    let read = into(&mut buffer)?;
    // Nothing waited, and now more than was asked for: this is a part of it.
    if first == 0 && read == buffer.capacity() && read < max {
        let more = waiting().min(max - read);
        if more > 0 {
            buffer.reserve_exact(more);
            // What cannot be read now comes again.
            let _ = into(&mut buffer);
        }
    }
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
