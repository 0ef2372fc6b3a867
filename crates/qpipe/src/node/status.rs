//! What a node tells of its sessions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::identity::PeerIdentity;
use crate::link::Link;

/// A session, as of the moment when it was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionStatus {
    /// Who the peer is.
    pub peer: PeerIdentity,
    /// What this side called the peer when it dialled it.
    pub name: Option<String>,
    /// Where the peer is, or was when there last was a connection.
    pub address: Option<SocketAddr>,
    /// Whether this side began the session.
    pub is_dialler: bool,
    /// How long ago the session began.
    pub age: Duration,
    /// How often another connection took over.
    pub resumed: u32,
    /// How long ago the peer was heard.
    pub silent: Duration,
    /// Pipes that are not settled.
    pub pipes: usize,
    /// The connection, if there is one.
    pub connection: Option<ConnectionStatus>,
}

/// The connection of a session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConnectionStatus {
    /// The smoothed round trip (RFC 9002, section 5).
    pub rtt: Duration,
    /// The congestion window, in bytes.
    pub congestion_window: u64,
    /// The largest UDP payload that the path carries, in bytes.
    pub mtu: u16,
    /// Packets sent.
    pub sent_packets: u64,
    /// Of those, packets that were declared lost.
    pub lost_packets: u64,
    /// Bytes of UDP payload sent.
    pub sent_bytes: u64,
    /// Bytes of UDP payload received.
    pub received_bytes: u64,
}

pub(super) fn of(link: &Arc<Link>) -> SessionStatus {
    let now = clock::now();
    let state = link.lock();
    let connection = state.wire.as_ref().map(|wire| {
        let stats = wire.conn.stats();
        ConnectionStatus {
            rtt: wire.conn.rtt(),
            congestion_window: stats.path.cwnd,
            mtu: stats.path.current_mtu,
            sent_packets: stats.path.sent_packets,
            lost_packets: stats.path.lost_packets,
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
        }
    });
    let name = link.way.as_ref().map(|way| way.name.clone()).filter(|name| !name.is_empty());
    SessionStatus {
        peer: link.peer,
        name,
        address: state.wire.as_ref().map(|wire| wire.conn.remote_address()).or(state.last_remote),
        is_dialler: link.dialled.is_some(),
        age: now.saturating_duration_since(link.since),
        resumed: state.resumed,
        silent: now.saturating_duration_since(state.contact.last_heard()),
        pipes: state.session.unsettled(),
        connection,
    }
}
