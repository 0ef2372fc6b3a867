//! The UDP socket under quinn.
//!
//! quinn's own takes any size of batch to the kernel, which refuses those beyond 64 KiB without a
//! word; ends with all its connections at the first error in receiving; and sends at most ten
//! datagrams at once. This one cuts and gathers batches, waits where receiving fails and asks for
//! another socket, and says what datagrams its buffer can take.

mod batch;
mod buffers;
mod route;
mod trouble;

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};

pub use buffers::CappedBuffers;
pub(crate) use buffers::capped;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use socket2::{Domain, Protocol, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Notify;

use batch::Batch;
pub(crate) use route::datagram_bytes_max as route_bytes_max;
use trouble::Trouble;

/// A UDP socket of the kernel.
pub(super) struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    /// The largest datagram that is accepted, in bytes.
    datagram_bytes_max: u16,
    /// The kernel had no room for a datagram, and nothing was sent since.
    is_full: AtomicBool,
    outgoing: Mutex<Outgoing>,
    trouble: Mutex<Trouble>,
    /// Told when receiving fails for good.
    broken: Arc<Notify>,
}

#[derive(Default)]
struct Outgoing {
    batch: Batch,
    /// The task that sends what waits when nothing more is added.
    flusher: Option<Waker>,
}

impl Socket {
    /// Binds, inside of a tokio runtime. `broken` is told each time that a fresh socket should take
    /// this one's place.
    pub(super) fn bind(address: SocketAddr, broken: Arc<Notify>) -> io::Result<Arc<Socket>> {
        let domain = Domain::for_address(address);
        let socket = socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            // IPv4 has a socket of its own: quinn takes an IPv4 peer on an IPv6 socket for one whose
            // address changes wholly when only its port does.
            socket.set_only_v6(true)?;
        }
        let receives = buffers::enlarge(&socket);
        socket.bind(&address.into())?;
        Socket::over(socket.into(), buffers::datagram_bytes_max(receives), broken)
    }

    fn over(
        socket: std::net::UdpSocket,
        datagram_bytes_max: u16,
        broken: Arc<Notify>,
    ) -> io::Result<Arc<Socket>> {
        let state = UdpSocketState::new((&socket).into())?;
        let socket = Arc::new(Socket {
            io: UdpSocket::from_std(socket)?,
            state,
            datagram_bytes_max,
            is_full: AtomicBool::new(false),
            outgoing: Mutex::default(),
            trouble: Mutex::default(),
            broken,
        });
        tokio::spawn(flush(Arc::downgrade(&socket)));
        Ok(socket)
    }

    /// The largest datagram that peers should be told to send here, in bytes.
    pub(super) fn datagram_bytes_max(&self) -> u16 {
        self.datagram_bytes_max
    }

    fn segments_max(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Sends what can go in calls of their own, and keeps what should wait.
    fn send_or_keep(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut outgoing = lock(&self.outgoing);
        let segments_max = self.segments_max();
        let is_full = batch::is_full(transmit, segments_max);
        if !outgoing.batch.is_empty() || is_full {
            if !outgoing.batch.add(transmit, segments_max) {
                self.flush(&mut outgoing.batch)?;
                return self.send_now(transmit, &mut outgoing);
            }
            if is_full && outgoing.batch.has_room(segments_max) {
                outgoing.wake();
                return Ok(());
            }
            // It was taken: that there is no room yet is the flusher's matter.
            if self.flush(&mut outgoing.batch).is_err() {
                outgoing.wake();
            }
            return Ok(());
        }
        self.send_now(transmit, &mut outgoing)
    }

    fn send_now(&self, transmit: &Transmit<'_>, outgoing: &mut Outgoing) -> io::Result<()> {
        let mut sent = 0;
        for part in batch::parts(transmit, self.segments_max()) {
            match self.send_part(&part) {
                Ok(()) => sent += part.contents.len(),
                // quinn would send all of it once more.
                Err(_) if sent > 0 => {
                    outgoing.batch.keep(transmit, sent);
                    outgoing.wake();
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] alone: some of it waits on.
    fn flush(&self, batch: &mut Batch) -> io::Result<()> {
        let mut sent = 0;
        let mut result = Ok(());
        if let Some(waiting) = batch.waiting() {
            for part in batch::parts(&waiting, self.segments_max()) {
                result = self.send_part(&part);
                if result.is_err() {
                    break;
                }
                sent += part.contents.len();
            }
        }
        batch.took(sent);
        result
    }

    /// Sends what fits one call.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] alone: what else is wrong with a datagram is its loss, which QUIC
    /// mends.
    fn send_part(&self, part: &Transmit<'_>) -> io::Result<()> {
        match self.state.try_send((&self.io).into(), part) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            // The network card cannot cut batches, or its MTU has become smaller than the datagrams:
            // `state` has noted that, and makes no more of them.
            Err(_) if part.segment_size.is_some() && self.segments_max() == 1 => {
                batch::parts(part, 1).for_each(|one| drop(self.send_part(&one)));
                Ok(())
            }
            Err(error) => {
                // A probe for the path's MTU that is too large ends here as well.
                tracing::trace!(%error, to = %part.destination, "a datagram was not sent");
                Ok(())
            }
        }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.io.try_io(Interest::WRITABLE, || self.send_or_keep(transmit));
        if sent.is_err() {
            self.is_full.store(true, Ordering::Relaxed);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut trouble = lock(&self.trouble);
        loop {
            ready!(trouble.poll_pause(cx));
            if ready!(self.io.poll_recv_ready(cx)).is_err() {
                // The runtime ends, and this task with it.
                return Poll::Pending;
            }
            let recv = || self.state.recv((&self.io).into(), bufs, meta);
            match self.io.try_io(Interest::READABLE, recv) {
                Ok(messages) => {
                    trouble.is_over();
                    return Poll::Ready(Ok(messages));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    tracing::debug!(%error, "a UDP socket does not receive");
                    if trouble.failed() {
                        self.broken.notify_one();
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.segments_max()
    }

    /// By so much quinn multiplies the largest datagram, for a buffer that holds what the kernel has
    /// gathered: never more than an IP packet.
    fn max_receive_segments(&self) -> usize {
        buffers::DATAGRAM_BYTES_MAX.div_ceil(self.datagram_bytes_max.into())
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("io", &self.io).finish_non_exhaustive()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        lock(&self.outgoing).wake();
    }
}

impl Outgoing {
    fn wake(&mut self) {
        self.flusher.take().into_iter().for_each(Waker::wake);
    }
}

/// Sends what waits once everybody else had a turn and nothing was added. Ends with the socket.
async fn flush(socket: Weak<Socket>) {
    let mut seen = 0;
    std::future::poll_fn(move |cx| {
        let Some(socket) = socket.upgrade() else { return Poll::Ready(()) };
        let mut outgoing = lock(&socket.outgoing);
        if outgoing.batch.is_empty() {
            outgoing.flusher = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if outgoing.batch.additions != seen {
            seen = outgoing.batch.additions;
            drop(outgoing);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            match socket.io.poll_send_ready(cx) {
                Poll::Pending => return Poll::Pending,
                // The runtime ends.
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {}
            }
            let flush = || socket.flush(&mut outgoing.batch);
            if socket.io.try_io(Interest::WRITABLE, flush).is_ok() {
                outgoing.flusher = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
    })
    .await;
}

type Readiness = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// One connection's wait for room.
struct Writable {
    socket: Arc<Socket>,
    waiting: Option<Readiness>,
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_none() {
            if !self.socket.is_full.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            let socket = self.socket.clone();
            self.waiting = Some(Box::pin(async move { socket.io.writable().await }));
        }
        if let Some(waiting) = &mut self.waiting {
            let room = ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
            self.socket.is_full.store(false, Ordering::Relaxed);
            return Poll::Ready(room);
        }
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writable").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
