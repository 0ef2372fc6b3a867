//! A node: one process's qpipe. Its key, its sockets, its sessions, its offers.

mod accept;
mod core;
mod dial;
mod interfaces;
mod network;
mod notice;
mod offer;
mod places;
mod socket;
mod sockets;
mod status;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use qpipe_proto::contact::Patience;
use qpipe_proto::hello::Instance;
use qpipe_proto::limits::{MEMORY_BYTES_DEFAULT, MEMORY_BYTES_MIN};
use qpipe_proto::ticket::End;
use qpipe_proto::{Budget, Fingerprint, Secret};
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::access::Access;
use crate::identity::{Continuity, Identity};
use crate::link::Link;
use crate::pipe::{PipeReader, PipeWriter};
use crate::session::{IncomingOpen, Session};
use crate::tls::TlsError;

use self::core::Core;
use self::places::Places;
pub(crate) use dial::Probe;
pub use dial::{DialError, Peer};
pub use interfaces::interface_addresses;
pub use notice::{Notice, NoticeKind};
pub use offer::Offer;
pub(crate) use places::Place;
pub use socket::CappedBuffers;
pub use status::{ConnectionStatus, SessionStatus};

/// Peers of an earlier run that are greeted at once.
const GREETINGS_AT_ONCE: usize = 16;

/// How long a closing endpoint may take to hand its goodbye to the kernel. Nothing depends on its
/// arrival: both sides have said Bye, or the session was cut. quinn's own wait is three probe
/// timeouts, to answer peers whose packets cross it, so this time passes at every end.
const GOODBYE: Duration = Duration::from_millis(2);

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// UDP addresses to listen on. Empty: free ports of IPv4 and, where there is any, IPv6.
    pub listen: Vec<SocketAddr>,
    /// Memory for the pipes' windows and buffers together, in bytes; at least 16 MiB.
    pub memory: u64,
    /// Whether new sessions are accepted. Otherwise the node only dials; peers that it has sessions
    /// with may still dial another connection for them.
    pub accepts: bool,
    /// Whether opens of named pipes are given out by [`Node::next_open`], and not refused.
    pub takes_names: bool,
    /// How long to wait for peers that are not heard, before doing what.
    pub patience: Patience,
    /// What the node kept from its last start; none: its key is used for this one.
    pub continuity: Option<Continuity>,
}

impl Default for NodeOptions {
    fn default() -> NodeOptions {
        let memory = MEMORY_BYTES_DEFAULT;
        NodeOptions {
            listen: Vec::new(),
            memory,
            accepts: true,
            takes_names: false,
            patience: Patience::default(),
            continuity: None,
        }
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
    /// The system gave no random bytes.
    #[error("no random bytes: {0}")]
    Random(#[source] io::Error),
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

/// The ends that a group of opens gives.
#[derive(Debug)]
pub struct Ends {
    /// The session that carries them.
    pub session: Session,
    /// The end to write, if there is one here.
    pub writer: Option<PipeWriter>,
    /// The end to read, if there is one here.
    pub reader: Option<PipeReader>,
}

/// A node. Dropping it cuts its sessions; [`Node::close`] ends them gracefully.
pub struct Node {
    core: Arc<Core>,
    opens: tokio::sync::Mutex<mpsc::UnboundedReceiver<IncomingOpen>>,
    notices: tokio::sync::Mutex<mpsc::UnboundedReceiver<Notice>>,
}

/// What a node hears and speaks through.
struct Endpoints {
    endpoints: Vec<quinn::Endpoint>,
    /// What connections are accepted with, but for what depends on where they come from.
    server: quinn::ServerConfig,
    /// Told when a socket fails.
    broken: Arc<Notify>,
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
        let server = sockets::server_config(&identity)?;
        let fresh = || Continuity::fresh().map_err(StartError::Random);
        let continuity = options.continuity.clone().map_or_else(fresh, Ok)?;
        let broken = Arc::new(Notify::new());
        let mut endpoints = Vec::new();
        for (address, must_work) in sockets::addresses(&options.listen) {
            match sockets::endpoint(&continuity, address, server.clone(), broken.clone()) {
                Ok(endpoint) => endpoints.push(endpoint),
                Err(source) if must_work => return Err(StartError::Bind { address, source }),
                Err(error) => tracing::debug!(%address, %error, "no such sockets on this host"),
            }
        }
        let endpoints = Endpoints { endpoints, server, broken: broken.clone() };
        let node = Node::assemble(identity, options, access, &continuity, endpoints)?;
        tokio::spawn(self::core::watch_network(Arc::downgrade(&node.core)));
        tokio::spawn(self::core::watch_sockets(Arc::downgrade(&node.core), broken));
        Ok(node)
    }

    /// A node on these endpoints.
    fn assemble(
        identity: Identity,
        options: NodeOptions,
        access: Arc<dyn Access>,
        continuity: &Continuity,
        endpoints: Endpoints,
    ) -> Result<Node, StartError> {
        let Endpoints { endpoints, server, broken } = endpoints;
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| StartError::Random(io::Error::other(error)))?;
        let instance = Instance { start: continuity.start(), random: u64::from_ne_bytes(random) };
        let (opens, receiver) = mpsc::unbounded_channel();
        let (notices, heard) = mpsc::unbounded_channel();
        let budget = Budget::new(options.memory.max(MEMORY_BYTES_MIN));
        let core = Arc::new_cyclic(|this| Core {
            identity: RwLock::new(identity),
            server: RwLock::new(server),
            options,
            access,
            places: Places::new(budget),
            flights: dial::Flights::default(),
            endpoints,
            broken,
            links: Mutex::default(),
            offers: Mutex::default(),
            opens: Mutex::new(Some(opens)),
            notices: Mutex::new(Some(notices)),
            instance,
            handshakes: Arc::new(Semaphore::new(accept::HANDSHAKES_MAX)),
            rtts: Mutex::default(),
            this: this.clone(),
        });
        for endpoint in &core.endpoints {
            tokio::spawn(accept::accept(endpoint.clone(), Arc::downgrade(&core)));
        }
        let (opens, notices) = (receiver.into(), heard.into());
        Ok(Node { core, opens, notices })
    }

    /// The fingerprint of the host's key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.core.identity().host()
    }

