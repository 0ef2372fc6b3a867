//! Thousands of holes in one stream at once, as a window of 64 MiB has at 5 % loss.
//!
//! No congestion control that is meant for the internet keeps such a window full at such a loss: the
//! writing side is a raw peer with a fixed congestion window, on a socket that loses packets. While
//! it sends the window, it hears nothing of the reading side, as on a path whose round trip is longer
//! than that: so nothing is sent a second time meanwhile.

mod pair;

use std::any::Any;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pair::{Everybody, pattern};
use qpipe::identity::HostIdentity;
use qpipe::tls::{self, ExpectedHost, SERVER_NAME};
use qpipe::{Fingerprint, Node, NodeOptions, OpenTarget, PipeReader};
use qpipe_proto::PipeId;
use qpipe_proto::fact::{ClosedKind, End, EndKind, Facts, Group, Open, Opener, Priority};
use qpipe_proto::hello::{Instance, Limits, SessionId};
use qpipe_proto::limits::{CHUNK_BYTES_MAX, INITIAL_LIMIT_BYTES, WINDOW_BYTES_MAX};
use qpipe_proto::wire::{
    ControlDecoder, ControlMessage, Hello, StreamHeader, encode_chunk_header, encode_control,
    encode_header, encode_trailer,
};
use quinn::congestion::{Controller, ControllerFactory};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{
    AsyncUdpSocket, ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig,
    RecvStream, Runtime, SendStream, ServerConfig, TokioRuntime, TransportConfig, UdpPoller,
    VarInt,
};
use tokio::sync::watch;
use xxhash_rust::xxh3::Xxh3;

/// One packet in so many is lost.
const LOST_ONE_IN: u64 = 20;

/// In so many pieces quinn keeps a stream that is read in order; more end the connection.
const QUINN_PIECES_MAX: u64 = 1024;

/// More than all that is ever in flight, with headers.
const ROOMY_BYTES: u32 = 4 * WINDOW_BYTES_MAX as u32;

/// Content repeats after so many bytes, a prime: no chunk fits in another's place.
const PERIOD: usize = 1_000_003;

/// Nothing here takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_window_of_64_mib_at_5_percent_loss_arrives_whole() {
    // Given: a pipe whose window has grown to 64 MiB.
    let (identity, listen) = (HostIdentity::ephemeral().unwrap().node(), vec![loopback()]);
    let memory = 8 * WINDOW_BYTES_MAX;
    let options = NodeOptions { listen, memory, takes_names: true, ..NodeOptions::default() };
    let node = Node::start(identity, options, Arc::new(Everybody)).unwrap();
    let path = BadPath::new();
    let conn = dial(&path, node.local_addresses()[0], node.fingerprint()).await;
    let mut writer = Writer::begin(conn).await;
    let open = bounded(node.next_open()).await.unwrap();
    let mut reader = Reader::new(open.accept().unwrap().reader.unwrap());
    // On a path as short as this it would not grow so far of itself.
    reader.pipe.watch().widen(WINDOW_BYTES_MAX);
    writer.hear_until(|facts| facts.limit.is_some_and(|l| l.offset >= WINDOW_BYTES_MAX)).await;
    assert!(writer.window() >= WINDOW_BYTES_MAX);

    // When: all that it leaves is in flight at once, with holes.
    let lost = path.lose_during(writer.fill()).await;
    assert!(lost > QUINN_PIECES_MAX, "{lost} packets lost");

    // Then: every byte arrives, and EOF.
    let length = writer.end().await;
    reader.read(length).await;
    assert!(bounded(reader.pipe.read_chunk(1)).await.unwrap().is_none());
    writer.hear_until(|facts| facts.closed.is_some()).await;
    assert_eq!(writer.facts.closed.unwrap().kind, ClosedKind::Complete);
}

/// Why the node does not read streams in order: if this fails, it might.
#[tokio::test]
async fn ordered_reads_do_not_survive_that() {
    // Given: two peers without a qpipe.
    let identity = HostIdentity::ephemeral().unwrap().node();
    let mut config = ServerConfig::with_crypto(tls::server_config(&identity).unwrap());
    config.transport_config(transport());
    let acceptor = Endpoint::server(config, loopback()).unwrap();
    let path = BadPath::new();
    let dialling = dial(&path, acceptor.local_addr().unwrap(), identity.host());
    let accepting = async { acceptor.accept().await.unwrap().await.unwrap() };
    let (conn, accepted) = bounded(async { tokio::join!(dialling, accepting) }).await;
    let mut stream = conn.open_uni().await.unwrap();
    stream.write_all(b"begin").await.unwrap();
    let mut received = bounded(accepted.accept_uni()).await.unwrap();

    // When: a window of 64 MiB is sent with holes, and read in order.
    let reading = tokio::spawn(async move {
        while let Ok(Some(_)) = received.read_chunk(usize::MAX, true).await {}
    });
    let window = Bytes::from(vec![7; WINDOW_BYTES_MAX as usize]);
    let sending = async {
        stream.write_chunk(window).await.unwrap();
        WINDOW_BYTES_MAX
    };
    path.lose_during(sending).await;

    // Then: quinn ends the connection.
    let ConnectionError::TransportError(error) = bounded(accepted.closed()).await else {
        panic!("the connection did not end of itself")
    };
    assert!(error.reason.contains("too many gaps"), "{error}");
    bounded(reading).await.unwrap();
}

