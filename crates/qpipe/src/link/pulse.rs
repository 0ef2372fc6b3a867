//! Knowing from outside of quinn that nothing is acknowledged, and making it send all the same.
//!
//! QUIC's probe timer doubles without a bound (RFC 9002, section 6.2.1; quinn stops at 2^16 times):
//! after a long outage a connection sleeps on, with its congestion window full of packets that are
//! gone. [`Kick`] is a congestion controller around another one; it sees acknowledgements, and its
//! window can be opened from outside for one packet at a time. Measured with outages of 30 s and
//! 120 s: without it the first byte came 26 s and 103 s after the link, with it within two round trips.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use qpipe_congestion::Model;
use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn::{Connection, VarInt};
use quinn_proto::RttEstimator;

/// What a controller tells, and is told.
#[derive(Debug, Default)]
struct Shared {
    /// Bytes that were in flight when acknowledgements last came.
    acked_in_flight: AtomicU64,
    /// Bytes in flight now: never less than quinn's own count, a little more where acknowledgements
    /// alone were sent.
    in_flight: AtomicU64,
    /// How often acknowledgements came.
    acks: AtomicU64,
    /// The window is not below this until something is acknowledged.
    floor: AtomicU64,
    /// Somebody sends little, who would wait behind others.
    is_interactive: AtomicBool,
}

/// What a connection has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pulse {
    /// How often something was acknowledged.
    pub(super) acks: u64,
    /// Bytes that were in flight when that last happened.
    pub(super) in_flight: u64,
    /// Frames sent that ask for an acknowledgement, as far as sessions send them.
    pub(super) asked: u64,
    /// Those of them that belong to streams: what they say waits to be heard.
    pub(super) streamed: u64,
    /// Frames received. Not datagrams: those count before anybody knows who sent them.
    pub(super) received: u64,
    /// The lowest round trip so far.
    pub(super) min_rtt: Duration,
}

/// Makes controllers that can be kicked.
#[derive(Debug, Default)]
pub(super) struct KickFactory;

/// A congestion controller around qpipe's own.
struct Kick {
    shared: Arc<Shared>,
    inner: Model,
}

/// Looks at a connection.
pub(super) fn pulse(conn: &Connection) -> Option<Pulse> {
    let shared = shared(conn)?;
    let stats = conn.stats();
    let sent = stats.frame_tx;
    let streamed = sent.stream + sent.reset_stream + sent.stop_sending;
    Some(Pulse {
        acks: shared.acks.load(Ordering::Relaxed),
        in_flight: shared.acked_in_flight.load(Ordering::Relaxed),
        asked: streamed + sent.ping + sent.datagram + sent.max_streams_uni,
        streamed,
        received: heard(&stats.frame_rx),
        min_rtt: stats.path.min_rtt,
    })
}

fn heard(frames: &quinn::FrameStats) -> u64 {
    let streams = frames.stream + frames.reset_stream + frames.stop_sending;
    let windows = frames.max_data + frames.max_stream_data + frames.max_streams_uni;
    let paths = frames.path_challenge + frames.path_response + frames.new_connection_id;
    streams + windows + paths + frames.acks + frames.ping + frames.datagram
}

/// Lets one packet more out, whatever is in flight, and sees to it that there is one: of `padding`
/// bytes at least, as far as the path allows.
pub(super) fn kick(conn: &Connection, padding: usize) {
    if let Some(shared) = shared(conn) {
        // Beyond what is in flight, however far below that the window was cut.
        let in_flight = shared.in_flight.load(Ordering::Relaxed);
        let mtu = u64::from(conn.stats().path.current_mtu);
        shared.floor.store(in_flight.saturating_add(mtu + 1), Ordering::Relaxed);
    }
    let size = padding.min(conn.max_datagram_size().unwrap_or(0));
    // An error would say that the connection is over.
    let _ = conn.send_datagram(vec![0; size].into());
}

/// Tells the controller whether somebody sends little, who would wait behind others. A new path's has to be told anew.
pub(super) fn set_interactive(conn: &Connection, is_interactive: bool) {
    if let Some(shared) = shared(conn) {
        shared.is_interactive.store(is_interactive, Ordering::Relaxed);
    }
}

/// Closes a connection, and sees to it that the peer is told: quinn holds that back behind congestion
/// control as long as stream data waits, and behind its pacer, which knows no limit beyond 32 bits.
pub(super) fn close(conn: &Connection, code: VarInt, reason: &[u8]) {
    if let Some(shared) = shared(conn) {
        shared.floor.store(u64::MAX / 2, Ordering::Relaxed);
    }
    conn.close(code, reason);
}

fn shared(conn: &Connection) -> Option<Arc<Shared>> {
    // The path may have changed, and its controller with it: it is asked for each time.
    let controller = conn.congestion_state().into_any().downcast::<Kick>().ok()?;
    Some(controller.shared.clone())
}

impl ControllerFactory for KickFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Kick { shared: Arc::default(), inner: Model::new(now, current_mtu) })
    }
}

impl Controller for Kick {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.shared.in_flight.fetch_add(bytes, Ordering::Relaxed);
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.shared.in_flight.store(in_flight, Ordering::Relaxed);
        self.shared.acked_in_flight.store(in_flight, Ordering::Relaxed);
        self.shared.acks.fetch_add(1, Ordering::Relaxed);
        self.shared.floor.store(0, Ordering::Relaxed);
        self.inner.set_interactive(self.shared.is_interactive.load(Ordering::Relaxed));
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        let in_flight = self.shared.in_flight.load(Ordering::Relaxed);
        self.shared.in_flight.store(in_flight.saturating_sub(lost_bytes), Ordering::Relaxed);
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window().max(self.shared.floor.load(Ordering::Relaxed))
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Kick { shared: self.shared.clone(), inner: self.inner.clone() })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
