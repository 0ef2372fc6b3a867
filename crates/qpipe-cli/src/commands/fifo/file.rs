//! The FIFO on disk: made, opened, abandoned, removed.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use qpipe::End;
use rustix::{
    fs::{Mode, OFlags, fcntl_setfl},
    io::{Errno, ioctl_fionread, retry_on_intr},
};
use tokio::sync::oneshot;

/// How often a thread that is about to open the FIFO is looked for, to have it return.
const LOOK: Duration = Duration::from_millis(1);

/// Where a FIFO is, and which one.
#[derive(Clone, Debug)]
pub(super) struct Place {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// A FIFO that this process works with. Dropped, it is removed if this process made it and is to.
pub(super) struct Fifo {
    place: Place,
    is_removed: bool,
}

impl Fifo {
    /// Makes a FIFO with the permissions `mode`, or takes the one that is there. One that was made
    /// is removed in the end, unless it `stays`.
    ///
    /// # Errors
    /// It cannot be made, or something else is there.
    pub(super) fn at(path: &Path, mode: u32, stays: bool) -> anyhow::Result<Self> {
        let shown = path.display();
        let is_made = match make(path, mode) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error).with_context(|| format!("cannot make FIFO {shown}")),
        };
        let found = match is_made {
            true => fs::symlink_metadata(path),
            false => fs::metadata(path),
        };
        let found = found.with_context(|| format!("cannot use {shown}"))?;
        if !found.file_type().is_fifo() {
            bail!("{shown} is there already and is no FIFO: name another PATH");
        }
        let place = Place { path: path.to_owned(), device: found.dev(), inode: found.ino() };
        Ok(Self { place, is_removed: is_made && !stays })
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.place.path);
        if self.is_removed && found.is_ok_and(|found| self.place.is(&found)) {
            // It may be gone just now.
            let _ = fs::remove_file(&self.place.path);
        }
    }
}

impl Place {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn is(&self, found: &fs::Metadata) -> bool {
        (found.dev(), found.ino()) == (self.device, self.inode)
    }

    /// Opens what is at the path, if that is still the FIFO.
    fn open(&self, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
        let fd = retry_on_intr(|| rustix::fs::open(&self.path, flags, Mode::empty()))?;
        let file = fs::File::from(fd);
        if !self.is(&file.metadata()?) {
            let path = self.path.display();
            return Err(io::Error::other(format!("{path} is not the FIFO any more that it was")));
        }
        Ok(file.into())
    }

    /// Opens the end to read without waiting for anybody.
    ///
    /// # Errors
    /// What open(2) says, or another file is there.
    pub(super) fn reader_at_once(&self) -> io::Result<OwnedFd> {
        self.open(OFlags::RDONLY | OFlags::NONBLOCK)
    }

    /// Opens the end to write without waiting for anybody.
    ///
    /// # Errors
    /// ENXIO if nobody has opened it to read, or is about to.
    fn writer_at_once(&self) -> io::Result<OwnedFd> {
        self.open(OFlags::WRONLY | OFlags::NONBLOCK)
    }

    /// Closes the end to read. A writer that came too late for the pipe that was read for gets
    /// SIGPIPE; if it has written already, that is not lost: here is the end to read again, for the
    /// next pipe.
    pub(super) fn leave(&self, reader: OwnedFd) -> Option<OwnedFd> {
        // As long as anybody has the FIFO open, the kernel keeps what is in it.
        let keeper = self.writer_at_once().ok()?;
        drop(reader);
        // Without a reader nothing more can be written.
        match ioctl_fionread(&keeper) {
            Ok(1..) => {
                let reader = self.reader_at_once().ok()?;
                fcntl_setfl(&reader, OFlags::empty()).ok()?;
                Some(reader)
            }
            Ok(0) | Err(_) => None,
        }
    }
}

/// A thread that opens the FIFO, and waits for a program to do so.
pub(super) struct Opening {
    place: Place,
    end: End,
    opened: oneshot::Receiver<io::Result<OwnedFd>>,
}

impl Opening {
    /// Begins to open the FIFO to read, where programs write (`End::Write`), or to write.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn start(place: &Place, end: End) -> io::Result<Self> {
        let (opener, flags) = (
            place.clone(),
            match end {
                End::Read => OFlags::WRONLY,
                End::Duplex | End::Write => OFlags::RDONLY,
            },
        );
        let (sender, opened) = oneshot::channel();
        thread::Builder::new().name("fifo".to_owned()).spawn(move || {
            // One that nobody waits for any more is closed.
            let _ = sender.send(opener.open(flags));
        })?;
        Ok(Self { place: place.clone(), end, opened })
    }

    /// The FIFO, once a program has opened it.
    ///
    /// # Errors
    /// What open(2) says, or another file is there now.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn opened(&mut self) -> io::Result<OwnedFd> {
        (&mut self.opened).await.map_err(io::Error::other)?
    }

    /// Has the thread give up. Where a program has come at this very moment and has written already,
    /// here is the end to read it, for the next pipe.
    ///
    /// # Errors
    /// The thread cannot be reached: another file is at the path, or the permissions do not allow it.
    pub(super) async fn abandon(mut self) -> io::Result<Option<OwnedFd>> {
        loop {
            // The other end lets the thread's open return.
            let partner = match self.end {
                End::Read => self.place.reader_at_once(),
                End::Duplex | End::Write => self.place.writer_at_once(),
            };
            let partner = match partner {
                Ok(partner) => Some(partner),
                // The thread has not come so far yet, or is through.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) => None,
                Err(error) => return Err(error),
            };
            let opened = match &partner {
                Some(_) => self.opened().await,
                None => match tokio::time::timeout(LOOK, self.opened()).await {
                    Ok(opened) => opened,
                    Err(_) => continue,
                },
            };
            let ours = opened?;
            return Ok(match self.end {
                End::Read => None,
                End::Duplex | End::Write => self.place.leave(ours),
            });
        }
    }
}

/// mkfifo(3), whatever the umask is: the permissions are what the user asks for.
#[cfg(not(target_vendor = "apple"))]
fn make(path: &Path, mode: u32) -> io::Result<()> {
    use rustix::{
        fs::{CWD, mkfifoat},
        process::umask,
    };

    let before = umask(Mode::empty());
    let made = mkfifoat(CWD, path, Mode::from_raw_mode(mode));
    umask(before);
    Ok(made?)
}

/// The same by mkfifo(1).
#[cfg(target_vendor = "apple")]
fn make(path: &Path, mode: u32) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut command = std::process::Command::new("mkfifo");
    let status = command.arg("-m").arg(format!("{mode:o}")).arg("--").arg(path).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("mkfifo(1) failed")) }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