/// The write end of a pipe, as a peer's node has it.
struct Writer {
    stream: SendStream,
    // Dropped, they would end the session.
    _control: SendStream,
    recv: RecvStream,
    decoder: ControlDecoder,
    facts: Facts,
    written: u64,
    hash: Xxh3,
    content: Content,
}

impl Writer {
    /// Says Hello and begins a pipe.
    async fn begin(conn: Connection) -> Writer {
        let (mut control, recv) = conn.open_bi().await.unwrap();
        let hello = Hello {
            versions: vec![1],
            session: SessionId([7; 16]),
            epoch: 3,
            instance: Instance { start: 1, random: 1 },
            resumed: false,
            limits: Limits { initial_limit: INITIAL_LIMIT_BYTES, opens_allowed: 4 },
            ticket: None,
            enrolled: None,
            software: "gaps".to_owned(),
        };
        control.write_all(&encode_control(&ControlMessage::Hello(hello))).await.unwrap();
        // Until the node has said Hello, there may be none.
        let mut stream = bounded(conn.open_uni()).await.unwrap();
        let id = PipeId::new(0).unwrap();
        let target = OpenTarget::Name("x".parse().unwrap());
        let group = Group { first: id, size: 1 };
        let open = Some(Open {
            opener: Opener::Writer,
            target,
            no_wait: false,
            priority: Priority::Normal,
            group,
        });
        let header = StreamHeader { id, attempt: 0, offset: 0, open };
        stream.write_all(&encode_header(&header)).await.unwrap();
        let mut writer = Writer {
            stream,
            _control: control,
            recv,
            decoder: ControlDecoder::default(),
            facts: Facts::default(),
            written: 0,
            hash: Xxh3::new(),
            content: Content::new(),
        };
        writer.write(INITIAL_LIMIT_BYTES).await;
        writer
    }

    /// As the reader's node told it.
    fn window(&self) -> u64 {
        self.facts.limit.map_or(0, |limit| limit.offset - self.facts.consumed)
    }

    /// Writes all that the Limit leaves; returns how much that was.
    async fn fill(&mut self) -> u64 {
        let limit = self.facts.limit.map_or(0, |limit| limit.offset);
        let left = limit.saturating_sub(self.written);
        self.write(left).await;
        left
    }

    async fn write(&mut self, bytes: u64) {
        let upto = self.written + bytes;
        while self.written < upto {
            let chunk = self.content.at(self.written, (upto - self.written).min(CHUNK_BYTES_MAX));
            self.hash.update(&chunk);
            self.written += chunk.len() as u64;
            let mut pieces = [encode_chunk_header(chunk.len() as u64), chunk];
            bounded(self.stream.write_all_chunks(&mut pieces)).await.unwrap();
        }
    }

    /// Ends the pipe; returns its length.
    async fn end(&mut self) -> u64 {
        let (length, checksum) = (self.written, self.hash.digest());
        let trailer = encode_trailer(&End { kind: EndKind::Eof, length, checksum });
        bounded(self.stream.write_all(&trailer)).await.unwrap();
        self.stream.finish().unwrap();
        length
    }

    async fn hear_until(&mut self, enough: impl Fn(&Facts) -> bool) {
        while !enough(&self.facts) {
            let chunk = bounded(self.recv.read_chunk(usize::MAX, true)).await.unwrap().unwrap();
            self.decoder.push(&chunk.bytes);
            while let Some(message) = self.decoder.next().unwrap() {
                let ControlMessage::Facts(message) = message else { continue };
                message.pipes.iter().for_each(|(_, facts)| self.facts.merge(facts).unwrap());
            }
        }
    }
}

/// The read end, which checks what it reads.
struct Reader {
    pipe: PipeReader,
    position: u64,
    content: Content,
}

