//! Kernel pipes behind the standard descriptors: larger ones for whom much passes.
//!
//! A pipe of 64 KiB makes producer, qpipe and consumer take turns: measured, a pipe of 256 KiB at
//! both ends saves 8 % of the processor time on Ethernet and 30 % on loopback, and 1 MiB no more.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a pipe that is always full is enlarged to, in bytes: the largest read. Of the 64 MiB that a user
/// may have in larger pipes (pipe(7), pipe-user-pages-soft) it is little.
#[cfg(target_os = "linux")]
const BULK_BYTES: usize = 256 * 1024;

/// A read or write of at least so many bytes is one of many: half of what a pipe usually holds.
const LARGE_BYTES: usize = 32 * 1024;

/// After so many in a row, 4 MiB, more is to be expected.
const LARGE_IN_A_ROW: u32 = 128;

/// What the pipes that one process enlarged hold together, in bytes. Beyond 64 MiB
/// (fs.pipe-user-pages-soft) the kernel gives a user's new pipes, those of all their programs, one page or
/// two: half of that is left to others.
const ENLARGED_BYTES_MAX: usize = 32 * 1024 * 1024;

static ENLARGED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// How much passed lately through a descriptor.
#[derive(Debug, Default)]
pub struct Traffic {
    large_in_a_row: u32,
    enlarged: Option<LargePipe>,
}

impl Traffic {
    /// Notes a read or write, and enlarges the pipe behind `fd`, if it is one, once it pays.
    pub fn note(&mut self, fd: BorrowedFd<'_>, bytes: usize) {
        if self.large_in_a_row >= LARGE_IN_A_ROW {
            return;
        }
        self.large_in_a_row = if bytes < LARGE_BYTES { 0 } else { self.large_in_a_row + 1 };
        if self.large_in_a_row == LARGE_IN_A_ROW {
            self.enlarged = LargePipe::enlarge(fd, BULK_BYTES);
        }
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
        for bytes in std::iter::repeat_n(LARGE_BYTES, 127).chain([1]) {
            traffic.note(read.as_fd(), bytes);
        }
        assert_eq!(fcntl_getpipe_size(&read).unwrap(), before);

        std::iter::repeat_n(LARGE_BYTES, 128).for_each(|bytes| traffic.note(read.as_fd(), bytes));

        assert_eq!(fcntl_getpipe_size(&read).unwrap(), BULK_BYTES.max(before));
    }

    #[test]
    fn what_is_no_pipe_takes_no_part_of_what_pipes_may_hold() {
        let file = tempfile::tempfile().unwrap();
        let mut traffic = Traffic::default();

        std::iter::repeat_n(LARGE_BYTES, 128).for_each(|bytes| traffic.note(file.as_fd(), bytes));

        assert!(traffic.enlarged.is_none());
    }
}
