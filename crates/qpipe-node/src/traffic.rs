//! Kernel pipes behind the standard descriptors: larger ones for whom much passes.
//!
//! A pipe of 64 KiB makes producer, qpipe and consumer take turns: measured, a pipe of 256 KiB at
//! both ends saves 8 % of the processor time on Ethernet and 30 % on loopback, and 1 MiB no more.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a pipe that is always full is enlarged to, in bytes: the largest read. Of the 64 MiB that a user
/// may have in larger pipes (pipe(7), pipe-user-pages-soft) it is little.
pub(crate) const BULK_BYTES: usize = 256 * 1024;

/// Where reads or writes move so much on average, half of what a pipe usually holds, it is too small.
const LARGE_BYTES: usize = 32 * 1024;

/// The average is of so many, 4 MiB: then more is to be expected.
const SAMPLE: usize = 128;

/// What the pipes that one process enlarged hold together, in bytes. Beyond 64 MiB
/// (fs.pipe-user-pages-soft) the kernel gives a user's new pipes, those of all their programs, one page or
/// two: half of that is left to others.
const ENLARGED_BYTES_MAX: usize = 32 * 1024 * 1024;

static ENLARGED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// How much passed lately through a descriptor.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Reads and writes of the present sample, and their bytes.
    calls: usize,
    bytes: usize,
    is_bulk: bool,
    enlarged: Option<LargePipe>,
}

impl Traffic {
    /// Notes a read or write, and enlarges the pipe behind `fd`, if it is one, once it pays: whether it
    /// has just come to that.
    pub(crate) fn note(&mut self, fd: BorrowedFd<'_>, bytes: usize) -> bool {
        if self.is_bulk {
            return false;
        }
        self.calls += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.calls == SAMPLE {
            self.is_bulk = self.bytes >= SAMPLE * LARGE_BYTES;
            (self.calls, self.bytes) = (0, 0);
        }
        if self.is_bulk {
            self.enlarged = LargePipe::enlarge(fd, BULK_BYTES);
        }
        self.is_bulk
    }
}

/// A part of [`ENLARGED_BYTES_MAX`].
#[derive(Debug)]
pub(crate) struct LargePipe(usize);

impl LargePipe {
    /// Has what is behind `fd` hold `bytes`, if it is a pipe that holds less and there is so much left.
    #[cfg(target_os = "linux")]
    pub(crate) fn enlarge(fd: BorrowedFd<'_>, bytes: usize) -> Option<LargePipe> {
        use rustix::pipe::{fcntl_getpipe_size, fcntl_setpipe_size};

        fcntl_getpipe_size(fd).ok().filter(|holds| *holds < bytes)?;
        let more = |taken| Some(taken + bytes).filter(|taken| *taken <= ENLARGED_BYTES_MAX);
        ENLARGED_BYTES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        let part = LargePipe(bytes);
        // Refused to whoever has too much already: it works as it is.
        fcntl_setpipe_size(fd, bytes).ok().map(|_| part)
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn enlarge(_: BorrowedFd<'_>, _: usize) -> Option<LargePipe> {
        None
    }
}

impl Drop for LargePipe {
    fn drop(&mut self) {
        ENLARGED_BYTES.fetch_sub(self.0, Ordering::Relaxed);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::fd::AsFd;

    use rustix::pipe::fcntl_getpipe_size;

    use super::*;

    #[test]
    fn a_pipe_grows_once_much_has_passed_and_not_before() {
        let (read, _write) = std::io::pipe().unwrap();
        let before = fcntl_getpipe_size(&read).unwrap();
        let mut traffic = Traffic::default();
        for bytes in [LARGE_BYTES; SAMPLE - 1].into_iter().chain([LARGE_BYTES - 1]) {
            assert!(!traffic.note(read.as_fd(), bytes));
        }
        assert_eq!(fcntl_getpipe_size(&read).unwrap(), before);

        // What is small among them does not matter.
        let calls = [2 * LARGE_BYTES, 1].into_iter().cycle().take(2 * SAMPLE);
        let pays: Vec<_> = calls.map(|bytes| traffic.note(read.as_fd(), bytes)).collect();

        assert_eq!(fcntl_getpipe_size(&read).unwrap(), BULK_BYTES.max(before));
        assert_eq!(pays.iter().position(|pays| *pays), Some(SAMPLE - 1));
        assert_eq!(pays.iter().filter(|pays| **pays).count(), 1);
    }

    #[test]
    fn what_is_no_pipe_takes_no_part_of_what_pipes_may_hold() {
        let file = tempfile::tempfile().unwrap();
        let mut traffic = Traffic::default();

        for bytes in [LARGE_BYTES; SAMPLE] {
            traffic.note(file.as_fd(), bytes);
        }

        assert!(traffic.enlarged.is_none());
    }
}
