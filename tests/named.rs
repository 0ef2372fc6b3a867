//! Named pipes on a host's node: the two hosts of the walk-through, and names as FIFOs.

use std::{
    fs,
    io::{self, Write},
};

use rustix::process::Signal;

use crate::host::{Host, Serving, assert_same, introduce, noise, until};

/// A host A that may do what `rules` say on a host B that serves; A calls it `b`.
pub fn two_hosts(rules: &[&str]) -> (Host, Host, Serving) {
    let (a, b) = (Host::new(), Host::new());
    let serving = b.serve();
    introduce(&a, "alice", &b, &serving, rules);
    (a, b, serving)
}

#[test]
fn the_walk_through_of_two_hosts_works_word_for_word() {
    let (a, b) = (Host::new(), Host::new());
    let _serving = b.serve();
    let invited = b.run(&["invite", "--as", "alice", "--allow", "send:inbox/*"]);
    let line = invited.stdout().trim().to_owned();
    assert!(line.starts_with("qpipe join qpipe1"), "{line}");
    invited.saying(&["may send:inbox/*", "good once"]);
    // The name that B proposes is this machine's.
    a.bash(&format!("{line} --as b")).end().expect(0).saying(&["lets it: send b/inbox/*"]);
    fs::write(a.work("f"), noise(1_000_000)).unwrap();

    let receiver = b.bash("qpipe recv inbox/x > f").start();
    a.bash("qpipe send b/inbox/x < f").end().expect(0).silent();

    receiver.end().expect(0).silent();
    assert_same(&fs::read(b.work("f")).unwrap(), &noise(1_000_000));
}

#[test]
fn bytes_go_in_both_directions_and_may_be_read_from_afar() {
    let (a, b, _serving) = two_hosts(&["recv:log", "send:up", "send:talk", "recv:talk"]);
    let sender = b.bash("seq 30000 | qpipe send log").start();

    let received = a.bash("qpipe recv b/log | tail -1").end().expect(0);

    assert_eq!(received.stdout(), "30000\n");
    sender.end().expect(0);
    let near = a.qpipe(&["duplex", "b/talk"]).input(b"question").start();
    let far = b.qpipe(&["duplex", "talk"]).input(b"answer").end().expect(0);
    assert_eq!((far.stdout(), near.end().expect(0).stdout()), ("question".into(), "answer".into()));
}

#[test]
fn c04_broken_pipes_travel_through_the_relay() {
    let (a, b, _serving) = two_hosts(&["send:x"]);
    let receiver = b.pipeline("qpipe recv x | head -2000").start();

    let sent = a.pipeline("yes | qpipe send b/x").end();

    assert_eq!(sent.statuses(), "141 141");
    let received = receiver.end();
    assert_eq!((received.statuses(), received.stdout().lines().count()), ("141 0", 2000));
}

#[test]
fn c20_a_writer_that_is_first_blocks_when_the_pipe_is_full() {
    let (a, b, _serving) = two_hosts(&["send:x"]);
    let (input, mut feed) = io::pipe().unwrap();
    let mut sender = a.qpipe(&["send", "b/x"]).stdin(input).start();
    let content = noise(CONTENT_BYTES);
    let written = content.clone();
    let writer = std::thread::spawn(move || feed.write_all(&written).unwrap());
    // Blocked: for so many looks in a row, the sender has read no more.
    let (mut read, mut looks) = (0, 0);
    until("a full pipe", || {
        let now = bytes_read(&sender);
        (read, looks) = if now == read && now > 0 { (read, looks + 1) } else { (now, 0) };
        (looks == 50).then_some(())
    });
    assert!(read < CONTENT_BYTES as u64, "{read} bytes were read without a reader");
    assert!(!writer.is_finished() && !sender.has_ended());

    let received = b.qpipe(&["recv", "x"]).end().expect(0);

    sender.end().expect(0);
    writer.join().unwrap();
    assert_same(&received.stdout, &content);
}

const CONTENT_BYTES: usize = 16 << 20;

fn bytes_read(program: &crate::host::Running) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", program.pid())).unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[test]
fn c20_no_wait_fails_at_once_where_nobody_is_and_works_where_somebody_is() {
    let (a, b, _serving) = two_hosts(&["send:x", "recv:x"]);
    for command in ["send", "recv"] {
        let ended = a.qpipe(&[command, "--no-wait", "b/x"]).end().expect(1);
        assert!(ended.stdout.is_empty());
        ended.saying(&["the pipe b/x was refused: nobody", "leave --no-wait out to wait"]);
    }

    let receiver = b.qpipe(&["recv", "x"]).start();
    until("a reader", || {
        let sent = a.qpipe(&["send", "--no-wait", "b/x"]).input(b"hello").end();
        (sent.code() == 0).then_some(())
    });
    assert_eq!(receiver.end().expect(0).stdout(), "hello");
}

#[test]
fn what_is_refused_has_not_read_its_input() {
    let (a, _b, _serving) = two_hosts(&["send:x"]);
    for arguments in ["--no-wait b/x", "b/outbox"] {
        for _ in 0..10 {
            let script = format!("seq 1000 | {{ qpipe send {arguments} 2>/dev/null; cat; }}");
            let kept = a.bash(&script).end().stdout();
            assert_eq!(kept.lines().count(), 1000, "after send {arguments}");
        }
    }
}