    /// The UDP addresses that the node is bound to.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.core.endpoints.iter().filter_map(|endpoint| endpoint.local_addr().ok()).collect()
    }

    /// Whether the kernel gave UDP sockets of this process smaller buffers than they should have.
    pub fn capped_buffers(&self) -> Option<CappedBuffers> {
        socket::capped()
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

    /// The next thing that the user should know of a session: that its peer is not heard any more,
    /// or is heard again. `None` once the node is closed.
    ///
    /// # Cancel safety
    /// Cancel safe: none is lost.
    pub async fn next_notice(&self) -> Option<Notice> {
        self.notices.lock().await.recv().await
    }

    /// The hosts that this node has sessions with, and where they are: what a later run of it should
    /// [greet](Node::greet).
    pub fn peers(&self) -> Vec<(Fingerprint, SocketAddr)> {
        let links = self.core.links();
        let peers =
            links.iter().filter_map(|link| Some((link.peer.host(), link.remote_address()?)));
        peers.collect()
    }

    /// The sessions that this node has now.
    pub fn sessions(&self) -> Vec<SessionStatus> {
        let links = self.core.links().clone();
        links.iter().map(status::of).collect()
    }

    /// Tells peers of an earlier run of this node, which had the same key, that their sessions with
    /// that run are over. Does not wait; nothing follows from whether that reaches them.
    pub fn greet(&self, peers: Vec<(Fingerprint, SocketAddr)>) {
        let core = Arc::downgrade(&self.core);
        tokio::spawn(async move {
            for some in peers.chunks(GREETINGS_AT_ONCE) {
                let Some(core) = core.upgrade() else { return };
                let greet = |(host, address): &(Fingerprint, SocketAddr)| {
                    let (core, host, address) = (core.clone(), *host, *address);
                    async move { dial::greet(&core, host, address).await }
                };
                let greetings: tokio::task::JoinSet<()> = some.iter().map(greet).collect();
                greetings.join_all().await;
            }
        });
    }

    /// Presents `identity` to peers from now on: the same key with a new certificate
    /// ([`crate::identity::HostIdentity::renew`]), before the old one expires. Connections that stand
    /// are not affected.
    ///
    /// # Errors
    /// TLS could not be set up with it.
    pub fn renew(&self, identity: Identity) -> Result<(), TlsError> {
        let config = sockets::server_config(&identity)?;
        for endpoint in &self.core.endpoints {
            endpoint.set_server_config(Some(config.clone()));
        }
        *self.core.server.write().unwrap_or_else(PoisonError::into_inner) = config;
        *self.core.identity.write().unwrap_or_else(PoisonError::into_inner) = identity;
        Ok(())
    }

    /// The node's memory budget.
    pub fn budget(&self) -> &Budget {
        &self.core.places.budget
    }

    /// As [`Node::close`], but only such time counts in which a peer is heard: what happened to a
    /// pipe is told also to a peer whose network is away. Peers that are never heard again are given
    /// up after [`Patience::give_up`].
    ///
    /// # Cancel safety
    /// Not cancel safe: sessions are left closing.
    pub async fn close_patiently(&self, within: Duration) -> CloseReport {
        self.end(within, true).await
    }

    /// Ends all sessions gracefully, waiting at most `within` for the pipes that are open to end;
    /// then cuts what is left and closes the sockets.
    ///
    /// # Cancel safety
    /// Not cancel safe: sessions are left closing.
    pub async fn close(&self, within: Duration) -> CloseReport {
        self.end(within, false).await
    }

    async fn end(&self, within: Duration, is_patient: bool) -> CloseReport {
        let links: Vec<Arc<Link>> = self.core.links().clone();
        let closing: Vec<_> = links
            .into_iter()
            .map(|link| tokio::spawn(async move { link.close(within, is_patient).await }))
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
