//! The node that the programs of a host share: it takes over their descriptors and carries what goes
//! through them, over one connection to each peer.
//!
//! A program says at the local socket what it wants ([`crate::local`]), and waits there for the end.
//! The node belongs to whoever runs it: [`crate::Serve`], which other hosts can reach, or a node that
//! a command started in the background and that ends itself when nobody needs it any more.

mod open;
mod rates;
mod registry;
pub mod status;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use qpipe::{Cause, Nobody, Node, NodeOptions, Notice, NoticeKind, StartError};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

pub use status::NodeStatus;

use crate::config::Config;
use crate::document::ReadError;
use crate::home::Home;
use crate::local::{Ask, Credentials, Event, Listener, LocalError, ServerStream, milliseconds};
use crate::names::Names;
use crate::watched::Watched;
use rates::Rates;
use registry::{Busy, Registry};
use status::Asker;

/// Programs that are served at once; others wait to be accepted.
pub const CLIENTS_MAX: usize = 16_384;

/// How long whoever stops the node is willing to wait, at most.
const STOP_WITHIN_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long nobody is accepted after that has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long programs whose pipes were cut may take to hear that.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How often the node looks whether the socket is still its own: its home may have been removed.
const SOCKET_INTERVAL: Duration = Duration::from_secs(2);

/// The shared node of a host, for programs of this host.
#[derive(Debug)]
pub struct SharedNode {
    node: Arc<Node>,
    home: Home,
    config: Mutex<Watched<Config>>,
    names: Names,
    registry: Registry,
    rates: Rates,
    serves: bool,
    since: Instant,
    clients: Arc<Semaphore>,
    /// How it is to end, once somebody said so.
    stop: watch::Sender<Option<Stopping>>,
    /// Whether the socket is free for another node.
    is_closed: watch::Sender<bool>,
    /// Whether nothing is left to be finished.
    is_over: watch::Sender<bool>,
}

/// How a node is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopping {
    /// Another node takes its place: what is open goes on to its end.
    Retired,
    /// Somebody asked for it: what is open has so long to end.
    Within(Duration),
}

impl SharedNode {
    /// The node for programs of this host, on a node that serves or on one of its own.
    pub(crate) fn new(home: Home, node: Arc<Node>, names: Names, serves: bool) -> Arc<SharedNode> {
        Arc::new(SharedNode {
            node,
            config: Mutex::new(Watched::new(home.config_file(), Config::load)),
            home,
            names,
            registry: Registry::default(),
            rates: Rates::default(),
            serves,
            since: Instant::now(),
            clients: Arc::new(Semaphore::new(CLIENTS_MAX)),
            stop: watch::Sender::new(None),
            is_closed: watch::Sender::new(false),
            is_over: watch::Sender::new(false),
        })
    }

