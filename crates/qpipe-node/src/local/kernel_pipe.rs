//! An end of a pipe for this process, by way of its host's node: a kernel pipe.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use qpipe::{End, Fingerprint};
use rustix::pipe::{PipeFlags, pipe_with};

use super::error::LocalError;
use super::message::{Ask, Event, OpenAsk, Outcome, Request, Word};
use super::start::connect_or_start;
use super::stream::LocalStream;
use crate::home::Home;

/// How often a node is asked that may just have ended.
const TRIES_MAX: u32 = 4;

/// The other end of a kernel pipe that this process has from its host's node.
///
/// Let go of without [`HeldPipe::finish`], the pipe is aborted: its reader is told that it was cut off,
/// its writer that the reader has left.
#[derive(Debug)]
pub struct HeldPipe {
    stream: LocalStream,
    end: End,
    host: Option<String>,
    address: Option<SocketAddr>,
}

/// Why there is no pipe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenPipeError {
    /// It was not opened, in the node's words.
    #[error("{0}")]
    Failed(String),
    /// The node cannot be talked to.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The open was refused, or nobody came in time.
    #[error("the pipe ended before it was open: {0:?}")]
    Stopped(Outcome),
    /// Nobody vouched for the other host yet: see [`Event::UnknownHost`].
    #[error("the host {host} is not known: its key is {seen}")]
    UnknownHost {
        /// The host that was asked for.
        host: String,
        /// The key that it has.
        seen: Fingerprint,
    },
}

/// Opens an end of a pipe through the node of a home, which `program` with `args` starts where none runs
/// (see [`connect_or_start`]): the file descriptor of a kernel pipe, to write or to read, to poll, to
/// splice, or to give to a child, with the kernel's own blocking, EOF and SIGPIPE.
///
/// # Errors
/// [`OpenPipeError`]. A duplex end is two descriptors: it is refused as [`OpenPipeError::Failed`].
///
/// # Cancel safety
/// Cancel safe: the open is given up.
pub async fn open_pipe(
    home: &Home,
    program: &Path,
    args: &[OsString],
    ask: OpenAsk,
) -> Result<(OwnedFd, HeldPipe), OpenPipeError> {
    let (reader, writer) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|errno| LocalError::Stream(errno.into()))?;
    let (ours, theirs) = match ask.end {
        End::Write => (writer, reader),
        End::Read => (reader, writer),
        End::Duplex => {
            return Err(OpenPipeError::Failed("a kernel pipe has one direction".to_owned()));
        }
    };
    for _ in 0..TRIES_MAX {
        let mut stream = connect_or_start(home, program, args).await?;
        let request = Request::new(Ask::Open(ask.clone()));
        // A node that ends may still say why it does not listen.
        match stream.send(&request, &[theirs.as_fd()]).await {
            Ok(()) | Err(LocalError::Stream(_)) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(held) = opened(stream, ask.end).await? {
            return Ok((ours, held));
        }
    }
    Err(OpenPipeError::Failed("this host's node ends again and again".to_owned()))
}

/// Waits until the open is granted; none if another node is to be asked.
async fn opened(mut stream: LocalStream, end: End) -> Result<Option<HeldPipe>, OpenPipeError> {
    loop {
        let event = match stream.recv::<Event>().await {
            Ok(Some(event)) => event,
            Ok(None) | Err(LocalError::EndedEarly | LocalError::Stream(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match event {
            Event::Opened { host, address } => {
                return Ok(Some(HeldPipe { stream, end, host, address }));
            }
            Event::Failed { text } => return Err(OpenPipeError::Failed(text)),
            Event::UnknownHost { host, seen, .. } => {
                return Err(OpenPipeError::UnknownHost { host, seen });
            }
            Event::Ended { sent, received } => {
                let outcome = sent.or(received).unwrap_or(Outcome { bytes: 0, stopped: None });
                return Err(OpenPipeError::Stopped(outcome));
            }
            _ => {}
        }
    }
}

impl HeldPipe {
    /// The other host's key and where it was reached, if the pipe leads to one.
    pub fn peer(&self) -> Option<(&str, SocketAddr)> {
        self.host.as_deref().zip(self.address)
    }

    /// Waits until the pipe is over, and says how it went: how many bytes, and whether all of them were
    /// consumed, or came. For a writer, its end of file is meant as one from now on: when every copy of
    /// the descriptor is closed, the reader gets it.
    ///
    /// # Errors
    /// The node is gone, or talks nonsense: what was sent may not have arrived, what came is not all.
    ///
    /// # Cancel safety
    /// Not cancel safe: dropped, it aborts the pipe.
    pub async fn finish(mut self) -> Result<Outcome, LocalError> {
        loop {
            match self.stream.recv::<Event>().await?.ok_or(LocalError::EndedEarly)? {
                Event::Eof => self.stream.send(&Word::Confirm, &[]).await?,
                Event::Ended { sent, received } => {
                    let outcome = if self.end == End::Write { sent } else { received };
                    return outcome.ok_or_else(|| {
                        LocalError::Message("the end of a pipe without an outcome".to_owned())
                    });
                }
                Event::Failed { text } => return Err(LocalError::Declined(text)),
                _ => {}
            }
        }
    }
}
