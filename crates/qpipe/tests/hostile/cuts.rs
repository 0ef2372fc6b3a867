//! Pipe streams that are cut, and streams other than the one that was asked for.

use qpipe::Cause;
use qpipe_proto::fact::{Attempt, ClosedKind, Facts, Held, Opener};
use qpipe_proto::wire::{StreamHeader, encode_header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::peer::{FIRST_EPOCH, Peer, chunk, id, rest, trailer};
use crate::rig::{Rig, at_once, bounded, pattern, read_all};
use crate::streams::{SENT, begin, exactly, finish};

/// How often one pipe's stream is cut.
const CUTS: usize = 50;

/// What a stream carries between two cuts, in bytes.
const PIECE: usize = 300;

#[tokio::test]
async fn a_pipe_whose_streams_are_cut_again_and_again_is_complete_in_the_end() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let (pipe, mut reader, mut stream) = begin(&rig, &mut peer).await;
    let whole = pattern(0, SENT + CUTS * PIECE);
    for cut in 1..=CUTS {
        if cut % 2 == 0 {
            stream.finish().unwrap();
        } else {
            // What was not read before a reset may be gone.
            bounded(exactly(&reader, (SENT + (cut - 1) * PIECE) as u64)).await;
            stream.reset(9u32.into()).unwrap();
        }
        let (attempt, offset) = peer.held(pipe).await;
        assert_eq!((attempt, offset), (cut as u64, (SENT + (cut - 1) * PIECE) as u64));
        // It begins before what is held, which is dropped.
        let from = offset as usize - PIECE / 2;
        let upto = offset as usize + PIECE;
        let header = StreamHeader { id: pipe, attempt, offset: from as u64, open: None };
        let bytes = [&encode_header(&header)[..], &chunk(&whole[from..upto])].concat();
        stream = peer.stream(&bytes).await;
    }
    stream.write_all(&trailer(&whole)).await.unwrap();
    assert_eq!(read_all(&mut reader).await, (whole, Ok(())));
    assert_eq!(peer.terminal(pipe).await, ClosedKind::Complete);
    drop(reader);
    finish(rig, peer).await;
}

#[tokio::test]
async fn a_peer_that_never_sends_the_stream_it_is_asked_for_stalls_its_pipe_alone() {
    let mut rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let (pipe, mut reader, mut stream) = begin(&rig, &mut peer).await;
    stream.finish().unwrap();
    assert_eq!(peer.held(pipe).await, (1, SENT as u64));
    bounded(reader.read_exact(&mut vec![0; SENT])).await.unwrap();
    assert!(at_once(reader.read_u8()).await.is_none());
    peer.is_served(&rig).await;
    rig.beat().await;
    // The end of the session is its end.
    peer.leave().await;
    assert_eq!(read_all(&mut reader).await, (vec![], Err(Cause::Lost)));
    drop(reader);
    rig.end().await;
}

#[tokio::test]
async fn a_stream_with_a_stale_attempt_is_stopped_and_harmless() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let (pipe, mut reader, mut stream) = begin(&rig, &mut peer).await;
    stream.finish().unwrap();
    peer.held(pipe).await;
    let lies = vec![0xee; SENT + 700];
    for from in [0, SENT, SENT + 100] {
        let stale = peer.stream(&rest(pipe, 0, from, &lies)).await;
        assert_eq!(bounded(stale.stopped()).await.unwrap(), Some(2u32.into()));
    }
    let whole = pattern(0, SENT + 500);
    let _asked_for = peer.stream(&rest(pipe, 1, SENT, &whole)).await;
    assert_eq!(read_all(&mut reader).await, (whole, Ok(())));
    assert_eq!(peer.terminal(pipe).await, ClosedKind::Complete);
    drop(reader);
    finish(rig, peer).await;
}

#[tokio::test]
async fn a_newer_stream_takes_the_place_of_an_older_one_that_lives() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let (pipe, mut reader, mut older) = begin(&rig, &mut peer).await;
    bounded(exactly(&reader, SENT as u64)).await;
    let whole = pattern(0, SENT + 500);
    let _newer = peer.stream(&rest(pipe, 7, SENT, &whole)).await;
    assert_eq!(bounded(older.stopped()).await.unwrap(), Some(2u32.into()));
    let _ = older.write_all(&chunk(b"what nobody reads")).await;
    assert_eq!(read_all(&mut reader).await, (whole, Ok(())));
    assert_eq!(peer.terminal(pipe).await, ClosedKind::Complete);
    drop(reader);
    finish(rig, peer).await;
}

