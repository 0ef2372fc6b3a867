//! The exchange of Hellos at the beginning of a connection.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use qpipe_proto::budget::{Account, Share};
use qpipe_proto::cause::Cause;
use qpipe_proto::hello::{self, Enrolled, Limits, SessionId};
use qpipe_proto::limits::{
    CONTROL_MESSAGE_BYTES_MAX, INITIAL_LIMIT_BYTES, OPENS_UNANSWERED_MAX, VERSION,
};
use qpipe_proto::wire::{ControlDecoder, ControlMessage, Hello, encode_control};
use qpipe_proto::{Secret, Session, Side};
use quinn::{Connection, SendStream, VarInt};
use tokio::sync::Notify;

use super::assembler::{Assembled, Assembler, ReadFailure};
use super::{Host, Link, State, codes};
use crate::identity::PeerIdentity;

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

/// What makes a link out of a connection.
pub(crate) struct Greeted {
    pub(crate) conn: Connection,
    pub(crate) peer: PeerIdentity,
    pub(crate) suite: Option<&'static str>,
    /// The address that was dialled, if this side dialled.
    pub(crate) dialled: Option<SocketAddr>,
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
    /// The peer's first message was no Hello, or not in time.
    #[error("the peer did not say Hello")]
    NoHello,
    /// No version in common.
    #[error(transparent)]
    Version(#[from] hello::VersionMismatch),
}

/// An acceptor's refusal of a dialler: what the connection is closed with.
#[derive(Debug)]
pub(crate) struct RefusedHello {
    pub(crate) code: VarInt,
    pub(crate) reason: String,
}

/// Says Hello on a connection that this side dialled, and waits for the answer.
pub(crate) async fn say_hello(
    greeted: Greeted,
    account: Account,
    host: Weak<dyn Host>,
    session_id: SessionId,
    ticket: Option<Secret>,
) -> Result<Arc<Link>, GreetError> {
    let conn = greeted.conn.clone();
    let (reserve, ours) = reserve(&account).ok_or(GreetError::Busy)?;
    let (mut send, recv) = conn.open_bi().await?;
    let hello = Hello {
        versions: vec![VERSION],
        session: session_id,
        limits: ours,
        ticket,
        enrolled: None,
        software: SOFTWARE.to_owned(),
    };
    // If the write fails the connection is over, and reading says why.
    let _ = send.write_all(&encode_control(&ControlMessage::Hello(hello))).await;
    let mut recv = Assembler::new(recv);
    let mut decoder = ControlDecoder::default();
    let theirs = in_time(read_hello(&mut recv, &mut decoder)).await;
    let theirs = theirs.map_err(|error| closed_or(&conn, error))?;
    if hello::agree(&theirs).is_err() || theirs.session != session_id {
        conn.close(codes::VERSION, b"no version of qpipe in common");
        hello::agree(&theirs)?;
        return Err(GreetError::NoHello);
    }
    let session =
        Session::new(Side::Dialler, ours, theirs.limits.clamped(), account.clone(), reserve);
    let streams = ControlStreams { send, recv, decoder };
    Ok(link(greeted, session, session_id, theirs.enrolled, host, streams, account))
}

/// Waits for Hello on a connection that this side accepted, lets `judge` decide, and answers.
pub(crate) async fn answer_hello(
    greeted: Greeted,
    account: Account,
    host: Weak<dyn Host>,
    judge: impl FnOnce(Option<&Secret>, SocketAddr) -> Result<Option<Enrolled>, RefusedHello>,
) -> Result<Arc<Link>, GreetError> {
    let conn = greeted.conn.clone();
    let mut decoder = ControlDecoder::default();
    let hear = async {
        let (send, recv) = conn.accept_bi().await?;
        let mut recv = Assembler::new(recv);
        let theirs = read_hello(&mut recv, &mut decoder).await?;
        Ok((send, recv, theirs))
    };
    let (mut send, recv, theirs) = match in_time(hear).await {
        Ok(heard) => heard,
        Err(error) => {
            conn.close(codes::PROTOCOL, b"the first message must be Hello");
            return Err(error);
        }
    };
    if let Err(mismatch) = hello::agree(&theirs) {
        conn.close(codes::VERSION, format!("this side speaks qpipe/{VERSION} only").as_bytes());
        return Err(mismatch.into());
    }
    let enrolled = match judge(theirs.ticket.as_ref(), conn.remote_address()) {
        Ok(enrolled) => enrolled,
        Err(refused) => {
            conn.close(refused.code, refused.reason.as_bytes());
            return Err(GreetError::Connection(quinn::ConnectionError::LocallyClosed));
        }
    };
    let Some((reserve, ours)) = reserve(&account) else {
        conn.close(codes::BUSY, b"no memory left for another session");
        return Err(GreetError::Busy);
    };
    let hello = Hello {
        versions: vec![VERSION],
        session: theirs.session,
        limits: ours,
        ticket: None,
        enrolled: enrolled.clone(),
        software: SOFTWARE.to_owned(),
    };
    // A peer that gives no credit for the answer is not to hold its place.
    let answer = encode_control(&ControlMessage::Hello(hello));
    if in_time(async { Ok(send.write_all(&answer).await) }).await.is_err() {
        conn.close(codes::PROTOCOL, b"the answer to Hello was not taken");
        return Err(GreetError::NoHello);
    }
    let session =
        Session::new(Side::Acceptor, ours, theirs.limits.clamped(), account.clone(), reserve);
    let streams = ControlStreams { send, recv, decoder };
    Ok(link(greeted, session, theirs.session, enrolled, host, streams, account))
}

fn link(
    greeted: Greeted,
    session: Session,
    session_id: SessionId,
    enrolled: Option<Enrolled>,
    host: Weak<dyn Host>,
    streams: ControlStreams,
    account: Account,
) -> Arc<Link> {
    let rtt = greeted.conn.rtt();
    let link = Arc::new(Link {
        conn: greeted.conn,
        peer: greeted.peer,
        session_id,
        enrolled,
        suite: greeted.suite,
        dialled: greeted.dialled,
        host,
        state: Mutex::new(State::new(session, rtt)),
        control: Notify::new(),
        opens: Notify::new(),
        drained: Notify::new(),
        over: Notify::new(),
        used: Notify::new(),
        account,
    });
    link.open_slots();
    link.start(streams);
    link
}

/// Memory for what the peer may send before its opens are answered: less of it when little is free.
fn reserve(account: &Account) -> Option<(Share, Limits)> {
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

async fn read_hello(
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
async fn in_time<T>(hear: impl Future<Output = Result<T, GreetError>>) -> Result<T, GreetError> {
    tokio::time::timeout(HELLO_DEADLINE, hear).await.unwrap_or(Err(GreetError::NoHello))
}

/// The connection's own word on why it ended, if it has, is better than "no Hello".
fn closed_or(conn: &Connection, error: GreetError) -> GreetError {
    match conn.close_reason() {
        Some(reason) => reason.into(),
        None => error,
    }
}

/// The cause that a refusal of a Hello amounts to, for messages.
pub(crate) fn cause_of(code: VarInt) -> Cause {
    match code {
        codes::BUSY => Cause::Busy,
        codes::NOT_ALLOWED => Cause::NotAllowed,
        codes::TICKET => Cause::Ticket,
        codes::DONE => Cause::Stopping,
        _ => Cause::Protocol,
    }
}
