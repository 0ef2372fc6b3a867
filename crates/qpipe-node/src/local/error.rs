//! What goes wrong between a program of this host and the host's node.

use std::io;
use std::path::PathBuf;

use super::message::LOCAL_VERSION;
use crate::home::HomeError;

/// Why a program and the node of its host do not understand each other, or do not meet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// Other programs connected meanwhile, more than may be waited for.
    #[error("too many programs connected without asking for anything")]
    Crowded,
    /// The node does not do what was asked.
    #[error("{0}")]
    Declined(String),
    /// The message came with another number of descriptors than belong to it.
    #[error("{found} file descriptors came with a message to which {allowed} belong")]
    Descriptors {
        /// How many came; at least as many.
        found: usize,
        /// How many belong to it.
        allowed: usize,
    },
    /// The kernel could not deliver all descriptors.
    #[error("not all file descriptors arrived: the receiver may have too many open")]
    DescriptorsLost,
    /// The connection ended within a message.
    #[error("the connection ended in the middle of a message")]
    EndedEarly,
    /// The home is not usable.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The system said no.
    #[error("cannot {what} {}: {cause}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A message is empty or too long.
    #[error("a message of {found} bytes: there are 1 to {bytes_max} allowed")]
    Length {
        /// Its length.
        found: u64,
        /// The longest.
        bytes_max: usize,
    },
    /// Another node listens there.
    #[error("a qpipe node listens already at {}", path.display())]
    Live {
        /// The socket.
        path: PathBuf,
    },
    /// A message that is none.
    #[error("not a message of the local protocol: {0}")]
    Message(String),
    /// Something that is no socket is where the socket belongs.
    #[error("{} is not a socket: move it away", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The path does not fit a socket's address.
    #[error(
        "the path {} is too long for a Unix socket: set QPIPE_HOME to a shorter one",
        path.display()
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// The program said nothing in time.
    #[error("no request came in time")]
    Silent,
    /// A node could not be started, or ended at once.
    #[error("cannot start a qpipe node with {}: {what}; see {}", program.display(), log.display())]
    Start {
        /// What was started.
        program: PathBuf,
        /// What went wrong.
        what: String,
        /// Where it may have said more.
        log: PathBuf,
    },
    /// The connection failed.
    #[error("the connection to the node of this host failed: {0}")]
    Stream(#[source] io::Error),
    /// Whoever listens is another user.
    #[error(
        "{} belongs to another user (uid {uid}): set QPIPE_HOME to a directory of your own",
        path.display()
    )]
    Stranger {
        /// The socket.
        path: PathBuf,
        /// Who listens.
        uid: u32,
    },
    /// The other side speaks another version.
    #[error(
        "version {found} of the local protocol is not known here, only version {LOCAL_VERSION}: \
         the command and the running node are of different versions of qpipe"
    )]
    Version {
        /// Its version.
        found: u32,
    },
}

impl LocalError {
    /// What serde says of a message. Part of the text may come from the other side.
    pub(super) fn of_json(error: serde_json::Error) -> LocalError {
        LocalError::Message(printable(&error.to_string()))
    }
}

/// One line of at most a few hundred bytes without characters that terminals obey.
pub(super) fn printable(text: &str) -> String {
    /// Enough for a sentence and a path.
    const CHARS_MAX: usize = 300;

    let obeyed = qpipe_proto::name::is_obeyed_by_terminals;
    text.trim().chars().take(CHARS_MAX).map(|c| if obeyed(c) { '?' } else { c }).collect()
}
