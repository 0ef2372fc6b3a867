//! A network of UDP in memory, in tokio's time.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use super::dice::Dice;

/// What carries datagrams from one host to all others. Serialises first, loses after.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    /// One way.
    pub(super) delay: Duration,
    /// Up to so much more, so that datagrams overtake each other.
    pub(super) jitter: Duration,
    /// Bytes a second.
    pub(super) rate: u64,
    /// Datagrams that would wait longer for their turn are dropped.
    pub(super) queue: Duration,
    /// Of 1,000 datagrams.
    pub(super) loss: u64,
    /// So many are lost together.
    pub(super) burst: u64,
    /// Of 1,000 datagrams, so many arrive twice.
    pub(super) twice: u64,
    /// Nothing passes.
    pub(super) is_down: bool,
}

impl Default for Path {
    /// 20 Mbit/s, 25 ms each way.
    fn default() -> Path {
        Path {
            delay: Duration::from_millis(25),
            jitter: Duration::ZERO,
            rate: 2_500_000,
            queue: Duration::from_millis(60),
            loss: 0,
            burst: 1,
            twice: 0,
            is_down: false,
        }
    }
}

/// A datagram that a host sent, whether it arrived or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) at: Instant,
    pub(super) from: SocketAddr,
    /// Whether it is of a handshake: a long header (RFC 9000, section 17.2).
    pub(super) is_handshake: bool,
}

/// The network. Clones are the same.
#[derive(Clone)]
pub(super) struct Net(Arc<Mutex<Wires>>);

struct Wires {
    queues: HashMap<SocketAddr, Arc<Mutex<Queue>>>,
    paths: HashMap<SocketAddr, Way>,
    translators: HashMap<SocketAddr, Translator>,
    dice: Dice,
    sent: Vec<Sent>,
    is_logging: bool,
    /// Ports that translators have not used yet.
    next_port: u16,
    sequence: u64,
}

struct Way {
    path: Path,
    free_at: Instant,
    /// Datagrams of the current burst that are still to be lost.
    to_lose: u64,
}

/// An address translator in front of one host.
struct Translator {
    outside: SocketAddr,
    used_at: Instant,
    /// A mapping that was not used for so long is forgotten.
    forgets_after: Duration,
}

#[derive(Default)]
struct Queue {
    datagrams: BinaryHeap<Reverse<Datagram>>,
    waker: Option<Waker>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Datagram {
    at: Instant,
    sequence: u64,
    from: SocketAddr,
    bytes: Vec<u8>,
}

thread_local! {
    /// The network of the simulation that this thread runs.
    static NET: RefCell<Option<Net>> = const { RefCell::new(None) };
}

/// Whether an address is of a simulated network: of the range for benchmarks (RFC 2544).
pub(crate) fn is_simulated(address: SocketAddr) -> bool {
    match address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[0] == 198 && ip.octets()[1] & 0xfe == 18,
        std::net::IpAddr::V6(_) => false,
    }
}

/// Hears what datagrams to an address lead to: an error if the host is there and its port is closed.
pub(crate) struct SimulatedProbe {
    address: SocketAddr,
    asked: Notify,
}

impl SimulatedProbe {
    pub(crate) fn new(address: SocketAddr) -> SimulatedProbe {
        SimulatedProbe { address, asked: Notify::new() }
    }

    pub(crate) fn ask(&self) {
        self.asked.notify_one();
    }

    pub(crate) async fn answer(&self) -> io::Error {
        loop {
            self.asked.notified().await;
            let Some(net) = NET.with(|net| net.borrow().clone()) else { continue };
            let round_trip = net.lock().paths.get(&self.address).map(|way| 2 * way.path.delay);
            let Some(round_trip) = round_trip else { continue };
            tokio::time::sleep(round_trip).await;
            let wires = net.lock();
            let is_down = wires.paths.get(&self.address).is_none_or(|way| way.path.is_down);
            if !is_down && !wires.queues.contains_key(&self.address) {
                return io::ErrorKind::ConnectionRefused.into();
            }
        }
    }
}

