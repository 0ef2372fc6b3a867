//! A hostile host that the node dials.

use qpipe::identity::HostIdentity;
use qpipe::tls::{self, ExpectedHost};
use qpipe::{
    Address, Cause, DialError, OpenOptions, Peer as Target, PipeReader, PipeWriter, Session,
};
use qpipe_proto::fact::{Answer, Attempt, Closed, ClosedKind, Facts, Held, Limit, Opener};
use qpipe_proto::hello::SessionId;
use qpipe_proto::limits::INITIAL_LIMIT_BYTES_MAX;
use qpipe_proto::wire::{
    Bye, ControlMessage, FactsMessage, Hello, StreamHeader, encode_control, encode_header,
};
use quinn::Endpoint;
use tokio::io::AsyncWriteExt;

use crate::peer::{FIRST_EPOCH, Peer, broken, chunk, eof, hello, id, trailer};
use crate::rig::{Rig, at_once, bounded, name, pattern, read_all};

#[tokio::test]
async fn a_hello_that_does_not_answer_ours() {
    let mut rig = Rig::new().await;
    let other_session = |mine: &mut Hello| mine.session = SessionId([1; 16]);
    let other_version = |mine: &mut Hello| mine.versions = vec![2, 3];
    let no_version = |mine: &mut Hello| mine.versions = vec![];
    for edit in [other_session, other_version, no_version] {
        let mut host = Host::listen();
        let (dialled, _peer) = host.greet(&rig, edit).await;
        assert!(matches!(dialled, Err(DialError::Version(_))), "{dialled:?}");
        rig.beat().await;
    }
    rig.end().await;
}

#[tokio::test]
async fn an_answer_that_is_no_hello() {
    let rig = Rig::new().await;
    let bye = encode_control(&ControlMessage::Bye(Bye { opens_seen: 0 }));
    for bytes in [&bye[..], &[0], &[0xff; 8], &[0x04, 1, 2, 3, 4]] {
        let mut host = Host::listen();
        let target = host.target();
        let answer = async {
            let mut peer = host.meet().await;
            peer.say_raw(bytes).await;
            peer
        };
        let (dialled, _peer) = tokio::join!(bounded(rig.victim.connect(&target, None)), answer);
        assert!(matches!(dialled, Err(DialError::Version(_))), "{dialled:?}");
    }
    rig.end().await;
}

#[tokio::test]
async fn a_host_that_never_says_hello_is_given_up() {
    let mut rig = Rig::new().await;
    let host = Host::listen();
    let target = host.target();
    let dialling = rig.victim.connect(&target, None);
    let mut held = Vec::new();
    let dawdling = async {
        loop {
            let incoming = host.endpoint.accept().await.unwrap();
            held.push(incoming.accept().unwrap().await.unwrap());
        }
    };
    let dialled = tokio::select! {
        dialled = bounded(dialling) => dialled,
        () = dawdling => unreachable!("it accepts for ever"),
    };
    assert!(dialled.is_err());
    // One Hello may have been lost: it is said again on a fresh connection.
    assert!(held.len() > 1, "given up after the first connection");
    rig.beat().await;
    rig.end().await;
}

#[tokio::test]
async fn a_hello_with_absurd_limits() {
    let rig = Rig::new().await;
    let absurd = |mine: &mut Hello| {
        mine.limits.initial_limit = 1 << 62;
        mine.limits.opens_allowed = u64::MAX;
        mine.software = "\x1b[2J".repeat(1_000);
    };
    let mut host = Host::listen();
    let (session, peer) = host.greet(&rig, absurd).await;
    let session = session.unwrap();
    let mut writers = Vec::new();
    for _ in 0..400 {
        writers.push(write(&session).await);
    }
    for writer in writers.iter_mut().take(3) {
        let mut written = 0;
        while let Some(taken) = at_once(writer.write(&[1; 65_536])).await {
            written += taken.unwrap() as u64;
        }
        assert!(written <= INITIAL_LIMIT_BYTES_MAX, "{written} bytes before any Limit");
    }
    peer.leave().await;
    drop((writers, session));
    rig.end().await;
}

