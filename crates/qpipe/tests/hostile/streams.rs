//! Pipe streams that break the framing, the Limit or their word.

use bytes::Bytes;
use qpipe::{Cause, PipeReader};
use qpipe_proto::PipeId;
use qpipe_proto::fact::{ClosedKind, End, EndKind, Facts, Opener};
use qpipe_proto::wire::{StreamHeader, encode_header, encode_trailer};
use quinn::SendStream;
use tokio::io::AsyncReadExt;

use crate::peer::{Peer, chunk, eof, header, id, open, rest, trailer};
use crate::raw::{self, Dice};
use crate::rig::{Rig, at_once, bounded, pattern, read_all};

/// What a stream carries before it goes wrong, in bytes.
pub(crate) const SENT: usize = 1_000;

/// Far more streams than a peer may have open.
const STREAMS: usize = 2_000;

#[tokio::test]
async fn a_byte_beyond_the_limit() {
    // Before the open is answered the limit is that of Hello, afterwards that of Limit.
    let early = chunk(&pattern(0, 16_384 + 1));
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let mine = peer.next_id();
    let _stream = peer.stream(&[&header(mine)[..], &early].concat()).await;
    assert_eq!(peer.terminal(mine).await, ClosedKind::Broken(Cause::Protocol));
    let (got, end) = read_all(&mut rig.reader().await).await;
    assert!(got.len() <= 16_384 && end == Err(Cause::Protocol), "{} bytes, {end:?}", got.len());

    let (pipe, mut reader, mut stream) = begin(&rig, &mut peer).await;
    peer.until(|peer| peer.facts.get(&pipe).is_some_and(|facts| facts.limit.is_some())).await;
    let limit = peer.facts[&pipe].limit.unwrap().offset;
    let up_to_limit = chunk(&pattern(SENT as u64, limit as usize - SENT));
    stream.write_all(&up_to_limit).await.unwrap();
    let mut got = vec![0; limit as usize];
    bounded(exactly(&reader, limit)).await;
    stream.write_all(&chunk(&[1])).await.unwrap();
    assert_eq!(peer.terminal(pipe).await, ClosedKind::Broken(Cause::Protocol));
    bounded(reader.read_exact(&mut got)).await.unwrap();
    assert!(got == pattern(0, limit as usize));
    assert_eq!(read_all(&mut reader).await, (vec![], Err(Cause::Protocol)));
    drop(reader);
    finish(rig, peer).await;
}

#[tokio::test]
async fn an_empty_chunk() {
    goes_wrong(vec![0]).await;
    goes_wrong(vec![0x40, 0]).await;
    goes_wrong(vec![0x80, 0, 0, 0]).await;
}

#[tokio::test]
async fn a_chunk_length_in_eight_bytes() {
    goes_wrong([&[0xc0, 0, 0, 0, 0, 0, 0, 5][..], b"hello"].concat()).await;
}

#[tokio::test]
async fn a_trailer_that_is_none() {
    goes_wrong(vec![0xff, 0x40, 65]).await;
    goes_wrong(vec![0xff, 0xbf, 0xff, 0xff, 0xff]).await;
    goes_wrong([&[0xff, 10][..], &[0xff; 10]].concat()).await;
    // Of no kind, and aborted without a cause.
    goes_wrong(vec![0xff, 0]).await;
    goes_wrong([&[0xff, 2][..], &raw::number(1, 2)].concat()).await;
}

#[tokio::test]
async fn bytes_after_the_trailer() {
    // Nothing is wrong with what came before: it may be complete by then. It is never more.
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let (pipe, mut reader, mut stream) = begin(&rig, &mut peer).await;
    let content = pattern(0, SENT);
    let _ = stream.write_all(&[&trailer(&content)[..], &chunk(b"more")].concat()).await;
    let (got, end) = read_all(&mut reader).await;
    assert!(got == content && (end == Ok(()) || end == Err(Cause::Protocol)), "{end:?}");
    peer.terminal(pipe).await;
    drop(reader);
    finish(rig, peer).await;
}

#[tokio::test]
async fn fin_without_a_trailer_is_no_eof_and_another_stream_is_asked_for() {
    for tail in [vec![], vec![0xff], vec![0x45], chunk(b"x")[..1].to_vec()] {
        let rig = Rig::new().await;
        let mut peer = Peer::of(&rig).await;
        let (pipe, mut reader, mut stream) = begin(&rig, &mut peer).await;
        stream.write_all(&tail).await.unwrap();
        stream.finish().unwrap();
        assert_eq!(peer.held(pipe).await, (1, SENT as u64));
        bounded(reader.read_exact(&mut vec![0; SENT])).await.unwrap();
        assert!(at_once(reader.read_u8()).await.is_none(), "a false end");
        let whole = pattern(0, SENT + 500);
        let _again = peer.stream(&rest(pipe, 1, SENT, &whole)).await;
        assert_eq!(read_all(&mut reader).await, (whole[SENT..].to_vec(), Ok(())));
        assert_eq!(peer.terminal(pipe).await, ClosedKind::Complete);
        drop(reader);
        finish(rig, peer).await;
    }
}