impl Net {
    pub(super) fn new(seed: u64) -> Net {
        let wires = Wires {
            queues: HashMap::new(),
            paths: HashMap::new(),
            translators: HashMap::new(),
            dice: Dice::new(seed),
            sent: Vec::new(),
            is_logging: false,
            next_port: 20_000,
            sequence: 0,
        };
        let net = Net(Arc::new(Mutex::new(wires)));
        NET.with(|current| current.replace(Some(net.clone())));
        net
    }

    /// A socket at `address`, in the place of one that was there.
    pub(super) fn socket(&self, address: SocketAddr) -> Arc<SimSocket> {
        let queue = Arc::default();
        let mut wires = self.lock();
        wires.queues.insert(address, Arc::clone(&queue));
        let way = Way { path: Path::default(), free_at: Instant::now(), to_lose: 0 };
        wires.paths.entry(address).or_insert(way);
        let net = self.clone();
        Arc::new(SimSocket { net, address, queue, timer: Mutex::new(None) })
    }

    /// Changes what carries datagrams of the host at `address`.
    pub(super) fn change(&self, address: SocketAddr, change: impl FnOnce(&mut Path)) {
        if let Some(way) = self.lock().paths.get_mut(&address) {
            change(&mut way.path);
        }
    }

    /// Changes what carries datagrams of all hosts.
    pub(super) fn change_all(&self, mut change: impl FnMut(&mut Path)) {
        self.lock().paths.values_mut().for_each(|way| change(&mut way.path));
    }

    /// Puts the host at `inside` behind an address translator, or has that forget all mappings.
    pub(super) fn translate(&self, inside: SocketAddr, forgets_after: Duration) {
        let mut wires = self.lock();
        let outside = wires.fresh_outside(inside);
        let used_at = Instant::now();
        wires.translators.insert(inside, Translator { outside, used_at, forgets_after });
    }

    /// Begins to note every datagram that is sent.
    pub(super) fn start_log(&self) {
        let mut wires = self.lock();
        wires.is_logging = true;
        wires.sent.clear();
    }

    /// What was sent since [`Net::start_log`].
    pub(super) fn take_log(&self) -> Vec<Sent> {
        let mut wires = self.lock();
        wires.is_logging = false;
        std::mem::take(&mut wires.sent)
    }

    /// The host at `address` is no longer there, whoever still has a socket of it.
    pub(super) fn remove(&self, address: SocketAddr) {
        let mut wires = self.lock();
        if let Some(queue) = wires.queues.remove(&address) {
            queue.lock().unwrap().datagrams.clear();
        }
        wires.paths.remove(&address);
    }

    fn lock(&self) -> MutexGuard<'_, Wires> {
        self.0.lock().unwrap()
    }
}

impl Wires {
    fn fresh_outside(&mut self, inside: SocketAddr) -> SocketAddr {
        self.next_port += 1;
        // Translators have addresses of their own.
        let std::net::IpAddr::V4(ip) = inside.ip() else { panic!("IPv4 only") };
        let [a, _, c, d] = ip.octets();
        SocketAddr::from(([a, 19, c, d], self.next_port))
    }

    /// Where datagrams of the host at `inside` seem to come from.
    fn outside(&mut self, inside: SocketAddr, now: Instant) -> SocketAddr {
        let is_forgotten = match self.translators.get(&inside) {
            None => return inside,
            Some(translator) => now > translator.used_at + translator.forgets_after,
        };
        let fresh = is_forgotten.then(|| self.fresh_outside(inside));
        let Some(translator) = self.translators.get_mut(&inside) else { return inside };
        translator.used_at = now;
        translator.outside = fresh.unwrap_or(translator.outside);
        translator.outside
    }