#[tokio::test]
async fn a_second_stream_that_begins_beyond_what_is_held() {
    for offset in [SENT as u64 + 1, 1 << 40, u64::MAX] {
        let rig = Rig::new().await;
        let mut peer = Peer::of(&rig).await;
        let (pipe, mut reader, mut stream) = begin(&rig, &mut peer).await;
        stream.finish().unwrap();
        peer.held(pipe).await;
        let header = StreamHeader { id: pipe, attempt: 1, offset, open: None };
        let bytes = [&encode_header(&header)[..], &chunk(b"beyond")].concat();
        let _beyond = peer.stream(&bytes).await;
        assert_eq!(peer.terminal(pipe).await, ClosedKind::Broken(Cause::Protocol));
        assert_eq!(read_all(&mut reader).await, (pattern(0, SENT), Err(Cause::Protocol)));
        drop(reader);
        finish(rig, peer).await;
    }
}

#[tokio::test]
async fn a_reader_that_asks_for_stream_after_stream_gets_each_once() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let pipe = peer.open(Opener::Reader).await;
    peer.state(pipe, limit()).await;
    let mut writer = rig.writer().await;
    bounded(writer.write_all(&pattern(0, SENT))).await.unwrap();
    writer.close();
    for number in 1..=CUTS as u64 {
        let offset = number * 7;
        peer.state(pipe, held(FIRST_EPOCH, number, offset)).await;
        // Those before it end unfinished, or were never begun.
        let streamed = loop {
            let streamed = bounded(peer.next_stream()).await;
            if streamed.header.attempt == number {
                break streamed;
            }
            assert!(streamed.header.attempt < number);
        };
        assert_eq!(streamed.header.offset, offset);
        assert!(streamed.content == pattern(offset, SENT - offset as usize));
        assert!(streamed.end.is_some());
    }
    // Asked for what it sent already, or for a connection that there is not, it sends nothing.
    for (epoch, number) in [(FIRST_EPOCH, 1), (FIRST_EPOCH, CUTS as u64), (1, 99)] {
        peer.state(pipe, held(epoch, number, 0)).await;
    }
    peer.sync().await;
    assert!(at_once(peer.conn.accept_uni()).await.is_none());
    drop(writer);
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn a_stream_asked_for_on_a_connection_to_come_is_not_sent_on_this_one() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let pipe = peer.open(Opener::Reader).await;
    peer.state(pipe, limit()).await;
    let mut writer = rig.writer().await;
    bounded(writer.write_all(&pattern(0, SENT))).await.unwrap();
    assert_eq!(bounded(peer.conn.accept_uni()).await.unwrap().id().index(), 0);
    for epoch in [FIRST_EPOCH + 1, 1 << 62, u64::MAX] {
        peer.state(pipe, held(epoch, 1, 0)).await;
    }
    peer.sync().await;
    assert!(at_once(peer.conn.accept_uni()).await.is_none());
    drop(writer);
    peer.is_served(&rig).await;
    peer.leave().await;
    rig.end().await;
}

fn held(epoch: u64, number: u64, offset: u64) -> Facts {
    let attempt = Attempt { epoch, number };
    Facts { held: Some(Held { attempt, offset }), ..Facts::default() }
}

fn limit() -> Facts {
    let limit = qpipe_proto::fact::Limit { number: 1, offset: 65_536 };
    Facts { limit: Some(limit), ..Facts::default() }
}

#[tokio::test]
async fn a_pipe_that_nobody_knows_is_not_asked_for_again() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let mut stream = peer.stream(&rest(id(0), 0, 0, b"without an open")).await;
    let _ = stream.finish();
    peer.until(|peer| peer.settled.contains(&0)).await;
    assert!(peer.facts.is_empty(), "{:?}", peer.facts);
    peer.leave().await;
    rig.end().await;
}
