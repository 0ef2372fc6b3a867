//! What a node's tasks share, and what its sessions ask of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use qpipe_proto::fact::OpenTarget;
use qpipe_proto::hello::Instance;
use qpipe_proto::limits::SESSIONS_MAX;
use qpipe_proto::ticket::SecretHash;
use qpipe_proto::{Cause, Fingerprint};
use quinn::Endpoint;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::offer::Pending;
use super::places::{Place, Places};
use super::{NodeOptions, Notice, NoticeKind, dial, interfaces, network, sockets};
use crate::access::Access;
use crate::identity::Identity;
use crate::link::{self, Host, Link, Terms, codes};
use crate::session::{IncomingOpen, SessionEnd};
use crate::tls::ExpectedHost;

/// What a node's tasks share.
pub(crate) struct Core {
    pub(super) identity: RwLock<Identity>,
    pub(super) server: RwLock<quinn::ServerConfig>,
    pub(super) options: NodeOptions,
    pub(super) access: Arc<dyn Access>,
    pub(super) places: Places,
    pub(super) flights: dial::Flights,
    pub(super) endpoints: Vec<Endpoint>,
    /// A socket fails.
    pub(super) broken: Arc<Notify>,
    pub(super) links: Mutex<Vec<Arc<Link>>>,
    pub(super) offers: Mutex<HashMap<SecretHash, Pending>>,
    /// Bounded by what sessions allow: [`qpipe_proto::limits::OPENS_UNANSWERED_MAX`] for each.
    pub(super) opens: Mutex<Option<mpsc::UnboundedSender<IncomingOpen>>>,
    /// Each session has two in a [`Patience::notice`] at most, for a user who reads them.
    pub(super) notices: Mutex<Option<mpsc::UnboundedSender<Notice>>>,
    /// Which run of this node this is.
    pub(super) instance: Instance,
    pub(super) handshakes: Arc<Semaphore>,
    /// Round trips of sessions that are over, at most [`SESSIONS_MAX`], by host.
    pub(super) rtts: Mutex<HashMap<Fingerprint, Duration>>,
    pub(super) this: Weak<Core>,
}

impl Core {
    pub(crate) fn links(&self) -> MutexGuard<'_, Vec<Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn offers(&self) -> MutexGuard<'_, HashMap<SecretHash, Pending>> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this process presents to peers now.
    pub(super) fn identity(&self) -> Identity {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a connection from `remote` is accepted with.
    pub(super) fn server_config(&self, remote: SocketAddr) -> quinn::ServerConfig {
        let mut config = self.server.read().unwrap_or_else(PoisonError::into_inner).clone();
        config.transport_config(sockets::transport(true, &self.options, remote));
        config
    }

    /// What a new session at this place gets.
    pub(super) fn terms(&self, place: Place) -> Terms {
        Terms {
            place,
            host: self.host(),
            instance: self.instance,
            patience: self.options.patience,
            takes_names: self.options.takes_names,
        }
    }

    /// Adds a session to those of the node, unless it is over already.
    pub(super) fn keep(&self, link: &Arc<Link>) {
        self.links().push(link.clone());
        if link.lock().is_finished {
            self.links().retain(|other| !Arc::ptr_eq(other, link));
        }
    }

    /// How long a dial of a host may take: longer where its round trip was long (ruling 17).
    pub(super) fn dial_deadline(&self, expected: &ExpectedHost) -> Duration {
        let rtts = self.rtts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match expected {
            ExpectedHost::Is(host) => rtts.get(host).copied(),
            ExpectedHost::Unknown => None,
        };
        dial::DIAL_DEADLINE.max(4 * known.unwrap_or_default())
    }

    /// Gives the endpoints fresh sockets: the kernel may have tied the old ones to an address that is
    /// gone.
    pub(super) fn rebind(&self) {
        for endpoint in &self.endpoints {
            if let Err(error) = sockets::rebind(endpoint, self.broken.clone()) {
                tracing::debug!(%error, "no fresh socket");
            }
        }
    }

    pub(super) fn host(&self) -> Weak<dyn Host> {
        self.this.clone()
    }

    pub(super) fn shut(&self) {
        // Whoever waits for opens or notices hears that there are no more.
        lock(&self.opens).take();
        lock(&self.notices).take();
        let links = self.links().clone();
        for link in links {
            link.end_with(SessionEnd::Lost("its node was closed".to_owned()), codes::GONE);
        }
        for endpoint in &self.endpoints {
            endpoint.close(codes::DONE, b"");
        }
    }
}

impl Host for Core {
    fn addresses(&self) -> Vec<SocketAddr> {
        let bound: Vec<_> = self.endpoints.iter().filter_map(|e| e.local_addr().ok()).collect();
        interfaces::socket_addresses(&bound).unwrap_or_default()
    }

