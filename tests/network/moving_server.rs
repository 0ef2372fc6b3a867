//! Host A, whose ticket B dialled with, changes its address.

use std::time::Duration;

use super::{Input, Net, ORDINARY, figures, long, weather::Weather};
use crate::host::noise;

fn the_dialled_side_moves(command: &'static str) {
    let Some(net) = Net::new(&ORDINARY) else { return };
    let content = noise(if long() { 100_000_000 } else { 30_000_000 });
    let weather = Weather::every(Duration::from_secs(5), &net.lab, command);

    let mut transfer = net.anonymous("", Input::Bytes(content.clone()));

    transfer.delivers(content.len(), Duration::from_secs(if long() { 300 } else { 90 }));
    let gaps = transfer.arrivals.gaps(&weather.end());
    figures(&format!("{command}, the side that was dialled: time without a byte"), gaps);
    transfer.completes(&content, super::QUICK);
}

#[test]
fn the_side_that_was_dialled_moves_every_5_s_and_loses_nothing() {
    the_dialled_side_moves("roam-real");
}

#[test]
fn the_side_that_was_dialled_is_behind_a_nat_that_rebinds_every_5_s_and_loses_nothing() {
    the_dialled_side_moves("roam");
}
