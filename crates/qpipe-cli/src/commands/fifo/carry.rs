//! Bytes between a FIFO and a kernel pipe, by a thread of their own.

use std::{
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    thread,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::retry_on_intr,
};
use tokio::sync::oneshot;

/// The most that is moved at once, in bytes: what a kernel pipe usually holds.
const MOVE_BYTES_MAX: usize = 64 * 1024;

/// Why nothing more moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Nobody writes any more, and everything has moved.
    Eof,
    /// Nobody reads any more.
    Broken,
}

/// What a thread has done, and the descriptors that it worked with: closing them tells the programs
/// at their other ends.
pub(super) struct Carried {
    pub(super) over: io::Result<Over>,
    pub(super) from: OwnedFd,
    pub(super) to: OwnedFd,
}

/// Moves all bytes, in a thread.
///
/// # Errors
/// There is no thread to be had.
pub(super) fn start(from: OwnedFd, to: OwnedFd) -> io::Result<oneshot::Receiver<Carried>> {
    let (sender, carried) = oneshot::channel();
    thread::Builder::new().name("fifo".to_owned()).spawn(move || {
        let over = carry(&from, &to);
        let _ = sender.send(Carried { over, from, to });
    })?;
    Ok(carried)
}

fn carry(from: &OwnedFd, to: &OwnedFd) -> io::Result<Over> {
    loop {
        // A reader that goes is noticed also while nothing comes.
        let mut both = [PollFd::new(from, PollFlags::IN), PollFd::new(to, PollFlags::empty())];
        retry_on_intr(|| poll(&mut both, None))?;
        let [from_is, to_is] = both.map(|fd| fd.revents());
        if from_is.contains(PollFlags::HUP) && !from_is.contains(PollFlags::IN) {
            // Also where nobody reads any more: splice(2) would call that a broken pipe.
            return Ok(Over::Eof);
        }
        if to_is.intersects(PollFlags::ERR | PollFlags::HUP) {
            return Ok(Over::Broken);
        }
        if from_is.is_empty() {
            continue;
        }
        match move_some(from, to) {
            Ok(0) => return Ok(Over::Eof),
            Ok(_) => {}
            Err(error) => match error.kind() {
                io::ErrorKind::BrokenPipe => return Ok(Over::Broken),
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => {}
                _ => return Err(error),
            },
        }
    }
}

/// Moves what there is; it waits while nothing more fits.
#[cfg(target_os = "linux")]
fn move_some(from: &OwnedFd, to: &OwnedFd) -> io::Result<usize> {
    use rustix::pipe::{SpliceFlags, splice};

    Ok(splice(from, None, to, None, MOVE_BYTES_MAX, SpliceFlags::MOVE)?)
}

#[cfg(not(target_os = "linux"))]
fn move_some(from: &OwnedFd, to: &OwnedFd) -> io::Result<usize> {
    let mut buffer = [0; MOVE_BYTES_MAX];
    let bytes = rustix::io::read(from, &mut buffer)?;
    let mut rest = buffer.get(..bytes).unwrap_or_default();
    while !rest.is_empty() {
        let written = retry_on_intr(|| rustix::io::write(to, rest))?;
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(bytes)
}

/// What fills a kernel pipe, so that nobody can write into it yet.
pub(super) struct Plug {
    bytes: usize,
}

impl Plug {
    /// Fills an empty pipe.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn put(mut writer: &io::PipeWriter) -> io::Result<Self> {
        let flags = fcntl_getfl(writer)?;
        let piece = [0; PLUG_PIECE_BYTES];
        fcntl_setfl(writer, flags | OFlags::NONBLOCK)?;
        let mut bytes = 0;
        let filled = loop {
            match writer.write(&piece) {
                Ok(written) => bytes += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        // The description is about to be another process's as well.
        fcntl_setfl(writer, flags)?;
        filled.map(|()| Self { bytes })
    }

    /// Takes out what was put in: from now on it can be written.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn pull(self, reader: impl AsFd) -> io::Result<()> {
        let reader = reader.as_fd().try_clone_to_owned()?;
        let mut plug = io::PipeReader::from(reader).take(self.bytes as u64);
        io::copy(&mut plug, &mut io::sink()).map(drop)
    }
}

/// What a plug is made of: a page, so that none is left half empty.
const PLUG_PIECE_BYTES: usize = 4096;

#[cfg(test)]
#[path = "carry_tests.rs"]
mod tests;
