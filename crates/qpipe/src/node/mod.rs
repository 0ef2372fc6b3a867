//! A node: one process's qpipe. Its key, its sockets, its sessions, its offers.

mod accept;
mod dial;
mod interfaces;
mod offer;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use qpipe_proto::budget::Account;
use qpipe_proto::fact::OpenTarget;
use qpipe_proto::limits::{MEMORY_BYTES_DEFAULT, MEMORY_BYTES_MIN, SESSIONS_MAX};
use qpipe_proto::ticket::{End, SecretHash};
use qpipe_proto::{Budget, Cause, Fingerprint, Secret};
use quinn::{Endpoint, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{Semaphore, mpsc};

use crate::access::Access;
use crate::identity::Identity;
use crate::link::{Host, Link, codes, transport};
use crate::pipe::{PipeReader, PipeWriter};
use crate::session::{IncomingOpen, Session};
use crate::tls::{self, ExpectedHost, TlsError};

pub use dial::{DialError, Peer};
pub use interfaces::interface_addresses;
pub use offer::Offer;
use offer::Pending;

/// What quinn's UDP sockets get for buffers, in bytes, as far as the kernel allows.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// How long a closing endpoint may take to hand its goodbye to the kernel. Nothing depends on its
/// arrival: both sides have said Bye, or the session was cut. quinn's own wait is three probe
/// timeouts, to answer peers whose packets cross it.
const GOODBYE: Duration = Duration::from_millis(10);

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// UDP addresses to listen on. Empty: free ports of IPv4 and, where there is any, IPv6.
    pub listen: Vec<SocketAddr>,
    /// Memory for the pipes' windows and buffers together, in bytes; at least 16 MiB.
    pub memory: u64,
    /// Whether connections are accepted. Otherwise the node only dials.
    pub accepts: bool,
    /// Whether opens of named pipes are given out by [`Node::next_open`], and not refused.
    pub takes_names: bool,
}

impl Default for NodeOptions {
    fn default() -> NodeOptions {
        let memory = MEMORY_BYTES_DEFAULT;
        NodeOptions { listen: Vec::new(), memory, accepts: true, takes_names: false }
    }
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A UDP address could not be bound.
    #[error("cannot listen on {address}/udp: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What a graceful end left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloseReport {
    /// Pipes that had not ended in time, and were cut.
    pub cut: usize,
}

/// The ends that an accepted group of opens gives.
#[derive(Debug)]
pub struct Ends {
    /// The session that carries them.
    pub session: Session,
    /// An end to write, if the opener reads.
    pub writer: Option<PipeWriter>,
    /// An end to read, if the opener writes.
    pub reader: Option<PipeReader>,
}

/// A node. Dropping it cuts its sessions; [`Node::close`] ends them gracefully.
pub struct Node {
    core: Arc<Core>,
    opens: tokio::sync::Mutex<mpsc::UnboundedReceiver<IncomingOpen>>,
}

/// What a node's tasks share.
pub(crate) struct Core {
    identity: Identity,
    options: NodeOptions,
    access: Arc<dyn Access>,
    budget: Budget,
    endpoints: Vec<Endpoint>,
    links: Mutex<Vec<Arc<Link>>>,
    offers: Mutex<HashMap<SecretHash, Pending>>,
    /// Bounded by what sessions allow: [`qpipe_proto::limits::OPENS_UNANSWERED_MAX`] for each.
    opens: mpsc::UnboundedSender<IncomingOpen>,
    handshakes: Arc<Semaphore>,
    /// Round trips of sessions that are over, at most [`SESSIONS_MAX`], by host.
    rtts: Mutex<HashMap<Fingerprint, Duration>>,
    this: Weak<Core>,
}

