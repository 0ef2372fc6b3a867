//! A hostile peer: a QUIC connection with a control stream, and no manners.

use std::collections::{BTreeSet, HashMap};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use bytes::Bytes;
use qpipe::identity::HostIdentity;
use qpipe::tls::{self, SERVER_NAME};
use qpipe::{Cause, OpenTarget, Secret};
use qpipe_proto::PipeId;
use qpipe_proto::fact::{
    Answer, Closed, ClosedKind, End, EndKind, Facts, Group, Open, Opener, Priority,
};
use qpipe_proto::hello::{Instance, Limits, SessionId};
use qpipe_proto::wire::{
    ControlDecoder, ControlMessage, FactsMessage, Frame, FrameReader, Hello, StreamHeader,
    encode_chunk_header, encode_control, encode_header, encode_trailer,
};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig};

use crate::rig::{Rig, bounded, name, pattern, read_all};

/// A peer with a control stream.
pub(crate) struct Peer {
    pub(crate) conn: Connection,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    decoder: ControlDecoder,
    /// What the node said, and is not settled.
    pub(crate) facts: HashMap<PipeId, Facts>,
    /// What the node said is settled.
    pub(crate) settled: BTreeSet<u64>,
    pub(crate) opens_allowed: u64,
    /// Where the node says that it can be reached.
    pub(crate) addresses: Vec<SocketAddr>,
    /// How often the node said Bye.
    pub(crate) byes: usize,
    opened: u64,
    /// What this side's ids are odd by: 0 for the side that dialled, 1 for the other.
    pub(crate) parity: u64,
    _endpoint: Option<Endpoint>,
}

/// The epoch of the first connection of a session that is dialled.
pub(crate) const FIRST_EPOCH: u64 = 3;

/// Codes of CONNECTION_CLOSE: of a session that is over, of a connection that a newer one replaced.
pub(crate) const GONE: u32 = 6;
pub(crate) const SUPERSEDED: u32 = 7;

/// A pipe stream of the node.
pub(crate) struct Streamed {
    pub(crate) header: StreamHeader,
    pub(crate) content: Vec<u8>,
    pub(crate) end: Option<End>,
}

/// How the node closed the connection: code and words.
pub(crate) type Refusal = (u64, String);

impl Peer {
    /// Dials the node and says Hello.
    pub(crate) async fn of(rig: &Rig) -> Peer {
        let mut peer = Peer::before_hello(rig).await;
        peer.say(&ControlMessage::Hello(hello(None))).await;
        peer.greeted().await;
        peer
    }

    /// Dials the node and opens the control stream, on which nothing is said yet.
    pub(crate) async fn before_hello(rig: &Rig) -> Peer {
        Peer::with_key(rig, &HostIdentity::ephemeral().unwrap()).await
    }

    /// As [`Peer::before_hello`], with a key that may be used again.
    pub(crate) async fn with_key(rig: &Rig, key: &HostIdentity) -> Peer {
        let (endpoint, conn) = dial_as(key, rig, TransportConfig::default()).await;
        let (send, recv) = conn.open_bi().await.unwrap();
        Peer { _endpoint: Some(endpoint), ..Peer::with_streams(conn, send, recv) }
    }

    /// A peer on streams that are open already.
    pub(crate) fn with_streams(conn: Connection, send: SendStream, recv: RecvStream) -> Peer {
        Peer {
            conn,
            send,
            recv,
            decoder: ControlDecoder::default(),
            facts: HashMap::new(),
            settled: BTreeSet::new(),
            opens_allowed: 0,
            addresses: Vec::new(),
            byes: 0,
            opened: 0,
            parity: 0,
            _endpoint: None,
        }
    }

    /// Says something. That the node hangs up meanwhile is its right.
    pub(crate) async fn say(&mut self, message: &ControlMessage) {
        self.say_raw(&encode_control(message)).await;
    }

    pub(crate) async fn say_raw(&mut self, bytes: &[u8]) {
        let _ = bounded(self.send.write_all(bytes)).await;
    }

    /// States facts of one pipe.
    pub(crate) async fn state(&mut self, id: PipeId, facts: Facts) {
        let message = FactsMessage { pipes: vec![(id, facts)], ..FactsMessage::default() };
        self.say(&ControlMessage::Facts(message)).await;
    }

    /// States that pipes are settled.
    pub(crate) async fn settle(&mut self, first: PipeId, last: PipeId) {
        let message = FactsMessage { settled: vec![(first, last)], ..FactsMessage::default() };
        self.say(&ControlMessage::Facts(message)).await;
    }

