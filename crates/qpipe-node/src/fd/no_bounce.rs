//! Where there is no splice(2).

use std::os::fd::BorrowedFd;

use bytes::Bytes;
use rustix::io::Errno;

/// There is none.
#[derive(Debug)]
pub(super) enum Bounce {}

impl Bounce {
    pub(super) const BYTES_MAX: usize = 0;

    pub(super) fn new() -> Option<Bounce> {
        None
    }

    pub(super) fn read(&mut self, _fd: BorrowedFd<'_>, _max: usize) -> Result<Bytes, Errno> {
        match *self {}
    }

    pub(super) fn write(&mut self, _fd: BorrowedFd<'_>, _pieces: &[Bytes]) -> Result<usize, Errno> {
        match *self {}
    }

    pub(super) fn is_empty(&self) -> bool {
        match *self {}
    }
}
