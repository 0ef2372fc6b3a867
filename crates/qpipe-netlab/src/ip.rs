//! Reading and rewriting addresses in raw IPv4 and IPv6 packets.

use std::ops::Range;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V6,
}

/// One of the two addresses of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

impl End {
    fn other(self) -> Self {
        match self {
            Self::Source => Self::Destination,
            Self::Destination => Self::Source,
        }
    }
}

/// The version of a packet whose header is complete.
pub(crate) fn version(packet: &[u8]) -> Option<Version> {
    match packet.first()? >> 4 {
        4 if packet.len() >= 20 => Some(Version::V4),
        6 if packet.len() >= 40 => Some(Version::V6),
        _ => None,
    }
}

fn address_range(version: Version, end: End) -> Range<usize> {
    match (version, end) {
        (Version::V4, End::Source) => 12..16,
        (Version::V4, End::Destination) => 16..20,
        (Version::V6, End::Source) => 8..24,
        (Version::V6, End::Destination) => 24..40,
    }
}

/// The octets of one address of a packet (4 or 16 of them).
pub(crate) fn address(packet: &[u8], end: End) -> Option<&[u8]> {
    Some(&packet[address_range(version(packet)?, end)])
}

/// Replaces one address by another of the same version, as a NAT does: the
/// checksums of the header and of TCP, UDP and ICMPv6 are updated (incrementally,
/// so that a wrong checksum stays wrong), and if the packet is an ICMP error about
/// a packet that had this address, the quotation is translated as well.
pub(crate) fn replace_address(packet: &mut [u8], end: End, new: &[u8]) {
    let Some(version) = version(packet) else { return };
    let range = address_range(version, end);
    let mut delta = Delta::default();
    let old = replace(&mut packet[range], new, &mut delta);
    if version == Version::V4 {
        delta.apply(packet, 10);
    }
    let Some((protocol, offset)) = transport(packet, version) else { return };
    match protocol {
        TCP => delta.apply(packet, offset + 16),
        UDP => delta.apply_to_udp(packet, offset + 6),
        ICMP if version == Version::V4 && is_icmp_error(packet, offset) => {
            // The header checksum of the quotation makes up for the new address,
            // so the checksum of the ICMP message stays right.
            translate_quotation(&mut packet[offset + 8..], end.other(), &old, new);
        }
        ICMPV6 => {
            if packet.len() >= offset + 8 && packet[offset] < 128 {
                let quotation = &mut packet[offset + 8..];
                delta.add(translate_quotation(quotation, end.other(), &old, new));
            }
            delta.apply(packet, offset + 2);
        }
        _ => {}
    }
}

fn is_icmp_error(packet: &[u8], offset: usize) -> bool {
    packet.len() >= offset + 8 && matches!(packet[offset], 3 | 4 | 5 | 11 | 12)
}

/// Translates the header that an ICMP error quotes, if it had the `old` address.
/// Returns by how much that changes the checksum of what is around it.
fn translate_quotation(quotation: &mut [u8], end: End, old: &[u8], new: &[u8]) -> Delta {
    let mut delta = Delta::default();
    let Some(version) = version(quotation) else { return delta };
    let range = address_range(version, end);
    if quotation[range.clone()] == *old {
        replace(&mut quotation[range], new, &mut delta);
        if version == Version::V4 {
            delta.apply(quotation, 10);
            return Delta::default();
        }
    }
    delta
}

/// Overwrites `place`, notes the change in `delta`, and returns the old contents.
fn replace(place: &mut [u8], new: &[u8], delta: &mut Delta) -> Vec<u8> {
    let old = place.to_vec();
    place.copy_from_slice(new);
    delta.note(&old, new);
    old
}

/// The protocol of the payload and its offset, unless it is a later fragment.
fn transport(packet: &[u8], version: Version) -> Option<(u8, usize)> {
    match version {
        Version::V4 => {
            let fragment_offset = u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff;
            (fragment_offset == 0).then(|| (packet[9], (packet[0] & 15) as usize * 4))
        }
        Version::V6 => {
            let (mut protocol, mut offset) = (packet[6], 40);
            loop {
                let header = packet.get(offset..offset + 8)?;
                match protocol {
                    0 | 43 | 60 => offset += 8 + header[1] as usize * 8,
                    44 if u16::from_be_bytes([header[2], header[3]]) & !7 == 0 => offset += 8,
                    44 => return None,
                    _ => return Some((protocol, offset)),
                }
                protocol = header[0];
            }
        }
    }
}

/// A change of a ones' complement sum (RFC 1624).
#[derive(Clone, Copy, Default)]
struct Delta(u32);

impl Delta {
    fn note(&mut self, old: &[u8], new: &[u8]) {
        for (old, new) in old.chunks_exact(2).zip(new.chunks_exact(2)) {
            self.0 += !u16::from_be_bytes([old[0], old[1]]) as u32;
            self.0 += u16::from_be_bytes([new[0], new[1]]) as u32;
        }
    }

    fn add(&mut self, other: Delta) {
        self.0 += other.0;
    }

    fn updated(self, checksum: u16) -> u16 {
        let mut sum = !checksum as u32 + self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    fn apply(self, packet: &mut [u8], offset: usize) {
        if let Some(field) = packet.get_mut(offset..offset + 2) {
            let checksum = u16::from_be_bytes([field[0], field[1]]);
            field.copy_from_slice(&self.updated(checksum).to_be_bytes());
        }
    }

    /// In UDP, zero means that there is no checksum.
    fn apply_to_udp(self, packet: &mut [u8], offset: usize) {
        if let Some(field) = packet.get_mut(offset..offset + 2) {
            let checksum = u16::from_be_bytes([field[0], field[1]]);
            if checksum != 0 {
                let checksum = match self.updated(checksum) {
                    0 => 0xffff,
                    other => other,
                };
                field.copy_from_slice(&checksum.to_be_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests;