    /// The next message from the node, taken note of.
    pub(crate) async fn hear(&mut self) -> Result<ControlMessage, ConnectionError> {
        loop {
            if let Some(message) = self.decoder.next().expect("the node speaks well") {
                self.note(&message);
                return Ok(message);
            }
            match bounded(self.recv.read_chunk(usize::MAX, true)).await {
                Ok(Some(chunk)) => self.decoder.push(&chunk.bytes),
                Ok(None) => panic!("the node ended the control stream"),
                Err(_) => return Err(bounded(self.conn.closed()).await),
            }
        }
    }

    /// Hears the node's Hello.
    pub(crate) async fn greeted(&mut self) {
        assert!(matches!(self.hear().await, Ok(ControlMessage::Hello(_))));
    }

    /// Hears messages until `enough`.
    pub(crate) async fn until(&mut self, enough: impl Fn(&Peer) -> bool) {
        while !enough(self) {
            self.hear().await.expect("the session goes on");
        }
    }

    /// Hears the terminal fact of a pipe: why it was closed or refused; then says Settled.
    pub(crate) async fn terminal(&mut self, id: PipeId) -> ClosedKind {
        self.until(|peer| peer.facts.get(&id).is_some_and(Facts::is_terminal)).await;
        let facts = self.facts.remove(&id).unwrap();
        self.settle(id, id).await;
        match (facts.closed, facts.answer) {
            (Some(closed), _) => closed.kind,
            (None, Some(Answer::Refused(cause))) => ClosedKind::Broken(cause),
            _ => unreachable!("terminal"),
        }
    }

    /// The node's answer to whatever came before has been heard: a fact of a pipe that the node
    /// has forgotten is always answered.
    pub(crate) async fn sync(&mut self) {
        let id = self.next_id();
        self.settled.clear();
        self.state(id, Facts::default()).await;
        self.until(|peer| peer.settled.contains(&id.number())).await;
    }

    /// Waits for the node to hang up.
    pub(crate) async fn refusal(&self) -> Refusal {
        refusal(bounded(self.conn.closed()).await)
    }

    /// The next id of this side's opens.
    pub(crate) fn next_id(&mut self) -> PipeId {
        self.opened += 1;
        PipeId::new(2 * (self.opened - 1) + self.parity).unwrap()
    }

    /// Opens a pipe by a control message alone.
    pub(crate) async fn open(&mut self, opener: Opener) -> PipeId {
        let id = self.next_id();
        self.state(id, Facts { open: Some(open(id, opener)), ..Facts::default() }).await;
        id
    }

    /// Starts a pipe stream with these bytes. Dropping it would end it.
    pub(crate) async fn stream(&self, bytes: &[u8]) -> SendStream {
        let mut stream = bounded(self.conn.open_uni()).await.unwrap();
        let _ = bounded(stream.write_all(bytes)).await;
        stream
    }

    /// The stream that the node asks for: attempt and offset.
    pub(crate) async fn held(&mut self, id: PipeId) -> (u64, u64) {
        self.until(|peer| peer.facts.get(&id).is_some_and(|facts| facts.held.is_some())).await;
        let held = self.facts.get_mut(&id).and_then(|facts| facts.held.take()).unwrap();
        (held.attempt.number, held.offset)
    }

    /// The next pipe stream of the node, read to its trailer or its end.
    pub(crate) async fn next_stream(&self) -> Streamed {
        let mut stream = self.conn.accept_uni().await.unwrap();
        let mut frames = FrameReader::default();
        let (mut header, mut content, mut end) = (None, Vec::new(), None);
        while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX, true).await {
            let mut piece = chunk.bytes;
            while let Some(frame) = frames.next(&mut piece).expect("the node writes well") {
                match frame {
                    Frame::Content(length) => content.extend(piece.split_to(length)),
                    Frame::Header(it) => header = Some(it),
                    Frame::Trailer(it) => end = Some(it),
                }
            }
        }
        Streamed { header: header.expect("a header"), content, end }
    }

    /// The session is alive: a pipe of it carries bytes, EOF and its result.
    pub(crate) async fn is_served(&mut self, rig: &Rig) {
        let id = self.next_id();
        let content = pattern(7, 3_000);
        let bytes = [&header(id)[..], &chunk(&content), &trailer(&content)].concat();
        let mut stream = self.stream(&bytes).await;
        let _ = stream.finish();
        let mut reader = rig.reader().await;
        assert_eq!(read_all(&mut reader).await, (content, Ok(())));
        assert_eq!(self.terminal(id).await, ClosedKind::Complete);
    }

    /// Ends the session without a Bye.
    pub(crate) async fn leave(self) {
        self.conn.close(GONE.into(), b"");
        // The goodbye goes out when the connection's own task runs next.
        tokio::task::yield_now().await;
    }

    fn note(&mut self, message: &ControlMessage) {
        match message {
            ControlMessage::Hello(hello) => self.opens_allowed = hello.limits.opens_allowed,
            ControlMessage::Addresses(addresses) => self.addresses.clone_from(addresses),
            ControlMessage::Bye(_) => self.byes += 1,
            ControlMessage::Facts(facts) => {
                for (id, heard) in &facts.pipes {
                    self.facts
                        .entry(*id)
                        .or_default()
                        .merge(heard)
                        .expect("the node is consistent");
                }
                for (first, last) in &facts.settled {
                    self.settled.extend((first.number()..=last.number()).step_by(2));
                }
                self.opens_allowed = facts.opens_allowed.unwrap_or(self.opens_allowed);
            }
        }
    }
}

