//! The wire format: control messages and pipe streams (docs/protocol.md, `qpipe.proto`).

mod address;
mod control;
mod frame;
pub(crate) mod pb;
mod varint;

pub use control::{
    Bye, ControlDecoder, ControlMessage, FactsMessage, Hello, MalformedMessage, encode_control,
};
pub use frame::{
    Frame, FrameError, FrameReader, StreamHeader, encode_chunk_header, encode_header,
    encode_trailer,
};
