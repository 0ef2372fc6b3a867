//! Which datagrams go to the kernel in one call.
//!
//! quinn makes batches of ten datagrams of one size at most, however small or large. The kernel cuts
//! what it is given in one call into datagrams (UDP_SEGMENT, udp(7)): up to 64 of them, and no more
//! bytes than fit an IP packet. So large batches are cut, and small ones are gathered.

use std::net::{IpAddr, SocketAddr};

use quinn::udp::{EcnCodepoint, Transmit};

/// The most bytes of one call: what an IPv4 packet of 65,535 bytes leaves beside its headers.
pub(super) const CALL_BYTES_MAX: usize = 65_507;

/// A batch of so many datagrams is a full one of quinn's (its MAX_TRANSMIT_SEGMENTS): more may follow.
const FULL_SEGMENTS: usize = 10;

/// What waits to be handed to the kernel: datagrams of one size to one address.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// What of it the kernel has.
    sent: usize,
    to: Option<Heading>,
    /// How often it was added to.
    pub(super) additions: u64,
}

/// What the datagrams of one call have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Heading {
    destination: SocketAddr,
    ecn: Option<EcnCodepoint>,
    src_ip: Option<IpAddr>,
    segment: usize,
}

impl Heading {
    fn of(transmit: &Transmit<'_>) -> Heading {
        Heading {
            destination: transmit.destination,
            ecn: transmit.ecn,
            src_ip: transmit.src_ip,
            segment: transmit.segment_size.unwrap_or(transmit.contents.len()),
        }
    }
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.to.is_none()
    }

    /// Adds a transmit of quinn's, if it can go in one call with what waits.
    pub(super) fn add(&mut self, transmit: &Transmit<'_>, segments_max: usize) -> bool {
        let heading = Heading::of(transmit);
        let bytes = self.bytes.len() + transmit.contents.len();
        let fits = self.to.is_none_or(|to| {
            // All but the last datagram of a call have the same size.
            let is_whole = self.bytes.len().is_multiple_of(to.segment);
            to == heading && is_whole && bytes <= call_bytes_max(to.segment, segments_max)
        });
        if fits {
            self.keep(transmit, 0);
        }
        fits
    }

    /// Keeps what the kernel had no room for, from the byte `sent` on.
    pub(super) fn keep(&mut self, transmit: &Transmit<'_>, sent: usize) {
        self.to = Some(Heading::of(transmit));
        self.bytes.extend_from_slice(&transmit.contents[sent..]);
        self.additions += 1;
    }

    /// Whether another full batch of quinn's would fit.
    pub(super) fn has_room(&self, segments_max: usize) -> bool {
        let segment = self.to.map_or(0, |to| to.segment);
        self.bytes.len() + FULL_SEGMENTS * segment <= call_bytes_max(segment, segments_max)
    }

    /// What waits, as a transmit.
    pub(super) fn waiting(&self) -> Option<Transmit<'_>> {
        let to = self.to?;
        Some(Transmit {
            destination: to.destination,
            ecn: to.ecn,
            contents: &self.bytes[self.sent..],
            segment_size: Some(to.segment),
            src_ip: to.src_ip,
        })
    }

    /// The kernel has taken `bytes` more of what waits.
    pub(super) fn took(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent >= self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
            self.to = None;
        }
    }
}

/// Whether it is worth waiting for what quinn sends next: it may go in one call with this.
pub(super) fn is_full(transmit: &Transmit<'_>, segments_max: usize) -> bool {
    transmit.segment_size.is_some_and(|segment| {
        let bytes = transmit.contents.len();
        bytes == FULL_SEGMENTS * segment && 2 * bytes <= call_bytes_max(segment, segments_max)
    })
}

/// The parts of a transmit that the kernel takes in one call each.
pub(super) fn parts<'a>(
    transmit: &'a Transmit<'a>,
    segments_max: usize,
) -> impl Iterator<Item = Transmit<'a>> {
    let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
    transmit.contents.chunks(call_bytes_max(segment, segments_max)).map(move |contents| Transmit {
        destination: transmit.destination,
        ecn: transmit.ecn,
        contents,
        segment_size: Some(segment).filter(|segment| *segment < contents.len()),
        src_ip: transmit.src_ip,
    })
}

/// Whole datagrams, at least one.
fn call_bytes_max(segment: usize, segments_max: usize) -> usize {
    let segment = segment.max(1);
    (CALL_BYTES_MAX / segment).clamp(1, segments_max.max(1)) * segment
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn transmit(contents: &[u8], segment: Option<usize>, port: u16) -> Transmit<'_> {
        Transmit {
            destination: (Ipv4Addr::LOCALHOST, port).into(),
            ecn: None,
            contents,
            segment_size: segment,
            src_ip: None,
        }
    }

    fn lengths(bytes: usize, segment: usize, segments_max: usize) -> Vec<(usize, Option<usize>)> {
        let contents = vec![7; bytes];
        let transmit = transmit(&contents, Some(segment), 1);
        let parts = parts(&transmit, segments_max);
        parts.map(|part| (part.contents.len(), part.segment_size)).collect()
    }

    #[test]
    fn a_batch_beyond_an_ip_packet_is_cut_between_datagrams() {
        assert_eq!(lengths(10 * 1472, 1472, 64), [(14_720, Some(1472))]);
        let large = lengths(10 * 8972 - 5, 8972, 64);
        assert_eq!(large, [(7 * 8972, Some(8972)), (3 * 8972 - 5, Some(8972))]);
        assert_eq!(
            lengths(2 * 65_507 + 1, 65_507, 64),
            [(65_507, None), (65_507, None), (1, None)]
        );
    }

    #[test]
    fn without_offload_each_datagram_goes_alone() {
        assert_eq!(lengths(2500, 1200, 1), [(1200, None), (1200, None), (100, None)]);
    }

    #[test]
    fn batches_of_one_size_to_one_address_are_gathered_up_to_an_ip_packet() {
        let ten = vec![7; 10 * 1472];
        let full = transmit(&ten, Some(1472), 1);
        assert!(is_full(&full, 64));
        let mut batch = Batch::default();
        for _ in 0..4 {
            assert!(batch.has_room(64) && batch.add(&full, 64));
        }
        assert!(!batch.has_room(64) && !batch.add(&full, 64));
        assert_eq!(batch.waiting().unwrap().contents.len(), 4 * ten.len());
        batch.took(4 * ten.len());
        assert!(batch.is_empty());
    }

    #[test]
    fn what_differs_or_follows_a_short_datagram_is_not_added() {
        let mut batch = Batch::default();
        assert!(batch.add(&transmit(&[1; 2000], Some(1000), 1), 64));
        assert!(!batch.add(&transmit(&[1; 2000], Some(1000), 2), 64));
        assert!(!batch.add(&transmit(&[1; 2000], Some(500), 1), 64));
        assert!(batch.add(&transmit(&[1; 1500], Some(1000), 1), 64));
        assert!(!batch.add(&transmit(&[1; 2000], Some(1000), 1), 64));
    }

    #[test]
    fn large_datagrams_and_single_ones_are_not_waited_for() {
        let large = vec![7; 10 * 8972];
        assert!(!is_full(&transmit(&large, Some(8972), 1), 64));
        assert!(!is_full(&transmit(&large[..1472], None, 1), 64));
        assert!(!is_full(&transmit(&large[..14_720], Some(1472), 1), 1));
    }
}
