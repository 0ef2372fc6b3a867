//! Socket addresses on the wire.

use std::net::{IpAddr, SocketAddr};

use super::{MalformedMessage, pb};

/// An address as a message.
pub(super) fn address_to_pb(address: &SocketAddr) -> pb::SocketAddress {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    pb::SocketAddress { ip, port: address.port().into() }
}

/// An address from a message.
pub(super) fn address_from_pb(address: pb::SocketAddress) -> Result<SocketAddr, MalformedMessage> {
    let malformed = MalformedMessage("an address that is none");
    let ip = match address.ip[..].try_into().map(|bytes: [u8; 4]| IpAddr::from(bytes)) {
        Ok(ip) => ip,
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(&address.ip[..]).map_err(|_| malformed)?),
    };
    let port = u16::try_from(address.port).map_err(|_| malformed)?;
    Ok(SocketAddr::new(ip, port))
}
