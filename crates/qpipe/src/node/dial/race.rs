//! Trying all addresses of a peer in a race (RFC 8305), with fresh attempts until the deadline.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qpipe_proto::Cause;
use quinn::{ConnectError, ConnectionError, Endpoint};
use tokio::task::JoinSet;

use super::failures::Failures;
use super::probe::probe;
use super::{Core, DIAL_DEADLINE, DialError};
use crate::clock;
use crate::identity::PeerIdentity;
use crate::link::{GreetError, Greeted, cause_of, codes};
use crate::node::sockets;
use crate::tls::{self, DialTls, ExpectedHost, HandshakeFailure, SERVER_NAME, explain_handshake};

/// The next address is tried after this, if those before have not answered (RFC 8305, section 5:
/// "Connection Attempt Delay").
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// When fresh attempts at all addresses begin. A handshake whose last message was lost can hang
/// until its timeout (measured: 1 of 4,000 at 20 % loss, 19 of 4,000 at 30 %).
const FRESH_ROUNDS: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(2500), Duration::from_millis(6000)];

/// How long a Hello waits for its answer while another attempt may do better: the last message of a
/// handshake can be lost.
const HELLO_PATIENCE: Duration = Duration::from_secs(3);

/// Tries all addresses, one after the other in short steps, and again: gives the connections whose
/// handshakes complete, the first first.
pub(super) struct Race {
    attempts: JoinSet<(SocketAddr, Result<Arrived, DialError>)>,
    failures: Option<Failures>,
    started: Instant,
    deadline: Instant,
}

impl Race {
    pub(super) fn start(
        core: &Arc<Core>,
        expected: ExpectedHost,
        addresses: &[SocketAddr],
        within: Duration,
    ) -> Race {
        let mut attempts = JoinSet::new();
        for round in FRESH_ROUNDS {
            for (i, address) in addresses.iter().enumerate() {
                let attempt = Attempt { core: core.clone(), expected, address: *address };
                let delay = round + ATTEMPT_DELAY * i as u32;
                attempts.spawn(async move {
                    tokio::time::sleep(delay).await;
                    attempt.run().await
                });
            }
        }
        let started = clock::now();
        let failures = Some(Failures::new(addresses));
        Race { attempts, failures, started, deadline: started + within }
    }

    /// The next connection.
    pub(super) async fn next(&mut self) -> Result<Arrived, DialError> {
        loop {
            let ended = tokio::time::timeout_at(self.deadline.into(), self.attempts.join_next());
            match ended.await {
                Ok(Some(Ok((_, Ok(arrived))))) => return Ok(arrived),
                Ok(Some(Ok((address, Err(error))))) => self.note(address, error)?,
                // An attempt that panicked is one that did not answer.
                Ok(Some(Err(_))) => {}
                Ok(None) | Err(_) => return Err(self.verdict()),
            }
        }
    }

    /// What `greeting` gives, if it does while there is time to try once more, or no other attempt.
    pub(super) async fn in_time<T>(&self, greeting: impl Future<Output = T>) -> Option<T> {
        let now = clock::now();
        let soon = if self.attempts.is_empty() { self.deadline } else { now + HELLO_PATIENCE };
        let until = soon.min(self.deadline).max(now + HELLO_PATIENCE / 4);
        tokio::time::timeout_at(until.into(), greeting).await.ok()
    }

    /// Notes a failure.
    ///
    /// # Errors
    /// There is nothing to wait for any more.
    pub(super) fn note(&mut self, address: SocketAddr, error: DialError) -> Result<(), DialError> {
        let is_final = self.failures.as_mut().is_none_or(|f| f.note(address, error));
        if is_final { Err(self.verdict()) } else { Ok(()) }
    }

    fn verdict(&mut self) -> DialError {
        let after = clock::now() - self.started;
        let nothing = DialError::NoAnswer { tried: Vec::new(), after };
        self.failures.take().map_or(nothing, |failures| failures.verdict(after))
    }
}

/// A connection that an attempt came to.
pub(super) struct Arrived {
    pub(super) address: SocketAddr,
    pub(super) greeted: Greeted,
    pub(super) tls: Handshake,
}

/// What is known of a handshake, to explain what follows.
pub(super) struct Handshake {
    expected: ExpectedHost,
    tls: DialTls,
}

/// One attempt at one address.
struct Attempt {
    core: Arc<Core>,
    expected: ExpectedHost,
    address: SocketAddr,
}

impl Attempt {
    async fn run(self) -> (SocketAddr, Result<Arrived, DialError>) {
        let address = self.address;
        let result = tokio::select! {
            biased;
            result = self.connect() => result,
            error = probe(address) => Err(error),
        };
        (address, result)
    }

    async fn connect(&self) -> Result<Arrived, DialError> {
        let tls = tls::client_config(&self.core.identity(), self.expected)
            .map_err(|error| DialError::Local(Arc::new(io::Error::other(error))))?;
        let mut config = quinn::ClientConfig::new(tls.crypto());
        config.transport_config(sockets::transport(false, &self.core.options, self.address));
        let endpoint = self.endpoint()?;
        let connecting = endpoint
            .connect_with(config, self.address, SERVER_NAME)
            .map_err(|error| self.local(error))?;
        let tls = Handshake { expected: self.expected, tls };
        let conn = connecting.await.map_err(|error| tls.explain(&error, self.address))?;
        let suite = tls.tls.suite();
        let peer = PeerIdentity::of(&conn)
            .ok_or(DialError::Handshake(HandshakeFailure::BadPeerCertificate))?;
        let greeted = Greeted { conn, peer, suite, dialled: Some(self.address) };
        Ok(Arrived { address: self.address, greeted, tls })
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
        let source = Arc::new(io::ErrorKind::AddrNotAvailable.into());
        DialError::Unreachable { tried: vec![self.address], source }
    }

    fn local(&self, error: ConnectError) -> DialError {
        match error {
            ConnectError::InvalidRemoteAddress(_) => self.unreachable(),
            error => DialError::Local(Arc::new(io::Error::other(error))),
        }
    }
}

impl Handshake {
    pub(super) fn explain_greeting(&self, error: GreetError, address: SocketAddr) -> DialError {
        match error {
            GreetError::Busy => DialError::Busy,
            GreetError::Connection(error) => self.explain(&error, address),
            GreetError::Silent => {
                DialError::NoAnswer { tried: vec![address], after: HELLO_PATIENCE }
            }
            GreetError::NoHello | GreetError::Gone { .. } => {
                DialError::Version("the peer did not say Hello".to_owned())
            }
            GreetError::Version(mismatch) => DialError::Version(mismatch.to_string()),
        }
    }

    fn explain(&self, error: &ConnectionError, address: SocketAddr) -> DialError {
        match (explain_handshake(error), self.tls.host_seen(), &self.expected) {
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
                DialError::NoAnswer { tried: vec![address], after: DIAL_DEADLINE }
            }
            error => DialError::Lost(error.to_string()),
        }
    }
}