#[tokio::test]
async fn a_reset_keeps_what_came_and_is_no_eof() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let (pipe, mut reader, mut stream) = begin(&rig, &mut peer).await;
    bounded(exactly(&reader, SENT as u64)).await;
    stream.reset(0u32.into()).unwrap();
    assert_eq!(peer.held(pipe).await, (1, SENT as u64));
    // The writer has nothing more, and says so on the control stream.
    let kind = EndKind::Aborted(Cause::Io);
    let end = Some(End { kind, length: SENT as u64, checksum: 0 });
    peer.state(pipe, Facts { end, ..Facts::default() }).await;
    assert_eq!(read_all(&mut reader).await, (pattern(0, SENT), Err(Cause::Io)));
    assert_eq!(peer.terminal(pipe).await, ClosedKind::Aborted);
    drop(reader);
    finish(rig, peer).await;
}

#[tokio::test]
async fn a_wrong_checksum_is_no_eof() {
    let right = eof(&pattern(0, SENT));
    ends_corrupt(End { checksum: right.checksum ^ 1, ..right }).await;
    ends_corrupt(End { checksum: 0, ..right }).await;
}

#[tokio::test]
async fn more_length_than_bytes_is_no_eof() {
    let right = eof(&pattern(0, SENT));
    ends_corrupt(End { length: SENT as u64 + 1, ..right }).await;
    ends_corrupt(End { length: u64::MAX, ..right }).await;
}

#[tokio::test]
async fn less_length_than_bytes_is_no_eof() {
    goes_wrong(trailer(&pattern(0, SENT - 1)).to_vec()).await;
}

#[tokio::test]
async fn an_abort_of_bytes_that_never_come() {
    let kind = EndKind::Aborted(Cause::WriterDropped);
    let end = End { kind, length: SENT as u64 + 1, checksum: 0 };
    goes_wrong(encode_trailer(&end).to_vec()).await;
}

#[tokio::test]
async fn a_header_that_is_cut_short_or_is_none() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let whole = header(id(0));
    let mut streams = Vec::new();
    for bytes in [&whole[..1], &whole[..whole.len() - 1], &[][..]] {
        let mut stream = peer.stream(bytes).await;
        stream.finish().unwrap();
        streams.push(stream);
    }
    let long = [&[0x44, 0x01][..], &[0; 1_025]].concat();
    for bytes in [&long[..], &[0xff; 9], &raw::message(&[0xff; 30])] {
        let stream = peer.stream(bytes).await;
        assert!(bounded(stream.stopped()).await.unwrap().is_some(), "{bytes:?} is read");
    }
    peer.is_served(&rig).await;
    drop(streams);
    finish(rig, peer).await;
}

#[tokio::test]
async fn streams_of_pipes_that_there_are_not() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let never = peer.next_id();
    // Ours without an Open; the node's own; once more, when it is forgotten.
    for pipe in [never, id(99), never] {
        let bytes = encode_header(&StreamHeader { id: pipe, attempt: 0, offset: 0, open: None });
        let stream = peer.stream(&[&bytes[..], &chunk(b"into the void")].concat()).await;
        assert!(bounded(stream.stopped()).await.unwrap().is_some());
    }
    // One that the node writes.
    let read = peer.open(Opener::Reader).await;
    let writer = rig.writer().await;
    let bytes = encode_header(&StreamHeader { id: read, attempt: 0, offset: 0, open: None });
    let stream = peer.stream(&bytes).await;
    assert!(bounded(stream.stopped()).await.unwrap().is_some());
    drop(writer);
    peer.is_served(&rig).await;
    finish(rig, peer).await;
}

#[tokio::test]
async fn a_header_with_an_open_beyond_the_allowance_ends_the_session() {
    let rig = Rig::new().await;
    let peer = Peer::of(&rig).await;
    let beyond = id(2 * peer.opens_allowed);
    let _stream = peer.stream(&header(beyond)).await;
    assert_eq!(peer.refusal().await, (1, "more opens than were allowed".to_owned()));

    rig.end().await;
}

#[tokio::test]
async fn two_streams_with_one_attempt() {
    for offset in [0, SENT as u64] {
        let rig = Rig::new().await;
        let mut peer = Peer::of(&rig).await;
        let (pipe, mut reader, _first) = begin(&rig, &mut peer).await;
        bounded(exactly(&reader, SENT as u64)).await;
        let again = encode_header(&StreamHeader { id: pipe, attempt: 0, offset, open: None });
        let _second = peer.stream(&[&again[..], &chunk(b"other")].concat()).await;
        assert_eq!(peer.terminal(pipe).await, ClosedKind::Broken(Cause::Protocol));
        assert_eq!(read_all(&mut reader).await, (pattern(0, SENT), Err(Cause::Protocol)));
        drop(reader);
        finish(rig, peer).await;
    }
}

