//! Descriptors that were taken over from other processes: standard inputs and outputs of commands.
//!
//! A descriptor shares its *open file description*, and with it O_NONBLOCK, with processes that
//! know nothing of qpipe: the flag is never set on it. How one is read or written without a thread
//! of its own, and without blocking anybody:
//!
//! | it is | how |
//! | --- | --- |
//! | a pipe, a FIFO, a terminal | opened again through `/proc/self/fd` with O_NONBLOCK: a description of our own; the one taken over is closed |
//! | such a one that may not be opened again (a pipe of another user), or must not (`/dev/ptmx`, `/dev/tty`) | epoll says when, a thread of the blocking pool reads, or writes at most PIPE_BUF, which then does not block unless another process is quicker |
//! | a stream socket | MSG_DONTWAIT |
//! | what never waits: /dev/null, /dev/zero, /dev/full | as it comes |
//! | what else epoll refuses: files, directories | the blocking pool |
//!
//! Bytes of a pipe through which much passes go through another pipe, of our own; see `bounce`.
//!
//! The process must ignore SIGPIPE, as Rust programs do: write(2) and splice(2) have no flag
//! against it. A call in the blocking pool holds the descriptor open until it returns, and also
//! the runtime's shutdown; it is one at a time for each descriptor. What may take long to
//! close is closed there, too: close(2) of a file of another host writes what was not written yet.

#[cfg(target_os = "linux")]
mod bounce;
#[cfg(not(target_os = "linux"))]
#[path = "no_bounce.rs"]
mod bounce;
mod descriptor;
mod pooled;
mod sink;
mod source;
mod splice;
mod taken;
#[cfg(test)]
mod test_files;

pub(crate) use sink::Sink;
pub use source::Source;
pub(crate) use splice::{Unspliced, settle, splice};
