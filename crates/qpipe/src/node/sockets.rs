//! The node's UDP sockets, and quinn's endpoints on them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::{Endpoint, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};

use super::{NodeOptions, accept};
use crate::identity::{Continuity, Identity};
use crate::link::transport;
use crate::tls::{self, TlsError};

/// What quinn's UDP sockets get for buffers, in bytes, as far as the kernel allows.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// The addresses to bind, and whether that must succeed.
pub(super) fn addresses(listen: &[SocketAddr]) -> Vec<(SocketAddr, bool)> {
    if listen.is_empty() {
        let (v4, v6) = (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
        return vec![(SocketAddr::from((v4, 0)), true), (SocketAddr::from((v6, 0)), false)];
    }
    listen.iter().map(|address| (*address, true)).collect()
}

pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // IPv4 has a socket of its own: quinn takes an IPv4 peer on an IPv6 socket for one whose
        // address changes wholly when only its port does.
        socket.set_only_v6(true)?;
    }
    // Best effort: the kernel caps them at rmem_max and wmem_max.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

pub(super) fn endpoint(
    continuity: &Continuity,
    socket: UdpSocket,
    server: quinn::ServerConfig,
) -> io::Result<Endpoint> {
    let config = transport::endpoint_config(continuity);
    Endpoint::new(config, Some(server), socket, Arc::new(TokioRuntime))
}

/// An endpoint on a socket that is none of the kernel's.
#[cfg(test)]
pub(super) fn endpoint_on(
    continuity: &Continuity,
    socket: Arc<dyn quinn::AsyncUdpSocket>,
    server: quinn::ServerConfig,
) -> io::Result<Endpoint> {
    let config = transport::endpoint_config(continuity);
    Endpoint::new_with_abstract_socket(config, Some(server), socket, Arc::new(TokioRuntime))
}

pub(super) fn server_config(
    identity: &Identity,
    options: &NodeOptions,
) -> Result<quinn::ServerConfig, TlsError> {
    let mut config = quinn::ServerConfig::with_crypto(tls::server_config(identity)?);
    config.transport_config(transport::config(true, &options.patience, options.memory));
    accept::bound_handshakes(&mut config);
    Ok(config)
}
