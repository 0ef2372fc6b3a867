//! One QUIC connection of a session. A session has at most one that is adopted, on which it sends; it
//! reads from older ones until they are closed.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use qpipe_proto::fact::Priority;
use quinn::{Connection, ConnectionError, VarInt};
use tokio::sync::Notify;

use super::greet::ControlStreams;
use super::precedence::{Habit, Pace, Path, Precedence, Sent, rank};
use super::{Link, codes, control, pulse, streams};
use crate::clock;
use crate::session::SessionEnd;

/// Connections of one session that are read at once: the adopted one, and older ones that are not
/// closed yet.
const WIRES_MAX: usize = 4;

/// What was sent on an older connection may still arrive for so long, or four round trips.
const LINGER: Duration = Duration::from_secs(1);

/// A connection on which the Hellos of a session were exchanged.
pub(crate) struct Wire {
    pub(crate) conn: Connection,
    pub(crate) epoch: u64,
    /// Pipe streams that are being read.
    streams_in: AtomicUsize,
    /// Those of them that said which pipe they carry.
    streams_begun: AtomicUsize,
    /// Pipe streams that the peer may have open, as quinn was told.
    slots: AtomicU64,
    /// The last pipe stream that was being read is read.
    drained: Notify,
    /// What may go before other pipes' bytes.
    precedence: Mutex<Precedence>,
}

impl Wire {
    pub(super) fn new(conn: Connection, epoch: u64) -> Arc<Wire> {
        Arc::new(Wire {
            conn,
            epoch,
            streams_in: AtomicUsize::new(0),
            streams_begun: AtomicUsize::new(0),
            slots: AtomicU64::new(0),
            drained: Notify::new(),
            precedence: Mutex::default(),
        })
    }

    /// How a chunk goes out: the priority of its stream, of which `habit` is kept.
    pub(super) fn rank(&self, priority: Priority, habit: &mut Habit, sent: Sent) -> i32 {
        let mut precedence = self.precedence.lock().unwrap_or_else(PoisonError::into_inner);
        let goes_first = precedence.grants(habit, sent, clock::now(), &self.conn);
        rank(priority, goes_first)
    }

    pub(super) fn stream_came(&self) {
        self.streams_in.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn stream_begun(&self) {
        self.streams_begun.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn stream_read(&self, has_begun: bool) {
        self.streams_begun.fetch_sub(usize::from(has_begun), Ordering::SeqCst);
        self.streams_in.fetch_sub(1, Ordering::SeqCst);
        self.drained.notify_one();
    }

    /// Waits until all that arrived is read.
    async fn drained(&self) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if self.streams_in.load(Ordering::SeqCst) == 0 {
                return;
            }
            drained.await;
        }
    }

    /// Lets the peer open `slots` streams for pipes, and one for each that is read and over.
    pub(super) fn allow_streams(&self, slots: impl FnOnce(u64) -> u64) {
        // A stream that does not say which pipe it carries makes no room for another.
        let slots = slots(self.streams_begun.load(Ordering::SeqCst) as u64);
        // quinn keeps an increase of up to an eighth of the whole to itself, to save frames: with
        // so much more, what it has told is enough.
        let slots = slots + slots / 7 + 1;
        if self.slots.fetch_max(slots, Ordering::SeqCst) < slots
            && let Ok(slots) = VarInt::from_u64(slots)
        {
            self.conn.set_max_concurrent_uni_streams(slots);
        }
    }
}

impl Path for Connection {
    fn pace(&self) -> Pace {
        let path = self.stats().path;
        Pace { window: path.cwnd, rtt: path.rtt }
    }

    fn set_interactive(&self, is_interactive: bool) {
        pulse::set_interactive(self, is_interactive);
    }
}

/// What a connection brings to a session besides itself.
pub(super) struct Adoption {
    pub(super) wire: Arc<Wire>,
    pub(super) streams: ControlStreams,
    /// What goes out on the control stream before all else: the answer to Hello.
    pub(super) first: Bytes,
    /// Whether this side dialled it: then it closes the older ones.
    pub(super) is_dialled: bool,
}

impl Link {
    /// Starts the tasks of a connection that the state has adopted.
    pub(super) fn start_wire(self: &Arc<Link>, adoption: Adoption) {
        let Adoption { wire, streams, first, is_dialled } = adoption;
        let mut older = self.lock().wires.clone();
        older.retain(|old| old.epoch < wire.epoch);
        let surplus = (older.len() + 1).saturating_sub(WIRES_MAX);
        for (i, old) in older.into_iter().enumerate() {
            if i < surplus {
                old.conn.close(codes::SUPERSEDED, b"");
            } else if is_dialled {
                self.runtime.spawn(close_later(old));
            }
        }
        self.open_slots(&wire);
        let ControlStreams { send, recv, decoder } = streams;
        // For the reader of the control stream, and for whoever accepts streams.
        wire.stream_came();
        wire.stream_came();
        let (link, one) = (self.clone(), wire.clone());
        self.runtime.spawn(control::write(link, one, send, first));
        self.runtime.spawn(control::read(self.clone(), wire.clone(), recv, decoder));
        self.runtime.spawn(streams::accept(self.clone(), wire.clone()));
        self.runtime.spawn(drain_datagrams(wire.conn.clone()));
        self.runtime.spawn(watch(self.clone(), wire));
        // The writer of the older control stream sees that it is no longer the one.
        self.control.notify_one();
        self.keep.notify_one();
    }
}

async fn close_later(wire: Arc<Wire>) {
    tokio::time::sleep(LINGER.max(4 * wire.conn.rtt())).await;
    wire.conn.close(codes::SUPERSEDED, b"");
}

/// Datagrams are probes, which say nothing; unread they would be kept.
async fn drain_datagrams(conn: Connection) {
    while conn.read_datagram().await.is_ok() {}
}

/// Waits for the connection's end, and ends the session if that is what it means.
async fn watch(link: Arc<Link>, wire: Arc<Wire>) {
    let reason = wire.conn.closed().await;
    tracing::debug!(peer = %link.peer.host(), epoch = wire.epoch, %reason, "connection over");
    let is_end = link.with(|state| {
        state.wires.retain(|other| !Arc::ptr_eq(other, &wire));
        if !state.is_adopted(&wire) {
            return false;
        }
        state.wire = None;
        state.last_remote = Some(wire.conn.remote_address());
        state.session.disconnected();
        state.contact.lost(clock::now());
        let end = match state.session.is_finished() {
            true => Some(SessionEnd::Bye),
            false => meaning(&reason),
        };
        state.ended = state.ended.take().or(end);
        state.ended.is_some()
    });
    // The keeper dials.
    link.control.notify_one();
    link.keep.notify_one();
    if is_end {
        wire.drained().await;
        link.finish();
    }
}

/// What the end of a connection says of its session: nothing, unless the peer closed it with a code
/// that speaks of that.
pub(crate) fn meaning(reason: &ConnectionError) -> Option<SessionEnd> {
    let ConnectionError::ApplicationClosed(close) = reason else { return None };
    let words = String::from_utf8_lossy(&close.reason).into_owned();
    match close.error_code {
        codes::DONE | codes::SUPERSEDED => None,
        _ => Some(SessionEnd::Lost(words)),
    }
}
