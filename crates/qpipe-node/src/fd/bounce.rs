//! A kernel pipe of our own between a program's pipe and our memory.
//!
//! read(2) and write(2) hold the lock of a pipe while they copy, and whoever is at its other end on another
//! processor spins until they have. Where much passes, that was an eighth of the time of two processors.
//! splice(2) holds the lock while pages change hands; the copies are made from, and to, a pipe that
//! nobody else waits for.

use std::{
    io::IoSlice,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use bytes::Bytes;
use rustix::{
    buffer::spare_capacity,
    io::{Errno, read, writev},
    pipe::{PipeFlags, SpliceFlags, pipe_with, splice},
};

use crate::traffic::{BULK_BYTES, LargePipe};

/// Pieces that are written at once.
const PIECES_MAX: usize = 16;

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

/// A pipe for one direction, of [`BULK_BYTES`].
#[derive(Debug)]
pub(super) struct Bounce {
    from: OwnedFd,
    into: OwnedFd,
    /// What was written here and could not be passed on yet, in bytes.
    held: usize,
    _large: LargePipe,
}

impl Bounce {
    /// What passes at once at the most, in bytes.
    pub(super) const BYTES_MAX: usize = BULK_BYTES;

    /// None where there are enough large pipes already, or no descriptors.
    pub(super) fn new() -> Option<Bounce> {
        let (from, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        let _large = LargePipe::enlarge(into.as_fd(), BULK_BYTES)?;
        Some(Bounce { from, into, held: 0, _large })
    }

    /// Reads what waits in the pipe `fd`, up to `max` bytes; nothing at EOF.
    ///
    /// # Errors
    /// `EAGAIN` when nothing waits.
    pub(super) fn read(&mut self, fd: BorrowedFd<'_>, max: usize) -> Result<Bytes, Errno> {
        let moved = splice(fd, None, &self.into, None, max.min(BULK_BYTES), FLAGS)?;
        let mut buffer = Vec::with_capacity(moved);
        while buffer.len() < moved {
            if read(&self.from, spare_capacity(&mut buffer))? == 0 {
                break;
            }
        }
        Ok(buffer.into())
    }

    /// Writes some of `pieces` to the pipe `fd`; how many bytes that were. The next call is to be made with
    /// what remains: the beginning of that may be here.
    ///
    /// # Errors
    /// `EAGAIN` when there is no room; `EPIPE` when nobody reads.
    pub(super) fn write(&mut self, fd: BorrowedFd<'_>, pieces: &[Bytes]) -> Result<usize, Errno> {
        if self.held == 0 {
            let slices: Vec<_> =
                pieces.iter().take(PIECES_MAX).map(|piece| IoSlice::new(piece)).collect();
            self.held = writev(&self.into, &slices)?;
        }
        let mut moved = 0;
        while self.held > 0 {
            match splice(&self.from, None, fd, None, self.held, FLAGS) {
                Ok(0) => break,
                Ok(bytes) => {
                    moved += bytes;
                    self.held -= bytes.min(self.held);
                }
                // It comes again.
                Err(_) if moved > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(moved)
    }

    /// Whether nothing is here.
    pub(super) fn is_empty(&self) -> bool {
        self.held == 0
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::fd::AsFd,
    };

    use super::*;
    use crate::fd::test_files::{content, fill, pipe};

    #[test]
    fn what_waits_is_read_and_no_more_than_is_asked_for() {
        let (reader, mut writer) = pipe();
        let mut bounce = Bounce::new().unwrap();
        assert_eq!(bounce.read(reader.as_fd(), 10).unwrap_err(), Errno::AGAIN);
        writer.write_all(&content(50_000)).unwrap();

        assert_eq!(bounce.read(reader.as_fd(), 10).unwrap(), content(50_000)[..10]);
        assert_eq!(bounce.read(reader.as_fd(), usize::MAX).unwrap(), content(50_000)[10..]);

        drop(writer);
        assert!(bounce.read(reader.as_fd(), 10).unwrap().is_empty());
    }

    #[test]
    fn what_a_full_pipe_does_not_take_stays_and_goes_first() {
        let (mut reader, mut writer) = pipe();
        let same = writer.try_clone().unwrap();
        let room = fill(&mut writer, &same);
        let mut bounce = Bounce::new().unwrap();
        let bytes = Bytes::from(content(3 * room));
        let mut pieces = vec![bytes.slice(..1), bytes.slice(1..)];
        assert_eq!(bounce.write(writer.as_fd(), &pieces).unwrap_err(), Errno::AGAIN);
        assert!(!bounce.is_empty());

        let mut read = Vec::new();
        while read.len() < room + bytes.len() {
            let mut some = vec![0; 5000];
            let count = reader.read(&mut some).unwrap();
            read.extend_from_slice(&some[..count]);
            while !pieces.is_empty() {
                let Ok(mut written) = bounce.write(writer.as_fd(), &pieces) else { break };
                while written > 0 {
                    let part = written.min(pieces[0].len());
                    let _ = pieces[0].split_to(part);
                    written -= part;
                    if pieces[0].is_empty() {
                        pieces.remove(0);
                    }
                }
            }
        }
        assert!(read[room..] == bytes && bounce.is_empty());
    }

    #[test]
    fn nobody_who_reads_is_an_error() {
        let (reader, writer) = pipe();
        drop(reader);
        let pieces = [Bytes::from_static(b"x")];

        let error = Bounce::new().unwrap().write(writer.as_fd(), &pieces).unwrap_err();

        assert_eq!(error, Errno::PIPE);
    }
}
