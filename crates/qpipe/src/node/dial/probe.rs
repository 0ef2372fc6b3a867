//! Finding out that nobody is there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::DialError;

/// Resolves when the network says that nothing is at `address`.
///
/// ICMP errors reach only connected sockets, which QUIC's is not; so one datagram goes out from a
/// connected one. It is no QUIC packet (its fixed bit is 0), and nodes drop it unread.
pub(super) async fn probe(address: SocketAddr) -> DialError {
    match probe_error(address).await {
        Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            DialError::Refused { tried: vec![address] }
        }
        Some(source) => DialError::Unreachable { tried: vec![address], source: source.into() },
        None => std::future::pending().await,
    }
}

/// What the network says of `address`, if it ever says something.
pub(crate) async fn probe_error(address: SocketAddr) -> Option<io::Error> {
    #[cfg(test)]
    if crate::simulated::is_simulated(address) {
        return crate::simulated::probe_error(address).await;
    }
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = tokio::net::UdpSocket::bind((any, 0)).await.ok()?;
    if let Err(error) = socket.connect(address).await {
        return Some(error);
    }
    if let Err(error) = socket.send(&[0]).await {
        return Some(error);
    }
    loop {
        let mut answer = [0; 1];
        match socket.recv(&mut answer).await {
            // Nobody answers it, so what arrives is of no interest.
            Ok(_) => {}
            Err(error) => return Some(error),
        }
    }
}
