//! The exchange of Hellos at the beginning of a connection.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use qpipe_proto::budget::{Account, Share};
use qpipe_proto::contact::{Contact, Patience};
use qpipe_proto::hello::{self, Enrolled, Instance, Limits, SessionId};
use qpipe_proto::limits::{
    CONTROL_MESSAGE_BYTES_MAX, INITIAL_LIMIT_BYTES, OPENS_UNANSWERED_MAX, VERSION,
};
use qpipe_proto::wire::{ControlDecoder, ControlMessage, Hello, encode_control};
use qpipe_proto::{Secret, Session, Side};
use quinn::{Connection, SendStream};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::assembler::{Assembled, Assembler, ReadFailure};
use super::wire::Adoption;
use super::{Host, Link, State, Wire, codes, keep};
use crate::clock;
use crate::identity::PeerIdentity;
use crate::node::{Peer, Place};

/// What this side's Hello says of its program.
const SOFTWARE: &str = concat!("qpipe ", env!("CARGO_PKG_VERSION"));

/// The fewest opens that a session is allowed, however little memory is free.
const OPENS_MIN: u64 = 4;

/// How long the peer may take for its Hello once the handshake is over.
pub(crate) const HELLO_DEADLINE: Duration = Duration::from_secs(10);

/// The control stream, after Hello.
pub(super) struct ControlStreams {
    pub(super) send: SendStream,
    pub(super) recv: Assembler,
    pub(super) decoder: ControlDecoder,
}

/// A connection whose handshake is complete.
pub(crate) struct Greeted {
    pub(crate) conn: Connection,
    pub(crate) peer: PeerIdentity,
    pub(crate) suite: Option<&'static str>,
    /// The address that was dialled, if this side dialled.
    pub(crate) dialled: Option<SocketAddr>,
}

/// What a new session gets from its node.
pub(crate) struct Terms {
    pub(crate) place: Place,
    pub(crate) host: Weak<dyn Host>,
    pub(crate) instance: Instance,
    pub(crate) patience: Patience,
    /// Whether peers may open pipes here by name.
    pub(crate) takes_names: bool,
}

/// Why there is no session on a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GreetError {
    /// This node has no memory for another session.
    #[error("no memory left for another session")]
    Busy,
    /// The connection ended before both had said Hello.
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    /// The peer does not know the session that was to go on.
    #[error("the peer has forgotten the session")]
    Gone {
        /// It was started anew since.
        is_restarted: bool,
    },
    /// The peer's first message was no Hello.
    #[error("the peer did not say Hello")]
    NoHello,
    /// The peer's Hello did not come in time.
    #[error("the peer did not say Hello in time")]
    Silent,
    /// No version in common.
    #[error(transparent)]
    Version(#[from] hello::VersionMismatch),
}

/// What the dialler of a new session asks for.
pub(crate) struct FirstHello {
    pub(crate) session_id: SessionId,
    pub(crate) epoch: u64,
    pub(crate) ticket: Option<Secret>,
    pub(crate) way: Peer,
}

/// Memory that is set aside for a session, and what the peer may do for that. A dial that says Hello
/// more than once offers the same each time: the peer may have heard the first.
pub(crate) type Reserved = (Share, Limits);

/// Says Hello on a connection that this side dialled for a new session, and waits for the answer.
pub(crate) async fn say_first_hello(
    greeted: Greeted,
    first: FirstHello,
    terms: Terms,
    reserved: &mut Option<Reserved>,
) -> Result<Arc<Link>, GreetError> {
    if reserved.is_none() {
        *reserved = reserve(&terms.place.account);
    }
    let ours = reserved.as_ref().ok_or(GreetError::Busy)?.1;
    let FirstHello { session_id, epoch, ticket, way } = first;
    let instance = terms.instance;
    let hello = Hello { ticket, ..our_hello(session_id, epoch, instance, false, ours) };
    let (streams, theirs) = {
        let mut given_up = GivenUp { conn: &greeted.conn, is_answered: false };
        let exchanged = exchange(&greeted.conn, hello).await;
        given_up.is_answered = true;
        exchanged?
    };
    let (reserve, _) = reserved.take().ok_or(GreetError::Busy)?;
    let limits = theirs.limits.clamped();
    let account = terms.place.account.clone();
    let session = Session::new(Side::Dialler, epoch, ours, limits, account, reserve);
    let links = Given {
        greeted,
        session,
        instance: theirs.instance,
        enrolled: theirs.enrolled,
        way: Some(way),
        is_stranger: false,
    };
    Ok(links.link(session_id, terms, streams))
}

