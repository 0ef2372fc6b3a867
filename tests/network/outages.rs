//! Links that carry nothing for a while.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use super::{
    Input, Net, ORDINARY, QUICK, both_end, figure, has_time, long, pass, wait, weather::Weather,
};
use crate::host::noise;

/// Enough for several seconds at 20 Mbit/s.
const CONTENT_BYTES: usize = 8_000_000;

fn a_transfer_spans_an_outage_of(seconds: u64) {
    let Some(net) = Net::new(&ORDINARY) else { return };
    let content = noise(CONTENT_BYTES);
    let transfer = net.anonymous("", Input::Bytes(content.clone()));
    transfer.arrivals.exceed(1_000_000, QUICK);
    net.control("down");
    pass(Duration::from_secs(seconds));

    let returned = Instant::now();
    net.control("up");

    let first = transfer.arrivals.first_after(returned, QUICK);
    figure(&format!("first byte after an outage of {seconds} s"), first);
    transfer.completes(&content, Duration::from_secs(30));
}

#[test]
fn a_transfer_survives_an_outage_of_1_s() {
    a_transfer_spans_an_outage_of(1);
}

#[test]
fn a_transfer_survives_an_outage_of_12_s() {
    a_transfer_spans_an_outage_of(12);
}

#[test]
fn a_transfer_survives_an_outage_of_45_s() {
    if has_time() {
        a_transfer_spans_an_outage_of(45);
    }
}

#[test]
fn a_transfer_survives_an_outage_of_120_s() {
    if has_time() {
        a_transfer_spans_an_outage_of(120);
    }
}

#[test]
fn an_outage_one_way_only_is_survived_too() {
    for direction in ["ab", "ba"] {
        let Some(net) = Net::new(&ORDINARY) else { return };
        let content = noise(CONTENT_BYTES);
        let transfer = net.anonymous("", Input::Bytes(content.clone()));
        transfer.arrivals.exceed(1_000_000, QUICK);
        net.control(&format!("{direction} down"));
        pass(Duration::from_secs(12));

        let returned = Instant::now();
        net.control(&format!("{direction} up"));

        let first = transfer.arrivals.first_after(returned, QUICK);
        figure(&format!("first byte after 12 s with {direction} down"), first);
        transfer.completes(&content, Duration::from_secs(30));
    }
}

#[test]
fn c35_a_link_that_is_gone_for_2_s_in_every_5_s_carries_everything() {
    let Some(net) = Net::new(&ORDINARY) else { return };
    let content = noise(10_000_000);
    let (gone, there) = (Duration::from_secs(2), Duration::from_secs(3));
    let weather = Weather::cycle(&net.lab, vec![(there, "down"), (gone, "up")]);

    let began = Instant::now();
    let transfer = net.anonymous("", Input::Bytes(content.clone()));

    transfer.completes(&content, Duration::from_secs(60));
    figure("10 MB over a link that is gone for 2 s in every 5 s", began.elapsed());
    drop(weather);
}

#[test]
fn c36_after_an_outage_longer_than_patience_both_sides_fail_and_neither_sees_an_end() {
    let Some(net) = Net::new(&ORDINARY) else { return };
    let (input, mut feed) = io::pipe().unwrap();
    let mut transfer = net.anonymous("--give-up 8s", Input::Pipe(input));
    feed.write_all(b"before").unwrap();
    transfer.arrivals.exceed(5, QUICK);

    let gone = Instant::now();
    net.control("down");

    both_end(&mut transfer.sender, &mut transfer.receiver, Duration::from_secs(30));
    figure("both gave up (--give-up 8s)", gone.elapsed());
    assert!(gone.elapsed() > Duration::from_secs(7), "given up too early");
    let (sent, received) = (transfer.sender.end(), transfer.receiver.end());
    assert_eq!((sent.code(), received.code()), (1, 1), "{sent:?}{received:?}");
    assert_eq!(transfer.arrivals.bytes(), b"before");
    for ended in [&sent, &received] {
        assert!(!ended.stderr.contains("panicked"), "{ended:?}");
        eprintln!("said: {}", ended.stderr.lines().last().unwrap_or_default());
    }
    received.saying(&["was cut off after 6 bytes"]);
}

#[test]
fn c36_a_blackhole_that_ends_before_patience_does_is_told_twice_and_costs_nothing() {
    let Some(net) = Net::new(&ORDINARY) else { return };
    let (input, mut feed) = io::pipe().unwrap();
    let mut transfer = net.anonymous("--notice 3s", Input::Pipe(input));
    feed.write_all(b"before ").unwrap();
    transfer.arrivals.exceed(6, QUICK);
    net.control("down");
    let silence = Instant::now();
    for side in [&mut transfer.sender, &mut transfer.receiver] {
        side.says("nothing heard from");
    }
    figure("both said that they hear nothing (--notice 3s)", silence.elapsed());

    let returned = Instant::now();
    net.control("up");

    for side in [&mut transfer.sender, &mut transfer.receiver] {
        side.says("is back");
    }
    figure("both said that the other is back", returned.elapsed());
    feed.write_all(b"after").unwrap();
    drop(feed);
    transfer.completes(b"before after", QUICK);
}

#[test]
fn c39_a_reader_that_leaves_in_a_blackout_is_known_to_the_writer_right_after_it() {
    let Some(net) = Net::new(&ORDINARY) else { return };
    let (input, mut feed) = io::pipe().unwrap();
    let mut sender = net.qpipe(super::A, "send").stdin(input).start();
    let ticket = sender.ticket();
    let (mut reader, output) = io::pipe().unwrap();
    let mut receiver = net.qpipe(super::B, "recv").ticket(&ticket).stdout(output).start();
    feed.write_all(b"x").unwrap();
    crate::host::take(&mut reader, 1);
    net.control("down");
    pass(Duration::from_secs(1));
    drop(reader);
    pass(Duration::from_secs(if long() { 30 } else { 8 }));
    assert!(!sender.has_ended(), "nobody can have told it");

    let returned = Instant::now();
    net.control("up");

    wait(QUICK, "the end of the writer", || sender.has_ended().then_some(()));
    figure("the writer knows that its reader left in the blackout", returned.elapsed());
    let sent = sender.end();
    assert_eq!(sent.code(), 141, "{sent:?}");
    wait(QUICK, "the end of the reader", || receiver.has_ended().then_some(()));
    assert_eq!(receiver.end().code(), 141);
    drop(feed);
}
