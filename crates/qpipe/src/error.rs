//! How a pipe ended badly, as its program sees it.

use std::io;

use qpipe_proto::{Cause, ReadOutcome, WriteOutcome};

/// Why a read, a write or a finish failed: the source of the [`io::Error`]s of both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PipeError {
    /// Reader's end: the writer, its node or its host ended without closing the pipe. The bytes so
    /// far are right, but they are not all.
    #[error("the pipe was cut off after {delivered} bytes: {cause}")]
    Aborted {
        /// Why.
        cause: Cause,
        /// Bytes that came through.
        delivered: u64,
    },
    /// Writer's end: the reader left (EPIPE).
    #[error("broken pipe after {consumed} bytes: {cause}")]
    Broken {
        /// Why.
        cause: Cause,
        /// Bytes that the reader had consumed.
        consumed: u64,
    },
    /// Reader's end: the length or checksum of the content is wrong.
    #[error("the content is corrupt: its checksum is wrong after {delivered} bytes")]
    Corrupt {
        /// Bytes that came through.
        delivered: u64,
    },
    /// Writer's end: the pipe failed. How much the reader consumed beyond `consumed` is unknown.
    #[error("the pipe failed after at least {consumed} bytes: {cause}")]
    Failed {
        /// Why.
        cause: Cause,
        /// Bytes known to be consumed.
        consumed: u64,
    },
    /// The other node refused the open.
    #[error("the open was refused: {cause}")]
    Refused {
        /// Why.
        cause: Cause,
    },
}

impl PipeError {
    /// The pipe's own error behind an [`io::Error`], if it is one.
    pub fn of(error: &io::Error) -> Option<&PipeError> {
        error.get_ref()?.downcast_ref()
    }

    /// The pipe's own error behind what an end of a pipe gave: there always is one. What does not have one is
    /// told as a lost connection.
    pub fn or_lost(error: &io::Error) -> PipeError {
        let lost = PipeError::Failed { cause: Cause::Lost, consumed: 0 };
        PipeError::of(error).copied().unwrap_or(lost)
    }

    /// The cause, where there is one.
    pub fn cause(&self) -> Cause {
        match self {
            PipeError::Aborted { cause, .. }
            | PipeError::Broken { cause, .. }
            | PipeError::Failed { cause, .. }
            | PipeError::Refused { cause } => *cause,
            PipeError::Corrupt { .. } => Cause::Corrupt,
        }
    }

    /// What a write end's outcome is as an error; `Ok` with the length if it is none.
    pub(crate) fn of_write(outcome: WriteOutcome) -> Result<u64, PipeError> {
        match outcome {
            WriteOutcome::Broken { cause, consumed } => Err(PipeError::Broken { cause, consumed }),
            WriteOutcome::Complete { length } => Ok(length),
            WriteOutcome::Failed { cause, consumed } => Err(PipeError::Failed { cause, consumed }),
            WriteOutcome::Refused(cause) => Err(PipeError::Refused { cause }),
        }
    }

    /// What a read end's outcome is as an error; `Ok` if it is EOF.
    pub(crate) fn of_read(outcome: ReadOutcome, delivered: u64) -> Result<(), PipeError> {
        match outcome {
            ReadOutcome::Aborted(cause) => Err(PipeError::Aborted { cause, delivered }),
            ReadOutcome::Closed(cause) => Err(PipeError::Aborted { cause, delivered }),
            ReadOutcome::Corrupt => Err(PipeError::Corrupt { delivered }),
            ReadOutcome::Eof => Ok(()),
            ReadOutcome::Refused(cause) => Err(PipeError::Refused { cause }),
        }
    }

    fn kind(&self) -> io::ErrorKind {
        match self {
            PipeError::Aborted { .. } | PipeError::Failed { .. } => {
                io::ErrorKind::ConnectionAborted
            }
            PipeError::Broken { .. } => io::ErrorKind::BrokenPipe,
            PipeError::Corrupt { .. } => io::ErrorKind::InvalidData,
            PipeError::Refused { cause: Cause::NotAllowed | Cause::Ticket | Cause::Revoked } => {
                io::ErrorKind::PermissionDenied
            }
            PipeError::Refused { .. } => io::ErrorKind::ConnectionRefused,
        }
    }
}

impl From<PipeError> for io::Error {
    fn from(error: PipeError) -> io::Error {
        io::Error::new(error.kind(), error)
    }
}