impl Node {
    /// Starts a node, inside of a tokio runtime.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(
        identity: Identity,
        options: NodeOptions,
        access: Arc<dyn Access>,
    ) -> Result<Node, StartError> {
        let server = if options.accepts { Some(server_config(&identity)?) } else { None };
        let mut endpoints = Vec::new();
        for (address, must_work) in listen_addresses(&options.listen) {
            match bind(address).and_then(|socket| endpoint(socket, server.clone())) {
                Ok(endpoint) => endpoints.push(endpoint),
                Err(source) if must_work => return Err(StartError::Bind { address, source }),
                Err(error) => tracing::debug!(%address, %error, "no such sockets on this host"),
            }
        }
        let (opens, receiver) = mpsc::unbounded_channel();
        let budget = Budget::new(options.memory.max(MEMORY_BYTES_MIN));
        let core = Arc::new_cyclic(|this| Core {
            identity,
            options,
            access,
            budget,
            endpoints,
            links: Mutex::default(),
            offers: Mutex::default(),
            opens,
            handshakes: Arc::new(Semaphore::new(accept::HANDSHAKES_MAX)),
            rtts: Mutex::default(),
            this: this.clone(),
        });
        if core.options.accepts {
            for endpoint in &core.endpoints {
                tokio::spawn(accept::accept(endpoint.clone(), Arc::downgrade(&core)));
            }
        }
        Ok(Node { core, opens: tokio::sync::Mutex::new(receiver) })
    }

    /// The fingerprint of the host's key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.core.identity.host()
    }

    /// The UDP addresses that the node is bound to.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.core.endpoints.iter().filter_map(|endpoint| endpoint.local_addr().ok()).collect()
    }

    /// A session with `peer`: one that is alive, or a new one. `ticket` lets this node in where no
    /// rule lists it, or redeems an invitation.
    ///
    /// # Errors
    /// See [`DialError`].
    ///
    /// # Cancel safety
    /// Cancel safe: dropping it gives the dial up.
    pub async fn connect(
        &self,
        peer: &Peer,
        ticket: Option<&Secret>,
    ) -> Result<Session, DialError> {
        dial::connect(&self.core, peer, ticket).await.map(Session::new)
    }

    /// Offers the other end of an anonymous pipe to whoever presents the offer's secret first.
    /// `grants` is what that peer may open. Without `expires` the offer lasts until it is dropped.
    ///
    /// # Errors
    /// The system gave no random bytes.
    pub fn offer(&self, grants: End, expires: Option<Duration>) -> io::Result<Offer> {
        offer::make(&self.core, grants, expires)
    }

    /// The next group of opens of named pipes; `None` once the node is closed.
    ///
    /// # Cancel safety
    /// Cancel safe: no open is lost.
    pub async fn next_open(&self) -> Option<IncomingOpen> {
        self.opens.lock().await.recv().await
    }

    /// The node's memory budget.
    pub fn budget(&self) -> &Budget {
        &self.core.budget
    }

    /// Ends all sessions gracefully, waiting at most `within` for the pipes that are open to end;
    /// then cuts what is left and closes the sockets.
    ///
    /// # Cancel safety
    /// Not cancel safe: sessions are left closing.
    pub async fn close(&self, within: Duration) -> CloseReport {
        let links: Vec<Arc<Link>> = self.core.links().clone();
        let closing: Vec<_> = links
            .into_iter()
            .map(|link| tokio::spawn(async move { link.close(within).await }))
            .collect();
        let mut report = CloseReport::default();
        for task in closing {
            report.cut += task.await.unwrap_or(0);
        }
        self.core.shut();
        for endpoint in &self.core.endpoints {
            let _ = tokio::time::timeout(GOODBYE, endpoint.wait_idle()).await;
        }
        report
    }
}

impl Core {
    pub(crate) fn links(&self) -> MutexGuard<'_, Vec<Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offers(&self) -> MutexGuard<'_, HashMap<SecretHash, Pending>> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a peer's host holds of the memory budget: one account for all of its sessions.
    fn account(&self, host: &Fingerprint) -> Account {
        let links = self.links();
        let same = links.iter().find(|link| link.peer.host() == *host);
        same.map_or_else(|| self.budget.account(), |link| link.account.clone())
    }

    /// How long a dial of a host may take: longer where its round trip was long (ruling 17).
    fn dial_deadline(&self, expected: &ExpectedHost) -> Duration {
        let rtts = self.rtts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match expected {
            ExpectedHost::Is(host) => rtts.get(host).copied(),
            ExpectedHost::Unknown => None,
        };
        dial::DIAL_DEADLINE.max(4 * known.unwrap_or_default())
    }

    fn host(&self) -> Weak<dyn Host> {
        self.this.clone()
    }

    fn shut(&self) {
        for endpoint in &self.endpoints {
            endpoint.close(codes::DONE, b"");
        }
    }
}

impl Host for Core {
    fn incoming(&self, open: IncomingOpen) {
        match open.target() {
            OpenTarget::Ticket(secret) => {
                let hash = secret.hash();
                self.take_offer(&hash, open);
            }
            OpenTarget::Unknown => open.refuse(Cause::Protocol),
            OpenTarget::Name(_) if !self.options.takes_names => open.refuse(Cause::NotAllowed),
            OpenTarget::Name(_) => {
                if let Err(unsent) = self.opens.send(open) {
                    unsent.0.refuse(Cause::Stopping);
                }
            }
        }
    }

    fn ended(&self, link: &Arc<Link>) {
        let mut rtts = self.rtts.lock().unwrap_or_else(PoisonError::into_inner);
        if rtts.len() < SESSIONS_MAX {
            rtts.insert(link.peer.host(), link.conn.rtt());
        }
        drop(rtts);
        self.links().retain(|other| !Arc::ptr_eq(other, link));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.core.shut();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("fingerprint", &self.fingerprint())
            .field("addresses", &self.local_addresses())
            .finish_non_exhaustive()
    }
}

/// The addresses to bind, and whether that must succeed.
fn listen_addresses(listen: &[SocketAddr]) -> Vec<(SocketAddr, bool)> {
    if listen.is_empty() {
        let (v4, v6) = (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
        return vec![(SocketAddr::from((v4, 0)), true), (SocketAddr::from((v6, 0)), false)];
    }
    listen.iter().map(|address| (*address, true)).collect()
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // IPv4 has a socket of its own: quinn takes an IPv4 peer on an IPv6 socket for one whose
        // address changes wholly when only its port does.
        socket.set_only_v6(true)?;
    }
    // Best effort: the kernel caps them at rmem_max and wmem_max.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn endpoint(socket: UdpSocket, server: Option<quinn::ServerConfig>) -> io::Result<Endpoint> {
    Endpoint::new(transport::endpoint_config(), server, socket, Arc::new(TokioRuntime))
}

fn server_config(identity: &Identity) -> Result<quinn::ServerConfig, TlsError> {
    let mut config = quinn::ServerConfig::with_crypto(tls::server_config(identity)?);
    config.transport_config(transport::config(true));
    accept::bound_handshakes(&mut config);
    Ok(config)
}
