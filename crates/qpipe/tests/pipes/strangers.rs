//! Who may talk to a node, and in which version: with peers made of quinn and the wire format.

use std::sync::Arc;

use qpipe::identity::{HostIdentity, PeerIdentity};
use qpipe::tls::{self, ExpectedHost, SERVER_NAME};
use qpipe::{Address, DialError, Node, OpenOptions, OpenTarget, Peer};
use qpipe_proto::hello::{Instance, Limits, SessionId};
use qpipe_proto::wire::{ControlDecoder, ControlMessage, Hello, encode_control};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, VarInt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::pair::{Everybody, MEMORY, named_node, node, pattern, peer};

/// The code that a connection is closed with when no version is common.
const VERSION: VarInt = VarInt::from_u32(4);

/// A client that is nothing but an endpoint.
fn client() -> Endpoint {
    Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap()
}

async fn dial(endpoint: &Endpoint, identity: &HostIdentity, node: &Node) -> Connection {
    let expected = ExpectedHost::Is(node.fingerprint());
    let crypto = tls::client_config(&identity.node(), expected).unwrap().crypto();
    let config = quinn::ClientConfig::new(crypto);
    let address = node.local_addresses()[0];
    endpoint.connect_with(config, address, SERVER_NAME).unwrap().await.unwrap()
}

/// A server of the host `identity`, and how to dial it as the host `expected`.
fn impostor(identity: &HostIdentity, expected: qpipe::Fingerprint) -> (Endpoint, Peer) {
    let config = tls::server_config(&identity.node()).unwrap();
    let config = quinn::ServerConfig::with_crypto(config);
    let endpoint = Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = Address::try_from(endpoint.local_addr().unwrap()).unwrap();
    let expected = ExpectedHost::Is(expected);
    (endpoint, Peer { name: "peer".to_owned(), addresses: vec![address], expected })
}

fn hello(versions: Vec<u32>) -> Hello {
    Hello {
        versions,
        session: SessionId([7; 16]),
        epoch: 3,
        instance: Instance { start: 1, random: 1 },
        resumed: false,
        limits: Limits { initial_limit: 16 * 1024, opens_allowed: 256 },
        ticket: None,
        enrolled: None,
        software: "a test".to_owned(),
    }
}

/// The first message of a stream, if one comes.
async fn first_message(stream: &mut RecvStream) -> Option<ControlMessage> {
    let mut decoder = ControlDecoder::default();
    loop {
        if let Some(message) = decoder.next().unwrap() {
            return Some(message);
        }
        decoder.push(&stream.read_chunk(4096, true).await.ok()??.bytes);
    }
}

#[tokio::test]
async fn a_newer_peer_that_still_speaks_our_version_is_welcome() {
    let node = named_node(Arc::new(Everybody));
    let endpoint = client();
    let conn = dial(&endpoint, &HostIdentity::ephemeral().unwrap(), &node).await;
    let (mut send, mut recv) = conn.open_bi().await.unwrap();
    let message = ControlMessage::Hello(hello(vec![1, 2]));
    send.write_all(&encode_control(&message)).await.unwrap();
    let Some(ControlMessage::Hello(answer)) = first_message(&mut recv).await else {
        panic!("no Hello")
    };
    assert_eq!(answer.versions, [1]);
    assert_eq!(answer.session, SessionId([7; 16]));
    assert!(conn.close_reason().is_none());
}

#[tokio::test]
async fn a_peer_that_speaks_only_a_newer_version_is_refused_and_told_which_one_we_speak() {
    let node = named_node(Arc::new(Everybody));
    let endpoint = client();
    let conn = dial(&endpoint, &HostIdentity::ephemeral().unwrap(), &node).await;
    let (mut send, mut recv) = conn.open_bi().await.unwrap();
    let message = ControlMessage::Hello(hello(vec![2]));
    send.write_all(&encode_control(&message)).await.unwrap();
    assert_eq!(first_message(&mut recv).await, None);
    let ConnectionError::ApplicationClosed(close) = conn.closed().await else {
        panic!("not closed by the node")
    };
    assert_eq!(close.error_code, VERSION);
    assert_eq!(close.reason, "this side speaks qpipe/1 only".as_bytes());
}

#[tokio::test]
async fn a_host_that_answers_with_a_newer_version_only_is_an_error_that_says_so() {
    let identity = HostIdentity::ephemeral().unwrap();
    let (server, peer) = impostor(&identity, identity.fingerprint());
    let answering = tokio::spawn(async move {
        let conn = server.accept().await.unwrap().await.unwrap();
        let (mut send, mut recv) = conn.accept_bi().await.unwrap();
        let Some(ControlMessage::Hello(theirs)) = first_message(&mut recv).await else {
            panic!("no Hello")
        };
        assert_eq!(theirs.versions, [1]);
        let answer = Hello { session: theirs.session, ..hello(vec![2]) };
        send.write_all(&encode_control(&ControlMessage::Hello(answer))).await.unwrap();
        let ConnectionError::ApplicationClosed(close) = conn.closed().await else {
            panic!("not closed by the dialler")
        };
        close.error_code
    });
    let error = node(MEMORY).connect(&peer, None).await.unwrap_err();
    let DialError::Version(text) = &error else { panic!("{error}") };
    assert_eq!(text, "the peer speaks qpipe versions [2], this side speaks 1");
    assert_eq!(answering.await.unwrap(), VERSION);
}

