//! Accepting connections: bounded before anybody is known, judged at Hello.

use std::sync::{Arc, Weak};
use std::time::Duration;

use qpipe_proto::hello::{self, Enrolled, Judgement};
use qpipe_proto::{Cause, Secret};
use quinn::{Endpoint, Incoming};
use tokio::sync::OwnedSemaphorePermit;

use super::Core;
use super::places::Place;
use crate::identity::PeerIdentity;
use crate::link::{Greeted, Heard, Link, RefusedHello, codes, hear_hello};
use crate::session::SessionEnd;

/// Connections that have not said Hello, or that came with a ticket and have not used it.
pub(super) const HANDSHAKES_MAX: usize = 256;

/// With fewer free places than this, a peer must prove its address before it costs anything more.
const RETRY_BELOW: usize = HANDSHAKES_MAX / 2;

/// Connections that quinn keeps beyond those of sessions: handshakes of both directions, closing ones,
/// and those that a forged first packet made.
const STRAYS_MAX: usize = 4 * HANDSHAKES_MAX;

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
        // What quinn keeps beyond what is known here never became a connection.
        let strays = endpoint.open_connections().saturating_sub(4 * core.links().len());
        let is_scarce = handshakes.available_permits() < RETRY_BELOW || strays > HANDSHAKES_MAX;
        if strays > STRAYS_MAX {
            incoming.ignore();
            continue;
        }
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
    let Ok(connecting) = incoming.accept_with(Arc::new(core.server_config(from))) else {
        tracing::debug!(%from, "not a first packet of QUIC");
        return;
    };
    let Ok(Ok(conn)) = tokio::time::timeout(STRANGER_DEADLINE, connecting).await else {
        tracing::debug!(%from, "a handshake failed");
        return;
    };
    let Some(peer) = PeerIdentity::of(&conn) else {
        conn.close(codes::PROTOCOL, b"no certificate");
        return;
    };
    let greeted = Greeted { conn, peer, suite: None, dialled: None };
    match hear_hello(greeted).await {
        Err(error) => tracing::debug!(%from, peer = %peer.host(), %error, "no session"),
        Ok(heard) => core.answer(heard).await,
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
            let end = SessionEnd::Lost("the ticket was not used in time".to_owned());
            link.end_with(end, codes::TICKET);
        }
    }
}

struct Judged {
    place: Place,
    enrolled: Option<Enrolled>,
    /// Only the ticket of an offer lets it in.
    is_stranger: bool,
}

impl Core {
    /// Answers a Hello, and waits as long as its sender takes the place of a stranger.
    async fn answer(&self, heard: Heard) {
        let peer = heard.greeted.peer;
        let of_peer: Vec<Arc<Link>> =
            self.links().iter().filter(|link| link.peer == peer).cloned().collect();
        let (over, alive): (Vec<_>, Vec<_>) =
            of_peer.into_iter().partition(|link| heard.hello.instance.ends(link.instance));
        for link in over {
            link.end_with(SessionEnd::Restarted, codes::GONE);
        }
        let known = alive.first().map(|link| link.instance);
        let link = alive.iter().find(|link| link.session_id == heard.hello.session);
        let highest = link.map(|link| link.lock().contact.highest());
        match (hello::judge(&heard.hello, known, highest), link) {
            (Judgement::Gone, _) => heard.answer_gone(self.instance).await,
            (Judgement::New, _) => self.begin(heard).await,
            (Judgement::Resumes, Some(link)) => self.resume(heard, link),
            (Judgement::Resumes | Judgement::Superseded, _) => {
                let reason = "a newer connection has taken its place".to_owned();
                heard.refuse(&RefusedHello { code: codes::SUPERSEDED, reason });
            }
            (Judgement::Twin, _) => {
                tracing::warn!(peer = %peer.host(), "two nodes use this key: one is refused");
                let reason = "two nodes use this key".to_owned();
                heard.refuse(&RefusedHello { code: codes::TWIN, reason });
            }
        }
    }

    fn resume(&self, heard: Heard, link: &Arc<Link>) {
        // The rules may have changed since the session began. They are about those who dial this
        // node: a peer that it dialled is the one that the user named.
        if link.is_stranger || link.dialled.is_some() || self.is_known(&link.peer) {
            return heard.resume(link, self.instance);
        }
        heard.refuse(&not_authorized(&link.peer));
        link.end_with(
            SessionEnd::Lost("it is no longer authorized here".to_owned()),
            codes::NOT_ALLOWED,
        );
    }

    async fn begin(&self, heard: Heard) {
        let (peer, from) = (heard.greeted.peer, heard.greeted.conn.remote_address());
        let judged = match self.judge(peer, heard.hello.ticket.as_ref(), from) {
            Ok(judged) => judged,
            Err(refused) => return heard.refuse(&refused),
        };
        let Judged { place, enrolled, is_stranger } = judged;
        let begun = heard.begin(self.terms(place), enrolled, is_stranger).await;
        let link = match begun {
            Ok(link) => link,
            Err(error) => {
                tracing::debug!(%from, peer = %peer.host(), %error, "no session");
                return;
            }
        };
        self.keep(&link);
        tracing::debug!(%from, peer = %peer.host(), session = ?link.session_id, "session");
        if is_stranger {
            use_ticket_in_time(link).await;
        }
    }

    fn is_known(&self, peer: &PeerIdentity) -> bool {
        peer.host() == self.identity().host() || self.access.knows(peer)
    }

    fn judge(
        &self,
        peer: PeerIdentity,
        ticket: Option<&Secret>,
        from: std::net::SocketAddr,
    ) -> Result<Judged, RefusedHello> {
        let place = self.places.ask(peer.host()).ok_or_else(|| refused(Cause::Busy))?;
        if !self.options.accepts {
            return Err(refused(Cause::NotAllowed));
        }
        let is_known = self.is_known(&peer);
        let Some(secret) = ticket else {
            if is_known {
                return Ok(Judged { place, enrolled: None, is_stranger: false });
            }
            return Err(not_authorized(&peer));
        };
        if self.has_offer(secret) {
            return Ok(Judged { place, enrolled: None, is_stranger: !is_known });
        }
        match self.access.redeem(secret, &peer, from) {
            Ok(Some(enrolled)) => {
                Ok(Judged { place, enrolled: Some(enrolled), is_stranger: false })
            }
            Ok(None) => Err(refused(Cause::Ticket)),
            Err(cause) => Err(refused(cause)),
        }
    }
}

fn not_authorized(peer: &PeerIdentity) -> RefusedHello {
    let host = peer.host();
    let reason = format!("key {host} is not authorized here: ask for an invitation (qpipe invite)");
    RefusedHello { code: codes::NOT_ALLOWED, reason }
}

fn refused(cause: Cause) -> RefusedHello {
    let code = match cause {
        Cause::Busy => codes::BUSY,
        Cause::Ticket => codes::TICKET,
        _ => codes::NOT_ALLOWED,
    };
    RefusedHello { code, reason: cause.to_string() }
}
