//! A node that is killed and started again has forgotten its pipes, and says so.

use std::{
    io::{self, Write},
    time::Instant,
};

use rustix::process::Signal;

use super::{A, B, Input, Net, ORDINARY, QUICK, figure, wait};

fn a_node_that_restarts(from: usize) {
    let Some(net) = Net::new(&ORDINARY) else { return };
    let serving = net.serve("");
    let address = serving.address.clone();
    let (input, mut feed) = io::pipe().unwrap();
    let mut transfer = net.named(from, "", Input::Pipe(input));
    feed.write_all(b"hello").unwrap();
    transfer.arrivals.exceed(4, QUICK);
    serving.running.signal(Signal::KILL);
    serving.running.end().expect(137);

    let _serving = net.serve_again(&address, "");
    let restarted = Instant::now();

    let far = if from == A { &mut transfer.sender } else { &mut transfer.receiver };
    wait(QUICK, "the end of the far pipe", || far.has_ended().then_some(()));
    figure("a peer's pipe ended after its node was killed and restarted", restarted.elapsed());
    let far = if from == A { transfer.sender.end() } else { transfer.receiver.end() };
    assert!([1, 141].contains(&far.code()), "{far:?}");
    far.saying(&["restarted"]);
}

#[test]
fn a_peer_s_writer_is_told_at_once_that_the_node_was_restarted() {
    a_node_that_restarts(A);
}

#[test]
fn a_peer_s_reader_is_told_at_once_that_the_node_was_restarted() {
    a_node_that_restarts(B);
}
