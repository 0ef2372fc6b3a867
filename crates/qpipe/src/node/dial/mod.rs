//! Dialling: all of a peer's addresses in a race, fresh attempts until the deadline.

mod again;
mod failures;
mod probe;
mod race;
mod resolve;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use qpipe_proto::contact::Contact;
use qpipe_proto::hello::SessionId;
use qpipe_proto::ticket::Address;
use qpipe_proto::{Fingerprint, Secret};

use super::core::Core;
use crate::link::{FirstHello, GreetError, Link, say_first_hello};
use crate::tls::{ExpectedHost, HandshakeFailure};
use race::Race;
use resolve::resolve;

pub(super) use again::{greet, redial};
pub(crate) use probe::probe_error;

/// How long a dial may take, unless the last known round trip asks for more.
pub(super) const DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// A peer to dial.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What the user calls it, for messages.
    pub name: String,
    /// Where it may be.
    pub addresses: Vec<Address>,
    /// Which key it must have.
    pub expected: ExpectedHost,
}

/// Why there is no session with a peer.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// This node, or the peer, has no memory or place for another session.
    #[error("too many sessions, or too little memory")]
    Busy,
    /// TLS failed.
    #[error("{0}")]
    Handshake(HandshakeFailure),
    /// The host has another key than expected.
    #[error("the host's key is {seen}, expected was {expected}")]
    HostKey {
        /// The pinned key.
        expected: Fingerprint,
        /// The key presented.
        seen: Fingerprint,
    },
    /// This host failed.
    #[error("{0}")]
    Local(#[source] io::Error),
    /// The connection broke while it was set up.
    #[error("the connection broke while it was set up: {0}")]
    Lost(String),
    /// Nothing answered.
    #[error("no answer in {after:?}")]
    NoAnswer {
        /// Where.
        tried: Vec<SocketAddr>,
        /// After how long.
        after: Duration,
    },
    /// The peer refused this host; its words. Text from outside: to be cleaned before it is shown.
    #[error("refused: {reason}")]
    NotAllowed {
        /// The peer's words.
        reason: String,
    },
    /// The peer's host says that nothing listens there (ICMP port unreachable).
    #[error("nothing listens there")]
    Refused {
        /// Where.
        tried: Vec<SocketAddr>,
    },
    /// The name has no address.
    #[error("{host} has no address: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The ticket is unknown, used or expired.
    #[error("the ticket is unknown, used or expired")]
    Ticket,
    /// The host's key is not known yet: this is the key it proved to hold.
    #[error("the host's key is not known yet: it is {seen}")]
    UnknownHost {
        /// The key.
        seen: Fingerprint,
    },
    /// There is no way to the peer (ICMP host or network unreachable, no route).
    #[error("unreachable: {source}")]
    Unreachable {
        /// Where.
        tried: Vec<SocketAddr>,
        /// The system's words.
        source: io::Error,
    },
    /// No version of the protocol in common.
    #[error("no version of qpipe in common: {0}")]
    Version(String),
}

/// A live session with the peer, or a new one.
pub(super) async fn connect(
    core: &Arc<Core>,
    peer: &Peer,
    ticket: Option<&Secret>,
) -> Result<Arc<Link>, DialError> {
    let addresses = resolve(&peer.addresses).await?;
    if let (ExpectedHost::Is(host), None) = (&peer.expected, ticket) {
        // Of a host that is met elsewhere, or that dialled this one, it may be another process.
        let is_it = |link: &&Arc<Link>| {
            let is_there = link.dialled.is_some_and(|dialled| addresses.contains(&dialled));
            is_there && link.peer.host() == *host && link.is_open()
        };
        if let Some(link) = core.links().iter().find(is_it) {
            return Ok(link.clone());
        }
    }
    let session_id = fresh_session_id().map_err(DialError::Local)?;
    let mut epoch = Contact::FIRST_EPOCH;
    let mut reserved = None;
    let mut race = Race::start(core, peer.expected, &addresses, core.dial_deadline(&peer.expected));
    loop {
        let arrived = race.next().await?;
        let terms = core.terms(arrived.greeted.peer);
        let (ticket, way) = (ticket.cloned(), peer.clone());
        let first = FirstHello { session_id, epoch, ticket, way };
        let address = arrived.address;
        let said =
            race.in_time(say_first_hello(arrived.greeted, first, terms, &mut reserved)).await;
        match said.unwrap_or(Err(GreetError::Silent)) {
            Ok(link) => {
                core.keep(&link);
                return Ok(link);
            }
            Err(error) => race.note(address, arrived.tls.explain_greeting(error, address))?,
        }
        // Had that Hello arrived after all, this one is newer.
        epoch += 2;
    }
}

/// Another id for every session.
fn fresh_session_id() -> io::Result<SessionId> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    Ok(SessionId(id))
}
