//! Labs with real packets. They need root and /dev/net/tun; elsewhere they are skipped with a
//! reason, and fail where CI=true.

#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_methods, clippy::disallowed_macros)]

use std::{
    env,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use qpipe_netlab::Lab;

/// What is not there by then was lost.
const LOST: Duration = Duration::from_millis(500);

fn lab(options: &[&str]) -> Option<Lab> {
    match Lab::new(options) {
        Ok(lab) => Some(lab),
        Err(reason) => {
            assert!(env::var("CI").as_deref() != Ok("true"), "no lab: {reason:#}");
            eprintln!("skipped: no lab here: {reason:#}");
            None
        }
    }
}

/// A socket on each host, and the address of the one on B.
struct Sockets {
    a: UdpSocket,
    b: UdpSocket,
    to_b: SocketAddr,
}

impl Sockets {
    fn of(lab: &Lab) -> Sockets {
        let (a, b) = (lab.socket(0).unwrap(), lab.socket(1).unwrap());
        for socket in [&a, &b] {
            socket.set_read_timeout(Some(LOST)).unwrap();
        }
        let to_b = (lab.address(1), b.local_addr().unwrap().port()).into();
        Sockets { a, b, to_b }
    }

    /// Sends from A to B; returns the address that B sees and how long it took.
    fn cross(&self) -> Option<(SocketAddr, Duration)> {
        let sent = Instant::now();
        self.a.send_to(b"there", self.to_b).unwrap();
        let (_, from) = self.b.recv_from(&mut [0; 9]).ok()?;
        Some((from, sent.elapsed()))
    }

    /// Sends from B to A, as that is known to B; whether it arrived.
    fn answers(&self, to: SocketAddr) -> bool {
        self.b.send_to(b"back", to).unwrap();
        self.a.recv_from(&mut [0; 9]).is_ok()
    }
}

#[test]
fn a_packet_takes_as_long_as_the_link_is_long() {
    let Some(lab) = lab(&["--delay", "20ms"]) else { return };
    let sockets = Sockets::of(&lab);

    let (from, took) = sockets.cross().unwrap();

    assert_eq!(from.ip(), lab.address(0));
    assert!(took >= Duration::from_millis(20), "{took:?}");
    assert!(sockets.answers(from));
}

#[test]
fn a_link_that_is_down_carries_nothing_and_comes_back() {
    let Some(lab) = lab(&[]) else { return };
    let sockets = Sockets::of(&lab);
    lab.control("ba down").unwrap();
    let (from, _) = sockets.cross().unwrap();
    assert!(!sockets.answers(from));
    lab.control("down").unwrap();
    assert!(sockets.cross().is_none());

    lab.control("up").unwrap();

    assert!(sockets.cross().is_some());
    assert!(lab.control("fly").is_err());
}

#[test]
fn a_host_that_roams_is_seen_elsewhere_and_no_longer_reached_where_it_was() {
    let Some(lab) = lab(&[]) else { return };
    let sockets = Sockets::of(&lab);
    let (before, _) = sockets.cross().unwrap();

    let seen = lab.control("roam").unwrap();

    assert!(!sockets.answers(before));
    let (after, _) = sockets.cross().unwrap();
    assert_eq!((after.ip().to_string(), after.port()), (seen, before.port()));
    assert!(sockets.answers(after));
    let moved = lab.control("roam-real").unwrap();
    assert_ne!(moved, lab.address(0).to_string());
    assert!(sockets.cross().is_some());
}

#[test]
fn a_nat_that_forgot_lets_nothing_in_until_something_goes_out() {
    let Some(lab) = lab(&["--nat-timeout", "400ms"]) else { return };
    let sockets = Sockets::of(&lab);
    let (before, _) = sockets.cross().unwrap();
    assert!(sockets.answers(before));
    // Longer than the NAT remembers.
    assert!(sockets.a.recv_from(&mut [0; 9]).is_err(), "nothing is under way");
    assert!(!sockets.answers(before));

    let (after, _) = sockets.cross().unwrap();

    assert_ne!(after.ip(), before.ip());
    assert!(sockets.answers(after));
}

#[test]
fn nothing_is_left_of_a_lab() {
    let Some(lab) = lab(&["--hosts", "3"]) else { return };
    let namespace = format!("/run/netns/{}", lab.namespace(2));
    let mut sleeper = lab.command(2, "sleep").arg("1000").spawn().unwrap();
    assert!(std::fs::exists(&namespace).unwrap());

    drop(lab);

    assert!(!sleeper.wait().unwrap().success());
    assert!(!std::fs::exists(&namespace).unwrap());
}
