//! Dialling a peer that is known: another connection for a session, or a word from a later run.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use qpipe_proto::Fingerprint;
use qpipe_proto::contact::Contact;

use super::race::Race;
use super::resolve::{distinct, resolve};
use super::{Core, Peer, fresh_session_id};
use crate::clock;
use crate::link::{FirstHello, GreetError, Link, codes, meaning, say_first_hello, say_hello_again};
use crate::session::SessionEnd;
use crate::tls::ExpectedHost;

/// How long another connection for a session is tried before the pause that backs off.
const REDIAL_DEADLINE: Duration = Duration::from_secs(8);

/// A connection that was heard a moment ago, before this host's network changed, is waited for so long
/// once another is there: a little longer than the keeper takes to look.
const GRACE: Duration = Duration::from_millis(60);

/// Addresses that are dialled for one session, at most: some of them are the peer's own words.
const WAYS_MAX: usize = 8;

/// Of the addresses that a peer tells of itself so many are dialled, by the first dials after a loss and
/// then by some of many.
const TOLD_MAX: usize = 3;
const TOLD_FIRST: u32 = 3;
const TOLD_EVERY: u32 = 24;

/// What is said of a peer that knows nothing of the session.
const FORGOTTEN: &str = "the other node had given it up";

/// Another connection for a session: the contact hears what came of it.
pub(in crate::node) async fn redial(core: &Arc<Core>, link: &Arc<Link>) {
    let failed = |link: &Arc<Link>| {
        let mut byte = [0];
        // Without random numbers all wait equally long.
        let _ = getrandom::fill(&mut byte);
        link.lock().contact.dial_failed(f64::from(byte[0]) / 255.0, clock::now());
        link.poke();
    };
    let addresses = ways(link).await;
    let deadline = REDIAL_DEADLINE.max(4 * link.rtt());
    let mut race = Race::start(core, ExpectedHost::Is(link.peer.host()), &addresses, deadline);
    let arrived = loop {
        match race.next().await {
            // Another process of that host may have its address by now.
            Ok(arrived) if arrived.greeted.peer != link.peer => {}
            Ok(arrived) => break arrived,
            Err(error) => {
                tracing::debug!(peer = %link.peer.host(), %error, "no other way to the peer");
                return failed(link);
            }
        }
    };
    if link.is_heard() {
        // What it takes to notice that the older connection goes on: the new one would begin slowly,
        // with bytes that are on their way on the older.
        tokio::time::sleep(GRACE).await;
    }
    let epoch = link.lock().contact.dialled(clock::now());
    let Some(epoch) = epoch else {
        arrived.greeted.conn.close(codes::DONE, b"");
        return link.poke();
    };
    let conn = arrived.greeted.conn;
    let hello = say_hello_again(link, conn.clone(), core.instance, epoch);
    match tokio::time::timeout(deadline, hello).await.unwrap_or(Err(GreetError::Silent)) {
        Ok(()) => {}
        Err(GreetError::Gone { is_restarted: true }) => {
            link.end_with(SessionEnd::Restarted, codes::GONE)
        }
        Err(GreetError::Gone { is_restarted: false }) => {
            link.end_with(SessionEnd::Lost(FORGOTTEN.to_owned()), codes::GONE);
        }
        Err(error) => {
            let end =
                if let GreetError::Connection(reason) = &error { meaning(reason) } else { None };
            if let Some(end) = end {
                return link.end_with(end, codes::GONE);
            }
            tracing::debug!(peer = %link.peer.host(), %error, "Hello was not answered");
            conn.close(codes::DONE, b"");
            failed(link);
        }
    }
}

/// Where the peer of a session may be: where it was, where its name leads now, where it says it is.
async fn ways(link: &Arc<Link>) -> Vec<SocketAddr> {
    let mut ways: Vec<SocketAddr> = link.remote_address().into_iter().collect();
    if let Some(way) = &link.way {
        ways.extend(resolve(&way.addresses).await.unwrap_or_default());
    }
    let told = link.lock().told_addresses.clone();
    let is_near = ways.first().is_some_and(|way| way.ip().is_loopback());
    // Its own words lead anywhere: few of them are followed, at first and then now and then.
    if link.counts_redial() % TOLD_EVERY < TOLD_FIRST {
        let told = told.into_iter().filter(|address| is_dialable(address, is_near));
        ways.extend(told.take(TOLD_MAX));
    }
    distinct(ways, WAYS_MAX)
}

/// Whether what a peer says of itself can be an address of it.
fn is_dialable(address: &SocketAddr, is_near: bool) -> bool {
    let ip = address.ip();
    let is_broadcast = matches!(ip, std::net::IpAddr::V4(ip) if ip.is_broadcast());
    let is_none = ip.is_unspecified() || ip.is_multicast() || is_broadcast || address.port() == 0;
    !is_none && (is_near || !ip.is_loopback())
}

/// Says Hello to a peer of an earlier run of this node: it learns from the instance that the sessions
/// with that run are over.
pub(in crate::node) async fn greet(core: &Arc<Core>, host: Fingerprint, address: SocketAddr) {
    let expected = ExpectedHost::Is(host);
    let mut race = Race::start(core, expected, &[address], REDIAL_DEADLINE);
    let Ok(arrived) = race.next().await else { return };
    let Ok(session_id) = fresh_session_id() else { return };
    let peer = Peer { name: String::new(), addresses: Vec::new(), expected };
    let first = FirstHello { session_id, epoch: Contact::FIRST_EPOCH, ticket: None, way: peer };
    let terms = core.terms(core.places.take(arrived.greeted.peer.host()));
    // Whether it lets this node in is of no interest.
    if let Ok(link) = say_first_hello(arrived.greeted, first, terms, &mut None).await {
        link.close(Duration::from_secs(1), false).await;
    }
}
