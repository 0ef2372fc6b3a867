//! The serving node of a host.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use qpipe::identity::{Continuity, HostIdentity, IdentityError, PeerIdentity};
use qpipe::{
    Cause, CloseReport, Ends, Fingerprint, IncomingOpen, Node, NodeOptions, OpenTarget, Patience,
    PipeName, ReaderWatch, StartError, WriterWatch,
};
use qpipe_proto::ticket::{DEFAULT_PORT, SecretHash};
use tokio::sync::mpsc;

use crate::access::HomeAccess;
use crate::answers::{self, Answers, STATUS_NAME};
use crate::document::ReadError;
use crate::home::Home;
use crate::known_peers::KnownPeers;
use crate::lock::{ServeLock, ServeLockError};
use crate::names::{Names, Shape};
use crate::rule::Verb;
use crate::shared::SharedNode;
use crate::shared::status::Asker;

/// Where a serving node listens unless told otherwise: UDP 7473 of IPv4 and IPv6.
pub const DEFAULT_LISTEN: [SocketAddr; 2] = [
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), DEFAULT_PORT),
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), DEFAULT_PORT),
];

/// How often `authorized.toml` is looked at: a rule that was taken away ends its pipes.
const RULES_INTERVAL: Duration = Duration::from_secs(1);

/// How a serving node is set up.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// UDP addresses to listen on; empty: [`DEFAULT_LISTEN`], of which IPv6 may be missing.
    pub listen: Vec<SocketAddr>,
    /// Memory for pipes, in bytes.
    pub memory: u64,
    /// How long peers that are not heard are waited for.
    pub patience: Patience,
}

/// How long a serving node waits for peers that are not heard, unless told otherwise.
pub const GIVE_UP: Duration = Duration::from_secs(24 * 3600);

