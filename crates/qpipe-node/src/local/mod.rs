//! How programs of this host and the host's node find each other and talk: a Unix socket, over which
//! a program asks for one thing, hands over its descriptors and hears what becomes of it.
//! docs/local-protocol.md is the specification.
//!
//! | module | what |
//! | --- | --- |
//! | `message`, `codec` | what is said, and its JSON |
//! | `stream`, `events` | a connection: messages, descriptors, and the node's side of it |
//! | `listener`, `socket` | the node's socket, and the way to it |
//! | `start`, `detach` | starting a node where none listens, and what it does first |
//! | `peer` | the way to the host's own node over loopback |

mod codec;
mod detach;
mod error;
mod events;
mod kernel_pipe;
mod listener;
mod message;
mod peer;
mod socket;
mod start;
mod stream;

pub use codec::{Message, process_text};
pub use detach::detach;
pub use error::LocalError;
pub use events::{EVENTS_WAITING_MAX, EventSender, Words};
pub use kernel_pipe::{HeldPipe, OpenPipeError, open_pipe};
pub use listener::{Credentials, Listener, REQUEST_MAX, ServerStream, UNASKED_MAX};
pub use message::{
    Ask, EVENT_BYTES_MAX, Event, LOCAL_VERSION, MESSAGE_BYTES_MAX, OpenAsk, Outcome,
    PROCESS_BYTES_MAX, PipeStop, Place, Records, Request, Stop, Word, cause_of, milliseconds,
};
pub use peer::local_peer;
pub use socket::connect;
pub use start::{NODE_START_MAX, connect_or_start, hold_start, retire};
pub use stream::{DESCRIPTORS_MAX, LocalStream};

#[cfg(test)]
mod document_tests;
