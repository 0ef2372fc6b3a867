//! The life of a host's node: its start, its end, and what a signal does to its pipes.

use std::{
    fs,
    io::{self, Write},
    net::UdpSocket,
};

use rustix::process::Signal;

use crate::{
    host::{Host, Running, assert_same, introduce, noise, take, until},
    named::two_hosts,
};

#[test]
fn sigterm_and_sigint_end_an_idle_node_with_success() {
    for signal in [Signal::TERM, Signal::INT] {
        let serving = Host::new().serve();

        serving.running.signal(signal);

        let ended = serving.running.end().expect(0);
        assert!(ended.stdout.is_empty(), "{ended:?}");
        ended.saying(&["listening on 127.0.0.1:", "this host's key is SHA256:", "stopping"]);
    }
}

#[test]
fn c31_a_node_that_is_told_to_stop_lets_its_pipes_end() {
    let (a, b, mut serving) = two_hosts(&["send:x"]);
    let (mut taken, output) = io::pipe().unwrap();
    let content = noise(1 << 20);
    let sender = a.qpipe(&["send", "b/x"]).input(&content).start();
    let receiver = b.qpipe(&["recv", "x"]).stdout(output).start();
    let first = take(&mut taken, 1);

    serving.running.signal(Signal::TERM);
    serving.running.says("stopping");
    let rest = take(&mut taken, content.len() - 1);

    assert_same(&[first, rest].concat(), &content);
    sender.end().expect(0);
    receiver.end().expect(0);
    serving.running.end().expect(0);
}

#[test]
fn a_node_that_stops_takes_no_new_pipe() {
    let (a, b, mut serving) = two_hosts(&["send:x", "send:y"]);
    let (input, mut feed) = io::pipe().unwrap();
    feed.write_all(b"hello").unwrap();
    let sender = a.qpipe(&["send", "b/x"]).stdin(input).start();
    let mut receiver = b.qpipe(&["recv", "x"]).start();
    receiver.prints(b"hello");
    serving.running.signal(Signal::TERM);
    serving.running.says("stopping");

    let refused = a.qpipe(&["send", "b/y"]).end().expect(1);

    refused.saying(&["the node is stopping", "try again when `qpipe serve` runs there again"]);
    drop(feed);
    sender.end().expect(0);
    receiver.end().expect(0);
    serving.running.end().expect(0);
}

#[test]
fn a_second_signal_cuts_what_is_open() {
    let (a, b, mut serving) = two_hosts(&["send:x"]);
    let (input, mut feed) = io::pipe().unwrap();
    feed.write_all(b"hello").unwrap();
    let sender = a.qpipe(&["send", "b/x"]).stdin(input).start();
    let mut receiver = b.qpipe(&["recv", "x"]).start();
    receiver.prints(b"hello");
    serving.running.signal(Signal::TERM);
    serving.running.says("stopping");

    serving.running.signal(Signal::TERM);

    serving.running.end().expect(143);
    let received = receiver.end().expect(1);
    assert_eq!(received.stdout(), "hello");
    let sent = sender.end();
    assert!([1, 141].contains(&sent.code()), "{sent:?}");
    assert!(!sent.stderr.is_empty());
}

#[test]
fn c29_a_killed_node_is_a_failure_at_both_ends_after_what_came() {
    let (a, b) = (Host::alone(), Host::alone());
    let serving = b.serve();
    introduce(&a, "alice", &b, &serving, &["send:x"]);
    let (input, mut feed) = io::pipe().unwrap();
    feed.write_all(b"hello").unwrap();
    let sender = a.qpipe(&["send", "b/x"]).stdin(input).start();
    let mut receiver = b.qpipe(&["recv", "x"]).start();
    receiver.prints(b"hello");

    serving.running.signal(Signal::KILL);

    let received = receiver.end().expect(1).saying(&["was cut off after 5 bytes"]);
    assert_eq!(received.stdout(), "hello");
    let sent = sender.end();
    assert!([1, 141].contains(&sent.code()), "{sent:?}");
    sent.saying(&["the process at the other end is gone"]);
}

#[test]
fn a_node_that_was_killed_can_be_started_again() {
    let host = Host::alone();
    let serving = host.serve();
    serving.running.signal(Signal::KILL);
    serving.running.end().expect(137);
    host.qpipe(&["recv", "x"]).end().expect(1).saying(&["no qpipe serve runs on this host"]);

    let _serving = host.serve();

    let sender = host.qpipe(&["send", "x"]).input(b"hello").start();
    assert_eq!(host.qpipe(&["recv", "x"]).end().expect(0).stdout(), "hello");
    sender.end().expect(0);
}

