//! What a command hands to the node, and how it wants a pipe to be opened.

use std::{
    io::{self, PipeReader, PipeWriter},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, OnceLock},
    time::Duration,
};

use qpipe::End;
use qpipe_node::local::Records;
use rustix::stdio::{stdin, stdout};

use crate::{
    args::{FifoArgs, FlowArgs, OpenArgs, PipeArgs},
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
    /// What is typed at this process's terminal, through a kernel pipe: the node knows nothing of
    /// the shell's jobs, and would go on reading while this one is stopped.
    Typed {
        /// Goes to the node.
        reader: PipeReader,
        /// Stays here.
        writer: PipeWriter,
    },
}

/// What is typed is on its way to the node.
pub(super) struct Typing {
    failed: Arc<OnceLock<io::Error>>,
}

impl Handed {
    /// What will be typed at this process's terminal.
    ///
    /// # Errors
    /// No descriptors are left.
    pub(super) fn typed() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self::Typed { reader, writer })
    }

    /// The end that this process holds.
    pub(super) fn end(&self) -> End {
        match self {
            Self::Descriptor(end, _) | Self::Standard(end) => *end,
            Self::Typed { .. } => End::Write,
        }
    }

    /// In the order in which the node wants them.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Descriptor(_, fd) => vec![fd.as_fd()],
            Self::Standard(End::Write) => vec![stdin()],
            Self::Standard(End::Read) => vec![stdout()],
            Self::Standard(End::Duplex) => vec![stdin(), stdout()],
            Self::Typed { reader, .. } => vec![reader.as_fd()],
        }
    }

    pub(super) fn progress(&self) -> Progress {
        Progress::start(match self {
            // The terminal is that of the program at the kernel pipe's other end.
            Self::Descriptor(..) | Self::Standard(End::Duplex) => true,
            Self::Standard(End::Read) => output::is_terminal(),
            Self::Standard(End::Write) => input::is_terminal(),
            Self::Typed { .. } => true,
        })
    }

    /// Closes this process's own copies, once bytes may move: they would hide the end of a pipe from
    /// the programs at its other end. What is typed is read from now on: what was typed before may
    /// have been the answer to a question, or nobody's.
    ///
    /// # Errors
    /// What the system says, or no thread is left to read with.
    pub(super) fn release(self) -> io::Result<Option<Typing>> {
        match self {
            Self::Descriptor(..) => {}
            Self::Standard(end) => {
                if end != End::Read {
                    input::close_stdin()?;
                }
                if end != End::Write {
                    output::close_stdout()?;
                }
            }
            Self::Typed { writer, .. } => return Typing::start(writer).map(Some),
        }
        Ok(None)
    }
}

impl Typing {
    fn start(mut writer: PipeWriter) -> io::Result<Self> {
        let typing = Self { failed: Arc::default() };
        let failed = typing.failed.clone();
        std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            if let Err(error) = io::copy(&mut io::stdin().lock(), &mut writer) {
                // Before the node sees the end.
                let _ = failed.set(error);
            }
        })?;
        Ok(typing)
    }

    /// Why there is no more, if that is not the end of what was typed. To be asked when the node has
    /// seen the end.
    pub(super) fn into_error(self) -> Option<io::Error> {
        let error = self.failed.get()?;
        let told = error.raw_os_error().map(io::Error::from_raw_os_error);
        Some(told.unwrap_or_else(|| io::Error::new(error.kind(), error.to_string())))
    }
}

/// How a pipe is to be opened.
#[derive(Clone, Copy)]
pub(crate) struct Wishes {
    pub(super) accept_new: bool,
    pub(super) no_wait: bool,
    pub(super) timeout: Option<Duration>,
    pub(super) records: Option<Records>,
    pub(super) flow: FlowArgs,
}

impl Wishes {
    /// For a pipe in which somebody else's node answers a question: at once, or not at all.
    pub(crate) fn of_question(accept_new: bool, timeout: Duration) -> Self {
        let flow = FlowArgs::default();
        Self { accept_new, no_wait: true, timeout: Some(timeout), records: None, flow }
    }
}

impl From<&FifoArgs> for Wishes {
    fn from(args: &FifoArgs) -> Self {
        Self {
            accept_new: args.accept_new,
            no_wait: false,
            timeout: None,
            records: None,
            flow: args.flow,
        }
    }
}

impl From<&OpenArgs> for Wishes {
    fn from(args: &OpenArgs) -> Self {
        Self {
            accept_new: args.accept_new,
            no_wait: args.no_wait,
            timeout: args.timeout,
            records: Some(Records::Write),
            flow: args.flow,
        }
    }
}

impl From<&PipeArgs> for Wishes {
    fn from(args: &PipeArgs) -> Self {
        Self {
            accept_new: args.accept_new,
            no_wait: args.no_wait,
            timeout: args.timeout,
            records: None,
            flow: args.flow,
        }
    }
}