/// Why a serving node could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The host's key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What the node keeps from one start to the next.
    #[error("cannot keep what a restart needs in {}: {source}", .dir.display())]
    Continuity {
        /// Where.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another one serves this home, or the home cannot be used.
    #[error(transparent)]
    Lock(#[from] ServeLockError),
    /// `authorized.toml`.
    #[error(transparent)]
    Rules(#[from] ReadError),
    /// The sockets.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// A peer that joined by an invitation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// What it is called here.
    pub name: String,
    /// Its key.
    pub key: Fingerprint,
    /// Which invitation it used.
    pub secret: SecretHash,
}

/// The serving node of a host: it holds the home's lock and the host's key.
#[derive(Debug)]
pub struct Serve {
    node: Arc<Node>,
    shared: Arc<SharedNode>,
    access: Arc<HomeAccess>,
    names: Names,
    answers: Answers,
    legs: Mutex<Vec<Leg>>,
    /// Whom this node has sessions with, as the next run of it will find them.
    peers: Mutex<KnownPeers>,
    enrolments: tokio::sync::Mutex<mpsc::UnboundedReceiver<Enrolment>>,
    _lock: ServeLock,
}

/// An end of a named pipe that a peer holds, as long as it may.
#[derive(Debug)]
struct Leg {
    peer: PeerIdentity,
    verb: Verb,
    name: PipeName,
    end: LegEnd,
}

enum LegEnd {
    Reads(ReaderWatch),
    Writes(WriterWatch),
}

impl Serve {
    /// Starts serving `home`, inside of a tokio runtime.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub fn start(home: &Home, options: ServeOptions) -> Result<Serve, ServeError> {
        let lock = ServeLock::acquire(home)?;
        let identity = HostIdentity::load_or_create(&home.key_dir())?.node();
        let continuity = Continuity::load_and_count(&home.key_dir())
            .map_err(|source| ServeError::Continuity { dir: home.key_dir(), source })?;
        let (sender, enrolments) = mpsc::unbounded_channel();
        let access = Arc::new(HomeAccess::open(home, identity.host(), sender)?);
        let listen = if options.listen.is_empty() { default_listen() } else { options.listen };
        let options = NodeOptions {
            listen,
            memory: options.memory,
            accepts: true,
            takes_names: true,
            patience: options.patience,
            continuity: Some(continuity),
        };
        let node = Arc::new(Node::start(identity, options, access.clone())?);
        lock.publish(&node.local_addresses())?;
        let mut peers = KnownPeers::load(home);
        node.greet(peers.take_earlier());
        let names = Names::new(home.names_file());
        let shared = SharedNode::new(home.clone(), node.clone(), names.clone(), true);
        Ok(Serve {
            shared,
            peers: Mutex::new(peers),
            node,
            access,
            names,
            answers: Answers::new(),
            legs: Mutex::default(),
            enrolments: tokio::sync::Mutex::new(enrolments),
            _lock: lock,
        })
    }

    /// The node itself.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// What programs of this host share of it, to be run at the local socket.
    pub fn shared(&self) -> &Arc<SharedNode> {
        &self.shared
    }

    /// Serves until the node is closed. What is wrong with a changed `authorized.toml` or `names.toml`
    /// is given to `tell`, once for each version of it.
    ///
    /// # Cancel safety
    /// Cancel safe: no open is lost.
    pub async fn run(&self, mut tell: impl FnMut(ReadError)) {
        let mut interval = tokio::time::interval(RULES_INTERVAL);
        loop {
            tokio::select! {
                biased;
                open = self.node.next_open() => match open {
                    Some(open) => self.answer(open),
                    None => return,
                },
                _ = interval.tick() => {
                    let peers = self.node.peers();
                    self.peers.lock().unwrap_or_else(PoisonError::into_inner).store(peers);
                    if let Err(error) = self.reload() {
                        tell(error);
                    }
                    self.names.take_broken().into_iter().for_each(&mut tell);
                }
            }
        }
    }

    /// The next peer that joins by an invitation.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next_enrolment(&self) -> Option<Enrolment> {
        self.enrolments.lock().await.recv().await
    }

    /// Reads `authorized.toml` again if it changed. Pipes that are no longer allowed are closed
    /// with the cause `revoked`.
    ///
    /// # Errors
    /// The file is broken: the rules before it stay in force. Told once for each version.
    pub fn reload(&self) -> Result<(), ReadError> {
        if self.access.refresh()? {
            self.revoke();
        }
        Ok(())
    }

    /// Stops: waits at most `within` for pipes that are open, then cuts them. Whoever opens one
    /// meanwhile is told so at once.
    ///
    /// # Cancel safety
    /// Not cancel safe: sessions are left closing.
    pub async fn stop(&self, within: Duration) -> CloseReport {
        let mut closing = pin!(self.node.close(within));
        loop {
            tokio::select! {
                report = &mut closing => return report,
                Some(open) = self.node.next_open() => self.turn_away(open),
            }
        }
    }

    fn turn_away(&self, open: IncomingOpen) {
        if let (OpenTarget::Name(name), Some(shape)) = (open.target(), Shape::of(open.shape())) {
            self.note(&open, name, shape, Some(Cause::Stopping));
        }
        open.refuse(Cause::Stopping);
    }

    fn note(&self, open: &IncomingOpen, name: &PipeName, shape: Shape, refused: Option<Cause>) {
        for verb in verbs(shape) {
            self.access.note_open(&open.peer(), open.remote_address(), *verb, name, refused);
        }
    }

    fn answer(&self, open: IncomingOpen) {
        let OpenTarget::Name(name) = open.target().clone() else {
            return open.refuse(Cause::Ticket);
        };
        let Some(shape) = Shape::of(open.shape()) else { return open.refuse(Cause::Protocol) };
        let peer = open.peer();
        if answers::is_nodes_own(&name) {
            return self.tell(open, &name, shape);
        }
        let verdict = self.judge(&peer, &name, shape, open.no_wait());
        self.note(&open, &name, shape, verdict.err());
        match verdict {
            Err(cause) => open.refuse(cause),
            Ok(()) => {
                let Ok(ends) = open.accept() else { return };
                self.keep(peer, &name, &ends);
                self.names.enter(&name, shape, crate::join::Leg::to_peer(ends));
            }
        }
    }

    /// Tells a peer how this node is, as far as that is the peer's to know.
    fn tell(&self, open: IncomingOpen, name: &PipeName, shape: Shape) {
        let peer = open.peer();
        let is_asked = name.as_str() == STATUS_NAME && shape == Shape::Read;
        let is_allowed = is_asked && self.access.lists_any(&peer);
        let place = if is_allowed { self.answers.begin() } else { Err(Cause::NotAllowed) };
        let refused = place.as_ref().err().copied();
        self.access.note_open(&peer, open.remote_address(), Verb::List, name, refused);
        let place = match place {
            Ok(place) => place,
            Err(cause) => return open.refuse(cause),
        };
        let Ok(Ends { writer: Some(writer), .. }) = open.accept() else { return };
        let may_ask = |name: &PipeName| self.access.allows(&peer, Verb::List, name);
        let asker = match peer.host() {
            own if own == self.node.fingerprint() => Asker::Host,
            key => Asker::Peer { key, may_ask: &may_ask },
        };
        let status = self.shared.status(asker);
        place.give(serde_json::to_vec(&status).unwrap_or_default(), writer);
    }

    fn judge(
        &self,
        peer: &PeerIdentity,
        name: &PipeName,
        shape: Shape,
        no_wait: bool,
    ) -> Result<(), Cause> {
        if !verbs(shape).iter().all(|verb| self.access.allows(peer, *verb, name)) {
            return Err(Cause::NotAllowed);
        }
        // Programs of this host that work for themselves are no peers.
        let is_own = peer.host() == self.node.fingerprint();
        if !is_own && !self.names.kept().lets_peers(name, shape) {
            return Err(Cause::NotAllowed);
        }
        self.names.check(name, shape, no_wait)
    }

    fn keep(&self, peer: PeerIdentity, name: &PipeName, ends: &Ends) {
        let mut legs = self.legs.lock().unwrap_or_else(PoisonError::into_inner);
        legs.retain(|leg| !leg.end.is_over());
        let mut add = |verb, end| legs.push(Leg { peer, verb, name: name.clone(), end });
        if let Some(reader) = &ends.reader {
            add(Verb::Send, LegEnd::Reads(reader.watch()));
        }
        if let Some(writer) = &ends.writer {
            add(Verb::Recv, LegEnd::Writes(writer.watch()));
        }
    }

    fn revoke(&self) {
        let mut legs = self.legs.lock().unwrap_or_else(PoisonError::into_inner);
        legs.retain(|leg| {
            let is_allowed = self.access.allows(&leg.peer, leg.verb, &leg.name);
            if !is_allowed {
                leg.end.revoke();
            }
            is_allowed && !leg.end.is_over()
        });
    }
}

impl LegEnd {
    fn is_over(&self) -> bool {
        match self {
            LegEnd::Reads(watch) => watch.is_over(),
            LegEnd::Writes(watch) => watch.is_over(),
        }
    }

    fn revoke(&self) {
        match self {
            LegEnd::Reads(watch) => watch.stop(Cause::Revoked),
            LegEnd::Writes(watch) => watch.abort(Cause::Revoked),
        }
    }
}

impl std::fmt::Debug for LegEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LegEnd::Reads(_) => "read here",
            LegEnd::Writes(_) => "written here",
        })
    }
}

/// What a peer does that opens a group of this shape.
fn verbs(shape: Shape) -> &'static [Verb] {
    match shape {
        Shape::Duplex => &[Verb::Send, Verb::Recv],
        Shape::Read => &[Verb::Recv],
        Shape::Write => &[Verb::Send],
    }
}

/// [`DEFAULT_LISTEN`], without IPv6 on a host that has none.
fn default_listen() -> Vec<SocketAddr> {
    let has_ipv6 = std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
    DEFAULT_LISTEN.into_iter().filter(|address| address.is_ipv4() || has_ipv6).collect()
}
