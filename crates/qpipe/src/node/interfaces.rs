//! The addresses of this host, for tickets.

use std::io;
use std::net::{IpAddr, SocketAddr};

use qpipe_proto::limits::ADDRESSES_MAX;
use qpipe_proto::ticket::{Address, Host, TICKET_ADDRESSES_MAX, sort_by_reach};

/// Where a node bound to `bound` can be reached: a wildcard address stands for every address of
/// the host's interfaces of its family. Global addresses first, then private, then loopback; as
/// many as a ticket holds. Link-local IPv6 addresses are left out: they mean nothing without the
/// interface, which another host does not know.
///
/// # Errors
/// The host's interfaces cannot be listed.
pub fn interface_addresses(bound: &[SocketAddr]) -> io::Result<Vec<Address>> {
    let interfaces = if_addrs::get_if_addrs()?;
    let mut addresses: Vec<Address> = Vec::new();
    for socket in bound {
        let ips: Vec<IpAddr> = if socket.ip().is_unspecified() {
            let family = interfaces.iter().map(|i| i.ip());
            family.filter(|ip| ip.is_ipv4() == socket.is_ipv4() && !is_link_local(ip)).collect()
        } else {
            vec![socket.ip()]
        };
        for ip in ips {
            if let Ok(address) = Address::try_from(SocketAddr::new(ip, socket.port()))
                && !addresses.contains(&address)
            {
                addresses.push(address);
            }
        }
    }
    sort_by_reach(&mut addresses);
    addresses.truncate(TICKET_ADDRESSES_MAX);
    Ok(addresses)
}

/// As [`interface_addresses`], for a peer that dials this node anew.
pub(super) fn socket_addresses(bound: &[SocketAddr]) -> io::Result<Vec<SocketAddr>> {
    let addresses = interface_addresses(bound)?;
    let ips = addresses.iter().filter_map(|address| match address.host() {
        Host::Ip(ip) => Some(SocketAddr::new(*ip, address.port())),
        Host::Dns(_) => None,
    });
    Ok(ips.take(ADDRESSES_MAX).collect())
}

fn is_link_local(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}
