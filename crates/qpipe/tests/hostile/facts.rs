//! Facts that cannot be true: the pipe that they speak of ends at both ends, and nothing else does.

use qpipe::{Cause, PipeError, PipeWriter};
use qpipe_proto::PipeId;
use qpipe_proto::fact::{Answer, Closed, ClosedKind, End, EndKind, Facts, Limit, Open, Opener};
use qpipe_proto::wire::{Bye, ControlMessage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::peer::{Peer, broken, chunk, eof, header, id, open, open_of};
use crate::raw;
use crate::rig::{Rig, at_once, bounded, name, pattern, read_all};

/// What a hostile writer has sent before it goes wrong, in bytes.
const SENT: usize = 1_000;

/// What the node's writer has written before a hostile reader goes wrong, in bytes.
const WRITTEN: usize = 1_000;

const BROKEN_PROTOCOL: ClosedKind = ClosedKind::Broken(Cause::Protocol);

#[tokio::test]
async fn a_fact_of_a_pipe_that_nobody_opened() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    // One of the node's own ids: it may still come to be.
    for facts in [consumed(3), closed(broken(0)), accepted(), limit(1, 9)] {
        peer.state(id(99), facts).await;
    }
    peer.settle(id(1), id(199)).await;
    // One of ours: it is forgotten.
    let mine = peer.next_id();
    peer.state(mine, end(eof(b""))).await;
    peer.until(|peer| peer.settled.contains(&mine.number())).await;
    assert!(peer.facts.is_empty(), "{:?}", peer.facts);
    peer.is_served(&rig).await;
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn a_fact_of_a_forgotten_pipe_is_answered_and_ignored() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let forgotten = peer.open(Opener::Writer).await;
    rig.open().await.refuse(Cause::NotAllowed);
    assert_eq!(peer.terminal(forgotten).await, ClosedKind::Broken(Cause::NotAllowed));
    peer.sync().await;
    for facts in [opened(forgotten, Opener::Writer), end(eof(b"")), closed(broken(1 << 40))] {
        peer.settled.clear();
        peer.state(forgotten, facts).await;
        peer.until(|peer| peer.settled.contains(&forgotten.number())).await;
        assert!(peer.facts.is_empty(), "{:?}", peer.facts);
    }
    peer.is_served(&rig).await;
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn two_ends_of_one_pipe() {
    let other = End { length: 5_000, ..eof(&pattern(0, 4_000)) };
    writer_states(vec![end(eof(&pattern(0, 4_000))), end(other)]).await;
    let abort = End { kind: EndKind::Aborted(Cause::Io), length: 4_000, checksum: 0 };
    writer_states(vec![end(eof(&pattern(0, 4_000))), end(abort)]).await;
}

#[tokio::test]
async fn an_end_before_bytes_that_were_sent() {
    writer_states(vec![end(eof(&pattern(0, SENT - 1)))]).await;
}

#[tokio::test]
async fn a_second_open_of_one_pipe() {
    for other in [open(id(0), Opener::Reader), open_of(id(0), Opener::Writer, name("other"))] {
        writer_states(vec![Facts { open: Some(other), ..Facts::default() }]).await;
    }
}

#[tokio::test]
async fn credit_given_back_that_was_never_there() {
    for (number, offset) in [(1, SENT as u64 - 1), (2, 1 << 20), (u64::MAX, u64::MAX)] {
        let returned = Some(Limit { number, offset });
        writer_states(vec![Facts { returned, ..Facts::default() }]).await;
    }
}

#[tokio::test]
async fn facts_of_the_reader_from_the_writer() {
    let complete = Closed { kind: ClosedKind::Complete, consumed: SENT as u64 };
    for facts in [limit(2, 1 << 40), consumed(1), closed(broken(0)), closed(complete)] {
        writer_states(vec![facts]).await;
    }
}

#[tokio::test]
async fn an_open_answered_by_its_opener() {
    let refused = Facts { answer: Some(Answer::Refused(Cause::Busy)), ..Facts::default() };
    for facts in [accepted(), refused, Facts { joined: true, ..Facts::default() }] {
        writer_states(vec![facts]).await;
    }
}

#[tokio::test]
async fn settled_before_it_was_over() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let (pipe, mut reader, _stream) = hostile_writer(&rig, &mut peer).await;
    peer.settle(pipe, pipe).await;
    assert_eq!(read_all(&mut reader).await, (pattern(0, SENT), Err(Cause::Protocol)));
    drop(reader);
    peer.is_served(&rig).await;
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn settled_of_everything_there_will_ever_be() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let (_, mut reader, _stream) = hostile_writer(&rig, &mut peer).await;
    for first in [0, 1] {
        peer.settle(id(first), id(first + (1 << 62) - 2)).await;
    }
    assert_eq!(read_all(&mut reader).await, (pattern(0, SENT), Err(Cause::Protocol)));
    drop(reader);
    // What did not exist then is not touched by it.
    peer.is_served(&rig).await;
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn more_consumed_than_was_sent() {
    let beyond = WRITTEN as u64 + 1;
    let complete = Closed { kind: ClosedKind::Complete, consumed: beyond };
    for facts in [
        consumed(beyond),
        consumed(u64::MAX),
        closed(broken(beyond)),
        closed(broken(u64::MAX)),
        closed(complete),
    ] {
        reader_states(vec![facts]).await;
    }
}

#[tokio::test]
async fn a_pipe_said_to_be_complete_before_its_end() {
    for kind in [ClosedKind::Complete, ClosedKind::Aborted, ClosedKind::Corrupt] {
        reader_states(vec![closed(Closed { kind, consumed: WRITTEN as u64 })]).await;
    }
}

#[tokio::test]
async fn one_limit_with_two_offsets() {
    reader_states(vec![limit(5, 1 << 20), limit(5, 1 << 21)]).await;
}

#[tokio::test]
async fn facts_of_the_writer_from_the_reader() {
    let returned = Facts { returned: Some(Limit { number: 1, offset: 9 }), ..Facts::default() };
    let abort = End { kind: EndKind::Aborted(Cause::Io), length: 0, checksum: 0 };
    for facts in [end(eof(&pattern(0, WRITTEN))), end(abort), returned] {
        reader_states(vec![facts]).await;
    }
}

#[tokio::test]
async fn two_closed_of_one_pipe_change_nothing_that_was_heard() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let (pipe, writer) = hostile_reader(&rig, &mut peer).await;
    peer.state(pipe, closed(broken(10))).await;
    let ending = PipeError::Broken { cause: Cause::ReaderClosed, consumed: 10 };
    assert_eq!(bounded(writer.over()).await, Err(ending));
    peer.state(pipe, closed(broken(500))).await;
    peer.sync().await;
    assert_eq!(bounded(writer.over()).await, Err(ending));
    drop(writer);
    peer.is_served(&rig).await;
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn the_largest_limit_is_bounded_by_memory() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let (pipe, mut writer) = hostile_reader(&rig, &mut peer).await;
    for (number, offset) in [(7, 1 << 62), (u64::MAX, u64::MAX)] {
        peer.state(pipe, limit(number, offset)).await;
        peer.sync().await;
        let mut written = 0;
        while let Some(taken) = at_once(writer.write(&[1; 65_536])).await {
            written += taken.unwrap();
            assert!(written < 64 << 20, "a writer beyond the node's memory");
        }
    }
    let (floors, growth) = rig.victim.budget().committed();
    assert!(floors + growth <= 64 << 20);
    drop(writer);
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn a_bye_in_the_middle_cuts_what_it_says_it_never_saw() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let (_, mut reader, _stream) = hostile_writer(&rig, &mut peer).await;
    for opens_seen in [u64::MAX, 0] {
        peer.say(&ControlMessage::Bye(Bye { opens_seen })).await;
    }
    // Its own pipe goes on, and no false EOF comes of it.
    assert_eq!(bounded(reader.read_u8()).await.unwrap(), pattern(0, 1)[0]);
    peer.leave().await;
    assert_eq!(read_all(&mut reader).await, (pattern(1, SENT - 1), Err(Cause::Lost)));
    drop(reader);
    rig.end().await;
}