impl Reader {
    fn new(pipe: PipeReader) -> Reader {
        Reader { pipe, position: 0, content: Content::new() }
    }

    /// Reads up to there.
    async fn read(&mut self, upto: u64) {
        let from = self.position;
        while self.position < upto {
            let chunk = bounded(self.pipe.read_chunk(PERIOD)).await.unwrap().expect("no EOF yet");
            let length = chunk.len() as u64;
            assert!(chunk == self.content.at(self.position, length), "near {}", self.position);
            self.position += length;
        }
        self.pipe.consume(upto - from);
    }
}

/// What a pipe carries.
struct Content(Bytes);

impl Content {
    fn new() -> Content {
        let period = pattern(1, 0, PERIOD);
        Content([&period[..], &period[..]].concat().into())
    }

    /// Up to a [`PERIOD`] of it.
    fn at(&self, offset: u64, length: u64) -> Bytes {
        let from = (offset % PERIOD as u64) as usize;
        self.0.slice(from..from + length as usize)
    }
}

/// A peer's path to the node, which is perfect but when told otherwise.
#[derive(Debug)]
struct BadPath {
    socket: Arc<dyn AsyncUdpSocket>,
    is_lossy: AtomicBool,
    is_deaf: AtomicBool,
    /// Packets sent while it was lossy.
    packets: AtomicU64,
    /// Bytes in packets, all together.
    sent: watch::Sender<u64>,
}

impl BadPath {
    fn new() -> Arc<BadPath> {
        let socket = UdpSocket::bind(loopback()).unwrap();
        Arc::new(BadPath {
            socket: TokioRuntime.wrap_udp_socket(socket).unwrap(),
            is_lossy: AtomicBool::new(false),
            is_deaf: AtomicBool::new(false),
            packets: AtomicU64::new(0),
            sent: watch::Sender::new(0),
        })
    }

    /// Loses packets from now on; returns how many it lost until all that `writing` wrote was sent
    /// once, until when nothing is heard.
    async fn lose_during(&self, writing: impl Future<Output = u64>) -> u64 {
        self.is_lossy.store(true, Ordering::Relaxed);
        self.is_deaf.store(true, Ordering::Relaxed);
        let before = *self.sent.borrow();
        let written = bounded(writing).await;
        let mut sent = self.sent.subscribe();
        bounded(sent.wait_for(|sent| sent - before >= written)).await.unwrap();
        self.is_deaf.store(false, Ordering::Relaxed);
        self.packets.load(Ordering::Relaxed) / LOST_ONE_IN
    }
}

impl AsyncUdpSocket for BadPath {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let is_lossy = self.is_lossy.load(Ordering::Relaxed);
        let is_lost = is_lossy
            && (self.packets.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(LOST_ONE_IN);
        if !is_lost {
            self.socket.try_send(transmit)?;
        }
        self.sent.send_modify(|sent| *sent += transmit.contents.len() as u64);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let received = ready!(self.socket.poll_recv(cx, buffers, meta));
            if received.is_err() || !self.is_deaf.load(Ordering::Relaxed) {
                return Poll::Ready(received);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }
}

/// Congestion control that is none.
#[derive(Clone)]
struct Fixed;

impl ControllerFactory for Fixed {
    fn build(self: Arc<Self>, _: Instant, _: u16) -> Box<dyn Controller> {
        Box::new(Fixed)
    }
}

impl Controller for Fixed {
    fn on_congestion_event(&mut self, _: Instant, _: Instant, _: bool, _: u64) {}

    fn on_mtu_update(&mut self, _: u16) {}

    fn window(&self) -> u64 {
        ROOMY_BYTES.into()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Fixed)
    }

    fn initial_window(&self) -> u64 {
        ROOMY_BYTES.into()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .congestion_controller_factory(Arc::new(Fixed))
        .send_window(ROOMY_BYTES.into())
        .stream_receive_window(VarInt::from_u32(ROOMY_BYTES));
    Arc::new(config)
}

async fn dial(path: &Arc<BadPath>, address: SocketAddr, host: Fingerprint) -> Connection {
    let identity = HostIdentity::ephemeral().unwrap().node();
    let crypto = tls::client_config(&identity, ExpectedHost::Is(host)).unwrap().crypto();
    let mut config = ClientConfig::new(crypto);
    config.transport_config(transport());
    let (socket, runtime) = (path.clone(), Arc::new(TokioRuntime));
    let endpoint =
        Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, socket, runtime);
    let connecting = endpoint.unwrap().connect_with(config, address, SERVER_NAME).unwrap();
    bounded(connecting).await.unwrap()
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

async fn bounded<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("this hangs")
}
