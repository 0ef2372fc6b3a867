//! Dialling: all of a peer's addresses in a race, fresh attempts until the deadline.

mod again;
mod failures;
mod probe;
mod race;
mod resolve;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use qpipe_proto::contact::Contact;
use qpipe_proto::hello::SessionId;
use qpipe_proto::ticket::Address;
use qpipe_proto::{Fingerprint, Secret};
use tokio::sync::OnceCell;

use super::core::Core;
use crate::link::{FirstHello, GreetError, Link, say_first_hello};
use crate::tls::{ExpectedHost, HandshakeFailure};
use race::Race;
use resolve::resolve;

pub(super) use again::{greet, redial};
pub(crate) use probe::Probe;

/// How long a dial may take, unless the last known round trip asks for more.
pub(super) const DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// A peer to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What the user calls it, for messages.
    pub name: String,
    /// Where it may be.
    pub addresses: Vec<Address>,
    /// Which key it must have.
    pub expected: ExpectedHost,
}

/// Why there is no session with a peer.
#[derive(Clone, Debug, thiserror::Error)]
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
    Local(#[source] Arc<io::Error>),
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
        source: Arc<io::Error>,
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
        source: Arc<io::Error>,
    },
    /// No version of the protocol in common.
    #[error("no version of qpipe in common: {0}")]
    Version(String),
}

/// A dial of one peer, which all wait for who want a session with it.
#[derive(Default)]
pub(super) struct Flights(Mutex<Vec<(Peer, Flight)>>);

/// Where it ends. The session is not kept alive by those who wait.
type Flight = Arc<OnceCell<Result<Weak<Link>, DialError>>>;

impl Flights {
    /// The dial of this peer that is under way, or a new one. As many at most as there are callers.
    fn join(&self, peer: &Peer) -> Flight {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody waits for any more.
        flights.retain(|(_, flight)| Arc::strong_count(flight) > 1);
        let is_same =
            |other: &Peer| other.addresses == peer.addresses && other.expected == peer.expected;
        if let Some((_, flight)) = flights.iter().find(|(other, _)| is_same(other)) {
            return flight.clone();
        }
        let flight = Flight::default();
        flights.push((peer.clone(), flight.clone()));
        flight
    }

    /// Whoever asks from now on dials anew.
    fn land(&self, landed: &Flight) {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|(_, flight)| !Arc::ptr_eq(flight, landed));
    }
}

/// A live session with the peer, or a new one: one for all who ask at the same time.
pub(super) async fn connect(
    core: &Arc<Core>,
    peer: &Peer,
    ticket: Option<&Secret>,
) -> Result<Arc<Link>, DialError> {
    let addresses = resolve(&peer.addresses).await?;
    if ticket.is_some() {
        return dial(core, peer, &addresses, ticket).await;
    }
    let flight = core.flights.join(peer);
    let landed = flight.get_or_init(|| async {
        let link = match live(core, peer, &addresses) {
            Some(link) => link,
            None => dial(core, peer, &addresses, None).await?,
        };
        Ok(Arc::downgrade(&link))
    });
    let landed = landed.await.clone();
    core.flights.land(&flight);
    landed?.upgrade().ok_or_else(|| DialError::Lost("the session ended at once".to_owned()))
}

/// A session that leads to the peer.
fn live(core: &Core, peer: &Peer, addresses: &[SocketAddr]) -> Option<Arc<Link>> {
    // Of a host that is met elsewhere, or that dialled this one, it may be another process.
    let ExpectedHost::Is(host) = &peer.expected else { return None };
    let is_it = |link: &&Arc<Link>| {
        let is_there = link.dialled.is_some_and(|dialled| addresses.contains(&dialled));
        is_there && link.peer.host() == *host && link.is_open()
    };
    core.links().iter().find(is_it).cloned()
}

async fn dial(
    core: &Arc<Core>,
    peer: &Peer,
    addresses: &[SocketAddr],
    ticket: Option<&Secret>,
) -> Result<Arc<Link>, DialError> {
    let session_id = fresh_session_id().map_err(|error| DialError::Local(Arc::new(error)))?;
    let mut epoch = Contact::FIRST_EPOCH;
    let mut reserved = None;
    let mut race = Race::start(core, peer.expected, addresses, core.dial_deadline(&peer.expected));
    loop {
        let arrived = race.next().await?;
        let terms = core.terms(core.places.take(arrived.greeted.peer.host()));
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