#[tokio::test]
async fn names_that_no_pipe_may_have_are_refused() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let long = vec![b'a'; 256];
    let names: [&[u8]; 7] = [b"\x1b[2Jx", b"a\nb", b"a\0", b"../x", b"", b"a//b", &long];
    for text in names {
        let mine = peer.next_id();
        peer.say_raw(&open_by_bytes(mine, text)).await;
        let end = peer.terminal(mine).await;
        assert!(matches!(end, ClosedKind::Broken(_)), "{text:?}: {end:?}");
    }
    assert!(at_once(rig.victim.next_open()).await.is_none(), "offered to the program");
    peer.is_served(&rig).await;
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn a_name_that_is_no_text_ends_the_session() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    peer.say_raw(&open_by_bytes(id(0), b"\xff\xfe")).await;
    let words = "a malformed control message: not a protobuf message".to_owned();
    assert_eq!(peer.refusal().await, (1, words));
    rig.end().await;
}

/// The open of a pipe with a name of any bytes.
fn open_by_bytes(mine: PipeId, text: &[u8]) -> Vec<u8> {
    let group = [raw::number(1, mine.number()), raw::number(2, 1)].concat();
    let open = [raw::number(1, 1), raw::field(2, text), raw::field(5, &group)].concat();
    raw::pipe_facts(&[raw::number(1, mine.number()), raw::field(2, &open)])
}

