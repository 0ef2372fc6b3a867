//! Between two lives: who reads from the FIFO is to see the end of the first one.
//!
//! The kernel tells a reader the end only if it reads while nobody has the FIFO open to write. If the
//! next life opened it before that, its bytes would be appended for that reader.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::io::ioctl_fionread;

use super::file::Place;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(10);

/// How often it is looked after everything was read. A program that still has the FIFO open then
/// goes on reading past ends of file, as `tail -f` does.
const LOOKS_MAX: u32 = 100;

/// What tells that a reader has left.
pub(super) struct Settling {
    /// Keeps the kernel's count of bytes that were not read yet.
    keeper: OwnedFd,
    #[cfg(target_os = "linux")]
    closes: Option<OwnedFd>,
    looks: u32,
}

impl Settling {
    /// Begins to look, before the end to write is closed.
    ///
    /// # Errors
    /// The FIFO cannot be opened.
    pub(super) fn begin(place: &Place) -> io::Result<Self> {
        Ok(Self {
            keeper: place.reader_at_once()?,
            #[cfg(target_os = "linux")]
            closes: closes(place).ok(),
            looks: 0,
        })
    }

    /// Waits until a reader has closed the FIFO, or has read everything and a second has passed.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn settled(&mut self) {
        while !self.has_left() && self.looks < LOOKS_MAX {
            tokio::time::sleep(LOOK).await;
            if matches!(ioctl_fionread(&self.keeper), Ok(0) | Err(_)) {
                self.looks += 1;
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn has_left(&self) -> bool {
        let mut event = [0; EVENT_BYTES_MAX];
        let read = |closes: &OwnedFd| rustix::io::read(closes, &mut event);
        self.closes.as_ref().map(read).is_some_and(|read| read.is_ok())
    }

    #[cfg(not(target_os = "linux"))]
    fn has_left(&self) -> bool {
        false
    }
}

/// More than one event of inotify(7) without a name takes.
#[cfg(target_os = "linux")]
const EVENT_BYTES_MAX: usize = 512;

/// Tells of every description of the FIFO to read that is closed.
#[cfg(target_os = "linux")]
fn closes(place: &Place) -> io::Result<OwnedFd> {
    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

    let closes = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    add_watch(&closes, place.path(), WatchFlags::CLOSE_NOWRITE)?;
    Ok(closes)
}
