//! One session over its QUIC connections.
//!
//! A link is the state of [`qpipe_proto::Session`] with the bytes of its pipes' local ends, behind
//! one lock, and the tasks that move both. For each connection, one reads the control stream, one
//! writes it, one watches the connection, one accepts pipe streams, and each pipe stream that is open
//! has one. One more keeps the session in contact with its peer. No task waits while it holds the
//! lock.

mod answer;
mod assembler;
pub(crate) mod codes;
mod control;
mod greet;
mod incoming;
mod inquiry;
mod keep;
mod outgoing;
mod precedence;
mod pulse;
mod state;
mod streams;
pub(crate) mod transport;
mod turns;
mod wire;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use qpipe_proto::cause::Cause;
use qpipe_proto::contact::Patience;
use qpipe_proto::fact::{Open, OpenTarget, Opener};
use qpipe_proto::hello::{Enrolled, Instance, SessionId};
use qpipe_proto::session::{OpenError as ProtoOpenError, OpenOptions};
use qpipe_proto::{PipeId, session};
use quinn::VarInt;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::clock;
use crate::identity::PeerIdentity;
use crate::node::Peer;
use crate::session::{IncomingOpen, SessionEnd};

pub(crate) use answer::{Heard, RefusedHello, cause_of, hear_hello};
pub(crate) use greet::{FirstHello, GreetError, Greeted, Terms, say_first_hello, say_hello_again};
pub(crate) use state::State;
pub(crate) use streams::carry_out;
pub(crate) use wire::{Wire, meaning};

/// How long a session that is cut may take to tell its peer why.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Something about a session that its user wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    Back { after: Duration },
    Silent { silent: Duration, left: Duration },
}

/// What a link needs of its node.
pub(crate) trait Host: Send + Sync {
    /// Where this node can be reached now.
    fn addresses(&self) -> Vec<SocketAddr>;
    /// The link's session is over.
    fn ended(&self, link: &Arc<Link>);
    /// A complete group of opens.
    fn incoming(&self, open: IncomingOpen);
    /// For the user.
    fn notice(&self, link: &Arc<Link>, notice: Notice);
    /// Dials another connection for the session, and tells its contact what came of it.
    fn redial(&self, link: Arc<Link>) -> JoinHandle<()>;
}

/// One session over its connections.
pub(crate) struct Link {
    pub(crate) peer: PeerIdentity,
    pub(crate) session_id: SessionId,
    /// The peer's run that the session is with.
    pub(crate) instance: Instance,
    pub(crate) enrolled: Option<Enrolled>,
    pub(crate) suite: Option<&'static str>,
    /// The address at which this side dialled the session's first connection, if it did.
    pub(crate) dialled: Option<SocketAddr>,
    /// How the peer was reached: names are resolved anew at every dial.
    pub(crate) way: Option<Peer>,
    /// Whether no rule but a ticket lets the peer in.
    pub(crate) is_stranger: bool,
    pub(crate) patience: Patience,
    /// When the session began.
    pub(crate) since: Instant,
    /// Whether the session is wanted also without pipes, for those that the peer may open.
    is_awaited: bool,
    pub(crate) host: Weak<dyn Host>,
    state: Mutex<State>,
    runtime: Handle,
    /// There may be a control message, or an earlier timeout.
    control: Notify,
    /// The keeper is to look.
    keep: Notify,
    /// More opens may be allowed.
    opens: Notify,
    /// The session is over.
    over: Notify,
    /// An open of the peer was accepted.
    pub(crate) used: Notify,
}

impl Link {
    /// Does something with the state, then wakes and tells whom it concerns.
    pub(crate) fn with<R>(self: &Arc<Link>, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = act(&mut state);
        let effects = state.settle();
        let finished = state.wire.clone().filter(|_| effects.finished);
        drop(state);
        if effects.has_message {
            self.control.notify_one();
        }
        if effects.opens_allowed {
            self.opens.notify_waiters();
        }
        if let Some(wire) = finished {
            wire.conn.close(codes::DONE, b"");
        }
        for id in effects.carriers {
            self.runtime.spawn(carry_out(self.clone(), id));
        }
        effects.wakers.into_iter().for_each(Waker::wake);
        for members in effects.incoming {
            self.dispatch(members);
        }
        result
    }

