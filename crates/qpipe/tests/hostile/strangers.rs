//! Peers that do not get past the handshake, Hello, or the ticket.

use std::sync::Arc;
use std::time::Duration;

use qpipe::identity::HostIdentity;
use qpipe::tls::{ALPN, HandshakeFailure, PinnedServer, SERVER_NAME, explain_handshake};
use qpipe::{Cause, End, Secret};
use qpipe_proto::fact::{ClosedKind, Facts, Opener};
use qpipe_proto::wire::{Bye, ControlMessage, FactsMessage, encode_control};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, Endpoint, TransportConfig};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::peer::{Peer, Refusal, dial, hello, open_of, refusal};
use crate::raw::{self, Dice};
use crate::rig::{Door, Rig, at_once, bounded};

/// More connections than a node takes that have not said Hello.
const FLOOD: usize = 300;

const DONE: u64 = 0;
const PROTOCOL: u64 = 1;
const NOT_ALLOWED: u64 = 2;
const TICKET: u64 = 3;
const VERSION: u64 = 4;

const TICKET_WORDS: &str = "the ticket is unknown, used or expired";

#[tokio::test]
async fn another_protocol_is_told_so() {
    let rig = Rig::new().await;
    for alpn in [&b"h3"[..], b"qpipe/2", b"qpipe/1.1"] {
        let error = shake_hands(&rig, alpn, Some(key_pair())).await;
        assert_eq!(explain_handshake(&error), Some(HandshakeFailure::OtherProtocol), "{error}");
    }
    rig.end().await;
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_refused() {
    let rig = Rig::new().await;
    let error = shake_hands(&rig, ALPN, None).await;
    let refused = Some(HandshakeFailure::PeerRefusedOurCertificate);
    assert_eq!(explain_handshake(&error), refused, "{error}");
    rig.end().await;
}

#[tokio::test]
async fn a_peer_with_the_key_of_another_is_refused() {
    let rig = Rig::new().await;
    let stolen = HostIdentity::ephemeral().unwrap().node().chain().to_vec();
    let error = shake_hands(&rig, ALPN, Some((stolen, key_pair().1))).await;
    let refused = Some(HandshakeFailure::PeerRefusedOurCertificate);
    assert_eq!(explain_handshake(&error), refused, "{error}");
    rig.end().await;
}

#[tokio::test]
async fn no_stream_is_open_to_a_peer_before_hello() {
    let rig = Rig::new().await;
    let peer = Peer::before_hello(&rig).await;
    assert!(at_once(peer.conn.open_uni()).await.is_none(), "a pipe stream before Hello");
    assert!(at_once(peer.conn.open_bi()).await.is_none(), "a second control stream");
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn a_second_control_stream_is_never_granted() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    peer.is_served(&rig).await;
    assert!(at_once(peer.conn.open_bi()).await.is_none());
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn whoever_dawdles_is_shown_out() {
    let mut rig = Rig::with_door(Door::Shut).await;
    // Given: connections that say nothing, open a stream and say nothing, say half a Hello, or come
    // with a ticket and do not use it.
    let (_mute, mute) = dial(&rig, TransportConfig::default()).await;
    let silent = Peer::before_hello(&rig).await;
    let mut half = Peer::before_hello(&rig).await;
    let bytes = encode_control(&ControlMessage::Hello(hello(None)));
    half.say_raw(&bytes[..bytes.len() / 2]).await;
    let offer = rig.victim.offer(End::Write, None).unwrap();
    let idle = with_ticket(&rig, offer.secret()).await.unwrap();
    rig.beat().await;
    // Then: each is told why it is disconnected.
    // Nothing that would end a session: a late Hello may be that of one.
    let late = (DONE, "the first message must be Hello".to_owned());
    assert_eq!(half.refusal().await, late);
    assert_eq!(silent.refusal().await, late);
    assert_eq!(refusal(bounded(mute.closed()).await), late);
    assert_eq!(idle.refusal().await, (TICKET, "the ticket was not used in time".to_owned()));
    rig.end().await;
}

#[tokio::test]
async fn a_flood_of_handshakes_is_bounded_and_passes() {
    let mut rig = Rig::new().await;
    let identity = HostIdentity::ephemeral().unwrap().node();
    let crypto = qpipe::tls::client_config(&identity, rig.expected()).unwrap().crypto();
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut held = Vec::new();
    let mut refused = 0;
    for i in 0..FLOOD {
        let config = quinn::ClientConfig::new(crypto.clone());
        let connecting = endpoint.connect_with(config, rig.address(), SERVER_NAME).unwrap();
        match bounded(connecting).await {
            Ok(conn) => held.push(conn),
            Err(error) => {
                assert_eq!(explain_handshake(&error), Some(HandshakeFailure::PeerBusy), "{error}");
                refused += 1;
            }
        }
        if i % 60 == 0 {
            rig.beat().await;
        }
    }
    assert!(refused > 0, "{} connections without Hello", held.len());
    for conn in held {
        bounded(conn.closed()).await;
    }
    rig.welcomes().await;
    rig.end().await;
}

#[tokio::test]
async fn what_is_no_hello_is_refused() {
    let rig = Rig::new().await;
    let facts = encode_control(&ControlMessage::Facts(FactsMessage {
        opens_allowed: Some(1),
        ..FactsMessage::default()
    }));
    let bye = encode_control(&ControlMessage::Bye(Bye { opens_seen: 0 }));
    let cases: [(&str, Vec<u8>); 9] = [
        ("facts", facts.to_vec()),
        ("bye", bye.to_vec()),
        ("an empty message", vec![0]),
        ("a message of no kind", raw::message(&[])),
        ("an unknown kind", raw::message(&raw::field(9, b"?"))),
        ("a length of 2^62 - 1", vec![0xff; 8]),
        ("a length of one too many", vec![0x80, 1, 0, 1]),
        ("noise", raw::message(&Dice::new(3).bytes(300))),
        ("Hello with a session of 15 bytes", raw::hello(1, &[0; 15], &[])),
    ];
    for (what, bytes) in cases {
        let mut peer = Peer::before_hello(&rig).await;
        peer.say_raw(&bytes).await;
        let words = "the first message must be Hello".to_owned();
        assert_eq!(peer.refusal().await, (PROTOCOL, words), "{what}");
    }
    rig.end().await;
}

#[tokio::test]
async fn another_version_is_told_which_one_is_spoken() {
    let rig = Rig::new().await;
    for version in [0, 2, 127] {
        let mut peer = Peer::before_hello(&rig).await;
        peer.say_raw(&raw::hello(version, &[1; 16], &[])).await;
        assert_eq!(peer.refusal().await, (VERSION, "this side speaks qpipe/1 only".to_owned()));
    }
    rig.end().await;
}

#[tokio::test]
async fn a_control_stream_that_ends_before_hello_is_refused() {
    let rig = Rig::new().await;
    for is_reset in [false, true] {
        let mut peer = Peer::before_hello(&rig).await;
        peer.say_raw(&[0x20]).await;
        if is_reset {
            peer.send.reset(9u32.into()).unwrap();
        } else {
            peer.send.finish().unwrap();
        }
        assert_eq!(peer.refusal().await.0, PROTOCOL);
    }
    rig.end().await;
}

#[tokio::test]
async fn a_control_stream_that_ends_after_hello_ends_the_session() {
    let rig = Rig::new().await;
    for (is_reset, words) in
        [(false, "the control stream was ended"), (true, "the control stream was cut")]
    {
        let mut peer = Peer::of(&rig).await;
        peer.is_served(&rig).await;
        if is_reset {
            peer.send.reset(9u32.into()).unwrap();
        } else {
            peer.send.finish().unwrap();
        }
        assert_eq!(peer.refusal().await, (PROTOCOL, words.to_owned()));
    }
    rig.end().await;
}

#[tokio::test]
async fn hello_said_twice_ends_the_session() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    peer.say(&ControlMessage::Hello(hello(None))).await;
    assert_eq!(peer.refusal().await, (PROTOCOL, "a second Hello".to_owned()));
    rig.end().await;
}

#[tokio::test]
async fn a_broken_control_stream_ends_the_session() {
    let rig = Rig::new().await;
    let cases: [(&str, Vec<u8>); 6] = [
        ("too long", vec![0xbf, 0xff, 0xff, 0xff]),
        ("empty", vec![0]),
        ("of no known kind", raw::message(&raw::field(9, b"?"))),
        ("not a protobuf message", raw::message(&[0xff; 40])),
        ("an id out of range", raw::pipe_facts(&[raw::number(1, 1 << 62)])),
        ("a range of ids that is none", {
            let range = [raw::number(1, 2), raw::number(2, 5)].concat();
            raw::message(&raw::field(2, &raw::field(3, &range)))
        }),
    ];
    for (words, bytes) in cases {
        let mut peer = Peer::of(&rig).await;
        peer.say_raw(&bytes).await;
        let words = format!("a malformed control message: {words}");
        assert_eq!(peer.refusal().await, (PROTOCOL, words));
    }
    rig.end().await;
}

#[tokio::test]
async fn a_key_that_no_rule_lists_is_told_what_to_do() {
    let rig = Rig::with_door(Door::Shut).await;
    let (code, words) = say_hello(&rig, None).await.err().unwrap();
    assert_eq!(code, NOT_ALLOWED);
    assert!(words.starts_with("key SHA256:") && words.contains("invitation"), "{words}");
    rig.end().await;
}

#[tokio::test]
async fn tickets_unknown_used_and_expired_get_the_same_words() {
    let rig = Rig::with_door(Door::Shut).await;
    let refused = (TICKET, TICKET_WORDS.to_owned());
    // Unknown.
    let unknown = Secret::from_bytes([9; 16]);
    assert_eq!(with_ticket(&rig, &unknown).await.err(), Some(refused.clone()));
    // Expired.
    let expired = rig.victim.offer(End::Write, Some(Duration::ZERO)).unwrap();
    assert_eq!(with_ticket(&rig, expired.secret()).await.err(), Some(refused.clone()));
    // Withdrawn.
    let withdrawn = rig.victim.offer(End::Write, None).unwrap().secret().clone();
    assert_eq!(with_ticket(&rig, &withdrawn).await.err(), Some(refused.clone()));
    // Used.
    let mut offer = rig.victim.offer(End::Write, None).unwrap();
    let mut first = with_ticket(&rig, offer.secret()).await.unwrap();
    present(&mut first, offer.secret(), Opener::Writer).await;
    let ends = bounded(offer.taken()).await.unwrap();
    assert_eq!(with_ticket(&rig, offer.secret()).await.err(), Some(refused));
    // And once more in the session that used it.
    let again = present(&mut first, offer.secret(), Opener::Writer).await;
    assert_eq!(first.terminal(again).await, ClosedKind::Broken(Cause::Ticket));
    drop(ends);
    first.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn a_ticket_opens_no_other_end_than_it_grants() {
    let rig = Rig::with_door(Door::Shut).await;
    let mut offer = rig.victim.offer(End::Write, None).unwrap();
    let mut peer = with_ticket(&rig, offer.secret()).await.unwrap();
    let wrong = present(&mut peer, offer.secret(), Opener::Reader).await;
    assert_eq!(peer.terminal(wrong).await, ClosedKind::Broken(Cause::Ticket));
    // It is not spent by that.
    present(&mut peer, offer.secret(), Opener::Writer).await;
    assert!(bounded(offer.taken()).await.unwrap().reader.is_some());
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn a_ticket_of_the_wrong_shape_is_no_hello() {
    let rig = Rig::with_door(Door::Shut).await;
    for length in [1, 15, 17, 100] {
        let mut peer = Peer::before_hello(&rig).await;
        peer.say_raw(&raw::hello(1, &[1; 16], &vec![5; length])).await;
        assert_eq!(peer.refusal().await.0, PROTOCOL, "{length} bytes");
    }
    rig.end().await;
}

async fn with_ticket(rig: &Rig, secret: &Secret) -> Result<Peer, Refusal> {
    say_hello(rig, Some(secret.clone())).await
}

async fn say_hello(rig: &Rig, ticket: Option<Secret>) -> Result<Peer, Refusal> {
    let mut peer = Peer::before_hello(rig).await;
    peer.say(&ControlMessage::Hello(hello(ticket))).await;
    match peer.hear().await {
        Ok(_) => Ok(peer),
        Err(error) => Err(refusal(error)),
    }
}

async fn present(peer: &mut Peer, secret: &Secret, opener: Opener) -> qpipe_proto::PipeId {
    let id = peer.next_id();
    let open = open_of(id, opener, qpipe::OpenTarget::Ticket(secret.clone()));
    peer.state(id, Facts { open: Some(open), ..Facts::default() }).await;
    id
}

type Credentials = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn key_pair() -> Credentials {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    (vec![certificate.der().clone()], key.into())
}

/// A handshake with the node, which has to fail: how.
async fn shake_hands(rig: &Rig, alpn: &[u8], me: Option<Credentials>) -> ConnectionError {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(PinnedServer::new(rig.expected()));
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match me {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
            let certified = SingleCertAndKey::from(CertifiedKey::new(chain, key));
            builder.with_client_cert_resolver(Arc::new(certified))
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let crypto = Arc::new(QuicClientConfig::try_from(config).unwrap());
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = quinn::ClientConfig::new(crypto);
    let connecting = endpoint.connect_with(config, rig.address(), SERVER_NAME).unwrap();
    match bounded(connecting).await {
        Err(error) => error,
        // The handshake is over for the dialling side before the other has judged it.
        Ok(conn) => bounded(conn.closed()).await,
    }
}
