//! Dialling: all of a peer's addresses in a race (RFC 8305), fresh attempts until the deadline.

mod failures;
mod probe;
mod resolve;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use qpipe_proto::hello::SessionId;
use qpipe_proto::ticket::Address;
use qpipe_proto::{Cause, Fingerprint, Secret};
use quinn::{ConnectError, ConnectionError, Endpoint};
use tokio::task::JoinSet;

use super::Core;
use crate::clock;
use crate::identity::PeerIdentity;
use crate::link::{GreetError, Greeted, Link, cause_of, codes, say_hello, transport};
use crate::tls::{self, ExpectedHost, HandshakeFailure, SERVER_NAME, explain_handshake};
use failures::Failures;
use probe::probe;
use resolve::resolve;

/// How long a dial may take, unless the last known round trip asks for more.
pub(super) const DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// The next address is tried after this, if those before have not answered (RFC 8305, section 5:
/// "Connection Attempt Delay").
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// When fresh attempts at all addresses begin. A handshake whose last message was lost can hang
/// until its timeout (measured: 1 of 4,000 at 20 % loss, 19 of 4,000 at 30 %).
const FRESH_ROUNDS: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(2500), Duration::from_millis(6000)];

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
    let link = race(core, peer, ticket, &addresses).await?;
    core.links().push(link.clone());
    if link.lock().ended.is_some() {
        core.links().retain(|other| !Arc::ptr_eq(other, &link));
    }
    Ok(link)
}

/// Tries all addresses, one after the other in short steps, and again; the first answer wins.
async fn race(
    core: &Arc<Core>,
    peer: &Peer,
    ticket: Option<&Secret>,
    addresses: &[SocketAddr],
) -> Result<Arc<Link>, DialError> {
    let mut attempts = JoinSet::new();
    for round in FRESH_ROUNDS {
        for (i, address) in addresses.iter().enumerate() {
            let attempt = Attempt {
                core: core.clone(),
                expected: peer.expected,
                ticket: ticket.cloned(),
                address: *address,
            };
            let delay = round + ATTEMPT_DELAY * i as u32;
            attempts.spawn(async move {
                tokio::time::sleep(delay).await;
                attempt.run().await
            });
        }
    }
    let started = clock::now();
    let deadline = tokio::time::sleep(core.dial_deadline(&peer.expected));
    tokio::pin!(deadline);
    let mut failures = Failures::new(addresses);
    loop {
        let ended = tokio::select! {
            biased;
            ended = attempts.join_next() => ended,
            () = &mut deadline => None,
        };
        match ended {
            Some(Ok((_, Ok(link)))) => return Ok(link.claim()),
            Some(Ok((address, Err(error)))) => {
                if failures.note(address, error) {
                    return Err(failures.verdict(clock::now() - started));
                }
            }
            // An attempt that panicked is one that did not answer.
            Some(Err(_)) => {}
            None => return Err(failures.verdict(clock::now() - started)),
        }
    }
}

/// A session that an attempt came to, closed again unless somebody takes it: another attempt may have
/// been faster, or the dial given up.
struct Unclaimed {
    link: Arc<Link>,
    is_claimed: bool,
}

impl Unclaimed {
    fn claim(mut self) -> Arc<Link> {
        self.is_claimed = true;
        self.link.clone()
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if !self.is_claimed {
            self.link.conn.close(codes::DONE, b"");
        }
    }
}

/// One attempt at one address.
struct Attempt {
    core: Arc<Core>,
    expected: ExpectedHost,
    ticket: Option<Secret>,
    address: SocketAddr,
}

impl Attempt {
    async fn run(self) -> (SocketAddr, Result<Unclaimed, DialError>) {
        let address = self.address;
        let result = tokio::select! {
            biased;
            result = self.connect() => result.map(|link| Unclaimed { link, is_claimed: false }),
            error = probe(address) => Err(error),
        };
        (address, result)
    }

    async fn connect(&self) -> Result<Arc<Link>, DialError> {
        let tls = tls::client_config(&self.core.identity, self.expected)
            .map_err(|error| DialError::Local(io::Error::other(error)))?;
        let mut config = quinn::ClientConfig::new(tls.crypto());
        config.transport_config(transport::config(false));
        let endpoint = self.endpoint()?;
        let connecting = endpoint
            .connect_with(config, self.address, SERVER_NAME)
            .map_err(|error| self.local(error))?;
        let explain = |error: &ConnectionError| self.explain(error, tls.host_seen());
        let conn = connecting.await.map_err(|error| explain(&error))?;
        let suite = tls.suite();
        let peer = PeerIdentity::of(&conn)
            .ok_or(DialError::Handshake(HandshakeFailure::BadPeerCertificate))?;
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|e| DialError::Local(io::Error::other(e)))?;
        let greeted = Greeted { conn, peer, suite, dialled: Some(self.address) };
        let (account, host) = (self.core.account(&peer.host()), self.core.host());
        let ticket = self.ticket.clone();
        say_hello(greeted, account, host, SessionId(id), ticket).await.map_err(
            |error| match error {
                GreetError::Busy => DialError::Busy,
                GreetError::Connection(error) => explain(&error),
                GreetError::NoHello => DialError::Version("the peer did not say Hello".to_owned()),
                GreetError::Version(mismatch) => DialError::Version(mismatch.to_string()),
            },
        )
    }

    fn endpoint(&self) -> Result<&Endpoint, DialError> {
        let family = self.address.is_ipv4();
        let fits = |endpoint: &&Endpoint| {
            endpoint.local_addr().is_ok_and(|local| {
                let reaches = !local.ip().is_loopback() || self.address.ip().is_loopback();
                local.is_ipv4() == family && reaches
            })
        };
        self.core.endpoints.iter().find(fits).ok_or_else(|| self.unreachable())
    }

    fn unreachable(&self) -> DialError {
        let source = io::Error::from(io::ErrorKind::AddrNotAvailable);
        DialError::Unreachable { tried: vec![self.address], source }
    }

    fn local(&self, error: ConnectError) -> DialError {
        match error {
            ConnectError::InvalidRemoteAddress(_) => self.unreachable(),
            error => DialError::Local(io::Error::other(error)),
        }
    }

    fn explain(&self, error: &ConnectionError, seen: Option<Fingerprint>) -> DialError {
        match (explain_handshake(error), seen, &self.expected) {
            (Some(HandshakeFailure::UnknownHostKey), Some(seen), _) => {
                return DialError::UnknownHost { seen };
            }
            (Some(HandshakeFailure::WrongHostKey), Some(seen), ExpectedHost::Is(expected)) => {
                return DialError::HostKey { expected: *expected, seen };
            }
            (Some(HandshakeFailure::PeerBusy), _, _) => return DialError::Busy,
            (Some(failure), _, _) => return DialError::Handshake(failure),
            (None, _, _) => {}
        }
        match error {
            ConnectionError::ApplicationClosed(close) => {
                let reason = String::from_utf8_lossy(&close.reason).into_owned();
                match close.error_code {
                    codes::VERSION => DialError::Version(reason),
                    code => match cause_of(code) {
                        Cause::Busy => DialError::Busy,
                        Cause::NotAllowed => DialError::NotAllowed { reason },
                        Cause::Ticket => DialError::Ticket,
                        _ => DialError::Lost(reason),
                    },
                }
            }
            ConnectionError::TimedOut => {
                DialError::NoAnswer { tried: vec![self.address], after: transport::SILENCE_MAX }
            }
            error => DialError::Lost(error.to_string()),
        }
    }
}
