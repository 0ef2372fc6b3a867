//! Host A, which dialled B's node, changes its address: as a NAT that rebinds does it, or really.

use std::time::{Duration, Instant};

use super::{A, B, Input, Net, ORDINARY, QUICK, figure, figures, long, weather::Weather};
use crate::host::noise;

/// How often the address changes.
const PERIOD: Duration = Duration::from_secs(5);

fn moves_under_load(from: usize, command: &'static str) {
    let Some(net) = Net::new(&ORDINARY) else { return };
    let _serving = net.serve("");
    // 2.5 MB/s: three changes of the address, or twelve.
    let content = noise(if long() { 150_000_000 } else { 40_000_000 });
    let weather = Weather::every(PERIOD, &net.lab, command);

    let mut transfer = net.named(from, "", Input::Bytes(content.clone()));

    let began = Instant::now();
    transfer.delivers(content.len(), Duration::from_secs(240));
    let took = began.elapsed();
    let gaps = transfer.arrivals.gaps(&weather.end());
    let side = if from == A { "sends" } else { "only receives" };
    let count = gaps.len();
    let worst = figures(&format!("{command}, a side that {side}: time without a byte"), gaps);
    figure(&format!("{command}, a side that {side}: {} bytes", content.len()), took);
    transfer.completes(&content, QUICK);
    assert!(count >= 3 && worst < QUICK, "{count} changes, {worst:?}");
}

#[test]
fn a_sender_whose_nat_rebinds_every_5_s_loses_nothing() {
    moves_under_load(A, "roam");
}

#[test]
fn a_sender_that_moves_every_5_s_loses_nothing() {
    moves_under_load(A, "roam-real");
}

#[test]
fn a_side_that_only_receives_and_whose_nat_rebinds_every_5_s_loses_nothing() {
    moves_under_load(B, "roam");
}

#[test]
fn a_side_that_only_receives_and_moves_every_5_s_loses_nothing() {
    moves_under_load(B, "roam-real");
}

#[test]
fn c37_rebinding_every_5_s_harms_no_byte() {
    let slow = ["--rate", "10mbit", "--delay", "25ms"];
    let Some(net) = Net::new(&slow) else { return };
    let _serving = net.serve("");
    let content = noise(if long() { 100_000_000 } else { 20_000_000 });
    // Address and port: the NAT's other address stands for both.
    let weather = Weather::every(PERIOD, &net.lab, "roam");

    let transfer = net.named(A, "", Input::Bytes(content.clone()));

    transfer.completes(&content, Duration::from_secs(180));
    assert!(weather.end().len() >= 3);
}
