//! Processes that are stopped, continued and killed.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{Input, Net, ORDINARY, QUICK, figure, long, pass, wait};
use crate::host::noise;

fn stopped_time() -> Duration {
    Duration::from_secs(if long() { 60 } else { 15 })
}

fn a_stopped_process(stops_sender: bool) {
    let Some(net) = Net::new(&ORDINARY) else { return };
    let content = noise(8_000_000);
    let transfer = net.anonymous("", Input::Bytes(content.clone()));
    transfer.arrivals.exceed(1_000_000, QUICK);
    let stopped = if stops_sender { &transfer.sender } else { &transfer.receiver };
    stopped.signal(Signal::STOP);
    pass(stopped_time());

    let continued = Instant::now();
    stopped.signal(Signal::CONT);

    let first = transfer.arrivals.first_after(continued, QUICK);
    let who = if stops_sender { "sender" } else { "receiver" };
    figure(&format!("first byte after the {who} was stopped and continued"), first);
    transfer.completes(&content, Duration::from_secs(30));
}

#[test]
fn a_sender_that_is_stopped_and_continued_loses_nothing() {
    a_stopped_process(true);
}

#[test]
fn c41_a_receiver_that_is_stopped_and_continued_loses_nothing() {
    a_stopped_process(false);
}

#[test]
fn a_receiver_that_is_killed_on_a_host_that_answers_fails_the_writer_in_seconds() {
    let Some(net) = Net::new(&ORDINARY) else { return };
    let (input, mut feed) = io::pipe().unwrap();
    let mut transfer = net.anonymous("", Input::Pipe(input));
    feed.write_all(b"hello").unwrap();
    transfer.arrivals.exceed(4, QUICK);

    let killed = Instant::now();
    transfer.receiver.signal(Signal::KILL);

    let limit = Duration::from_secs(30);
    wait(limit, "the end of the writer", || transfer.sender.has_ended().then_some(()));
    figure("the writer knows that its reader's process is gone", killed.elapsed());
    let sent = transfer.sender.end();
    assert!([1, 141].contains(&sent.code()), "{sent:?}");
    eprintln!("said: {}", sent.stderr.lines().last().unwrap_or_default());
    assert_eq!(transfer.receiver.end().code(), 137);
}

#[test]
fn a_sender_that_is_killed_on_a_host_that_answers_fails_the_reader_in_seconds() {
    let Some(net) = Net::new(&ORDINARY) else { return };
    let (input, mut feed) = io::pipe().unwrap();
    let mut transfer = net.anonymous("", Input::Pipe(input));
    feed.write_all(b"hello").unwrap();
    transfer.arrivals.exceed(4, QUICK);

    let killed = Instant::now();
    transfer.sender.signal(Signal::KILL);

    let limit = Duration::from_secs(30);
    wait(limit, "the end of the reader", || transfer.receiver.has_ended().then_some(()));
    figure("the reader knows that its writer's process is gone", killed.elapsed());
    let received = transfer.receiver.end().expect(1);
    received.saying(&["was cut off after 5 bytes"]);
    assert_eq!(transfer.arrivals.bytes(), b"hello");
}