#[tokio::test]
async fn no_opens_allowed_until_some_are() {
    let rig = Rig::new().await;
    let mut host = Host::listen();
    let (session, mut peer) = host.greet(&rig, |mine| mine.limits.opens_allowed = 0).await;
    let session = session.unwrap();
    assert!(at_once(write(&session)).await.is_none());
    for opens in [1, 1 << 62, u64::MAX, 3] {
        let message = FactsMessage { opens_allowed: Some(opens), ..FactsMessage::default() };
        peer.say(&ControlMessage::Facts(message)).await;
    }
    let writers = [bounded(write(&session)).await, bounded(write(&session)).await];
    peer.leave().await;
    drop((writers, session));
    rig.end().await;
}

#[tokio::test]
async fn what_a_reader_cannot_say_of_a_pipe() {
    let complete = |consumed| Closed { kind: ClosedKind::Complete, consumed };
    let closed = |closed| Facts { closed: Some(closed), ..Facts::default() };
    let limit = |offset| Facts { limit: Some(Limit { number: 9, offset }), ..Facts::default() };
    let refused = Facts { answer: Some(Answer::Refused(Cause::Busy)), ..Facts::default() };
    for facts in [
        Facts { consumed: 101, ..Facts::default() },
        Facts { consumed: u64::MAX, ..Facts::default() },
        closed(broken(101)),
        closed(complete(100)),
        closed(Closed { kind: ClosedKind::Corrupt, consumed: 0 }),
        limit(1),
        refused,
        Facts { end: Some(eof(b"")), ..Facts::default() },
        held(1, 101),
        held(u64::MAX, u64::MAX),
        Facts { open: Some(crate::peer::open(id(0), Opener::Writer)), ..Facts::default() },
    ] {
        let rig = Rig::new().await;
        let mut host = Host::listen();
        let (session, mut peer) = host.greet(&rig, |_| {}).await;
        let session = session.unwrap();
        let mut writer = write(&session).await;
        bounded(writer.write_all(&[5; 100])).await.unwrap();
        let accepted = Facts { answer: Some(Answer::Accepted), ..Facts::default() };
        peer.state(id(0), accepted).await;
        peer.state(id(0), Facts { limit: lim(9, 70_000), ..Facts::default() }).await;
        peer.state(id(0), facts.clone()).await;
        let ending = bounded(writer.over()).await.unwrap_err();
        assert_eq!(ending.cause(), Cause::Protocol, "{facts:?}");
        drop(writer);
        serves(&session, &mut peer, id(2)).await;
        peer.leave().await;
        drop(session);
        rig.end().await;
    }
}

#[tokio::test]
async fn a_stream_stopped_with_any_code_but_the_readers() {
    for code in [0u32, 2, 99, u32::MAX >> 2] {
        let rig = Rig::new().await;
        let mut host = Host::listen();
        let (session, mut peer) = host.greet(&rig, |_| {}).await;
        let session = session.unwrap();
        let mut writer = write(&session).await;
        writer.write_all(&[5; 100]).await.unwrap();
        let mut stream = bounded(peer.conn.accept_uni()).await.unwrap();
        stream.stop(code.into()).unwrap();
        bounded(writer.write_all(b"more")).await.unwrap();
        peer.sync().await;
        assert!(at_once(writer.over()).await.is_none(), "code {code}");
        assert!(at_once(peer.conn.accept_uni()).await.is_none(), "a stream that nobody asked for");
        // Asked for another stream, the node sends what is not held.
        peer.state(id(0), held(1, 40)).await;
        writer.close();
        let again = bounded(peer.next_stream()).await;
        let whole = [&[5; 100][..], b"more"].concat();
        assert_eq!((again.header.attempt, again.header.offset), (1, 40));
        assert_eq!((&again.content[..], again.end), (&whole[40..], Some(eof(&whole))));
        let complete = Closed { kind: ClosedKind::Complete, consumed: 104 };
        peer.state(id(0), Facts { closed: Some(complete), ..Facts::default() }).await;
        assert_eq!(bounded(writer.over()).await, Ok(()), "code {code}");
        drop(writer);
        peer.leave().await;
        drop(session);
        rig.end().await;
    }
}

#[tokio::test]
async fn a_reader_that_hints_that_it_left_and_never_says_so() {
    let rig = Rig::new().await;
    let mut host = Host::listen();
    let (session, peer) = host.greet(&rig, |_| {}).await;
    let session = session.unwrap();
    let mut writer = write(&session).await;
    writer.write_all(&[5; 100]).await.unwrap();
    let mut stream = bounded(peer.conn.accept_uni()).await.unwrap();
    stream.stop(1u32.into()).unwrap();
    // A hint is no fact: until Closed, or the session's end, the pipe is not over.
    assert!(at_once(writer.over()).await.is_none());
    peer.leave().await;
    assert_eq!(bounded(writer.over()).await.unwrap_err().cause(), Cause::Lost);
    drop((writer, session));
    rig.end().await;
}