/// A first Hello that nobody waits for an answer to any more: the peer is not to keep the session.
struct GivenUp<'a> {
    conn: &'a Connection,
    is_answered: bool,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.conn.close(codes::GONE, b"the dial was given up");
        }
    }
}

/// Says Hello on another connection that this side dialled for a session, and adopts it on the
/// answer.
pub(crate) async fn say_hello_again(
    link: &Arc<Link>,
    conn: Connection,
    instance: Instance,
    epoch: u64,
) -> Result<(), GreetError> {
    let limits = link.lock().session.limits();
    let hello = our_hello(link.session_id, epoch, instance, true, limits);
    let (streams, theirs) = exchange(&conn, hello).await?;
    if !theirs.resumed || theirs.instance != link.instance {
        conn.close(codes::GONE, b"");
        return Err(GreetError::Gone { is_restarted: theirs.instance != link.instance });
    }
    let wire = Wire::new(conn, epoch);
    adopt(link, Adoption { wire, streams, first: Bytes::new(), is_dialled: true }, theirs.limits);
    Ok(())
}

/// From now on the session sends on this connection, unless a newer one was faster.
pub(super) fn adopt(link: &Arc<Link>, adoption: Adoption, theirs: Limits) {
    let wire = adoption.wire.clone();
    let is_adopted = link.with(|state| {
        let is_newest = wire.epoch > state.session.epoch() && state.ended.is_none();
        // This side may have said Hello on a newer one, and then goes nowhere but there.
        let is_allowed = adoption.is_dialled || wire.epoch > state.contact.highest();
        if is_newest && is_allowed {
            let now = clock::now();
            state.session.connected(wire.epoch, theirs.clamped(), now);
            state.contact.adopted(wire.epoch, wire.conn.rtt(), now);
            state.wire = Some(wire.clone());
            // At once, so that whoever ends the session closes this one as well.
            state.wires.push(wire.clone());
            state.owes_addresses = true;
            state.redials = 0;
            state.resumed = state.resumed.saturating_add(1);
        }
        is_newest && is_allowed
    });
    if is_adopted {
        tracing::debug!(peer = %link.peer.host(), epoch = wire.epoch, "session resumed");
        link.start_wire(adoption);
    } else {
        wire.conn.close(codes::SUPERSEDED, b"");
    }
}

/// What makes a link.
pub(super) struct Given {
    pub(super) greeted: Greeted,
    pub(super) session: Session,
    pub(super) instance: Instance,
    pub(super) enrolled: Option<Enrolled>,
    pub(super) way: Option<Peer>,
    pub(super) is_stranger: bool,
}

impl Given {
    pub(super) fn link(
        self,
        session_id: SessionId,
        terms: Terms,
        streams: ControlStreams,
    ) -> Arc<Link> {
        let Greeted { conn, peer, suite, dialled } = self.greeted;
        let side = if dialled.is_some() { Side::Dialler } else { Side::Acceptor };
        let (epoch, rtt) = (self.session.epoch(), conn.rtt());
        let contact = Contact::new(side, terms.patience, epoch, rtt, clock::now());
        let wire = Wire::new(conn, epoch);
        let link = Arc::new(Link {
            peer,
            session_id,
            instance: self.instance,
            enrolled: self.enrolled,
            suite,
            dialled,
            way: self.way,
            is_stranger: self.is_stranger,
            patience: terms.patience,
            since: clock::now(),
            // The peer may know no way to a side that dialled: that one keeps the session going.
            is_awaited: terms.takes_names && dialled.is_some(),
            host: terms.host,
            state: Mutex::new(State::new(self.session, contact, Some((wire.clone(), terms.place)))),
            runtime: Handle::current(),
            control: Notify::new(),
            keep: Notify::new(),
            opens: Notify::new(),
            over: Notify::new(),
            used: Notify::new(),
        });
        link.start_wire(Adoption { wire, streams, first: Bytes::new(), is_dialled: true });
        link.runtime.spawn(keep::keep(link.clone()));
        link
    }
}