#[test]
fn one_home_has_one_node() {
    let host = Host::new();
    let first = host.serve();

    let second = host.qpipe(&["serve", "--listen", "127.0.0.1:0"]).end().expect(1);

    let process = format!("process {}", first.running.pid());
    second.saying(&["`qpipe serve` runs already for this home", &process, "QPIPE_HOME"]);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let port = format!("another program has UDP port {}", taken.local_addr().unwrap().port());
    let host = Host::new();
    for command in ["serve", "send", "recv"] {
        let ended = host.qpipe(&[command, "--listen", &address]).end().expect(1);

        assert!(ended.stdout.is_empty());
        ended.saying(&[&address, &port, "--listen"]);
    }
}

#[test]
fn an_address_of_another_host_cannot_be_listened_on() {
    let ended = Host::new().qpipe(&["serve", "--listen", "192.0.2.7:0"]).end().expect(1);

    ended.saying(&["192.0.2.7", "this host has no address 192.0.2.7", "--listen"]);
}

#[test]
fn listening_on_ipv4_and_ipv6_at_once_reaches_both() {
    if UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    let (a, b) = (Host::new(), Host::new());
    let listen = ["serve", "--listen", "127.0.0.1:0", "--listen", "[::1]:0"];
    let mut serving = b.qpipe(&listen).start();
    let v4 = serving.word_of_stderr("listening on ", "/udp");
    let v6 = serving.word_of_stderr("/udp and ", "/udp");
    let (key, server_key) = (a.fingerprint(), b.fingerprint());
    b.run(&["trust", "add", "alice", "--key", &key, "--allow", "send:x"]);
    for (alias, address) in [("four", v4), ("six", v6)] {
        a.run(&["trust", "add", alias, "--key", &server_key, "--address", &address]);

        let sender = a.qpipe(&["send", &format!("{alias}/x")]).input(b"hello").start();

        assert_eq!(b.qpipe(&["recv", "x"]).end().expect(0).stdout(), "hello");
        sender.end().expect(0);
    }
}

#[test]
fn what_is_in_the_way_of_a_node_is_named() {
    for name in ["start.lock", "node.log", "node.sock"] {
        let host = Host::sharing();
        fs::create_dir_all(host.home(name)).unwrap();
        let path = host.home(name).display().to_string();
        let said = [path.as_str(), "no node for this host's programs"];

        host.qpipe(&["send", "x"]).end().expect(1).saying(&said);
        host.qpipe(&["recv", "x"]).end().expect(1).saying(&said);
        host.run(&["stop"]).saying(&["no node runs"]);

        // One that serves has no log.
        if name != "node.log" {
            let served = host.qpipe(&["serve", "--listen", "127.0.0.1:0"]).end().expect(1);
            served.saying(&[&path]);
        }
        fs::remove_dir(host.home(name)).unwrap();
        let receiver = host.qpipe(&["recv", "x"]).start();
        host.qpipe(&["send", "x"]).input(b"all").end().expect(0).silent();
        assert_eq!(receiver.end().expect(0).stdout(), "all");
    }
}

#[test]
fn a_node_without_descriptors_turns_programs_away_and_keeps_those_that_it_has() {
    const MORE: usize = 64;
    let host = Host::sharing();
    // The node, too, gets the limit of the command that starts it.
    let receiver = host.bash("ulimit -n 64; exec qpipe recv x").start();
    until("the first", || host.qpipe(&["ls"]).end().stdout().contains('x').then_some(()));
    let mut more: Vec<_> =
        (0..MORE).map(|i| host.qpipe(&["recv", &format!("more/{i}")]).start()).collect();

    until("the limit", || more.iter_mut().any(Running::has_ended).then_some(()));

    for mut program in more {
        if program.has_ended() {
            let refused = program.end().expect(1).saying(&["open"]);
            assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
        } else {
            program.signal(Signal::TERM);
        }
    }
    let names = || host.qpipe(&["ls"]).end().stdout();
    until("room", || (names().lines().count() == 1).then_some(()));
    host.qpipe(&["send", "x"]).input(b"all").end().expect(0);
    assert_eq!(receiver.end().expect(0).stdout(), "all");
}