    fn notice(&self, link: &Arc<Link>, notice: link::Notice) {
        let kind = NoticeKind::from(notice);
        let peer = link.way.as_ref().map(|way| way.name.clone()).filter(|name| !name.is_empty());
        let notice = Notice { host: link.peer.host(), peer, address: link.remote_address(), kind };
        if let Some(notices) = &*lock(&self.notices) {
            // Without a reader nobody wants to know.
            let _ = notices.send(notice);
        }
    }

    fn redial(&self, link: Arc<Link>) -> JoinHandle<()> {
        let core = self.this.clone();
        tokio::spawn(async move {
            if let Some(core) = core.upgrade() {
                dial::redial(&core, &link).await;
            }
        })
    }

    fn incoming(&self, open: IncomingOpen) {
        match open.target() {
            OpenTarget::Ticket(secret) => {
                let hash = secret.hash();
                self.take_offer(&hash, open);
            }
            OpenTarget::Unknown => open.refuse(Cause::Protocol),
            OpenTarget::Name(_) if !self.options.takes_names => open.refuse(Cause::NotAllowed),
            OpenTarget::Name(_) => {
                let unsent = match &*lock(&self.opens) {
                    Some(opens) => opens.send(open).err().map(|unsent| unsent.0),
                    None => Some(open),
                };
                // Not with the lock held.
                if let Some(open) = unsent {
                    open.refuse(Cause::Stopping);
                }
            }
        }
    }

    fn ended(&self, link: &Arc<Link>) {
        let mut rtts = self.rtts.lock().unwrap_or_else(PoisonError::into_inner);
        if rtts.len() < SESSIONS_MAX {
            rtts.insert(link.peer.host(), link.rtt());
        }
        drop(rtts);
        self.links().retain(|other| !Arc::ptr_eq(other, link));
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // Whoever watches the sockets sees that there is no node any more.
        self.broken.notify_one();
    }
}

/// Tells all sessions when this host's addresses or routes change.
pub(super) async fn watch_network(core: Weak<Core>) {
    let Ok(mut changes) = network::Changes::listen() else { return };
    while let Ok(mut change) = changes.next().await {
        let settled = tokio::time::sleep(network::SETTLE);
        tokio::pin!(settled);
        loop {
            tokio::select! {
                () = &mut settled => break,
                more = changes.next() => match more {
                    Ok(more) => change.lost_address |= more.lost_address,
                    Err(_) => return,
                },
            }
        }
        let Some(core) = core.upgrade() else { return };
        tracing::debug!(?change, "the network changed");
        if change.lost_address && core.options.listen.is_empty() {
            core.rebind();
        }
        let links = core.links().clone();
        links.iter().for_each(Link::network_changed);
    }
}

/// Replaces sockets that fail, if their ports do not matter. A failing socket says so again, at most
/// once a second.
pub(super) async fn watch_sockets(core: Weak<Core>, broken: Arc<Notify>) {
    loop {
        broken.notified().await;
        let Some(core) = core.upgrade() else { return };
        if core.options.listen.is_empty() {
            core.rebind();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
