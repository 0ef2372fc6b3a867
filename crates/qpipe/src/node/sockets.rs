//! The node's UDP sockets, and quinn's endpoints on them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig, TokioRuntime};
use tokio::sync::Notify;

use super::socket::{Socket, route_bytes_max};
use super::{NodeOptions, accept};
use crate::identity::{Continuity, Identity};
use crate::link::transport;
use crate::tls::{self, TlsError};

/// The addresses to bind, and whether that must succeed.
pub(super) fn addresses(listen: &[SocketAddr]) -> Vec<(SocketAddr, bool)> {
    if listen.is_empty() {
        let (v4, v6) = (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
        return vec![(SocketAddr::from((v4, 0)), true), (SocketAddr::from((v6, 0)), false)];
    }
    listen.iter().map(|address| (*address, true)).collect()
}

/// An endpoint on a socket of the kernel. `broken` is told when it should get another one.
pub(super) fn endpoint(
    continuity: &Continuity,
    address: SocketAddr,
    server: quinn::ServerConfig,
    broken: Arc<Notify>,
) -> io::Result<Endpoint> {
    let socket = Socket::bind(address, broken)?;
    let mut config = transport::endpoint_config(continuity);
    config.max_udp_payload_size(socket.datagram_bytes_max()).map_err(io::Error::other)?;
    endpoint_with(config, server, socket)
}

/// Gives an endpoint a fresh socket, at a port of the kernel's choice.
pub(super) fn rebind(endpoint: &Endpoint, broken: Arc<Notify>) -> io::Result<()> {
    let local = endpoint.local_addr()?;
    endpoint.rebind_abstract(Socket::bind(SocketAddr::new(local.ip(), 0), broken)?)
}

/// An endpoint on a socket that is none of the kernel's.
#[cfg(test)]
pub(super) fn endpoint_on(
    continuity: &Continuity,
    socket: Arc<dyn AsyncUdpSocket>,
    server: quinn::ServerConfig,
) -> io::Result<Endpoint> {
    endpoint_with(transport::endpoint_config(continuity), server, socket)
}

fn endpoint_with(
    config: EndpointConfig,
    server: quinn::ServerConfig,
    socket: Arc<dyn AsyncUdpSocket>,
) -> io::Result<Endpoint> {
    Endpoint::new_with_abstract_socket(config, Some(server), socket, Arc::new(TokioRuntime))
}

/// What connections are accepted with, but for what depends on where they come from.
pub(super) fn server_config(identity: &Identity) -> Result<quinn::ServerConfig, TlsError> {
    let mut config = quinn::ServerConfig::with_crypto(tls::server_config(identity)?);
    accept::bound_handshakes(&mut config);
    Ok(config)
}

/// How the connection to a peer is to be set up, by the side that dials or the other one.
pub(super) fn transport(
    is_server: bool,
    options: &NodeOptions,
    remote: SocketAddr,
) -> Arc<quinn::TransportConfig> {
    let datagram_bytes_max = route_bytes_max(remote);
    transport::config(is_server, &options.patience, options.memory, datagram_bytes_max)
}