    /// Who gets datagrams to `to`.
    fn destination(&self, to: SocketAddr, now: Instant) -> Option<Arc<Mutex<Queue>>> {
        let behind = self.translators.iter().find(|(_, translator)| {
            translator.outside == to && now <= translator.used_at + translator.forgets_after
        });
        let inside = match behind {
            Some((inside, _)) => *inside,
            None if self.translators.contains_key(&to) => return None,
            None => to,
        };
        self.queues.get(&inside).cloned()
    }

    fn carry(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let now = Instant::now();
        if self.is_logging {
            self.sent.push(Sent { at: now, from, is_handshake: bytes[0] & 0x80 != 0 });
        }
        let seen_from = self.outside(from, now);
        let Some(way) = self.paths.get_mut(&from) else { return };
        let path = way.path;
        let begins = way.free_at.max(now);
        if begins - now > path.queue {
            return;
        }
        let nanos = bytes.len() as u64 * 1_000_000_000 / path.rate;
        way.free_at = begins + Duration::from_nanos(nanos);
        let mut at = way.free_at + path.delay;
        if way.to_lose == 0 && self.dice.below(1000) < path.loss {
            way.to_lose = 1 + self.dice.below(path.burst);
        }
        if way.to_lose > 0 || path.is_down {
            way.to_lose = way.to_lose.saturating_sub(1);
            return;
        }
        at += Duration::from_nanos(self.dice.below(path.jitter.as_nanos() as u64 + 1));
        let copies = 1 + u64::from(self.dice.below(1000) < path.twice);
        let Some(queue) = self.destination(to, now) else { return };
        let mut queue = queue.lock().unwrap();
        for _ in 0..copies {
            self.sequence += 1;
            let datagram =
                Datagram { at, sequence: self.sequence, from: seen_from, bytes: bytes.to_vec() };
            queue.datagrams.push(Reverse(datagram));
        }
        queue.waker.take().into_iter().for_each(Waker::wake);
    }
}

/// A socket of the network.
pub(super) struct SimSocket {
    net: Net,
    address: SocketAddr,
    queue: Arc<Mutex<Queue>>,
    timer: Mutex<Option<Pin<Box<Sleep>>>>,
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        let mut wires = self.net.lock();
        let is_this = |queue: &Arc<_>| Arc::ptr_eq(queue, &self.queue);
        if wires.queues.get(&self.address).is_some_and(is_this) {
            wires.queues.remove(&self.address);
        }
    }
}

impl fmt::Debug for SimSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimSocket({})", self.address)
    }
}

/// The network's sockets never block.
#[derive(Debug)]
struct Ready;

impl UdpPoller for Ready {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for SimSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Ready)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let mut wires = self.net.lock();
        for datagram in transmit.contents.chunks(size) {
            wires.carry(self.address, transmit.destination, datagram);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let now = Instant::now();
            let mut queue = self.queue.lock().unwrap();
            let mut count = 0;
            for (buffer, meta) in buffers.iter_mut().zip(meta.iter_mut()) {
                if queue.datagrams.peek().is_none_or(|Reverse(first)| first.at > now) {
                    break;
                }
                let Some(Reverse(datagram)) = queue.datagrams.pop() else { break };
                let len = datagram.bytes.len();
                buffer[..len].copy_from_slice(&datagram.bytes);
                *meta = RecvMeta { addr: datagram.from, len, stride: len, ecn: None, dst_ip: None };
                count += 1;
            }
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            queue.waker = Some(cx.waker().clone());
            let Some(at) = queue.datagrams.peek().map(|Reverse(first)| first.at) else {
                return Poll::Pending;
            };
            drop(queue);
            let mut timer = self.timer.lock().unwrap();
            let sleep = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            sleep.as_mut().reset(at);
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn max_transmit_segments(&self) -> usize {
        10
    }

    fn may_fragment(&self) -> bool {
        false
    }
}