/// A peer that opened a pipe to write goes wrong: the reader keeps what came and hears the cause.
async fn writer_states(statements: Vec<Facts>) {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let (pipe, mut reader, _stream) = hostile_writer(&rig, &mut peer).await;
    let what = format!("{statements:?}");
    for facts in statements {
        peer.state(pipe, facts).await;
    }
    let (got, end) = read_all(&mut reader).await;
    assert_eq!((got.len(), end), (SENT, Err(Cause::Protocol)), "{what}");
    drop(reader);
    let kind = if what.contains("closed: Some") || what.contains("Refused") {
        // The peer's own terminal fact ends the pipe for it.
        None
    } else {
        Some(peer.terminal(pipe).await)
    };
    assert!(kind.is_none_or(|kind| kind == BROKEN_PROTOCOL), "{what}: {kind:?}");
    peer.is_served(&rig).await;
    peer.leave().await;
    rig.end().await;
}

/// A peer that opened a pipe to read goes wrong: the writer hears the cause, and so does the peer.
async fn reader_states(statements: Vec<Facts>) {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let (pipe, writer) = hostile_reader(&rig, &mut peer).await;
    let what = format!("{statements:?}");
    for facts in statements {
        peer.state(pipe, facts).await;
    }
    let ending = bounded(writer.over()).await.unwrap_err();
    assert_eq!(ending.cause(), Cause::Protocol, "{what}");
    drop(writer);
    peer.is_served(&rig).await;
    peer.leave().await;
    rig.end().await;
}

/// A pipe that the peer writes, with [`SENT`] bytes sent, all of which the node has.
async fn hostile_writer(
    rig: &Rig,
    peer: &mut Peer,
) -> (PipeId, qpipe::PipeReader, quinn::SendStream) {
    let pipe = peer.next_id();
    let stream = peer.stream(&[&header(pipe)[..], &chunk(&pattern(0, SENT))].concat()).await;
    let reader = rig.reader().await;
    let (mut last, content) = (reader.checksum(), pattern(0, SENT));
    while last != xxhash_rust::xxh3::xxh3_64(&content) {
        peer.sync().await;
        last = reader.checksum();
    }
    (pipe, reader, stream)
}

/// A pipe that the peer reads, with [`WRITTEN`] bytes written, none of which it consumed.
async fn hostile_reader(rig: &Rig, peer: &mut Peer) -> (PipeId, PipeWriter) {
    let pipe = peer.open(Opener::Reader).await;
    peer.state(pipe, limit(1, 65_536)).await;
    let mut writer = rig.writer().await;
    bounded(writer.write_all(&pattern(0, WRITTEN))).await.unwrap();
    (pipe, writer)
}

fn accepted() -> Facts {
    Facts { answer: Some(Answer::Accepted), ..Facts::default() }
}

fn closed(closed: Closed) -> Facts {
    Facts { closed: Some(closed), ..Facts::default() }
}

fn consumed(consumed: u64) -> Facts {
    Facts { consumed, ..Facts::default() }
}

fn end(end: End) -> Facts {
    Facts { end: Some(end), ..Facts::default() }
}

fn limit(number: u64, offset: u64) -> Facts {
    Facts { limit: Some(Limit { number, offset }), ..Facts::default() }
}

fn opened(pipe: PipeId, opener: Opener) -> Facts {
    let open: Open = open(pipe, opener);
    Facts { open: Some(open), ..Facts::default() }
}
