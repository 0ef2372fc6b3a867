//! Keys: whose they are, who is asked, and what a wrong one is told.

use std::{
    fs,
    io::{self, Write},
};

use rustix::process::Signal;

use crate::{
    host::{Host, introduce},
    named::two_hosts,
};

#[test]
fn an_unknown_host_is_not_talked_to_where_nobody_can_be_asked() {
    let (a, b) = (Host::new(), Host::new());
    let serving = b.serve();
    let place = format!("{}/x", serving.address);

    let refused = a.bash(&format!("setsid -w qpipe send {place}")).end().expect(1);

    refused.saying(&["is not known here yet", &b.fingerprint(), "qpipe trust add", "--accept-new"]);
    assert_eq!(a.run(&["trust", "list"]).stdout, b"");
}

#[test]
fn an_unknown_host_is_pinned_where_the_user_says_so_beforehand() {
    let (a, b) = (Host::new(), Host::new());
    let serving = b.serve();
    b.run(&["trust", "add", "alice", "--key", &a.fingerprint(), "--allow", "send:x"]);
    let place = format!("{}/x", serving.address);

    let first = a.qpipe(&["send", "--accept-new", &place]).input(b"hello").start();
    assert_eq!(b.qpipe(&["recv", "x"]).end().expect(0).stdout(), "hello");
    first.end().expect(0).saying(&["pinned the key", &b.fingerprint()]);

    let second = a.qpipe(&["send", &place]).input(b"again").start();
    assert_eq!(b.qpipe(&["recv", "x"]).end().expect(0).stdout(), "again");
    second.end().expect(0).silent();
}

#[test]
fn the_user_is_asked_on_the_terminal_though_the_descriptors_are_pipes() {
    let (a, b) = (Host::new(), Host::new());
    let serving = b.serve();
    b.run(&["trust", "add", "alice", "--key", &a.fingerprint(), "--allow", "send:x"]);
    let send = format!("echo hello | qpipe send {}/x", serving.address);
    let answer = |word: &str| a.bash(&format!("echo {word} | script -qec '{send}' /dev/null"));

    let refused = answer("no").end().expect(1);
    let text = refused.stdout();
    assert!(text.contains(&b.fingerprint()) && text.contains("nothing was sent"), "{text}");

    let accepted = answer("yes").start();
    assert_eq!(b.qpipe(&["recv", "x"]).end().expect(0).stdout(), "hello\n");
    accepted.end().expect(0);
}

#[test]
fn a_changed_host_key_shows_both_and_sends_nothing() {
    let (a, b, serving) = two_hosts(&["send:x"]);
    let (address, old) = (serving.address.clone(), b.fingerprint());
    serving.running.signal(Signal::TERM);
    serving.running.end().expect(0);
    let impostor = Host::new();
    let _serving = impostor.serve_at(&address);

    for flags in [&["send", "b/x"][..], &["send", "--accept-new", "b/x"]] {
        let refused = a.qpipe(flags).input(b"secret").end().expect(1);
        let (expected, found) =
            (format!("expected {old}"), format!("found    {}", impostor.fingerprint()));
        refused.saying(&["wrong key", &expected, &found, "qpipe trust remove --host b"]);
    }
    assert!(impostor.audit().iter().all(|line| !line.contains("what=\"x\"")));
}

#[test]
fn a_host_that_no_rule_lists_is_refused() {
    let (a, b) = (Host::new(), Host::new());
    let serving = b.serve();
    let key = b.fingerprint();
    a.run(&["trust", "add", "b", "--key", &key, "--address", &serving.address]);

    let refused = a.qpipe(&["send", "b/x"]).input(b"hello").end().expect(1);

    refused.saying(&["b does not let this host in"]);
}

#[test]
fn a_rule_that_is_taken_back_ends_its_pipes_at_once() {
    let (a, b, mut serving) = two_hosts(&["send:x"]);
    let (input, mut feed) = io::pipe().unwrap();
    feed.write_all(b"hello").unwrap();
    let sender = a.qpipe(&["send", "b/x"]).stdin(input).start();
    let mut receiver = b.qpipe(&["recv", "x"]).start();
    receiver.prints(b"hello");

    b.run(&["trust", "remove", "alice"]);
    serving.running.signal(Signal::HUP);

    serving.running.says("read authorized.toml again");
    sender.end().expect(141).saying(&["the permission was revoked"]);
    let received = receiver.end().expect(1).saying(&["was cut off after 5 bytes"]);
    assert_eq!(received.stdout(), "hello");
    assert_eq!(a.qpipe(&["send", "b/x"]).end().code(), 1);
}

#[test]
fn other_pipes_of_other_hosts_survive_a_change_of_rules() {
    let (a, b, serving) = two_hosts(&["send:x"]);
    let c = Host::new();
    introduce(&c, "carol", &b, &serving, &["send:y"]);
    let (input, mut feed) = io::pipe().unwrap();
    feed.write_all(b"one ").unwrap();
    let sender = a.qpipe(&["send", "b/x"]).stdin(input).start();
    let mut receiver = b.qpipe(&["recv", "x"]).start();
    receiver.prints(b"one ");

    b.run(&["trust", "remove", &c.fingerprint()]);
    serving.running.signal(Signal::HUP);
    c.qpipe(&["send", "b/y"]).end().expect(1);

    feed.write_all(b"two").unwrap();
    drop(feed);
    sender.end().expect(0);
    assert_eq!(receiver.end().expect(0).stdout(), "one two");
}

#[test]
fn a_broken_file_of_rules_leaves_those_before_it_in_force() {
    let (a, b, mut serving) = two_hosts(&["send:x"]);
    let passes = |content: &str| {
        let sender = a.qpipe(&["send", "b/x"]).input(content.as_bytes()).start();
        assert_eq!(b.qpipe(&["recv", "x"]).end().expect(0).stdout(), content);
        sender.end().expect(0);
    };
    passes("before");

    fs::write(b.home("authorized.toml"), "[[peer]\n").unwrap();
    serving.running.signal(Signal::HUP);
    serving.running.says("authorized.toml:1");

    passes("after");
}

#[test]
fn keys_are_made_once_and_kept_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let host = Host::new();
    let first = host.fingerprint();

    assert_eq!(host.fingerprint(), first);
    assert!(host.run(&["key", "show"]).stdout().contains(&first));
    let kept: Vec<_> = fs::read_dir(host.home("key")).unwrap().map(Result::unwrap).collect();
    assert!(!kept.is_empty());
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o077;
    assert_eq!(mode(host.home("key")), 0);
    assert_ne!(Host::new().fingerprint(), first);
}

#[test]
fn trust_is_listed_and_can_be_taken_back() {
    let (host, peer) = (Host::new(), Host::new().fingerprint());
    host.qpipe(&["trust", "list"]).end().expect(0).saying(&["nobody is trusted yet"]);
    host.run(&["trust", "add", "p", "--key", &peer, "--allow", "send:x", "--address", "192.0.2.7"]);

    let listed = host.run(&["trust", "list"]).stdout();

    assert_eq!(listed, format!("peer p {peer} send:x\nhost p {peer} 192.0.2.7:7473\n"));
    host.run(&["trust", "remove", "p"]);
    assert_eq!(host.run(&["trust", "list"]).stdout(), "");
    host.qpipe(&["trust", "remove", "p"]).end().expect(1).saying(&["nobody is trusted under `p`"]);
}
