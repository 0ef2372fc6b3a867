//! Unix pipes that cross hosts: what a Rust program depends on.
//!
//! A [`Node`] is one process's (or host's) qpipe: a key, UDP sockets, a memory budget. It
//! [connects](Node::connect) to other nodes or [offers](Node::offer) the end of a pipe to whoever
//! holds a ticket. A [`Session`] is what two nodes share over one QUIC connection; pipes are opened
//! in it. A [`PipeWriter`] and a [`PipeReader`] keep what pipe(7) promises: order, a bounded buffer
//! that makes a fast writer wait, EOF, EPIPE.
//!
//! The library never prints, never reads the environment, and makes no runtime: its asynchronous
//! functions want to run inside tokio.
//!
//! | module | what |
//! | --- | --- |
//! | [`Node`] | keys, sockets, dialling, accepting, offers |
//! | `link` | one session over its QUIC connection: the only files that name both |
//! | [`PipeWriter`], [`PipeReader`] | the ends; kernel pipes for children; [`blocking`] wrappers |
//! | [`identity`], [`tls`] | who a node is, and how it proves that |

#![forbid(unsafe_code)]

mod access;
pub mod blocking;
mod checksum;
mod chunks;
mod clock;
mod error;
pub mod identity;
mod link;
mod node;
mod pipe;
mod queue;
mod replay;
mod session;
#[cfg(test)]
mod simulated;
pub mod tls;

/// After so many tasks a runtime whose thread carries pipes should look for I/O:
/// [`event_interval`](tokio::runtime::Builder::event_interval). A task of a busy pipe takes 30
/// microseconds, so that with tokio's own 61 a short message waits a millisecond or two at each hop.
pub const EVENT_INTERVAL: u32 = 8;

/// And after so many for what other threads have woken:
/// [`global_queue_interval`](tokio::runtime::Builder::global_queue_interval), for which tokio's own 31 is as
/// long.
pub const WAKE_INTERVAL: u32 = 4;

pub use access::{Access, Nobody};
pub use error::PipeError;
pub use node::{
    CappedBuffers, CloseReport, ConnectionStatus, DialError, Ends, Node, NodeOptions, Notice,
    NoticeKind, Offer, Peer, SessionStatus, StartError, interface_addresses,
};
pub use pipe::{PipeReader, PipeWriter, Pumping, ReaderWatch, WHOLE_BYTES_MAX, WriterWatch};
pub use session::{IncomingOpen, OpenError, Session, SessionEnd};

pub use qpipe_proto::contact::Patience;
pub use qpipe_proto::fact::{OpenTarget, Priority};
pub use qpipe_proto::hello::Enrolled;
pub use qpipe_proto::limits::PIPE_BUF;
pub use qpipe_proto::session::OpenOptions;
pub use qpipe_proto::ticket::{Address, End, Grant};
pub use qpipe_proto::{Cause, Fingerprint, PipeName, Secret, Target, Ticket};
