//! What a command hands to the node, and how it wants a pipe to be opened.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use qpipe::End;
use rustix::stdio::{stdin, stdout};

use crate::{
    args::{OpenArgs, PipeArgs},
    input, output,
    progress::Progress,
};

/// What the node is handed for an end of a pipe.
pub(crate) enum Handed {
    /// One end of a kernel pipe: to read what goes into the pipe (`End::Write`), or to write what
    /// comes out of it (`End::Read`).
    Descriptor(End, OwnedFd),
    /// Standard input, standard output, or both.
    Standard(End),
}

impl Handed {
    /// What is typed at this process's terminal, through a kernel pipe: the node knows nothing of the
    /// shell's jobs, and would go on reading while this one is stopped.
    ///
    /// # Errors
    /// No descriptors or threads are left.
    pub(super) fn typed() -> io::Result<Self> {
        let (reader, mut writer) = io::pipe()?;
        let copy = move || drop(io::copy(&mut io::stdin().lock(), &mut writer));
        std::thread::Builder::new().name("stdin".to_owned()).spawn(copy)?;
        Ok(Self::Descriptor(End::Write, reader.into()))
    }

    /// The end that this process holds.
    pub(super) fn end(&self) -> End {
        match self {
            Self::Descriptor(end, _) | Self::Standard(end) => *end,
        }
    }

    /// In the order in which the node wants them.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Descriptor(_, fd) => vec![fd.as_fd()],
            Self::Standard(End::Write) => vec![stdin()],
            Self::Standard(End::Read) => vec![stdout()],
            Self::Standard(End::Duplex) => vec![stdin(), stdout()],
        }
    }

    pub(super) fn progress(&self) -> Progress {
        Progress::start(match self {
            // The terminal is that of the program at the kernel pipe's other end.
            Self::Descriptor(..) | Self::Standard(End::Duplex) => true,
            Self::Standard(End::Read) => output::is_terminal(),
            Self::Standard(End::Write) => input::is_terminal(),
        })
    }

    /// Closes this process's own copies: they would hide the end of a pipe from the programs at its
    /// other end.
    pub(super) fn close(self) -> io::Result<()> {
        let Self::Standard(end) = self else { return Ok(()) };
        if end != End::Read {
            input::close_stdin()?;
        }
        if end != End::Write {
            output::close_stdout()?;
        }
        Ok(())
    }
}

/// How a pipe is to be opened.
#[derive(Clone, Copy)]
pub(crate) struct Wishes {
    pub(super) accept_new: bool,
    pub(super) no_wait: bool,
    pub(super) timeout: Option<Duration>,
}

impl From<&OpenArgs> for Wishes {
    fn from(args: &OpenArgs) -> Self {
        Self { accept_new: args.accept_new, no_wait: args.no_wait, timeout: args.timeout }
    }
}

impl From<&PipeArgs> for Wishes {
    fn from(args: &PipeArgs) -> Self {
        Self { accept_new: args.accept_new, no_wait: args.no_wait, timeout: args.timeout }
    }
}