    /// What `config.toml` says now.
    ///
    /// # Errors
    /// It is broken.
    fn config(&self) -> Result<Arc<Config>, ReadError> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).latest().cloned()
    }

    /// A node for the programs of this host alone, with a key of its own that the host's has signed.
    ///
    /// # Errors
    /// Its sockets, its key.
    pub fn start(
        home: Home,
        identity: qpipe::identity::Identity,
        options: NodeOptions,
    ) -> Result<Arc<SharedNode>, StartError> {
        let options = NodeOptions { accepts: false, takes_names: false, ..options };
        let node = Arc::new(Node::start(identity, options, Arc::new(Nobody))?);
        let names = Names::new(home.names_file());
        Ok(SharedNode::new(home, node, names, false))
    }

    /// The node that carries the pipes.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// What it tells of itself.
    pub(crate) fn status(&self, asker: Asker<'_>) -> NodeStatus {
        status::of(self, asker)
    }

    /// Answers programs at the socket until the socket is another's, or it is told to stop.
    pub async fn run(self: &Arc<SharedNode>, listener: &Listener) -> Stopping {
        let mut look = tokio::time::interval(SOCKET_INTERVAL);
        let mut stop = self.stop.subscribe();
        let rates = self.rates.take(&self.node, &self.registry);
        tokio::pin!(rates);
        loop {
            let accepted = tokio::select! {
                biased;
                Ok(stopping) = stop.wait_for(Option::is_some) => {
                    return stopping.unwrap_or(Stopping::Retired);
                }
                _ = look.tick() => {
                    if !listener.is_current() {
                        return Stopping::Retired;
                    }
                    continue;
                }
                accepted = self.accept(listener) => accepted,
                () = &mut rates => continue,
            };
            let (stream, place, credentials) = accepted;
            let shared = self.clone();
            let busy = shared.registry.begin();
            tokio::spawn(async move {
                if let Err(error) = shared.answer(stream, credentials, busy).await {
                    tracing::debug!(%error, "a program at the local socket");
                }
                drop(place);
            });
        }
    }

    async fn accept(
        &self,
        listener: &Listener,
    ) -> (ServerStream, tokio::sync::OwnedSemaphorePermit, Credentials) {
        loop {
            // The semaphore is never closed.
            let Ok(place) = self.clients.clone().acquire_owned().await else {
                return std::future::pending().await;
            };
            match listener.accept().await {
                Ok((stream, credentials)) => return (stream, place, credentials),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept programs of this host");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Waits until no program has had anything open for `linger`. Whoever only asks how the node is
    /// does not count.
    pub async fn unused_for(&self, linger: Duration) {
        self.registry.unused_for(linger).await;
    }

    /// Waits until no program is being answered.
    pub async fn idle(&self) {
        self.registry.idle().await;
    }

    /// Waits at most `within` for what programs of this host have open, then cuts it with the cause
    /// `stopping`; how much that was. The listener is to be dropped before: programs that have just
    /// connected ask the next node, and those that wait at a name of this one are told at once that
    /// nobody will join them.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn finish(&self, within: Duration) -> usize {
        self.is_closed.send_replace(true);
        self.registry.cut_waiting(Cause::Stopping);
        if tokio::time::timeout(within, self.idle()).await.is_ok() {
            return 0;
        }
        let cut = self.registry.cut(Cause::Stopping);
        // They hear it now, or never.
        let _ = tokio::time::timeout(LAST_WORDS, self.idle()).await;
        cut
    }

    /// The socket is free for another node: whoever asked for that is told, and programs that wait
    /// for somebody at a name of this one go there.
    pub fn closed(&self) {
        self.is_closed.send_replace(true);
        self.registry.release();
    }

    /// Nothing is left to be finished: whoever asked for the end is told.
    pub async fn over(&self) {
        self.is_over.send_replace(true);
        // They hear it, or see the connection closed by the end of the process.
        tokio::task::yield_now().await;
    }

    /// Tells the programs that wait for a peer what the node noticed of it.
    pub fn tell(&self, notice: &Notice, peer: &str) {
        let peer = peer.to_owned();
        let event = match notice.kind {
            NoticeKind::Silent { silent, left } => {
                Event::Silent { peer, silent_ms: milliseconds(silent), left_ms: milliseconds(left) }
            }
            NoticeKind::Back { after } => Event::Back { peer, after_ms: milliseconds(after) },
            _ => return,
        };
        for open in self.registry.all() {
            if open.host.get() == Some(&notice.host) {
                open.client.tell(event.clone());
            }
        }
    }

    /// Answers one program.
    async fn answer(
        self: &Arc<SharedNode>,
        mut stream: ServerStream,
        credentials: Credentials,
        mut busy: Busy,
    ) -> Result<(), LocalError> {
        let Some((request, descriptors)) = stream.recv_request().await? else { return Ok(()) };
        match request.ask {
            // The next node has the socket by now: the program asks there.
            Ask::Open(_) if *self.is_closed.borrow() => Ok(()),
            Ask::Open(ask) => {
                busy.open();
                open::open(self, stream, ask, descriptors, credentials).await
            }
            Ask::Status => {
                let status = serde_json::to_value(self.status(Asker::Host)).unwrap_or_default();
                stream.send(&Event::Status(status)).await
            }
            Ask::Stop { within_ms } => {
                let within = Duration::from_millis(within_ms).min(STOP_WITHIN_MAX);
                self.stop.send_replace(Some(Stopping::Within(within)));
                drop(busy);
                let _ = self.is_over.subscribe().wait_for(|is_over| *is_over).await;
                stream.send(&Event::Done).await
            }
            Ask::Retire if self.serves => {
                let text = "`qpipe serve` runs already for this home".to_owned();
                stream.send(&Event::Failed { text }).await
            }
            Ask::Retire => {
                self.stop.send_replace(Some(Stopping::Retired));
                // The sender is here: the channel is not closed.
                let _ = self.is_closed.subscribe().wait_for(|is_closed| *is_closed).await;
                stream.send(&Event::Done).await
            }
        }
    }
}
