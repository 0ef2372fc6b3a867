//! How a program of this host reaches the host's own serving node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use qpipe::tls::ExpectedHost;
use qpipe::{Address, Fingerprint, Peer};

use crate::home::Home;
use crate::lock::running_serve;

/// The host's own serving node, over loopback where it listens on all addresses; `None` if none
/// runs.
pub fn local_peer(home: &Home, host: Fingerprint) -> Option<Peer> {
    let info = running_serve(home)?;
    let addresses: Vec<Address> = info
        .addresses
        .iter()
        .filter_map(|bound| Address::try_from(reachable(*bound)).ok())
        .collect();
    if addresses.is_empty() {
        return None;
    }
    Some(Peer { name: "this host".to_owned(), addresses, expected: ExpectedHost::Is(host) })
}

fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}
