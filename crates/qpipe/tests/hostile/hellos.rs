//! Hellos that speak of sessions, connections and runs other than the peer's own.

use std::time::Duration;

use qpipe::identity::HostIdentity;
use qpipe::tls::{self, SERVER_NAME};
use qpipe::{Cause, NodeOptions, Patience};
use qpipe_proto::fact::{ClosedKind, Facts, Opener};
use qpipe_proto::hello::{Instance, SessionId};
use qpipe_proto::wire::{ControlMessage, Hello, encode_control};
use quinn::Endpoint;

use crate::peer::{
    FIRST_EPOCH, Peer, Refusal, SUPERSEDED, chunk, header, hello, id, refusal, rest,
};
use crate::raw::{self, number};
use crate::rig::{Rig, bounded, node_with, options, pattern, read_all};
use crate::streams::{SENT, begin, exactly};

const PROTOCOL: u64 = 1;
const NOT_ALLOWED: u64 = 2;
const TWIN: u64 = 8;

/// The epoch of a second connection that the session's first dialler dials.
const SECOND_EPOCH: u64 = FIRST_EPOCH + 2;

#[tokio::test]
async fn an_epoch_that_is_none_is_no_hello() {
    let rig = Rig::new().await;
    for epoch in [0, 1 << 62, u64::MAX] {
        let mut peer = Peer::before_hello(&rig).await;
        let mut mine = hello(None);
        mine.epoch = epoch;
        peer.say(&ControlMessage::Hello(mine)).await;
        let words = "the first message must be Hello".to_owned();
        assert_eq!(peer.refusal().await, (PROTOCOL, words), "epoch {epoch}");
    }
    rig.end().await;
}

#[tokio::test]
async fn a_hello_that_names_no_instance_is_none() {
    let rig = Rig::new().await;
    let mut peer = Peer::before_hello(&rig).await;
    let body = [raw::field(1, &[1]), raw::field(2, &[1; 16]), number(8, 3)].concat();
    peer.say_raw(&raw::message(&raw::field(1, &body))).await;
    assert_eq!(peer.refusal().await.0, PROTOCOL);
    rig.end().await;
}

