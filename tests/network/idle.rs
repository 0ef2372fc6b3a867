//! Pipes in which nothing moves for a while, on networks that forget or change meanwhile.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use super::{A, B, Input, Net, ORDINARY, QUICK, figure, has_time, long, pass};

/// The heartbeat unless told otherwise, and what else a byte may take that waits for one.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// Some silence before and between changes.
const SILENCE: Duration = Duration::from_secs(2);

fn a_byte_after_each_change(from: usize, command: &str, limit: Duration) {
    let Some(net) = Net::new(&ORDINARY) else { return };
    let _serving = net.serve("");
    let (input, mut feed) = io::pipe().unwrap();
    let transfer = net.named(from, "", Input::Pipe(input));
    feed.write_all(b"-").unwrap();
    transfer.arrivals.exceed(0, QUICK);
    let mut content = b"-".to_vec();
    let who = if from == A { "the side that dialled" } else { "the other side" };
    for round in 0..if long() { 12 } else { 4 } {
        pass(SILENCE);
        net.control(command);

        let written = Instant::now();
        feed.write_all(&[round]).unwrap();

        let took = transfer.arrivals.first_after(written, limit);
        figure(&format!("{command} on an idle session, a byte of {who}"), took);
        content.push(round);
    }
    drop(feed);
    transfer.completes(&content, QUICK);
}

#[test]
fn a_byte_of_the_side_that_dialled_crosses_right_after_its_nat_rebound() {
    a_byte_after_each_change(A, "roam", QUICK);
}

#[test]
fn a_byte_of_the_side_that_dialled_crosses_right_after_it_moved() {
    a_byte_after_each_change(A, "roam-real", QUICK);
}

#[test]
fn a_byte_of_the_other_side_crosses_within_the_heartbeat_after_a_nat_rebound() {
    a_byte_after_each_change(B, "roam", HEARTBEAT + QUICK);
}

#[test]
fn a_byte_of_the_other_side_crosses_after_the_side_that_dialled_moved() {
    a_byte_after_each_change(B, "roam-real", HEARTBEAT + QUICK);
}

fn a_nat_forgets(nat_timeout: &str, silence: Duration, rounds: u8, bytes: usize) {
    let options = [&ORDINARY[..], &["--nat-timeout", nat_timeout]].concat();
    let Some(net) = Net::new(&options) else { return };
    let _serving = net.serve("");
    let (input, mut feed) = io::pipe().unwrap();
    // B writes: what it sends does not reach A through a NAT that has forgotten A.
    let transfer = net.named(B, "", Input::Pipe(input));
    let mut content = Vec::new();
    for round in 0..rounds {
        let written = Instant::now();
        feed.write_all(&vec![round; bytes]).unwrap();
        content.extend_from_slice(&vec![round; bytes]);
        transfer.arrivals.exceed(content.len() as u64 - 1, QUICK);
        figure(&format!("a write behind a NAT that forgets in {nat_timeout}"), written.elapsed());
        pass(silence);
    }
    drop(feed);
    transfer.completes(&content, QUICK);
}

#[test]
fn c46_a_nat_that_forgets_soon_is_kept_from_it_by_the_heartbeat() {
    a_nat_forgets("6s", Duration::from_secs(10), 3, 1);
}

#[test]
fn c46_one_kb_a_minute_crosses_a_nat_that_forgets_after_30_s() {
    if has_time() {
        a_nat_forgets("30s", Duration::from_secs(60), 11, 1_000);
    }
}
