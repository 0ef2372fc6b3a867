//! Hearing that this host's addresses or routes changed.

#[cfg(target_os = "linux")]
pub(super) use linux::Changes;

#[cfg(not(target_os = "linux"))]
pub(super) use elsewhere::Changes;

use std::time::Duration;

/// Changes come in bursts: what follows the first within this time is the same change.
pub(super) const SETTLE: Duration = Duration::from_millis(30);

/// What changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// An address is gone: sockets may have lost their way.
    pub(super) lost_address: bool,
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;

    use rustix::net::netlink::SocketAddrNetlink;
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    use tokio::net::UdpSocket;

    use super::Change;

    /// rtnetlink(7): the groups that tell of addresses and of routes.
    const GROUPS: u32 = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE;
    const RTMGRP_IPV4_IFADDR: u32 = 0x10;
    const RTMGRP_IPV4_ROUTE: u32 = 0x40;
    const RTMGRP_IPV6_IFADDR: u32 = 0x100;

    /// The kernel's messages of one read, in bytes. What does not fit is told by an error, which is a
    /// change as well.
    const MESSAGES_BYTES: usize = 16 * 1024;

    /// struct nlmsghdr: length (4 bytes), type (2), flags (2), sequence (4), port (4).
    const HEADER_BYTES: usize = 16;
    const RTM_DELADDR: u16 = 21;

    /// The kernel's messages about changes of the network. tokio has no netlink sockets; of any socket
    /// of datagrams its UDP socket asks no more than recv(2) and readiness.
    pub(in super::super) struct Changes(UdpSocket);

    impl Changes {
        /// Begins to listen, inside of a tokio runtime.
        ///
        /// # Errors
        /// The kernel does not let this process.
        pub(in super::super) fn listen() -> io::Result<Changes> {
            let socket = rustix::net::socket_with(
                AddressFamily::NETLINK,
                SocketType::RAW,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                // NETLINK_ROUTE is protocol 0.
                None,
            )?;
            rustix::net::bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
            Ok(Changes(UdpSocket::from_std(socket.into())?))
        }

        /// The next change.
        ///
        /// # Errors
        /// Listening failed for good.
        pub(in super::super) async fn next(&mut self) -> io::Result<Change> {
            let mut messages = [0; MESSAGES_BYTES];
            match self.0.recv(&mut messages).await {
                Ok(length) => Ok(change(&messages[..length])),
                // More than the socket could hold.
                Err(error) if error.raw_os_error() == Some(OVERRUN) => {
                    Ok(Change { lost_address: true })
                }
                Err(error) => Err(error),
            }
        }
    }

    const OVERRUN: i32 = rustix::io::Errno::NOBUFS.raw_os_error();

    fn change(mut messages: &[u8]) -> Change {
        let mut change = Change::default();
        while let Some((header, _)) = messages.split_at_checked(HEADER_BYTES) {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            change.lost_address |= u16::from_ne_bytes([header[4], header[5]]) == RTM_DELADDR;
            // Messages are aligned to four bytes (netlink(7)).
            let next = length.next_multiple_of(4).max(HEADER_BYTES);
            messages = messages.get(next..).unwrap_or_default();
        }
        change
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn message(kind: u16, length: u32, body: usize) -> Vec<u8> {
            let mut out = length.to_ne_bytes().to_vec();
            out.extend(kind.to_ne_bytes());
            out.resize(HEADER_BYTES + body, 0);
            out
        }

        #[test]
        fn a_lost_address_is_found_among_other_messages_and_garbage_is_survived() {
            let mut messages = message(20, 21, 8);
            messages.extend(message(RTM_DELADDR, 16, 0));
            assert_eq!(change(&messages), Change { lost_address: true });
            assert_eq!(change(&message(20, 16, 0)), Change::default());
            for length in [0, 1, 15, u32::MAX - 4] {
                assert_eq!(change(&message(20, length, 9)), Change::default());
            }
            assert_eq!(change(&[1; 15]), Change::default());
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::io;

    use super::Change;

    /// Nothing is heard of changes here: silence is what shows them.
    pub(in super::super) struct Changes;

    impl Changes {
        pub(in super::super) fn listen() -> io::Result<Changes> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(in super::super) async fn next(&mut self) -> io::Result<Change> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }
}