    /// Looks at the state.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere while it held the lock leaves the state as it was between two steps.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a task in the runtime of the node, from whatever thread.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Opens a group of pipes, waiting for the peer to allow that many opens.
    pub(crate) async fn open(
        self: &Arc<Link>,
        target: &OpenTarget,
        options: OpenOptions,
        openers: &[Opener],
    ) -> Result<Vec<PipeId>, session::OpenError> {
        let mut waiting = None;
        loop {
            let allowed = self.opens.notified();
            tokio::pin!(allowed);
            allowed.as_mut().enable();
            let (opened, is_news) = self.with(|state| {
                let is_news = !state.is_in_use() || state.wire.is_none();
                (state.open(target, options, openers, clock::now()), is_news)
            });
            match opened {
                Err(ProtoOpenError::NotYet) => {
                    waiting.get_or_insert_with(|| WaitingOpen::new(self));
                    allowed.await;
                }
                opened => {
                    if is_news {
                        self.keep.notify_one();
                    }
                    return opened;
                }
            }
        }
    }

    /// Whether pipes can be opened, and the peer was heard a moment ago.
    pub(crate) fn is_open(&self) -> bool {
        let is_alive = {
            let state = self.lock();
            state.ended.is_none() && !state.session.is_closing()
        };
        is_alive && self.is_heard()
    }

    /// Whether there is a connection, and something was heard on it a moment ago.
    pub(crate) fn is_heard(&self) -> bool {
        let state = self.lock();
        let heard = state.contact.last_heard() + self.patience.heartbeat;
        state.wire.is_some() && clock::now() < heard
    }

    /// Where the peer is now, or was when it was last heard.
    pub(crate) fn remote_address(&self) -> Option<SocketAddr> {
        let state = self.lock();
        state.wire.as_ref().map(|wire| wire.conn.remote_address()).or(state.last_remote)
    }

    /// The round trip of the connection, as of a moment ago.
    pub(crate) fn rtt(&self) -> Duration {
        let state = self.lock();
        state.wire.as_ref().map_or(state.rtt, |wire| wire.conn.rtt())
    }

    /// How the session ended, once it has.
    pub(crate) async fn ended(&self) -> SessionEnd {
        loop {
            let over = self.over.notified();
            tokio::pin!(over);
            over.as_mut().enable();
            if let Some(end) = self.lock().final_end() {
                return end;
            }
            over.await;
        }
    }

    /// Ends gracefully: waits until every pipe is settled and both sides said Bye, at most
    /// `within`, of which only such time counts, if `is_patient`, in which the peer is heard. Returns
    /// how many pipes were cut.
    pub(crate) async fn close(self: &Arc<Link>, within: Duration, is_patient: bool) -> usize {
        self.with(|state| state.session.close());
        self.keep.notify_one();
        let mut left = within;
        loop {
            let some = left.min(LAST_WORDS);
            if tokio::time::timeout(some, self.ended_or_idle()).await.is_ok() {
                return 0;
            }
            if !is_patient || self.is_heard() {
                left -= some;
            }
            if left.is_zero() {
                break;
            }
        }
        let cut = self.lock().session.unsettled();
        // The peers of what is cut hear why, if they can hear at all.
        self.with(|state| state.abort_all(Cause::Stopping));
        let _ = tokio::time::timeout(LAST_WORDS, self.ended_or_idle()).await;
        self.end_with(SessionEnd::Lost("this side closed it".to_owned()), codes::GONE);
        cut
    }

