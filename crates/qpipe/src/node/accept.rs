//! Accepting connections: bounded before anybody is known, judged at Hello.

use std::sync::{Arc, Weak};
use std::time::Duration;

use qpipe_proto::hello::Enrolled;
use qpipe_proto::limits::{SESSIONS_MAX, SESSIONS_PER_PEER_MAX};
use qpipe_proto::{Cause, Secret};
use quinn::{Endpoint, Incoming};
use tokio::sync::OwnedSemaphorePermit;

use super::Core;
use crate::identity::PeerIdentity;
use crate::link::{Greeted, Link, RefusedHello, answer_hello, codes};

/// Connections that have not said Hello, or that came with a ticket and have not used it.
pub(super) const HANDSHAKES_MAX: usize = 256;

/// With fewer free places than this, a peer must prove its address before it costs anything more.
const RETRY_BELOW: usize = HANDSHAKES_MAX / 2;

/// How long a handshake, and how long the use of a ticket, may take.
const STRANGER_DEADLINE: Duration = Duration::from_secs(10);

/// Datagrams of connections that wait to be accepted, in bytes, for each and for all.
const INCOMING_BYTES_MAX: u64 = 64 * 1024;
const INCOMING_BYTES_TOTAL_MAX: u64 = 4 * 1024 * 1024;

/// Sets quinn's own bounds.
pub(super) fn bound_handshakes(config: &mut quinn::ServerConfig) {
    config
        .max_incoming(HANDSHAKES_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX);
}

/// Accepts connections until the endpoint is closed.
pub(super) async fn accept(endpoint: Endpoint, core: Weak<Core>) {
    while let Some(incoming) = endpoint.accept().await {
        let Some(core) = core.upgrade() else { return };
        let handshakes = core.handshakes.clone();
        let is_scarce = handshakes.available_permits() < RETRY_BELOW;
        if is_scarce && !incoming.remote_address_validated() && incoming.may_retry() {
            // The only error is that it may not, which was asked.
            let _ = incoming.retry();
            continue;
        }
        match handshakes.try_acquire_owned() {
            Ok(place) => drop(tokio::spawn(receive(core, incoming, place))),
            Err(_) => incoming.refuse(),
        }
    }
}

async fn receive(core: Arc<Core>, incoming: Incoming, place: OwnedSemaphorePermit) {
    let from = incoming.remote_address();
    let Ok(Ok(conn)) = tokio::time::timeout(STRANGER_DEADLINE, incoming).await else {
        tracing::debug!(%from, "a handshake failed");
        return;
    };
    let Some(peer) = PeerIdentity::of(&conn) else {
        conn.close(codes::PROTOCOL, b"no certificate");
        return;
    };
    let mut has_offer = false;
    let greeted = Greeted { conn, peer, suite: None, dialled: None };
    let judge = |ticket: Option<&Secret>, from| {
        let judged = core.judge(peer, ticket, from)?;
        has_offer = judged.is_stranger;
        Ok(judged.enrolled)
    };
    match answer_hello(greeted, core.account(&peer.host()), core.host(), judge).await {
        Err(error) => tracing::debug!(%from, peer = %peer.host(), %error, "no session"),
        Ok(link) => {
            core.links().push(link.clone());
            if link.lock().ended.is_some() {
                core.links().retain(|other| !Arc::ptr_eq(other, &link));
            }
            tracing::debug!(%from, peer = %peer.host(), session = ?link.session_id, "session");
            if has_offer {
                use_ticket_in_time(link).await;
            }
        }
    }
    drop(place);
}

/// A peer that only a ticket let in has so long to use it.
async fn use_ticket_in_time(link: Arc<Link>) {
    tokio::select! {
        biased;
        () = link.used.notified() => {}
        _ = link.ended() => {}
        () = tokio::time::sleep(STRANGER_DEADLINE) => {
            link.conn.close(codes::TICKET, b"the ticket was not used in time");
        }
    }
}

struct Judged {
    enrolled: Option<Enrolled>,
    /// Only the ticket of an offer lets it in.
    is_stranger: bool,
}

impl Core {
    fn judge(
        &self,
        peer: PeerIdentity,
        ticket: Option<&Secret>,
        from: std::net::SocketAddr,
    ) -> Result<Judged, RefusedHello> {
        self.has_place(peer)?;
        let is_known = peer.host() == self.identity.host() || self.access.knows(&peer);
        let Some(secret) = ticket else {
            if is_known {
                return Ok(Judged { enrolled: None, is_stranger: false });
            }
            return Err(RefusedHello {
                code: codes::NOT_ALLOWED,
                reason: format!(
                    "key {} is not authorized here: ask for an invitation (qpipe invite)",
                    peer.host()
                ),
            });
        };
        if self.has_offer(secret) {
            return Ok(Judged { enrolled: None, is_stranger: !is_known });
        }
        match self.access.redeem(secret, &peer, from) {
            Ok(Some(enrolled)) => Ok(Judged { enrolled: Some(enrolled), is_stranger: false }),
            Ok(None) => Err(refused(Cause::Ticket)),
            Err(cause) => Err(refused(cause)),
        }
    }

    fn has_place(&self, peer: PeerIdentity) -> Result<(), RefusedHello> {
        let links = self.links();
        let same = links.iter().filter(|link| link.peer.host() == peer.host()).count();
        if links.len() < SESSIONS_MAX && same < SESSIONS_PER_PEER_MAX {
            return Ok(());
        }
        Err(refused(Cause::Busy))
    }
}

fn refused(cause: Cause) -> RefusedHello {
    let code = match cause {
        Cause::Busy => codes::BUSY,
        Cause::Ticket => codes::TICKET,
        _ => codes::NOT_ALLOWED,
    };
    RefusedHello { code, reason: cause.to_string() }
}