#[tokio::test]
async fn a_writer_that_ends_its_stream_without_a_trailer() {
    for is_reset in [false, true] {
        let rig = Rig::new().await;
        let mut host = Host::listen();
        let (session, mut peer) = host.greet(&rig, |_| {}).await;
        let session = session.unwrap();
        let mut reader = read(&session).await;
        let mut stream = peer.stream(&content_of(id(0), b"partial")).await;
        assert_eq!(bounded(reader.read_chunk(1)).await.unwrap().unwrap(), b"p"[..]);
        if is_reset {
            stream.reset(0u32.into()).unwrap();
        } else {
            stream.finish().unwrap();
        }
        // It is asked for another one, at what is held.
        assert_eq!(peer.held(id(0)).await, (1, 7));
        let header = StreamHeader { id: id(0), attempt: 1, offset: 3, open: None };
        let rest = [&encode_header(&header)[..], &chunk(b"tial, then"), &trailer(b"partial, then")];
        let mut again = peer.stream(&rest.concat()).await;
        again.finish().unwrap();
        assert_eq!(read_all(&mut reader).await, (b"artial, then".to_vec(), Ok(())));
        drop((reader, stream));
        peer.leave().await;
        drop(session);
        rig.end().await;
    }
}

#[tokio::test]
async fn a_writer_that_says_what_only_readers_say() {
    for facts in [
        Facts { consumed: 1, ..Facts::default() },
        Facts { limit: lim(1, 1 << 40), ..Facts::default() },
        Facts { closed: Some(broken(0)), ..Facts::default() },
        Facts { returned: lim(1, 2), ..Facts::default() },
        Facts { end: Some(eof(b"x")), ..Facts::default() },
    ] {
        let rig = Rig::new().await;
        let mut host = Host::listen();
        let (session, mut peer) = host.greet(&rig, |_| {}).await;
        let session = session.unwrap();
        let mut reader = read(&session).await;
        let _stream = peer.stream(&content_of(id(0), b"partial")).await;
        assert_eq!(bounded(reader.read_chunk(1)).await.unwrap().unwrap(), b"p"[..]);
        peer.state(id(0), facts.clone()).await;
        let end = (b"artial".to_vec(), Err(Cause::Protocol));
        assert_eq!(read_all(&mut reader).await, end, "{facts:?}");
        drop(reader);
        peer.leave().await;
        drop(session);
        rig.end().await;
    }
}

#[tokio::test]
async fn a_bye_that_denies_every_open() {
    let rig = Rig::new().await;
    let mut host = Host::listen();
    let (session, mut peer) = host.greet(&rig, |_| {}).await;
    let session = session.unwrap();
    let writer = write(&session).await;
    peer.say(&ControlMessage::Bye(Bye { opens_seen: 0 })).await;
    assert_eq!(bounded(writer.over()).await.unwrap_err().cause(), Cause::Stopping);
    let target = name("x");
    assert!(bounded(session.open_writer(target, OpenOptions::default())).await.is_err());
    drop(writer);
    peer.leave().await;
    drop(session);
    rig.end().await;
}

#[tokio::test]
async fn a_host_opens_no_control_stream_and_its_opens_are_judged() {
    let rig = Rig::new().await;
    let mut host = Host::listen();
    let (session, mut peer) = host.greet(&rig, |_| {}).await;
    let session = session.unwrap();
    assert!(at_once(peer.conn.open_bi()).await.is_none());
    let mine = peer.open(Opener::Writer).await;
    rig.open().await.refuse(Cause::NotAllowed);
    assert_eq!(peer.terminal(mine).await, ClosedKind::Broken(Cause::NotAllowed));
    peer.is_served(&rig).await;
    peer.leave().await;
    drop(session);
    rig.end().await;
}

#[tokio::test]
async fn the_words_of_a_refusal_come_as_they_are() {
    let rig = Rig::new().await;
    let mut host = Host::listen();
    let target = host.target();
    let refusing = async {
        let peer = host.meet().await;
        peer.conn.close(2u32.into(), b"\x1b[31m\xff no");
        peer
    };
    let (dialled, _peer) = tokio::join!(bounded(rig.victim.connect(&target, None)), refusing);
    let Err(DialError::NotAllowed { reason }) = dialled else { panic!("{dialled:?}") };
    assert_eq!(reason, "\x1b[31m\u{fffd} no");
    rig.end().await;
}