#[tokio::test]
async fn a_stream_that_begins_elsewhere() {
    for offset in [1, 1 << 40, u64::MAX] {
        let rig = Rig::new().await;
        let mut peer = Peer::of(&rig).await;
        let pipe = peer.next_id();
        let open = Some(open(pipe, Opener::Writer));
        let bytes = encode_header(&StreamHeader { id: pipe, attempt: 0, offset, open });
        let _stream = peer.stream(&[&bytes[..], &chunk(b"hello")].concat()).await;
        assert_eq!(peer.terminal(pipe).await, ClosedKind::Broken(Cause::Protocol));
        assert_eq!(read_all(&mut rig.reader().await).await, (vec![], Err(Cause::Protocol)));
        finish(rig, peer).await;
    }
}

#[tokio::test]
async fn streams_without_a_header_are_few_for_ever() {
    let mut rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let streams = as_many_as_granted(&mut peer, |_| Bytes::from_static(&[0x20])).await;
    assert!(streams.len() <= 300, "{} streams that say nothing", streams.len());
    rig.beat().await;
    drop(streams);
    finish(rig, peer).await;
}

#[tokio::test]
async fn streams_that_end_without_fin_are_few_for_ever() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let mut streams = Vec::new();
    while streams.len() < STREAMS {
        let pipe = peer.next_id();
        let Some(opened) = granted(&mut peer).await else { break };
        let mut stream = opened;
        let _ = stream.write_all(&[&header(pipe)[..], &chunk(b"x"), &trailer(b"x")].concat()).await;
        assert_eq!(read_all(&mut rig.reader().await).await, (b"x".to_vec(), Ok(())));
        peer.terminal(pipe).await;
        streams.push(stream);
    }
    assert!(streams.len() <= 300, "{} streams whose FIN never came", streams.len());
    drop(streams);
    finish(rig, peer).await;
}

#[tokio::test]
async fn single_bytes_in_any_order() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let pipe = peer.next_id();
    let content = Dice::new(5).bytes(2_000);
    let mut all = header(pipe).to_vec();
    content.iter().for_each(|byte| all.extend(chunk(&[*byte])));
    all.extend(trailer(&content));
    let mut stream = bounded(peer.conn.open_uni()).await.unwrap();
    for byte in all {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    stream.finish().unwrap();
    assert_eq!(read_all(&mut rig.reader().await).await, (content, Ok(())));
    assert_eq!(peer.terminal(pipe).await, ClosedKind::Complete);
    finish(rig, peer).await;
}

/// A stream of [`SENT`] good bytes, then `bytes`: the pipe ends for breaking the protocol.
async fn goes_wrong(bytes: Vec<u8>) {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let (pipe, mut reader, mut stream) = begin(&rig, &mut peer).await;
    bounded(exactly(&reader, SENT as u64)).await;
    stream.write_all(&bytes).await.unwrap();
    assert_eq!(peer.terminal(pipe).await, ClosedKind::Broken(Cause::Protocol), "{bytes:?}");
    assert_eq!(read_all(&mut reader).await, (pattern(0, SENT), Err(Cause::Protocol)));
    drop(reader);
    finish(rig, peer).await;
}

/// A stream of [`SENT`] good bytes with a trailer that does not match them.
async fn ends_corrupt(end: End) {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let (pipe, mut reader, mut stream) = begin(&rig, &mut peer).await;
    stream.write_all(&encode_trailer(&end)).await.unwrap();
    stream.finish().unwrap();
    assert_eq!(read_all(&mut reader).await, (pattern(0, SENT), Err(Cause::Corrupt)), "{end:?}");
    assert_eq!(peer.terminal(pipe).await, ClosedKind::Corrupt);
    drop(reader);
    finish(rig, peer).await;
}

/// A pipe with [`SENT`] good bytes on its way.
pub(crate) async fn begin(rig: &Rig, peer: &mut Peer) -> (PipeId, PipeReader, SendStream) {
    let pipe = peer.next_id();
    let stream = peer.stream(&[&header(pipe)[..], &chunk(&pattern(0, SENT))].concat()).await;
    (pipe, rig.reader().await, stream)
}

/// Waits until the node has the first `bytes` of the pattern.
pub(crate) async fn exactly(reader: &PipeReader, bytes: u64) {
    let whole = xxhash_rust::xxh3::xxh3_64(&pattern(0, bytes as usize));
    crate::rig::eventually("bytes are missing", || reader.checksum() == whole).await;
}

/// One more stream, if the node grants one even after it was reminded.
async fn granted(peer: &mut Peer) -> Option<SendStream> {
    for _ in 0..3 {
        if let Some(stream) = at_once(peer.conn.open_uni()).await {
            return stream.ok();
        }
        peer.sync().await;
    }
    None
}

async fn as_many_as_granted(peer: &mut Peer, say: impl Fn(usize) -> Bytes) -> Vec<SendStream> {
    let mut streams = Vec::new();
    while streams.len() < STREAMS
        && let Some(mut stream) = granted(peer).await
    {
        stream.write_all(&say(streams.len())).await.unwrap();
        streams.push(stream);
    }
    streams
}

pub(crate) async fn finish(rig: Rig, mut peer: Peer) {
    peer.is_served(&rig).await;
    peer.leave().await;
    rig.end().await;
}