/// A QUIC connection to the node, with a key of its own and nothing said.
pub(crate) async fn dial(rig: &Rig, transport: TransportConfig) -> (Endpoint, Connection) {
    dial_as(&HostIdentity::ephemeral().unwrap(), rig, transport).await
}

async fn dial_as(
    key: &HostIdentity,
    rig: &Rig,
    transport: TransportConfig,
) -> (Endpoint, Connection) {
    let crypto = tls::client_config(&key.node(), rig.expected()).unwrap().crypto();
    let mut config = quinn::ClientConfig::new(crypto);
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint.connect_with(config, rig.address(), SERVER_NAME).unwrap();
    let conn = bounded(connecting).await.unwrap();
    (endpoint, conn)
}

/// A UDP socket of no protocol.
pub(crate) fn datagrams(rig: &Rig) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(rig.address()).unwrap();
    socket
}

/// What a node's closing of a connection says.
pub(crate) fn refusal(error: ConnectionError) -> Refusal {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            (close.error_code.into_inner(), String::from_utf8(close.reason.to_vec()).unwrap())
        }
        other => panic!("no refusal: {other}"),
    }
}

/// A peer's Hello.
pub(crate) fn hello(ticket: Option<Secret>) -> Hello {
    Hello {
        versions: vec![1],
        session: SessionId([7; 16]),
        epoch: FIRST_EPOCH,
        instance: Instance { start: 1, random: 1 },
        resumed: false,
        limits: Limits { initial_limit: 16_384, opens_allowed: 256 },
        ticket,
        enrolled: None,
        software: "hostile".to_owned(),
    }
}

/// The open of a named pipe, a group of its own.
pub(crate) fn open(id: PipeId, opener: Opener) -> Open {
    open_of(id, opener, name("x"))
}

/// The open of `target`, a group of its own.
pub(crate) fn open_of(id: PipeId, opener: Opener, target: OpenTarget) -> Open {
    Open {
        opener,
        target,
        no_wait: false,
        priority: Priority::Normal,
        group: Group { first: id, size: 1 },
    }
}

/// The header of a pipe that its writer opens.
pub(crate) fn header(id: PipeId) -> Bytes {
    encode_header(&StreamHeader { id, attempt: 0, offset: 0, open: Some(open(id, Opener::Writer)) })
}

/// A stream that carries `whole` from the offset `from` on, and ends well.
pub(crate) fn rest(id: PipeId, attempt: u64, from: usize, whole: &[u8]) -> Vec<u8> {
    let header = StreamHeader { id, attempt, offset: from as u64, open: None };
    [&encode_header(&header)[..], &chunk(&whole[from..]), &trailer(whole)].concat()
}

/// A chunk.
pub(crate) fn chunk(content: &[u8]) -> Vec<u8> {
    [&encode_chunk_header(content.len() as u64)[..], content].concat()
}

/// The trailer after `content`.
pub(crate) fn trailer(content: &[u8]) -> Bytes {
    encode_trailer(&eof(content))
}

/// The End after `content`.
pub(crate) fn eof(content: &[u8]) -> End {
    let checksum = xxhash_rust::xxh3::xxh3_64(content);
    End { kind: EndKind::Eof, length: content.len() as u64, checksum }
}

/// A Closed by a reader that leaves.
pub(crate) fn broken(consumed: u64) -> Closed {
    Closed { kind: ClosedKind::Broken(Cause::ReaderClosed), consumed }
}

/// An id.
pub(crate) fn id(number: u64) -> PipeId {
    PipeId::new(number).unwrap()
}
