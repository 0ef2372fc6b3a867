//! How large a datagram the first link of a route carries.

use std::net::SocketAddr;

/// Where the route is not known: quinn's default, which most paths carry.
const DATAGRAM_BYTES_DEFAULT: u16 = 1452;

/// QUIC's own minimum (RFC 9000, section 14).
const DATAGRAM_BYTES_MIN: u16 = 1200;

/// Up to where the discovery of the path's MTU (RFC 8899) is to look, in bytes of UDP payload: what
/// the link to `remote` carries. 64 KiB on loopback, 8,972 with jumbo frames, 1,472 on most others.
pub(crate) fn datagram_bytes_max(remote: SocketAddr) -> u16 {
    #[cfg(test)]
    if crate::simulated::is_simulated(remote) {
        return DATAGRAM_BYTES_DEFAULT;
    }
    // Of IP without options or extensions, and UDP.
    let headers = if remote.is_ipv4() { 20 + 8 } else { 40 + 8 };
    let Some(mtu) = route_mtu(remote) else { return DATAGRAM_BYTES_DEFAULT };
    let bytes = mtu.saturating_sub(headers).clamp(DATAGRAM_BYTES_MIN.into(), BYTES_MAX);
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

const BYTES_MAX: u32 = super::batch::CALL_BYTES_MAX as u32;

/// What the kernel knows of the route: that of a connected socket, which sends nothing.
#[cfg(target_os = "linux")]
fn route_mtu(remote: SocketAddr) -> Option<u32> {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use rustix::net::sockopt;

    let any: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = std::net::UdpSocket::bind((any, 0)).ok()?;
    socket.connect(remote).ok()?;
    match remote {
        SocketAddr::V4(_) => sockopt::ip_mtu(&socket).ok(),
        SocketAddr::V6(_) => sockopt::ipv6_mtu(&socket).ok(),
    }
}

#[cfg(not(target_os = "linux"))]
fn route_mtu(_: SocketAddr) -> Option<u32> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn loopback_carries_64_kib_and_what_has_no_route_is_taken_for_the_internet() {
        assert!(datagram_bytes_max((Ipv4Addr::LOCALHOST, 9).into()) > 60_000);
        assert!(datagram_bytes_max((Ipv4Addr::LOCALHOST, 9).into()) <= 65_507);
        // Reserved (RFC 6666): discarded, if anything.
        let nowhere: SocketAddr = "[100::1]:9".parse().unwrap();
        assert!((1200..=9000).contains(&datagram_bytes_max(nowhere)));
    }
}
