//! The kernel's buffers of a UDP socket.

use std::fmt;
use std::sync::OnceLock;

use socket2::Socket;

/// What a socket is to have for either direction, in bytes: more than arrives while the process waits
/// for a processor, at 10 Gbit/s for 3 ms.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// The kernel reports twice what was asked for: it counts its own overhead (socket(7)).
const REPORTED: usize = if cfg!(target_os = "linux") { 2 } else { 1 };

/// So many of the largest datagrams that are accepted fit what the receive buffer is reported to hold,
/// of which they take up to half as much again as they have bytes.
const DATAGRAMS_HELD: usize = 32;

/// Enlarges the buffers as far as the kernel allows; returns what it says the receive buffer holds.
/// Logs once for a process what would allow more.
pub(super) fn enlarge(socket: &Socket) -> usize {
    // The limits do not bind those who may administer the network.
    #[cfg(target_os = "linux")]
    let forced = {
        use rustix::net::sockopt;
        sockopt::set_socket_recv_buffer_size_force(socket, BUFFER_BYTES)
            .and_then(|()| sockopt::set_socket_send_buffer_size_force(socket, BUFFER_BYTES))
    };
    #[cfg(not(target_os = "linux"))]
    let forced: Result<(), ()> = Err(());
    if forced.is_err() {
        // What it comes to is looked at below.
        let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(BUFFER_BYTES);
    }
    let receives = socket.recv_buffer_size().unwrap_or(0);
    let least = receives.min(socket.send_buffer_size().unwrap_or(0)) / REPORTED;
    if least < BUFFER_BYTES {
        CAPPED.get_or_init(|| {
            let capped = CappedBuffers { bytes: least };
            tracing::warn!("{capped}");
            capped
        });
    }
    receives
}

/// The first socket of this process whose buffers were capped.
static CAPPED: OnceLock<CappedBuffers> = OnceLock::new();

/// What [`enlarge`] met in this process.
pub(crate) fn capped() -> Option<CappedBuffers> {
    CAPPED.get().copied()
}

/// The kernel gave UDP sockets smaller buffers than were asked for. Its text says what allows more.
#[derive(Clone, Copy, Debug)]
pub struct CappedBuffers {
    bytes: usize,
}

impl CappedBuffers {
    /// What the smaller of the two holds, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl fmt::Display for CappedBuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = if cfg!(target_os = "linux") {
            "sysctl -w net.core.rmem_max=4194304 net.core.wmem_max=4194304"
        } else {
            "sysctl -w kern.ipc.maxsockbuf=8388608"
        };
        write!(
            f,
            "the kernel gives UDP sockets buffers of {} KiB, of {} that were asked for: fast \
             transfers may lose datagrams; `{remedy}` allows more",
            self.bytes / 1024,
            BUFFER_BYTES / 1024
        )
    }
}

/// The largest datagram that a socket should accept whose receive buffer holds so much, in bytes: a
/// burst of them must fit.
pub(super) fn datagram_bytes_max(receives: usize) -> u16 {
    let fits = (receives / DATAGRAMS_HELD).clamp(DATAGRAM_BYTES_MIN.into(), DATAGRAM_BYTES_MAX);
    u16::try_from(fits).unwrap_or(u16::MAX)
}

/// quinn's default: what an Ethernet without jumbo frames carries.
const DATAGRAM_BYTES_MIN: u16 = 1472;

/// What UDP over IPv6 carries at most: no socket gives more at once, offload or not.
pub(super) const DATAGRAM_BYTES_MAX: usize = 65_527;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_small_buffers_is_told_what_allows_more() {
        let text = CappedBuffers { bytes: 212_992 }.to_string();

        assert!(text.contains("208 KiB, of 4096") && text.contains("sysctl -w "), "{text}");
    }

    #[test]
    fn a_small_buffer_accepts_no_datagrams_of_which_few_fit() {
        assert_eq!(datagram_bytes_max(8 * 1024 * 1024), 65_527);
        assert_eq!(datagram_bytes_max(425_984), 13_312);
        assert_eq!(datagram_bytes_max(0), 1472);
    }
}