pub(super) fn our_hello(
    session: SessionId,
    epoch: u64,
    instance: Instance,
    resumed: bool,
    limits: Limits,
) -> Hello {
    Hello {
        versions: vec![VERSION],
        session,
        epoch,
        instance,
        resumed,
        limits,
        ticket: None,
        enrolled: None,
        software: SOFTWARE.to_owned(),
    }
}

/// Says Hello on a connection that this side dialled, and waits for the answer.
async fn exchange(conn: &Connection, hello: Hello) -> Result<(ControlStreams, Hello), GreetError> {
    let asked = (hello.session, hello.epoch);
    let (mut send, recv) = conn.open_bi().await?;
    // If the write fails the connection is over, and reading says why.
    let _ = send.write_all(&encode_control(&ControlMessage::Hello(hello))).await;
    let mut recv = Assembler::new(recv);
    let mut decoder = ControlDecoder::default();
    let theirs = in_time(read_hello(&mut recv, &mut decoder)).await;
    let theirs = theirs.map_err(|error| closed_or(conn, error))?;
    if hello::agree(&theirs).is_err() || (theirs.session, theirs.epoch) != asked {
        conn.close(codes::VERSION, b"no version of qpipe in common");
        hello::agree(&theirs)?;
        return Err(GreetError::NoHello);
    }
    Ok((ControlStreams { send, recv, decoder }, theirs))
}

/// Memory for what the peer may send before its opens are answered: less of it when little is free.
pub(super) fn reserve(account: &Account) -> Option<Reserved> {
    let mut opens = OPENS_UNANSWERED_MAX;
    while opens >= OPENS_MIN {
        if let Some(share) = account.reserve_if_ample(opens * INITIAL_LIMIT_BYTES) {
            let limits = Limits { initial_limit: INITIAL_LIMIT_BYTES, opens_allowed: opens };
            return Some((share, limits));
        }
        opens /= 2;
    }
    None
}

pub(super) async fn read_hello(
    recv: &mut Assembler,
    decoder: &mut ControlDecoder,
) -> Result<Hello, GreetError> {
    loop {
        match decoder.next() {
            Ok(None) => {}
            Ok(Some(ControlMessage::Hello(hello))) => return Ok(hello),
            Ok(Some(_)) | Err(_) => return Err(GreetError::NoHello),
        }
        match recv.read(CONTROL_MESSAGE_BYTES_MAX as u64).await {
            Ok(Assembled::Bytes(pieces)) => pieces.iter().for_each(|p| decoder.push(p)),
            Err(ReadFailure::Quic(quinn::ReadError::ConnectionLost(error))) => {
                return Err(error.into());
            }
            Ok(Assembled::Fin) | Err(_) => return Err(GreetError::NoHello),
        }
    }
}

/// What `hear` gives, if it does before the deadline for Hello.
pub(super) async fn in_time<T>(
    hear: impl Future<Output = Result<T, GreetError>>,
) -> Result<T, GreetError> {
    tokio::time::timeout(HELLO_DEADLINE, hear).await.unwrap_or(Err(GreetError::Silent))
}

/// The connection's own word on why it ended, if it has, is better than "no Hello".
fn closed_or(conn: &Connection, error: GreetError) -> GreetError {
    match conn.close_reason() {
        Some(reason) => reason.into(),
        None => error,
    }
}