    /// Waits for the end of a session that is closing. Without a connection and without a pipe there
    /// is nobody to say goodbye to.
    async fn ended_or_idle(self: &Arc<Link>) {
        loop {
            let over = self.over.notified();
            tokio::pin!(over);
            over.as_mut().enable();
            {
                let state = self.lock();
                if state.final_end().is_some() {
                    return;
                }
                if state.wire.is_none() && state.session.unsettled() == 0 {
                    drop(state);
                    return self.end_with(SessionEnd::Bye, codes::DONE);
                }
            }
            let _ = tokio::time::timeout(LAST_WORDS, over).await;
        }
    }

    /// The session is over at this side: closes its connections with `code`. What arrived on them is
    /// still read before its pipes end.
    pub(crate) fn end_with(self: &Arc<Link>, end: SessionEnd, code: VarInt) {
        let words = end.words();
        let wires = {
            let mut state = self.lock();
            state.ended.get_or_insert(end);
            state.wires.clone()
        };
        for wire in &wires {
            pulse::close(&wire.conn, code, words.as_bytes());
        }
        if self.lock().wire.is_none() {
            self.finish();
        }
        self.keep.notify_one();
    }

    /// Nothing more arrives: the unfinished pipes end.
    fn finish(self: &Arc<Link>) {
        let mut older = Vec::new();
        let is_first = self.with(|state| {
            let end = state.ended.get_or_insert(SessionEnd::Idle).clone();
            state.session.lose(end.cause());
            // Older connections that their peer keeps open would keep the session's memory.
            older = std::mem::take(&mut state.wires);
            state.place = None;
            !std::mem::replace(&mut state.is_finished, true)
        });
        older.iter().for_each(|wire| wire.conn.close(codes::GONE, b""));
        if !is_first {
            return;
        }
        tracing::debug!(peer = %self.peer.host(), session = ?self.session_id, "session over");
        self.over.notify_waiters();
        // The writer of the control stream has nothing more to say: it sees that it is over.
        self.control.notify_one();
        self.keep.notify_one();
        if let Some(host) = self.host.upgrade() {
            host.ended(self);
        }
    }

    /// This host's addresses or routes changed.
    pub(crate) fn network_changed(self: &Arc<Link>) {
        let wire = {
            let mut state = self.lock();
            state.contact.network_changed(clock::now());
            state.has_moved = true;
            state.owes_addresses = true;
            state.wire.clone()
        };
        if let Some(wire) = wire {
            // From wherever this host is now: the peer sees where to answer.
            pulse::kick(&wire.conn, keep::PROBE_BYTES);
        }
        self.control.notify_one();
        self.keep.notify_one();
    }

    /// Which dial since the last connection this is.
    pub(crate) fn counts_redial(&self) -> u32 {
        let mut state = self.lock();
        state.redials = state.redials.saturating_add(1);
        state.redials - 1
    }

    /// The contact changed: the keeper is to look.
    pub(crate) fn poke(&self) {
        self.keep.notify_one();
    }

    fn notice(self: &Arc<Link>, notice: Notice) {
        if let Some(host) = self.host.upgrade() {
            host.notice(self, notice);
        }
    }

    fn dispatch(self: &Arc<Link>, members: Vec<(PipeId, Open)>) {
        let open = IncomingOpen::new(self.clone(), members);
        match self.host.upgrade() {
            Some(host) => host.incoming(open),
            None => open.refuse(Cause::Stopping),
        }
    }
}

/// An open that may have to wait: a session is not idle as long as there is one.
struct WaitingOpen<'a>(&'a Arc<Link>);

impl<'a> WaitingOpen<'a> {
    fn new(link: &'a Arc<Link>) -> WaitingOpen<'a> {
        link.lock().waiting_opens += 1;
        link.keep.notify_one();
        WaitingOpen(link)
    }
}

impl Drop for WaitingOpen<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting_opens -= 1;
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("peer", &self.peer).field("session", &self.session_id).finish()
    }
}
