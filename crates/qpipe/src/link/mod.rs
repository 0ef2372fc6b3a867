//! One session over its QUIC connection.
//!
//! A link is the state of [`qpipe_proto::Session`] with the bytes of its pipes' local ends, behind
//! one lock, and the tasks that move both: one reads the control stream, one writes it, one watches
//! the connection, one accepts pipe streams, and each pipe stream that is open has one. No task
//! waits while it holds the lock.

mod assembler;
pub(crate) mod codes;
mod control;
mod greet;
mod state;
mod streams;
pub(crate) mod transport;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use qpipe_proto::budget::Account;
use qpipe_proto::cause::Cause;
use qpipe_proto::fact::{Open, OpenTarget, Opener};
use qpipe_proto::hello::{Enrolled, SessionId};
use qpipe_proto::session::OpenError as ProtoOpenError;
use qpipe_proto::{PipeId, session};
use tokio::sync::Notify;

use crate::clock;
use crate::identity::PeerIdentity;
use crate::session::{IncomingOpen, SessionEnd};

pub(crate) use greet::{GreetError, Greeted, RefusedHello, answer_hello, cause_of, say_hello};
pub(crate) use state::State;
pub(crate) use streams::carry_out;

/// How long a session that is cut may take to tell its peer why.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Takes what arrives on a link: the node.
pub(crate) trait Host: Send + Sync {
    /// A complete group of opens.
    fn incoming(&self, open: IncomingOpen);
    /// The link's session is over.
    fn ended(&self, link: &Arc<Link>);
}

/// One session over its connection.
pub(crate) struct Link {
    pub(crate) conn: quinn::Connection,
    pub(crate) peer: PeerIdentity,
    pub(crate) session_id: SessionId,
    pub(crate) enrolled: Option<Enrolled>,
    pub(crate) suite: Option<&'static str>,
    /// The address that this side dialled, if it did.
    pub(crate) dialled: Option<SocketAddr>,
    host: Weak<dyn Host>,
    state: Mutex<State>,
    /// There may be a control message, or an earlier timeout.
    control: Notify,
    /// More opens may be allowed.
    opens: Notify,
    /// The last pipe stream that was being read is read.
    drained: Notify,
    /// The session is over.
    over: Notify,
    /// What the peer's host holds of the node's memory budget, over all of its sessions.
    pub(crate) account: Account,
    /// An open of the peer was accepted.
    pub(crate) used: Notify,
}

impl Link {
    /// Does something with the state, then wakes and tells whom it concerns.
    pub(crate) fn with<R>(self: &Arc<Link>, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = act(&mut state);
        let effects = state.settle();
        drop(state);
        if effects.has_message {
            self.control.notify_one();
        }
        if effects.opens_allowed {
            self.opens.notify_waiters();
        }
        if effects.finished {
            self.conn.close(codes::DONE, b"");
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

    /// Opens a group of pipes, waiting for the peer to allow that many opens.
    pub(crate) async fn open(
        self: &Arc<Link>,
        target: &OpenTarget,
        no_wait: bool,
        openers: &[Opener],
    ) -> Result<Vec<PipeId>, session::OpenError> {
        loop {
            let allowed = self.opens.notified();
            tokio::pin!(allowed);
            allowed.as_mut().enable();
            match self.with(|state| state.open(target, no_wait, openers, clock::now())) {
                Err(ProtoOpenError::NotYet) => allowed.await,
                result => return result,
            }
        }
    }

    /// Whether pipes can still be opened.
    pub(crate) fn is_open(&self) -> bool {
        let state = self.lock();
        state.ended.is_none() && !state.session.is_closing()
    }

    /// Where the peer is now.
    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.conn.remote_address()
    }

    /// How the session ended, once it has.
    pub(crate) async fn ended(&self) -> SessionEnd {
        loop {
            let over = self.over.notified();
            tokio::pin!(over);
            over.as_mut().enable();
            if let Some(end) = self.lock().ended.clone() {
                return end;
            }
            over.await;
        }
    }

    /// Ends gracefully: waits until every pipe is settled and both sides said Bye, at most
    /// `within`. Returns how many pipes were cut.
    pub(crate) async fn close(self: &Arc<Link>, within: Duration) -> usize {
        self.with(|state| state.session.close());
        if tokio::time::timeout(within, self.ended()).await.is_ok() {
            return 0;
        }
        let cut = self.lock().session.unsettled();
        // The peers of what is cut hear why, if they can hear at all.
        self.with(|state| state.abort_all(Cause::Stopping));
        let _ = tokio::time::timeout(LAST_WORDS, self.ended()).await;
        self.conn.close(codes::DONE, b"");
        cut
    }

    fn dispatch(self: &Arc<Link>, members: Vec<(PipeId, Open)>) {
        let open = IncomingOpen::new(self.clone(), members);
        match self.host.upgrade() {
            Some(host) => host.incoming(open),
            None => open.refuse(Cause::Stopping),
        }
    }

    /// Starts the tasks of a link whose Hellos were exchanged.
    fn start(self: &Arc<Link>, streams: greet::ControlStreams) {
        tokio::spawn(control::write(self.clone(), streams.send));
        tokio::spawn(control::read(self.clone(), streams.recv, streams.decoder));
        tokio::spawn(streams::accept(self.clone()));
        tokio::spawn(watch(self.clone()));
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("peer", &self.peer).field("session", &self.session_id).finish()
    }
}

/// Waits for the connection's end, and ends the session when all that arrived was read.
async fn watch(link: Arc<Link>) {
    let reason = link.conn.closed().await;
    loop {
        let drained = link.drained.notified();
        tokio::pin!(drained);
        drained.as_mut().enable();
        if link.lock().streams_in == 0 {
            break;
        }
        drained.await;
    }
    tracing::debug!(peer = %link.peer.host(), session = ?link.session_id, %reason, "session over");
    link.with(|state| {
        let is_finished = state.session.is_finished();
        state.ended.get_or_insert_with(|| match is_finished {
            true => SessionEnd::Bye,
            false => SessionEnd::from(reason),
        });
        state.session.lose(Cause::Lost);
    });
    link.over.notify_waiters();
    // The writer of the control stream has nothing more to say: it sees that it is over.
    link.control.notify_one();
    if let Some(host) = link.host.upgrade() {
        host.ended(&link);
    }
}
