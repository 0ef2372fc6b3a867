//! What a descriptor is, and how it is waited for.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, OFlags, Stat, fcntl_getfl, fstat},
    io::Errno,
    net::{SocketType, sockopt::socket_type},
    termios::isatty,
};
use tokio::io::{Interest, Ready, unix::AsyncFd};

use super::{bounce::Bounce, pooled::restarted, taken::Taken};

/// Terminals of this major number stand for another one, or make a new one, when opened:
/// /dev/tty, /dev/console, /dev/ptmx.
#[cfg(target_os = "linux")]
const MAJOR_OF_ALIASES: u32 = 5;

/// What keeps nobody waiting: /dev/null, /dev/zero, /dev/full, as major and minor numbers.
#[cfg(target_os = "linux")]
const PROMPT_DEVICES: [(u32, u32); 3] = [(1, 3), (1, 5), (1, 7)];

/// What we do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Read,
    Write,
}

/// How it is read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A description of our own with O_NONBLOCK.
    Own,
    /// As it comes: it keeps nobody waiting.
    Prompt,
    /// In the blocking pool: epoll refuses it, and it makes nobody wait for long.
    Pooled,
    /// With MSG_DONTWAIT.
    Socket,
    /// In the blocking pool, once epoll says that it does not block.
    Waited,
}

#[derive(Debug)]
pub(super) struct Descriptor {
    /// `None` for what epoll refuses. Dropped first: it has to leave epoll while it is open.
    watch: Option<AsyncFd<Arc<Taken>>>,
    fd: Arc<Taken>,
    side: Side,
    way: Way,
    is_pipe: bool,
}