#[tokio::test]
async fn the_highest_epoch_there_is_leaves_no_way_back_and_harms_nobody() {
    let mut rig = Rig::new().await;
    let key = HostIdentity::ephemeral().unwrap();
    let highest = Hello { epoch: (1 << 62) - 1, ..hello(None) };
    let mut peer = said(&rig, &key, highest.clone()).await.unwrap().0;
    peer.is_served(&rig).await;
    let again = Hello { resumed: true, ..highest };
    assert_eq!(said(&rig, &key, again).await.err().unwrap().0, u64::from(SUPERSEDED));
    rig.beat().await;
    peer.is_served(&rig).await;
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn a_session_that_is_unknown_is_said_to_be_gone() {
    let rig = Rig::new().await;
    let key = HostIdentity::ephemeral().unwrap();
    let unknown = Hello { session: SessionId([1; 16]), resumed: true, ..hello(None) };
    let (peer, answer) = said(&rig, &key, unknown).await.unwrap();
    assert_eq!((answer.session, answer.resumed), (SessionId([1; 16]), false));
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn a_session_of_another_key_is_not_to_be_had() {
    let rig = Rig::new().await;
    let owner = HostIdentity::ephemeral().unwrap();
    let mut peer = said(&rig, &owner, hello(None)).await.unwrap().0;
    let (pipe, mut reader, _stream) = begin(&rig, &mut peer).await;
    // When: somebody else repeats its Hello, or goes on with its session.
    for resumed in [false, true] {
        let thief = HostIdentity::ephemeral().unwrap();
        let replay = Hello { epoch: SECOND_EPOCH, resumed, ..hello(None) };
        let (mut other, answer) = said(&rig, &thief, replay).await.unwrap();
        // Then: it has a session of its own, or none.
        assert!(!answer.resumed);
        if !resumed {
            other.is_served(&rig).await;
        }
        other.leave().await;
    }
    peer.sync().await;
    let whole = pattern(0, SENT + 10);
    let _again = peer.stream(&rest(pipe, 1, SENT, &whole)).await;
    assert_eq!(read_all(&mut reader).await, (whole, Ok(())));
    drop(reader);
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn a_session_goes_on_where_it_was_on_another_connection() {
    let mut rig = Rig::new().await;
    let key = HostIdentity::ephemeral().unwrap();
    let mut first = said(&rig, &key, hello(None)).await.unwrap().0;
    let (pipe, mut reader, mut older) = begin(&rig, &mut first).await;
    bounded(exactly(&reader, SENT as u64)).await;
    // When: the connection is lost, which is no end, or lives on, and another one is dialled.
    let second = Hello { epoch: SECOND_EPOCH, resumed: true, ..hello(None) };
    let (mut peer, answer) = said(&rig, &key, second).await.unwrap();
    assert_eq!((answer.epoch, answer.resumed), (SECOND_EPOCH, true));
    assert_eq!(peer.held(pipe).await, (1, SENT as u64));
    // Then: what the older stream brings until the newer one begins is no lie, after that it is stale.
    let whole = pattern(0, SENT + 500);
    let _newer = peer.stream(&rest(pipe, 1, SENT, &whole)).await;
    assert_eq!(read_all(&mut reader).await, (whole, Ok(())));
    let _ = older.write_all(&chunk(b"late")).await;
    assert_eq!(peer.terminal(pipe).await, ClosedKind::Complete);
    // And the older connection is not to be gone back to.
    let back = Hello { epoch: FIRST_EPOCH, resumed: true, ..hello(None) };
    assert_eq!(said(&rig, &key, back).await.err().unwrap().0, u64::from(SUPERSEDED));
    rig.beat().await;
    drop(reader);
    first.conn.close(SUPERSEDED.into(), b"");
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn a_connection_that_was_replaced_is_refused() {
    let rig = Rig::new().await;
    let key = HostIdentity::ephemeral().unwrap();
    let (mut peer, _) = said(&rig, &key, hello(None)).await.unwrap();
    for epoch in [1, FIRST_EPOCH] {
        let late = Hello { epoch, resumed: true, ..hello(None) };
        let (code, _) = said(&rig, &key, late).await.err().unwrap();
        assert_eq!(code, u64::from(SUPERSEDED), "epoch {epoch}");
    }
    peer.is_served(&rig).await;
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn two_nodes_with_one_key_are_told_so() {
    let rig = Rig::new().await;
    let key = HostIdentity::ephemeral().unwrap();
    let (mut peer, _) = said(&rig, &key, hello(None)).await.unwrap();
    let twin = Hello {
        session: SessionId([8; 16]),
        instance: Instance { start: 1, random: 2 },
        ..hello(None)
    };
    let refused = said(&rig, &key, twin).await.err().unwrap();
    assert_eq!(refused, (TWIN, "two nodes use this key".to_owned()));
    peer.is_served(&rig).await;
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn a_later_run_of_a_node_ends_the_sessions_of_the_earlier_one() {
    let rig = Rig::new().await;
    let key = HostIdentity::ephemeral().unwrap();
    let (mut before, _) = said(&rig, &key, hello(None)).await.unwrap();
    let (_, mut reader, _stream) = begin(&rig, &mut before).await;
    bounded(exactly(&reader, SENT as u64)).await;
    let pipe = before.open(Opener::Reader).await;
    let writer = rig.writer().await;
    let later = Hello {
        session: SessionId([8; 16]),
        instance: Instance { start: 2, random: 1 },
        ..hello(None)
    };
    let (mut peer, answer) = said(&rig, &key, later).await.unwrap();
    assert!(!answer.resumed);
    assert_eq!(read_all(&mut reader).await, (pattern(0, SENT), Err(Cause::Restarted)));
    assert_eq!(bounded(writer.over()).await.unwrap_err().cause(), Cause::Restarted);
    bounded(before.conn.closed()).await;
    assert_eq!(pipe, id(2));
    // A straggler of the earlier run is told that it is over.
    let straggler = Hello { epoch: SECOND_EPOCH, resumed: true, ..hello(None) };
    let (other, answer) = said(&rig, &key, straggler).await.unwrap();
    assert!(!answer.resumed);
    other.leave().await;
    peer.is_served(&rig).await;
    drop((reader, writer));
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn addresses_that_are_none_end_the_session() {
    let rig = Rig::new().await;
    let address = |ip: &[u8], port| raw::field(1, &[raw::field(1, ip), number(2, port)].concat());
    let too_many = address(&[10, 0, 0, 1], 7473).repeat(17);
    let cases = [
        ("too many addresses", too_many),
        ("an address that is none", address(&[1, 2, 3, 4, 5], 1)),
        ("an address that is none", address(&[], 1)),
        ("an address that is none", address(&[10, 0, 0, 1], 65_536)),
    ];
    for (words, body) in cases {
        let mut peer = Peer::of(&rig).await;
        peer.say_raw(&raw::message(&raw::field(4, &body))).await;
        let (code, said) = peer.refusal().await;
        assert!(code == PROTOCOL && said.ends_with(words), "{code}: {said}");
    }
    rig.end().await;
}

#[tokio::test]
async fn senseless_addresses_change_nothing() {
    let mut rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let senseless =
        ["0.0.0.0:1", "224.0.0.1:9", "255.255.255.255:7", "10.0.0.1:0", "[::]:1", "[ff02::1]:5"];
    let addresses: Vec<_> = senseless.iter().map(|text| text.parse().unwrap()).collect();
    for _ in 0..100 {
        peer.say(&ControlMessage::Addresses(addresses.clone())).await;
    }
    peer.say(&ControlMessage::Addresses(vec![])).await;
    peer.is_served(&rig).await;
    rig.beat().await;
    assert_eq!(peer.addresses, [rig.address()]);
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn a_node_that_only_dials_refuses_a_new_session() {
    let rig = Rig::new().await;
    let key = HostIdentity::ephemeral().unwrap();
    let crypto_key = key.node();
    let identity = HostIdentity::ephemeral().unwrap().node();
    let expected = qpipe::tls::ExpectedHost::Is(identity.host());
    let access = std::sync::Arc::new(qpipe::Nobody);
    let node = node_with(identity, access, NodeOptions { accepts: false, ..options() });
    let crypto = tls::client_config(&crypto_key, expected).unwrap().crypto();
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = quinn::ClientConfig::new(crypto);
    let address = node.local_addresses()[0];
    let conn = bounded(endpoint.connect_with(config, address, SERVER_NAME).unwrap()).await.unwrap();
    let (mut send, _recv) = conn.open_bi().await.unwrap();
    send.write_all(&encode_control(&ControlMessage::Hello(hello(None)))).await.unwrap();
    assert_eq!(refusal(bounded(conn.closed()).await).0, NOT_ALLOWED);
    rig.end().await;
}

#[tokio::test]
async fn a_peer_that_hangs_up_without_a_word_is_waited_for_and_given_up_in_time() {
    let patience = Patience {
        heartbeat: Duration::from_millis(100),
        notice: Duration::from_millis(200),
        give_up: Duration::from_millis(1_500),
    };
    let rig = Rig::with_patience(patience).await;
    for code in [0, SUPERSEDED] {
        let mut peer = Peer::of(&rig).await;
        let (_, mut reader, _stream) = begin(&rig, &mut peer).await;
        bounded(exactly(&reader, SENT as u64)).await;
        let since = tokio::time::Instant::now();
        peer.conn.close(code.into(), b"");
        drop(peer);
        assert_eq!(read_all(&mut reader).await, (pattern(0, SENT), Err(Cause::Unheard)));
        let after = since.elapsed();
        assert!(after >= Duration::from_millis(1_000), "given up after {after:?}");
    }
    rig.end().await;
}

#[tokio::test]
async fn a_hello_for_a_known_session_that_does_not_say_it_resumes_is_another_connection_of_it() {
    let rig = Rig::new().await;
    let key = HostIdentity::ephemeral().unwrap();
    let mut first = said(&rig, &key, hello(None)).await.unwrap().0;
    let pipe = first.next_id();
    let _stream = first.stream(&[&header(pipe)[..], &chunk(&pattern(0, SENT))].concat()).await;
    let mut reader = rig.reader().await;
    bounded(exactly(&reader, SENT as u64)).await;
    // The answer to the first Hello was lost, as far as its sender knows.
    let second = Hello { epoch: SECOND_EPOCH, ..hello(None) };
    let (mut peer, answer) = said(&rig, &key, second).await.unwrap();
    assert!(answer.resumed);
    assert_eq!(peer.held(pipe).await, (1, SENT as u64));
    let end = Facts { end: Some(crate::peer::eof(&pattern(0, SENT))), ..Facts::default() };
    peer.state(pipe, end).await;
    assert_eq!(read_all(&mut reader).await, (pattern(0, SENT), Ok(())));
    drop(reader);
    peer.leave().await;
    rig.end().await;
}

/// Says this Hello on a new connection with the key `key`: the node's answer, or its refusal.
async fn said(rig: &Rig, key: &HostIdentity, mine: Hello) -> Result<(Peer, Hello), Refusal> {
    let mut peer = Peer::with_key(rig, key).await;
    peer.say(&ControlMessage::Hello(mine)).await;
    match peer.hear().await {
        Ok(ControlMessage::Hello(answer)) => Ok((peer, answer)),
        Ok(other) => panic!("no Hello: {other:?}"),
        Err(error) => Err(refusal(error)),
    }
}
