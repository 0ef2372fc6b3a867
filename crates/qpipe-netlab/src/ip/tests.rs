use super::*;

fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]) as u32;
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

const A4: [u8; 4] = [10, 77, 0, 1];
const B4: [u8; 4] = [10, 77, 0, 2];
const NEW4: [u8; 4] = [10, 77, 0, 101];
const A6: [u8; 16] = [0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const B6: [u8; 16] = [0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const NEW6: [u8; 16] = [0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];

fn v4(protocol: u8, source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet.extend(source);
    packet.extend(destination);
    let checksum = !sum(&[&packet]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn v6(protocol: u8, source: [u8; 16], destination: [u8; 16], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, protocol, 64];
    packet.extend(source);
    packet.extend(destination);
    packet.extend(payload);
    packet
}

/// The payload with its checksum at `at` filled in.
fn sealed(protocol: u8, addresses: &[&[u8]], mut payload: Vec<u8>, at: usize) -> Vec<u8> {
    let pseudo = [0, protocol, 0, payload.len() as u8];
    let mut parts = vec![&pseudo[..], &payload];
    parts.extend(addresses);
    let checksum = !sum(&parts);
    payload[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    payload
}

fn transport_is_valid(packet: &[u8], header: usize, protocol: u8) -> bool {
    let (addresses, payload) = match header {
        20 => (&packet[12..20], &packet[20..]),
        _ => (&packet[8..40], &packet[40..]),
    };
    sum(&[addresses, &[0, protocol, 0, payload.len() as u8], payload]) == 0xffff
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 37 + 11) as u8).collect()
}

#[test]
fn addresses_are_found() {
    let packet = v4(UDP, A4, B4, &payload(12));
    assert_eq!(address(&packet, End::Source), Some(&A4[..]));
    assert_eq!(address(&packet, End::Destination), Some(&B4[..]));
    let packet = v6(UDP, A6, B6, &payload(12));
    assert_eq!(address(&packet, End::Source), Some(&A6[..]));
    assert_eq!(address(&packet[..39], End::Source), None);
    assert_eq!(address(&[], End::Source), None);
}

#[test]
fn checksums_stay_right() {
    for (protocol, at) in [(TCP, 16), (UDP, 6)] {
        for end in [End::Source, End::Destination] {
            for len in 24..60 {
                let mut body = payload(len);
                body[at..at + 2].fill(0);
                let sealed4 = sealed(protocol, &[&A4, &B4], body.clone(), at);
                let mut packet = v4(protocol, A4, B4, &sealed4);
                replace_address(&mut packet, end, &NEW4);
                assert_eq!(address(&packet, end), Some(&NEW4[..]));
                assert_eq!(sum(&[&packet[..20]]), 0xffff);
                assert!(transport_is_valid(&packet, 20, protocol));

                let sealed6 = sealed(protocol, &[&A6, &B6], body, at);
                let mut packet = v6(protocol, A6, B6, &sealed6);
                replace_address(&mut packet, end, &NEW6);
                assert!(transport_is_valid(&packet, 40, protocol));
            }
        }
    }
}

#[test]
fn wrong_checksums_stay_wrong() {
    let mut body = payload(40);
    body[16..18].fill(0);
    let mut body = sealed(TCP, &[&A4, &B4], body, 16);
    body[30] ^= 4;
    let mut packet = v4(TCP, A4, B4, &body);
    replace_address(&mut packet, End::Source, &NEW4);
    assert!(!transport_is_valid(&packet, 20, TCP));
}

#[test]
fn absent_udp_checksums_stay_absent() {
    let mut body = payload(20);
    body[6..8].fill(0);
    let mut packet = v4(UDP, A4, B4, &body);
    replace_address(&mut packet, End::Source, &NEW4);
    assert_eq!(packet[26..28], [0, 0]);
}

#[test]
fn later_fragments_are_left_alone() {
    let body = payload(40);
    let mut packet = v4(TCP, A4, B4, &body);
    packet[7] = 5;
    replace_address(&mut packet, End::Source, &NEW4);
    assert_eq!(packet[20..], body);
}

#[test]
fn icmp_errors_are_translated_inside_too() {
    // B refuses a datagram that it got from NEW; A must see its own address in it.
    let quoted = v4(UDP, NEW4, B4, &payload(8));
    let mut body = vec![3, 3, 0, 0, 0, 0, 0, 0];
    body.extend(&quoted);
    let checksum = !sum(&[&body]);
    body[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut packet = v4(ICMP, B4, NEW4, &body);
    replace_address(&mut packet, End::Destination, &A4);
    assert_eq!(sum(&[&packet[..20]]), 0xffff);
    assert_eq!(sum(&[&packet[20..]]), 0xffff);
    assert_eq!(sum(&[&packet[28..48]]), 0xffff);
    assert_eq!(address(&packet[28..], End::Source), Some(&A4[..]));

    let quoted = v6(UDP, NEW6, B6, &payload(8));
    let mut body = vec![1, 4, 0, 0, 0, 0, 0, 0];
    body.extend(&quoted);
    let body = sealed(ICMPV6, &[&B6, &NEW6], body, 2);
    let mut packet = v6(ICMPV6, B6, NEW6, &body);
    replace_address(&mut packet, End::Destination, &A6);
    assert!(transport_is_valid(&packet, 40, ICMPV6));
    assert_eq!(address(&packet[48..], End::Source), Some(&A6[..]));
}

#[test]
fn pings_are_translated() {
    let body = payload(16);
    let mut packet = v4(ICMP, A4, B4, &body);
    replace_address(&mut packet, End::Source, &NEW4);
    assert_eq!(packet[20..], body);

    let mut body = payload(16);
    (body[0], body[2], body[3]) = (128, 0, 0);
    let mut packet = v6(ICMPV6, A6, B6, &sealed(ICMPV6, &[&A6, &B6], body, 2));
    replace_address(&mut packet, End::Source, &NEW6);
    assert!(transport_is_valid(&packet, 40, ICMPV6));
}

#[test]
fn truncated_packets_do_no_harm() {
    let packet = v6(0, A6, B6, &payload(60));
    for len in 0..packet.len() {
        replace_address(&mut packet[..len].to_vec(), End::Source, &NEW6);
    }
    for protocol in [ICMP, TCP, UDP] {
        let mut body = payload(60);
        body[0] = 3;
        let packet = v4(protocol, A4, B4, &body);
        for len in 0..packet.len() {
            replace_address(&mut packet[..len].to_vec(), End::Source, &NEW4);
        }
    }
}
