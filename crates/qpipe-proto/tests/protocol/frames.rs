//! The frames of a pipe stream.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use qpipe_proto::PipeId;
use qpipe_proto::fact::{End, EndKind};
use qpipe_proto::limits::{STREAM_HEADER_BYTES_MAX, STREAM_TRAILER_BYTES_MAX};
use qpipe_proto::wire::{
    Frame, FrameError, FrameReader, StreamHeader, encode_chunk_header, encode_header,
    encode_trailer,
};

use crate::drawn::{self, id};

/// What a reader of the stream gets out of it.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    header: Option<StreamHeader>,
    content: Vec<u8>,
    end: Option<End>,
}

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Seen, FrameError> {
    let mut frames = FrameReader::default();
    let mut seen = Seen::default();
    for piece in pieces {
        let mut piece = Bytes::copy_from_slice(piece);
        while let Some(frame) = frames.next(&mut piece)? {
            match frame {
                Frame::Content(length) => {
                    assert!(length > 0 && length <= piece.len() && seen.end.is_none());
                    seen.content.extend(piece.split_to(length));
                }
                Frame::Header(header) => assert!(seen.header.replace(header).is_none()),
                Frame::Trailer(end) => assert!(seen.end.replace(end).is_none()),
            }
        }
        assert!(piece.is_empty(), "what is not understood is kept, not left to the caller");
    }
    assert_eq!(frames.is_done(), seen.end.is_some());
    Ok(seen)
}

fn header() -> impl Strategy<Value = StreamHeader> {
    (0..=PipeId::MAX, any::<u64>(), any::<u64>(), of(drawn::open())).prop_map(
        |(number, attempt, offset, open)| StreamHeader { id: id(number), attempt, offset, open },
    )
}

fn stream(header: &StreamHeader, chunks: &[Vec<u8>], end: Option<&End>) -> Vec<u8> {
    let mut bytes = encode_header(header).to_vec();
    for chunk in chunks {
        bytes.extend(encode_chunk_header(chunk.len() as u64));
        bytes.extend(chunk);
    }
    bytes.extend(end.map(encode_trailer).unwrap_or_default());
    bytes
}

fn plain() -> StreamHeader {
    StreamHeader { id: id(0), attempt: 0, offset: 0, open: None }
}

const EOF: End = End { kind: EndKind::Eof, length: 0, checksum: 7 };

proptest! {
    #[test]
    fn every_split_of_the_input_gives_the_same_frames(
        header in header(),
        chunks in vec(vec(any::<u8>(), 1..90), 0..4),
        end in of(drawn::end(any::<u64>())),
        size in 1usize..40,
    ) {
        let bytes = stream(&header, &chunks, end.as_ref());
        let expected = Seen { header: Some(header), content: chunks.concat(), end };
        for at in 0..=bytes.len() {
            prop_assert_eq!(&read([&bytes[..at], &bytes[at..]]).unwrap(), &expected);
        }
        prop_assert_eq!(&read(bytes.chunks(size)).unwrap(), &expected);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300), size in 1usize..40) {
        let _ = read(bytes.chunks(size));
    }

    #[test]
    fn a_stream_cut_anywhere_has_no_end(
        header in header(), chunks in vec(vec(any::<u8>(), 1..90), 0..3),
    ) {
        let bytes = stream(&header, &chunks, Some(&EOF));
        for at in 0..bytes.len() {
            prop_assert_eq!(read([&bytes[..at]]).unwrap().end, None);
        }
    }
}

#[test]
fn large_chunks_have_longer_headers_and_cross() {
    for length in [1, 63, 64, 16_383, 16_384, 300_000] {
        let chunk = vec![7; length];
        let bytes = stream(&plain(), std::slice::from_ref(&chunk), Some(&EOF));
        assert_eq!(read(bytes.chunks(4096)).unwrap().content, chunk);
    }
}

#[test]
fn the_first_pipe_opened_by_its_reader_has_a_header_of_no_bytes_which_is_seen_at_once() {
    let bytes = encode_header(&plain());
    assert_eq!(read([&bytes[..]]).unwrap().header, Some(plain()));
}

#[test]
fn an_empty_chunk_is_an_error() {
    for empty in [&[0][..], &[0x40, 0], &[0x80, 0, 0, 0]] {
        let bytes = [&encode_header(&plain())[..], empty].concat();
        assert_eq!(read(bytes.chunks(1)), Err(FrameError::EmptyChunk));
    }
}

#[test]
fn a_chunk_length_of_eight_bytes_is_an_error_whatever_it_says() {
    for first in 0xc0..0xff {
        let bytes = [&encode_header(&plain())[..], &[first]].concat();
        assert_eq!(read([&bytes[..]]), Err(FrameError::Length));
    }
}

#[test]
fn bytes_after_the_trailer_are_an_error_a_second_trailer_too() {
    let bytes = stream(&plain(), &[], Some(&EOF));
    for more in [vec![1], encode_trailer(&EOF).to_vec()] {
        let bytes = [bytes.clone(), more].concat();
        assert_eq!(read(bytes.chunks(1)), Err(FrameError::AfterTrailer));
        assert_eq!(read([&bytes[..]]), Err(FrameError::AfterTrailer));
    }
}

#[test]
fn headers_and_trailers_of_impossible_lengths_are_refused_before_they_are_there() {
    let over = |max: usize| ((max as u16 + 1) | 0x4000).to_be_bytes();
    let header = over(STREAM_HEADER_BYTES_MAX);
    assert!(matches!(read([&header[..]]), Err(FrameError::Malformed(_))));
    let trailer = over(STREAM_TRAILER_BYTES_MAX);
    let bytes = [&encode_header(&plain())[..], &[0xff], &trailer].concat();
    assert!(matches!(read([&bytes[..]]), Err(FrameError::Malformed(_))));
}

#[test]
fn a_trailer_that_says_nothing_is_an_error() {
    let bytes = [&encode_header(&plain())[..], &[0xff, 0]].concat();
    assert!(matches!(read([&bytes[..]]), Err(FrameError::Malformed(_))));
    let bytes = [&encode_header(&plain())[..], &[0xff, 2, 0x18, 5]].concat();
    assert!(matches!(read([&bytes[..]]), Err(FrameError::Malformed(_))));
}
