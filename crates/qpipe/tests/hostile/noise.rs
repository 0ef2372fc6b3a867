//! Datagrams that are no QUIC, or not this QUIC.

use crate::peer::datagrams;
use crate::raw::Dice;
use crate::rig::{Rig, bounded};

/// The least size of a datagram that a QUIC server answers, in bytes (RFC 9000, section 14.1).
const INITIAL_BYTES: usize = 1_200;

#[tokio::test]
async fn random_bytes_to_the_port() {
    let mut rig = Rig::new().await;
    let socket = datagrams(&rig);
    let mut dice = Dice::new(1);
    for round in 0..2_000 {
        let length = dice.below(1_473);
        let _ = socket.send(&dice.bytes(length));
        if round % 500 == 0 {
            rig.beat().await;
        }
    }
    rig.welcomes().await;
    rig.end().await;
}

#[tokio::test]
async fn garbage_that_begins_like_quic() {
    let mut rig = Rig::new().await;
    let socket = datagrams(&rig);
    let mut dice = Dice::new(2);
    for round in 0..2_000 {
        let long = INITIAL_BYTES + dice.below(200);
        let length = dice.pick(&[1, 7, 20, 64, INITIAL_BYTES - 1, long]);
        let mut datagram = dice.bytes(length);
        // Initial, 0-RTT, Handshake, Retry and short headers, most of them of version 1.
        datagram[0] = dice.pick(&[0xc0, 0xc3, 0xd0, 0xe0, 0xf0, 0x40, 0x43]);
        if length >= 7 && dice.below(4) > 0 {
            datagram[1..5].copy_from_slice(&[0, 0, 0, 1]);
            datagram[5] = dice.pick(&[0, 8, 20, 21, 255]);
        }
        let _ = socket.send(&datagram);
        if round % 500 == 0 {
            rig.beat().await;
        }
    }
    rig.welcomes().await;
    rig.end().await;
}

#[tokio::test]
async fn an_unknown_version_is_answered_with_the_known_ones() {
    let rig = Rig::new().await;
    let socket = datagrams(&rig);
    socket.set_nonblocking(true).unwrap();
    let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
    let mut datagram = vec![0; INITIAL_BYTES];
    datagram[..7].copy_from_slice(&[0xc0, 0x0a, 0x1a, 0x2a, 0x3a, 8, 1]);

    socket.send(&datagram).await.unwrap();

    let mut answer = [0; 2_000];
    let length = bounded(socket.recv(&mut answer)).await.unwrap();
    assert!(answer[0] & 0x80 != 0 && answer[1..5] == [0; 4], "no version negotiation");
    assert!(length < INITIAL_BYTES, "an answer larger than the question");
    assert!(contains(&answer[..length], &[0, 0, 0, 1]));
    rig.end().await;
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