impl Descriptor {
    /// Takes it over; see the module for how.
    ///
    /// # Errors
    /// `EBADF` where it is not open for `side`; [`io::ErrorKind::Unsupported`] for a socket that is
    /// no byte stream; [`io::ErrorKind::BrokenPipe`] for a FIFO that nobody reads.
    pub(super) fn take(fd: OwnedFd, side: Side) -> io::Result<Self> {
        let flags = fcntl_getfl(&fd)?;
        let stat = fstat(&fd)?;
        match (flags & OFlags::RWMODE, side) {
            (OFlags::RDONLY, Side::Write) | (OFlags::WRONLY, Side::Read) => {
                return Err(Errno::BADF.into());
            }
            _ => {}
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::CharacterDevice if is_prompt(&stat) => Self::with(fd, side, Way::Prompt),
            FileType::Fifo | FileType::CharacterDevice => match reopen(&fd, &stat, flags) {
                // A FIFO that is opened again does not tell that its writers have left before.
                Ok(own) if side == Side::Read && is_hung_up(&fd)? && !is_hung_up(&own)? => {
                    Self::with(fd, side, Way::Waited)
                }
                Ok(own) => Self::with(own, side, Way::Own),
                Err(Errno::NXIO) if kind == FileType::Fifo && side == Side::Write => {
                    Err(Errno::PIPE.into())
                }
                Err(_) => Self::with(fd, side, Way::Waited),
            },
            FileType::Socket if socket_type(&fd)? != SocketType::STREAM => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a datagram socket is no stream of bytes",
            )),
            FileType::Socket => Self::with(fd, side, Way::Socket),
            FileType::RegularFile | FileType::BlockDevice | FileType::Directory => {
                Self::with(fd, side, Way::Pooled)
            }
            FileType::Symlink | FileType::Unknown => Self::with(fd, side, Way::Waited),
        }
    }

    /// Takes it over in a certain way, or pooled where epoll refuses it.
    pub(super) fn with(fd: OwnedFd, side: Side, way: Way) -> io::Result<Self> {
        let is_pipe = FileType::from_raw_mode(fstat(&fd)?.st_mode) == FileType::Fifo;
        let fd = Arc::new(Taken::new(fd, is_pipe || way == Way::Prompt));
        let mut taken = Self { watch: None, fd, side, way, is_pipe };
        if !matches!(way, Way::Pooled | Way::Prompt) {
            match taken.rewatch() {
                Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
                    taken.way = Way::Pooled;
                }
                result => result?,
            }
        }
        Ok(taken)
    }

    pub(super) fn way(&self) -> Way {
        self.way
    }

    pub(super) fn is_pipe(&self) -> bool {
        self.is_pipe
    }

    /// What bulk is to pass through, if it is a pipe with a description of our own.
    pub(super) fn bounce(&self) -> Option<Bounce> {
        if self.is_pipe && self.way == Way::Own { Bounce::new() } else { None }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// For a call in the blocking pool.
    pub(super) fn shared(&self) -> Arc<Taken> {
        Arc::clone(&self.fd)
    }

    /// Closes it, and says how that went.
    ///
    /// # Errors
    /// Those of [`Taken::close`]; nothing where a call in the blocking pool still uses it.
    ///
    /// # Cancel safety
    /// As there.
    pub(super) async fn close(self) -> io::Result<()> {
        let Self { watch, fd, .. } = self;
        drop(watch);
        match Arc::into_inner(fd) {
            Some(fd) => fd.close().await,
            None => Ok(()),
        }
    }

    /// The result of `op` as soon as it is not `EAGAIN`.
    ///
    /// # Errors
    /// Those of `op`; [`io::ErrorKind::BrokenPipe`] when everybody who read has left.
    ///
    /// # Cancel safety
    /// If dropped, `op` has come to nothing.
    pub(super) async fn attempt<T>(
        &mut self,
        mut op: impl FnMut(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> io::Result<T> {
        // Without asking epoll first: it says nothing of a FIFO that was left before it was opened
        // again, and what it said may have been used up by `closed`.
        match restarted(&mut || op(self.fd.as_fd())) {
            Err(Errno::AGAIN) => {}
            result => return Ok(result?),
        }
        loop {
            let Some(watch) = &self.watch else { return Err(Errno::AGAIN.into()) };
            let mut guard = watch.ready(self.interest()).await?;
            match restarted(&mut || op(self.fd.as_fd())) {
                Err(Errno::AGAIN) => {}
                result => return Ok(result?),
            }
            let seen = guard.ready();
            guard.clear_ready();
            // tokio never forgets a hang-up. A FIFO does, when it is opened once more.
            if seen.is_write_closed() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if seen.is_read_closed() {
                drop(guard);
                self.rewatch()?;
            }
        }
    }

    /// Waits until poll(2) says that it can be read or written, or never will be. Of a FIFO that nobody
    /// had open for writing when it was opened, poll(2) does not say that it is at its end: first it is
    /// to be read.
    ///
    /// # Errors
    /// As [`Self::attempt`].
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn ready(&mut self) -> io::Result<()> {
        let flags = match self.side {
            Side::Read => PollFlags::IN,
            Side::Write => PollFlags::OUT,
        };
        self.attempt(|fd| if polled(fd, flags)?.is_empty() { Err(Errno::AGAIN) } else { Ok(()) })
            .await
    }

    /// As [`Self::ready`]; at once for what epoll refuses.
    pub(super) async fn ready_unless_pooled(&mut self) -> io::Result<()> {
        match self.way {
            Way::Pooled | Way::Prompt => Ok(()),
            Way::Own | Way::Socket | Way::Waited => self.ready().await,
        }
    }

    /// Waits until everybody on the other side is gone; for ever where epoll does not tell.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn closed(&self) {
        let Some(watch) = &self.watch else { return std::future::pending().await };
        loop {
            // An error: the runtime shuts down.
            let Ok(mut guard) = watch.ready(Interest::WRITABLE).await else {
                return std::future::pending().await;
            };
            if guard.ready().is_write_closed() {
                return;
            }
            guard.clear_ready_matching(Ready::WRITABLE);
        }
    }

    #[cfg(test)]
    pub(super) fn watch(&self) -> Option<&AsyncFd<Arc<Taken>>> {
        self.watch.as_ref()
    }

    /// Only for what epoll refuses.
    #[cfg(test)]
    pub(super) fn close_with(&mut self, close: super::taken::Close) {
        Arc::get_mut(&mut self.fd).unwrap().close_with(close);
    }

    fn interest(&self) -> Interest {
        match self.side {
            Side::Read => Interest::READABLE,
            Side::Write => Interest::WRITABLE,
        }
    }

    #[expect(
        deprecated,
        reason = "its successor is unsafe, which is forbidden here; what it is blamed for, a number \
                  that changes or is closed meanwhile, cannot be: an Arc<Taken> stays what it is"
    )]
    fn rewatch(&mut self) -> io::Result<()> {
        // First out, then in again: epoll takes a descriptor once.
        self.watch = None;
        self.watch = Some(AsyncFd::with_interest(self.shared(), self.interest())?);
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn is_prompt(stat: &Stat) -> bool {
    use rustix::fs::{major, minor};

    PROMPT_DEVICES.contains(&(major(stat.st_rdev), minor(stat.st_rdev)))
}

#[cfg(not(target_os = "linux"))]
fn is_prompt(_stat: &Stat) -> bool {
    false
}

/// What poll(2) says at once.
fn polled(fd: BorrowedFd<'_>, flags: PollFlags) -> Result<PollFlags, Errno> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut polled = PollFd::from_borrowed_fd(fd, flags);
    poll(std::slice::from_mut(&mut polled), Some(&now))?;
    Ok(polled.revents())
}

/// Whether everybody on the other side has left.
fn is_hung_up(fd: &OwnedFd) -> Result<bool, Errno> {
    Ok(restarted(&mut || polled(fd.as_fd(), PollFlags::empty()))?.contains(PollFlags::HUP))
}

/// A description of our own of the same pipe or terminal.
#[cfg(target_os = "linux")]
fn reopen(fd: &OwnedFd, stat: &Stat, flags: OFlags) -> Result<OwnedFd, Errno> {
    use rustix::fs::{Mode, major, open};
    use std::os::fd::AsRawFd;

    let is_pipe = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
    let is_terminal = !is_pipe && isatty(fd) && major(stat.st_rdev) != MAJOR_OF_ALIASES;
    // O_PATH is no right to read or to write: opened again it would become one.
    if !(is_pipe || is_terminal) || flags.contains(OFlags::PATH) {
        return Err(Errno::OPNOTSUPP);
    }
    // As it was opened: `<> fifo` keeps a FIFO from ever being broken or at its end.
    let mode = flags & OFlags::RWMODE;
    // Without O_NOCTTY a node without a terminal would make this one its own.
    let own_flags = mode | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let own = open(format!("/proc/self/fd/{}", fd.as_raw_fd()), own_flags, Mode::empty())?;
    let found = fstat(&own)?;
    if (found.st_dev, found.st_ino) != (stat.st_dev, stat.st_ino) {
        return Err(Errno::OPNOTSUPP);
    }
    Ok(own)
}

#[cfg(not(target_os = "linux"))]
fn reopen(_fd: &OwnedFd, _stat: &Stat, _flags: OFlags) -> Result<OwnedFd, Errno> {
    Err(Errno::OPNOTSUPP)
}