#[tokio::test]
async fn a_host_with_another_key_than_the_pinned_one_learns_nothing() {
    let pinned = HostIdentity::ephemeral().unwrap().fingerprint();
    let impostor_s = HostIdentity::ephemeral().unwrap();
    let (server, peer) = impostor(&impostor_s, pinned);
    let listening = tokio::spawn(async move {
        let incoming = server.accept().await.unwrap();
        // No handshake, so no stream either: neither Hello nor ticket, name or byte was sent.
        incoming.await.is_err()
    });
    let dialler = node(MEMORY);
    let ticket = qpipe::Secret::from_bytes([3; 16]);
    let error = dialler.connect(&peer, Some(&ticket)).await.unwrap_err();
    let DialError::HostKey { expected, seen } = error else { panic!("{error}") };
    assert_eq!((expected, seen), (pinned, impostor_s.fingerprint()));
    assert!(listening.await.unwrap());
}

#[tokio::test]
async fn a_peer_that_nobody_listed_is_told_so_and_nothing_else() {
    let node = node(MEMORY);
    let _offer = node.offer(qpipe::End::Write, None).unwrap();
    let stranger = HostIdentity::ephemeral().unwrap();
    let endpoint = client();
    let conn = dial(&endpoint, &stranger, &node).await;
    let (mut send, mut recv) = conn.open_bi().await.unwrap();
    send.write_all(&encode_control(&ControlMessage::Hello(hello(vec![1])))).await.unwrap();
    assert_eq!(first_message(&mut recv).await, None);
    let ConnectionError::ApplicationClosed(close) = conn.closed().await else {
        panic!("not closed by the node")
    };
    let reason = String::from_utf8(close.reason.to_vec()).unwrap();
    let expected = format!(
        "key {} is not authorized here: ask for an invitation (qpipe invite)",
        stranger.fingerprint()
    );
    assert_eq!(reason, expected);
}

#[tokio::test]
async fn a_stranger_s_dial_is_an_error_with_the_host_s_words() {
    let (dialler, acceptor) = (node(MEMORY), node(MEMORY));
    let error = dialler.connect(&peer(&acceptor), None).await.unwrap_err();
    let DialError::NotAllowed { reason } = error else { panic!("{error}") };
    assert!(reason.contains(&dialler.fingerprint().to_string()), "{reason}");
    let wrong = qpipe::Secret::from_bytes([1; 16]);
    let error = dialler.connect(&peer(&acceptor), Some(&wrong)).await.unwrap_err();
    assert!(matches!(error, DialError::Ticket), "{error}");
}

#[tokio::test]
async fn both_hosts_dial_at_once_and_each_pipe_arrives_exactly_once() {
    const PIPES: usize = 50;
    let (a, b) = (named_node(Arc::new(Everybody)), named_node(Arc::new(Everybody)));
    let (peer_a, peer_b) = (peer(&a), peer(&b));
    let (from_a, from_b) = tokio::join!(a.connect(&peer_b, None), b.connect(&peer_a, None));
    let mut writing = JoinSet::new();
    for (side, session) in [("a", from_a.unwrap()), ("b", from_b.unwrap())] {
        for i in 0..PIPES {
            let session = session.clone();
            writing.spawn(async move {
                let name = format!("{side}/{i}").parse().unwrap();
                let opened = session.open_writer(OpenTarget::Name(name), OpenOptions::default());
                let mut writer = opened.await.unwrap();
                writer.write_all(&pattern(i as u64, 0, 10_000)).await.unwrap();
                writer.finish().await.unwrap();
            });
        }
    }
    tokio::join!(take(&b, "a", PIPES), take(&a, "b", PIPES));
    assert_eq!(writing.join_all().await.len(), 2 * PIPES);
    // Nothing came twice: no open is left over at either node.
    for node in [a, b] {
        node.close(std::time::Duration::from_secs(10)).await;
        let mut left = std::pin::pin!(node.next_open());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(!matches!(
            std::future::Future::poll(left.as_mut(), &mut cx),
            std::task::Poll::Ready(Some(_))
        ));
    }
}

/// Takes the pipes of `side`, each once.
async fn take(node: &Node, side: &str, count: usize) {
    let mut seen = std::collections::BTreeSet::new();
    let mut reading = JoinSet::new();
    for _ in 0..count {
        let open = node.next_open().await.unwrap();
        let OpenTarget::Name(name) = open.target().clone() else { panic!("no name") };
        assert!(seen.insert(name.as_str().to_owned()), "{} came twice", name.as_str());
        let (from, i) = name.as_str().split_once('/').unwrap();
        assert_eq!(from, side);
        let seed: u64 = i.parse().unwrap();
        let mut reader = open.accept().unwrap().reader.unwrap();
        reading.spawn(async move {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).await.unwrap();
            assert!(got == pattern(seed, 0, 10_000));
        });
    }
    reading.join_all().await;
}

#[tokio::test]
async fn a_session_that_is_alive_is_used_again() {
    let (a, b) = (named_node(Arc::new(Everybody)), named_node(Arc::new(Everybody)));
    let (first, second) =
        (a.connect(&peer(&b), None).await.unwrap(), a.connect(&peer(&b), None).await.unwrap());
    assert_eq!(format!("{first:?}"), format!("{second:?}"));
    let identity: PeerIdentity = first.peer();
    assert_eq!(identity.host(), b.fingerprint());
}
