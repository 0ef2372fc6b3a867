//! What a pipe that crosses hosts is: facts and their merge, the two ends of a pipe, the session
//! that two nodes share, and the wire format. The specification is docs/protocol.md with
//! `qpipe.proto`.
//!
//! The crate does no I/O, reads no clock and rolls no dice: it takes events, `now` and round trips,
//! and gives messages and events. One contract holds for [`Session`]: after every input, drain
//! [`Session::poll_message`] and [`Session::poll_event`] until both give nothing; extra polls are
//! harmless. Pipe bytes do not pass through: it sees offsets and ends.
//!
//! | module | what |
//! | --- | --- |
//! | [`contact`] | whether the peer is heard; when to dial again, to tell the user, to give up |
//! | [`fact`] | facts and their merge: commutative, associative, idempotent |
//! | [`session`] | the pipes that two nodes share; the write end and the read end |
//! | [`wire`] | control messages and the frames of pipe streams |
//! | [`budget`] | what all pipes of a node may hold in memory |
//! | [`ticket`], [`name`], [`target`], [`fingerprint`] | text that people see |
//! | [`limits`] | every bound, and the sum that they protect |

#![forbid(unsafe_code)]

pub mod budget;
pub mod cause;
pub mod contact;
pub mod fact;
pub mod fingerprint;
pub mod hello;
pub mod id;
pub mod limits;
pub mod name;
#[cfg(not(feature = "planted"))]
mod planted;
#[cfg(feature = "planted")]
#[doc(hidden)]
pub mod planted;
mod read_end;
pub mod session;
pub mod target;
pub mod ticket;
pub mod wire;
mod write_end;

pub use budget::Budget;
pub use cause::Cause;
pub use fingerprint::Fingerprint;
pub use id::{PipeId, PipeMap, Side};
pub use name::{NamePattern, PipeName};
pub use read_end::ReadOutcome;
pub use session::Session;
pub use target::Target;
pub use ticket::{Secret, Ticket};
pub use write_end::WriteOutcome;
