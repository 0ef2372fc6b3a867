//! Pipe streams: a header, chunks, a trailer.
//!
//! ```text
//! stream  = length StreamHeader *( length payload ) %xFF length End
//! length  = a variable-length integer of RFC 9000, section 16; of a chunk at most 2^30 - 1
//! ```
//!
//! A chunk's length never takes eight bytes, so the first byte 0xFF is free to mark the trailer. A
//! chunk of length 0 is an error. What is not ended by a trailer is cut, whatever QUIC says of it.

use std::ops::RangeInclusive;

use bytes::{Buf, Bytes};
use prost::Message;

use super::control::{
    behind, end_from_pb, end_to_pb, id_from_pb, open_from_pb, open_to_pb, with_length,
};
use super::{MalformedMessage, pb, varint};
use crate::fact::{End, Open};
use crate::id::PipeId;
use crate::limits::{STREAM_HEADER_BYTES_MAX, STREAM_TRAILER_BYTES_MAX};

/// The first byte of a trailer.
const TRAILER: u8 = 0xff;

/// What a pipe stream begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamHeader {
    /// The pipe.
    pub id: PipeId,
    /// Which stream of the pipe on its connection.
    pub attempt: u64,
    /// Of the first byte, in the pipe.
    pub offset: u64,
    /// The Open, if the writer's node opened the pipe.
    pub open: Option<Open>,
}

/// What stands next on a pipe stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// So many bytes of content stand at the front of the input: the caller takes them out.
    Content(usize),
    /// The stream's header.
    Header(StreamHeader),
    /// The stream's trailer: nothing follows.
    Trailer(End),
}

/// A pipe stream that breaks the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Bytes after the trailer.
    #[error("bytes after a stream's trailer")]
    AfterTrailer,
    /// A chunk of length 0.
    #[error("an empty chunk")]
    EmptyChunk,
    /// A chunk's length in eight bytes.
    #[error("a chunk of an impossible length")]
    Length,
    /// A header or trailer that cannot be understood.
    #[error(transparent)]
    Malformed(#[from] MalformedMessage),
}

/// Cuts the bytes of a pipe stream into frames. Content does not pass through it.
#[derive(Debug, Default)]
pub struct FrameReader {
    state: State,
    /// A length, header or trailer that is not complete.
    partial: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    HeaderLength,
    Header(usize),
    ChunkLength,
    Chunk(u64),
    TrailerLength,
    Trailer(usize),
    Done,
}

impl FrameReader {
    /// Whether the content so far ends with a chunk.
    pub fn is_between_chunks(&self) -> bool {
        self.state == State::ChunkLength && self.partial.is_empty()
    }

    /// The next frame at the front of `input`; `None` when more input is needed.
    ///
    /// # Errors
    /// The stream cannot be understood from here on.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Frame>, FrameError> {
        // The header of pipe 0 at offset 0, opened by its reader, is an empty message.
        while !input.is_empty() || self.state == State::Header(0) {
            match self.state {
                State::HeaderLength => {
                    let Some(length) = self.length(input) else { return Ok(None) };
                    self.state = State::Header(bounded(length, 0..=STREAM_HEADER_BYTES_MAX)?);
                }
                State::Header(length) => {
                    let Some(bytes) = self.gather(input, length) else { return Ok(None) };
                    self.state = State::ChunkLength;
                    return Ok(Some(Frame::Header(parse_header(&bytes)?)));
                }
                State::ChunkLength => {
                    if self.partial.is_empty() && input[0] == TRAILER {
                        input.advance(1);
                        self.state = State::TrailerLength;
                        continue;
                    }
                    if self.partial.is_empty() && varint::len(input[0]) == 8 {
                        return Err(FrameError::Length);
                    }
                    let Some(length) = self.length(input) else { return Ok(None) };
                    match length {
                        0 => return Err(FrameError::EmptyChunk),
                        length => self.state = State::Chunk(length),
                    }
                }
                State::Chunk(left) => {
                    let here = left.min(input.len() as u64);
                    let rest = left - here;
                    self.state = if rest == 0 { State::ChunkLength } else { State::Chunk(rest) };
                    return Ok(Some(Frame::Content(here as usize)));
                }
                State::TrailerLength => {
                    let Some(length) = self.length(input) else { return Ok(None) };
                    self.state = State::Trailer(bounded(length, 1..=STREAM_TRAILER_BYTES_MAX)?);
                }
                State::Trailer(length) => {
                    let Some(bytes) = self.gather(input, length) else { return Ok(None) };
                    self.state = State::Done;
                    let end = pb::End::decode(&bytes[..])
                        .map_err(|_| MalformedMessage("a trailer that is no protobuf message"))?;
                    return Ok(Some(Frame::Trailer(end_from_pb(end)?)));
                }
                State::Done => return Err(FrameError::AfterTrailer),
            }
        }
        Ok(None)
    }

    /// Whether the trailer was read.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    fn length(&mut self, input: &mut Bytes) -> Option<u64> {
        let first = self.partial.first().or(input.first())?;
        let bytes = self.gather(input, varint::len(*first))?;
        varint::decode(&bytes).map(|(length, _)| length)
    }

    /// Takes `length` bytes, over as many calls as it needs.
    fn gather(&mut self, input: &mut Bytes, length: usize) -> Option<Vec<u8>> {
        let here = (length - self.partial.len()).min(input.len());
        self.partial.extend_from_slice(&input[..here]);
        input.advance(here);
        (self.partial.len() == length).then(|| std::mem::take(&mut self.partial))
    }
}

/// A stream header as it goes on the stream.
pub fn encode_header(header: &StreamHeader) -> Bytes {
    with_length(&pb::StreamHeader {
        id: header.id.number(),
        offset: header.offset,
        attempt: header.attempt,
        open: header.open.as_ref().map(open_to_pb),
    })
}

/// The header of a chunk of `length` bytes, which is neither 0 nor over 2^30 - 1.
pub fn encode_chunk_header(length: u64) -> Bytes {
    debug_assert!((1..0x4000_0000).contains(&length));
    let mut out = Vec::with_capacity(4);
    varint::encode(length, &mut out);
    out.into()
}

/// A trailer as it goes on the stream.
pub fn encode_trailer(end: &End) -> Bytes {
    behind(&[TRAILER], &end_to_pb(end))
}

fn parse_header(bytes: &[u8]) -> Result<StreamHeader, MalformedMessage> {
    let header = pb::StreamHeader::decode(bytes)
        .map_err(|_| MalformedMessage("a stream header that is no protobuf message"))?;
    Ok(StreamHeader {
        id: id_from_pb(header.id)?,
        attempt: header.attempt,
        offset: header.offset,
        open: header.open.map(open_from_pb).transpose()?,
    })
}

fn bounded(length: u64, allowed: RangeInclusive<usize>) -> Result<usize, FrameError> {
    match usize::try_from(length) {
        Ok(length) if allowed.contains(&length) => Ok(length),
        _ => Err(MalformedMessage("a header or trailer of an impossible length").into()),
    }
}
