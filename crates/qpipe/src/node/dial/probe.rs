//! Finding out that nobody is there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};

use tokio::net::UdpSocket;

use super::DialError;
#[cfg(test)]
use crate::simulated::{SimulatedProbe, is_simulated};

/// Resolves when the network says that nothing is at `address`.
pub(super) async fn probe(address: SocketAddr) -> DialError {
    let error = match Probe::new(address).and_then(|probe| probe.ask().map(|()| probe)) {
        Ok(probe) => probe.answer().await,
        Err(error) => error,
    };
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DialError::Refused { tried: vec![address] },
        _ => DialError::Unreachable { tried: vec![address], source: error.into() },
    }
}

/// A socket of its own that hears what the network says of one address.
///
/// ICMP errors reach only connected sockets, which QUIC's is not; so a datagram goes out from a
/// connected one. It is no QUIC packet (its fixed bit is 0), and nodes drop it unread.
pub(crate) struct Probe(Way);

enum Way {
    Kernel(UdpSocket),
    #[cfg(test)]
    Simulated(SimulatedProbe),
}

impl Probe {
    /// Inside of a tokio runtime.
    ///
    /// # Errors
    /// No descriptor is left, or there is no route to the address.
    pub(crate) fn new(address: SocketAddr) -> io::Result<Probe> {
        #[cfg(test)]
        if is_simulated(address) {
            return Ok(Probe(Way::Simulated(SimulatedProbe::new(address))));
        }
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = StdSocket::bind((any, 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(address)?;
        Ok(Probe(Way::Kernel(UdpSocket::from_std(socket)?)))
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// What the network said of an earlier one, or says at once.
    pub(crate) fn ask(&self) -> io::Result<()> {
        match &self.0 {
            // Not by way of tokio, which does not know yet that a fresh socket has room.
            Way::Kernel(socket) => match socket2::SockRef::from(socket).send(&[0]) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                _ => Ok(()),
            },
            #[cfg(test)]
            Way::Simulated(probe) => {
                probe.ask();
                Ok(())
            }
        }
    }

    /// Waits for what the network says of what was sent.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn answer(&self) -> io::Error {
        match &self.0 {
            Way::Kernel(socket) => loop {
                // Nobody answers it, so what arrives is of no interest.
                if let Err(error) = socket.recv(&mut [0; 1]).await {
                    return error;
                }
            },
            #[cfg(test)]
            Way::Simulated(probe) => probe.answer().await,
        }
    }
}