#[test]
fn nothing_at_all_waits_for_its_reader_like_anything_else() {
    let (a, b, _serving) = two_hosts(&["send:x"]);
    a.qpipe(&["send", "--timeout", "300ms", "b/x"]).input(b"").end().expect(1);
    let sender = a.qpipe(&["send", "b/x"]).input(b"").start();

    let received = until("the empty pipe", || {
        let received = b.qpipe(&["recv", "--no-wait", "x"]).end();
        (received.code() == 0).then_some(received)
    });

    assert!(received.stdout.is_empty());
    sender.end().expect(0);
}

#[test]
fn nobody_in_time_is_a_failure_that_names_the_pipe() {
    let (a, b, _serving) = two_hosts(&["send:x"]);
    let late = ["--timeout", "100ms"];

    let sent = a.qpipe(&["send", late[0], late[1], "b/x"]).end().expect(1);
    let received = b.qpipe(&["recv", late[0], late[1], "x"]).end().expect(1);

    sent.saying(&["nobody came to the other end of the pipe b/x in time"]);
    received.saying(&["nobody came to the other end of the pipe x in time"]);
}

#[test]
fn c21_a_writer_after_the_end_is_a_new_pipe() {
    let (a, b, _serving) = two_hosts(&["send:x"]);
    for round in 0..5 {
        let content = format!("round {round}\n");
        let sender = a.qpipe(&["send", "b/x"]).input(content.as_bytes()).start();

        assert_eq!(b.qpipe(&["recv", "x"]).end().expect(0).stdout(), content);
        sender.end().expect(0);
    }
}

#[test]
fn c21_the_bytes_of_a_writer_that_died_are_not_mixed_with_the_next_one_s() {
    let (a, b, _serving) = two_hosts(&["send:x"]);
    let (input, mut feed) = io::pipe().unwrap();
    feed.write_all(b"old").unwrap();
    let sender = a.qpipe(&["send", "b/x"]).stdin(input).start();
    let mut receiver = b.qpipe(&["recv", "x"]).start();
    receiver.prints(b"old");

    sender.signal(Signal::TERM);

    assert_eq!(receiver.end().expect(1).stdout(), "old");
    sender.end().expect(143);
    let sender = a.qpipe(&["send", "b/x"]).input(b"new").start();
    assert_eq!(b.qpipe(&["recv", "x"]).end().expect(0).stdout(), "new");
    sender.end().expect(0);
}

#[test]
fn c32_the_last_pipe_of_a_session_ends_without_losing_its_tail() {
    let (a, b, _serving) = two_hosts(&["send:x"]);
    let content = noise(70_000);
    for _ in 0..10 {
        let sender = a.qpipe(&["send", "b/x"]).input(&content).start();
        assert_same(&b.qpipe(&["recv", "x"]).end().expect(0).stdout, &content);
        sender.end().expect(0);
    }
}

#[test]
fn several_programs_write_into_one_pipe_and_its_end_is_that_of_the_last() {
    let (a, b, _serving) = two_hosts(&["send:x"]);
    let (input, mut feed) = io::pipe().unwrap();
    feed.write_all(b"first ").unwrap();
    let first = a.qpipe(&["send", "b/x"]).stdin(input).start();
    let mut receiver = b.qpipe(&["recv", "x"]).start();
    receiver.prints(b"first ");

    // From another host, and from this one: each is done when its own bytes are consumed.
    a.qpipe(&["send", "b/x"]).input(b"second ").end().expect(0);
    b.qpipe(&["send", "x"]).input(b"third ").end().expect(0);
    feed.write_all(b"last").unwrap();
    drop(feed);

    first.end().expect(0);
    assert_eq!(receiver.end().expect(0).stdout(), "first second third last");
}

#[test]
fn several_programs_read_one_pipe_and_one_that_is_killed_breaks_nothing() {
    let (a, b, _serving) = two_hosts(&["send:x"]);
    let (input, mut feed) = io::pipe().unwrap();
    let stays = b.qpipe(&["recv", "x"]).start();
    let killed = b.qpipe(&["recv", "x"]).start();
    let reading = |count: &str| {
        until(count, || b.run(&["ls"]).stdout().contains(count).then_some(()));
    };
    reading("2 reading");
    let sender = a.qpipe(&["send", "b/x"]).stdin(input).start();
    until("a writer", || b.run(&["ls"]).stdout().contains("1 writing").then_some(()));

    killed.signal(Signal::KILL);
    reading("1 reading");
    feed.write_all(b"all").unwrap();
    drop(feed);

    sender.end().expect(0);
    assert_eq!(stays.end().expect(0).stdout(), "all");
}

#[test]
fn ending_one_pipe_changes_nothing_for_another() {
    let (a, b, _serving) = two_hosts(&["send:**"]);
    let (input, mut feed) = io::pipe().unwrap();
    let mut kept = b.qpipe(&["recv", "kept"]).start();
    let sender = a.qpipe(&["send", "b/kept"]).stdin(input).start();
    feed.write_all(b"before ").unwrap();
    kept.prints(b"before ");

    let other = b.bash("qpipe recv other | head -1").start();
    a.bash("yes | qpipe send b/other").end().expect(141);
    other.end().expect(0);

    feed.write_all(b"after").unwrap();
    drop(feed);
    sender.end().expect(0);
    assert_eq!(kept.end().expect(0).stdout(), "before after");
}

#[test]
fn a_name_without_a_node_is_an_error_that_says_how_to_start_one() {
    let host = Host::alone();
    for command in ["send", "recv", "duplex"] {
        let ended = host.qpipe(&[command, "inbox"]).end().expect(1);
        ended.saying(&["no qpipe serve runs on this host", "\"qpipe serve &\""]);
    }
}