/// A host that listens, with a key of its own.
struct Host {
    endpoint: Endpoint,
    identity: HostIdentity,
}

impl Host {
    fn listen() -> Host {
        let identity = HostIdentity::ephemeral().unwrap();
        let crypto = tls::server_config(&identity.node()).unwrap();
        let config = quinn::ServerConfig::with_crypto(crypto);
        let endpoint = Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        Host { endpoint, identity }
    }

    fn target(&self) -> Target {
        let addresses = vec![Address::try_from(self.endpoint.local_addr().unwrap()).unwrap()];
        let expected = ExpectedHost::Is(self.identity.fingerprint());
        Target { name: "hostile".to_owned(), addresses, expected }
    }

    /// Takes the next connection and its Hello, and does not answer.
    async fn meet(&mut self) -> Peer {
        let incoming = bounded(self.endpoint.accept()).await.unwrap();
        let conn = bounded(incoming.accept().unwrap()).await.unwrap();
        let (send, recv) = bounded(conn.accept_bi()).await.unwrap();
        let mut peer = Peer::with_streams(conn, send, recv);
        peer.parity = 1;
        peer
    }

    /// Has the node dial, and answers its Hello with one that `edit` changed.
    async fn greet(
        &mut self,
        rig: &Rig,
        edit: impl FnOnce(&mut Hello),
    ) -> (Result<Session, DialError>, Peer) {
        let target = self.target();
        let answer = async {
            let mut peer = self.meet().await;
            let Ok(ControlMessage::Hello(theirs)) = peer.hear().await else { panic!("no Hello") };
            let mut mine = Hello { session: theirs.session, ..hello(None) };
            edit(&mut mine);
            peer.say(&ControlMessage::Hello(mine)).await;
            peer
        };
        tokio::join!(bounded(rig.victim.connect(&target, None)), answer)
    }
}

/// The session is alive: the node's reader gets a pipe of it whole.
async fn serves(session: &Session, peer: &mut Peer, pipe: qpipe_proto::PipeId) {
    let mut reader = read(session).await;
    let content = pattern(3, 2_000);
    let bytes = [content_of(pipe, &content), trailer(&content).to_vec()].concat();
    let mut stream = peer.stream(&bytes).await;
    stream.finish().unwrap();
    assert_eq!(read_all(&mut reader).await, (content, Ok(())));
}

async fn write(session: &Session) -> PipeWriter {
    session.open_writer(name("x"), OpenOptions::default()).await.unwrap()
}

async fn read(session: &Session) -> PipeReader {
    session.open_reader(name("x"), OpenOptions::default()).await.unwrap()
}

/// The beginning of a pipe stream whose pipe the node opened.
fn content_of(pipe: qpipe_proto::PipeId, content: &[u8]) -> Vec<u8> {
    let header = encode_header(&StreamHeader { id: pipe, attempt: 0, offset: 0, open: None });
    [&header[..], &chunk(content)].concat()
}

fn held(number: u64, offset: u64) -> Facts {
    let attempt = Attempt { epoch: FIRST_EPOCH, number };
    Facts { held: Some(Held { attempt, offset }), ..Facts::default() }
}

fn lim(number: u64, offset: u64) -> Option<Limit> {
    Some(Limit { number, offset })
}

#[tokio::test]
async fn refused_after_it_was_complete_is_still_eof() {
    let rig = Rig::new().await;
    let mut host = Host::listen();
    let (session, mut peer) = host.greet(&rig, |_| {}).await;
    let session = session.unwrap();
    let mut reader = read(&session).await;
    let bytes = [content_of(id(0), b"whole"), trailer(b"whole").to_vec()].concat();
    let _stream = peer.stream(&bytes).await;
    assert_eq!(read_all(&mut reader).await, (b"whole".to_vec(), Ok(())));
    let refused = Facts { answer: Some(Answer::Refused(Cause::Busy)), ..Facts::default() };
    peer.state(id(0), refused).await;
    peer.until(|peer| peer.settled.contains(&0)).await;
    assert_eq!(read_all(&mut reader).await, (vec![], Ok(())));
    drop(reader);
    peer.leave().await;
    drop(session);
    rig.end().await;
}
