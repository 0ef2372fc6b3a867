//! Commands that share the node of their host: what one connection for all of them gives, and what
//! must not differ from a process of its own.

use std::{fs, io::Write, net::UdpSocket, os::unix::net::UnixListener};

use rustix::process::{Pid, Signal, kill_process};

use crate::host::{Host, Serving, assert_same, introduce, noise, until};

/// A host A whose commands share a node, and that may do what `rules` say on a host B that serves; A
/// calls it `b`.
fn two_hosts(rules: &[&str]) -> (Host, Host, Serving) {
    let (a, b) = (Host::sharing(), Host::sharing());
    let serving = b.serve();
    introduce(&a, "alice", &b, &serving, rules);
    (a, b, serving)
}

/// What the node of a host says of itself.
fn status(host: &Host) -> serde_json::Value {
    serde_json::from_str(&host.run(&["status", "--json"]).stdout()).unwrap()
}

fn has_node(host: &Host) -> bool {
    host.qpipe(&["status"]).end().stderr.is_empty()
}

fn node_of(host: &Host) -> Pid {
    let pid = status(host)["pid"].as_u64().unwrap();
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// How many of these a status shows.
fn count(status: &serde_json::Value, what: &str) -> usize {
    status[what].as_array().unwrap().len()
}

#[test]
fn a_hundred_commands_at_once_start_one_node_and_use_one_connection() {
    const COMMANDS: usize = 100;
    let (a, b, _serving) = two_hosts(&["send:in/*"]);
    let receivers: Vec<_> =
        (0..COMMANDS).map(|i| b.bash(&format!("qpipe recv in/{i} > {i}")).start()).collect();
    let senders: Vec<_> = (0..COMMANDS)
        .map(|i| a.qpipe(&["send", &format!("b/in/{i}")]).input(&noise(10_000 + i)).start())
        .collect();
    senders.into_iter().for_each(|sender| drop(sender.end().expect(0)));
    receivers.into_iter().for_each(|receiver| drop(receiver.end().expect(0)));

    for i in 0..COMMANDS {
        assert_same(&fs::read(b.work(&i.to_string())).unwrap(), &noise(10_000 + i));
    }
    let (near, far) = (status(&a), status(&b));
    assert_eq!((count(&near, "sessions"), count(&far, "sessions")), (1, 1), "{near:#} {far:#}");
    assert_eq!((&near["serves"], &far["serves"]), (&false.into(), &true.into()));
    assert_eq!(near["sessions"][0]["name"], "b");
}

#[test]
fn both_ends_on_one_host_need_no_serve() {
    let host = Host::sharing();
    let content = noise(5_000_000);
    let receiver = host.qpipe(&["recv", "x"]).start();
    host.qpipe(&["send", "x"]).input(&content).end().expect(0).silent();
    assert_same(&receiver.end().expect(0).stdout, &content);

    let near = host.qpipe(&["duplex", "talk"]).input(b"question").start();
    let far = host.qpipe(&["duplex", "talk"]).input(b"answer").end().expect(0);
    assert_eq!((far.stdout(), near.end().expect(0).stdout()), ("question".into(), "answer".into()));
}

#[test]
fn what_stands_at_both_ends_on_one_host_ends_as_a_kernel_pipe_would() {
    let host = Host::sharing();
    let receiver = host.pipeline("qpipe recv x | head -c 100000 | wc -c").start();
    assert_eq!(host.pipeline("yes | qpipe send x").end().statuses(), "141 141");
    let received = receiver.end();
    assert_eq!((received.stdout().trim(), received.statuses()), ("100000", "141 0 0"));

    // A writer that is killed is no end of file.
    let receiver = host.qpipe(&["recv", "y"]).start();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut sender = host.qpipe(&["send", "y"]).stdin(reader).start();
    writer.write_all(b"begun").unwrap();
    until("bytes", || {
        status(&host)["pipes"].as_array().unwrap().iter().any(|p| p["sent"] == 5).then_some(())
    });
    sender.signal(Signal::KILL);
    until("the sender's end", || sender.has_ended().then_some(()));
    let received = receiver.end().expect(1);
    assert_eq!(received.stdout(), "begun");
    received.saying(&["cut off", "signal"]);
}

#[test]
fn a_third_program_joins_two_whose_pipe_the_kernel_carries() {
    let host = Host::sharing();
    let (reader, mut feed) = std::io::pipe().unwrap();
    let mut receiver = host.qpipe(&["recv", "x"]).start();
    let first = host.qpipe(&["send", "x"]).stdin(reader).start();
    feed.write_all(b"before ").unwrap();
    receiver.prints(b"before ");

    host.qpipe(&["send", "x"]).input(b"third ").end().expect(0);
    feed.write_all(b"after").unwrap();
    drop(feed);

    first.end().expect(0);
    assert_eq!(receiver.end().expect(0).stdout(), "before third after");
}

#[test]
fn a_third_program_that_joins_under_load_costs_no_byte() {
    let host = Host::sharing();
    let content = noise(50_000_000);
    let receiver = host.qpipe(&["recv", "x"]).start();
    let first = host.qpipe(&["send", "x"]).input(&content).start();
    until("bytes", || {
        let moved = |pipe: &serde_json::Value| pipe["received"].as_u64() > Some(0);
        let pipes = status(&host)["pipes"].clone();
        pipes.as_array().unwrap().iter().any(moved).then_some(())
    });
    host.qpipe(&["send", "x"]).end().expect(0);

    first.end().expect(0);
    assert_same(&receiver.end().expect(0).stdout, &content);
}

#[test]
fn lines_of_several_programs_stay_whole() {
    lines_stay_whole(|name, letter| {
        // Written in pieces that do not end with lines.
        format!(
            "for i in $(seq 300); do head -c $((RANDOM / 2)) /dev/zero | tr '\\0' {letter}; echo; done \
             | qpipe send --records line {name}"
        )
    });
}

#[test]
fn small_writes_of_several_programs_that_have_the_pipe_itself_stay_whole() {
    lines_stay_whole(|name, letter| {
        let line = letter.repeat(4_000);
        let program = format!("for i in $(seq 2000); do echo {line}; done >&3");
        format!("qpipe open --write {name} --fd 3 -- bash -c '{program}'")
    });
}

/// Runs programs that write lines of one letter, here and on another host.
fn lines_stay_whole(program: impl Fn(&str, &str) -> String) {
    let (a, b, _serving) = two_hosts(&["send:*"]);
    let receiver = b.qpipe(&["recv", "log"]).start();
    let writers: Vec<_> = ["p", "q", "r", "s"]
        .iter()
        .enumerate()
        .map(|(i, letter)| match i % 2 {
            0 => a.bash(&program("b/log", letter)).start(),
            _ => b.bash(&program("log", letter)).start(),
        })
        .collect();
    for writer in writers {
        writer.end().expect(0);
    }
    let received = receiver.end().expect(0).stdout();

    let mut letters = [0; 4];
    for line in received.lines().filter(|line| !line.is_empty()) {
        let first = line.as_bytes()[0];
        assert!(line.bytes().all(|byte| byte == first), "torn");
        letters[usize::from(first - b'p')] += 1;
    }
    assert!(letters.iter().all(|lines| *lines >= 290), "{letters:?}");
}

#[test]
fn a_duplex_program_whose_partner_reads_no_more_still_gets_the_answer() {
    let host = Host::sharing();
    let (reader, writer) = std::io::pipe().unwrap();
    let near = host.qpipe(&["duplex", "talk"]).stdin(reader).start();

    until("the near end", || {
        (has_node(&host) && count(&status(&host), "names") == 1).then_some(())
    });

    // The far program wants nothing to read, and says something.
    let far = host.pipeline("echo answer | qpipe duplex talk | true").end();

    assert!(far.statuses().starts_with("0 "), "{far:?}");
    assert_eq!(near.end().expect(0).stdout(), "answer\n");
    drop(writer);
}

#[test]
fn a_node_that_is_killed_takes_its_pipes_along_and_the_next_command_starts_another() {
    let (a, b, _serving) = two_hosts(&["send:*"]);
    let receiver = b.qpipe(&["recv", "x"]).start();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let sender = a.qpipe(&["send", "b/x"]).stdin(reader).start();
    writer.write_all(b"begun").unwrap();
    until("the node", || has_node(&a).then_some(()));
    let first = node_of(&a);
    let sends = |pipe: &serde_json::Value| pipe["sent"] == 5;
    until("bytes", || status(&a)["pipes"].as_array().unwrap().iter().any(sends).then_some(()));

    kill_process(first, Signal::KILL).unwrap();

    sender.end().expect(1).saying(&["this host's node has ended"]);
    // The producer is told at once.
    until("SIGPIPE", || writer.write_all(b"more").is_err().then_some(()));
    let after = b.qpipe(&["recv", "y"]).start();
    a.qpipe(&["send", "b/y"]).input(b"again").end().expect(0);
    assert_eq!(after.end().expect(0).stdout(), "again");
    assert_ne!(node_of(&a), first);
    receiver.end().expect(1);
}

#[test]
fn a_serve_takes_the_place_of_a_node_that_commands_have_started() {
    let host = Host::sharing();
    let waiting = host.qpipe(&["recv", "x"]).start();
    until("the node", || has_node(&host).then_some(()));
    let first = node_of(&host);
    let serving = host.serve();

    let now = status(&host);

    assert_eq!((&now["serves"], node_of(&host) == first), (&true.into(), false));
    drop((waiting, serving));
}

#[test]
fn a_node_ends_itself_when_nobody_needs_it() {
    let host = Host::sharing();
    fs::create_dir_all(host.home("")).unwrap();
    fs::write(host.home("config.toml"), "[node]\nlinger = \"100ms\"\n").unwrap();
    let receiver = host.qpipe(&["recv", "x"]).start();
    host.qpipe(&["send", "x"]).input(b"all").end().expect(0);
    receiver.end().expect(0);

    until("its end", || (!has_node(&host)).then_some(()));
}

#[test]
fn stop_lets_pipes_come_to_their_end_and_then_cuts_them() {
    let host = Host::sharing();
    let receiver = host.qpipe(&["recv", "x"]).start();
    until("the node", || has_node(&host).then_some(()));

    host.run(&["stop", "--within", "0s"]);

    receiver.end().expect(1);
    host.run(&["stop"]).saying(&["no node runs"]);
}

#[test]
fn a_signal_ends_a_node_that_has_made_room_for_another_and_still_carries() {
    for signal in [Signal::TERM, Signal::INT] {
        let (a, b, _serving) = two_hosts(&["send:x"]);
        let mut receiver = b.qpipe(&["recv", "x"]).start();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let sender = a.qpipe(&["send", "b/x"]).stdin(reader).start();
        writer.write_all(b"begun").unwrap();
        receiver.prints(b"begun");
        let first = node_of(&a);
        let _next = a.serve();
        writer.write_all(b" and going on").unwrap();
        receiver.prints(b"begun and going on");

        kill_process(first, signal).unwrap();

        let sent = sender.end().saying(&["the node is stopping"]);
        assert!([1, 141].contains(&sent.code()), "{sent:?}");
        receiver.end().expect(1).saying(&["the node is stopping"]);
    }
}

#[test]
fn whoever_waits_where_nobody_can_come_any_more_does_not_hold_up_the_end() {
    let host = Host::sharing();
    let mut serving = host.serve();
    let waiting = [["recv", "x"], ["send", "y"], ["duplex", "z"]];
    let waiting: Vec<_> = waiting.iter().map(|arguments| host.qpipe(arguments).start()).collect();
    until("all of them", || (count(&status(&host), "pipes") == waiting.len()).then_some(()));

    serving.running.signal(Signal::TERM);

    for program in waiting {
        program.end().expect(1).saying(&["the node is stopping"]);
    }
    serving.running.says("stopping");
    assert!(!serving.running.end().expect(0).stderr.contains("had not ended"));

    let receiver = host.qpipe(&["recv", "x"]).start();
    until("the node", || (has_node(&host) && count(&status(&host), "pipes") == 1).then_some(()));
    host.run(&["stop", "--within", "1h"]);
    receiver.end().expect(1).saying(&["the node is stopping"]);
}

#[test]
fn a_second_signal_to_serve_cuts_what_programs_of_this_host_have_open() {
    let host = Host::sharing();
    let mut serving = host.serve();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let sender = host.qpipe(&["send", "x"]).stdin(reader).start();
    let mut receiver = host.qpipe(&["recv", "x"]).start();
    writer.write_all(b"hello").unwrap();
    receiver.prints(b"hello");
    serving.running.signal(Signal::TERM);
    serving.running.says("stopping");
    // Nobody's end: it reads its rules.
    serving.running.signal(Signal::HUP);
    serving.running.says("read authorized.toml again");

    serving.running.signal(Signal::TERM);

    serving.running.end().expect(143);
    receiver.end().expect(1).saying(&["cut off after 5 bytes", "the node is stopping"]);
    let sent = sender.end().saying(&["the node is stopping"]);
    assert!([1, 141].contains(&sent.code()), "{sent:?}");
}

#[test]
fn whoever_is_asked_about_a_key_can_answer_with_an_interrupt() {
    let (a, b) = (Host::sharing(), Host::sharing());
    let serving = b.serve();
    let (keyboard, mut typing) = std::io::pipe().unwrap();
    let send = format!("qpipe send {}/x", serving.address);
    let mut sender = a.bash(&format!("script -qec '{send}' /dev/null >&2")).stdin(keyboard).start();
    sender.says("(yes/no)");

    typing.write_all(b"\x03").unwrap();

    sender.end().expect(130);
    assert_eq!(a.run(&["trust", "list"]).stdout, b"");
}

#[test]
fn what_is_typed_as_an_answer_is_not_sent() {
    let (a, b) = (Host::sharing(), Host::sharing());
    let serving = b.serve();
    b.run(&["trust", "add", "alice", "--key", &a.fingerprint(), "--allow", "send:x"]);
    let (keyboard, mut typing) = std::io::pipe().unwrap();
    let send = format!("qpipe send {}/x", serving.address);
    let mut sender = a.bash(&format!("script -qec '{send}' /dev/null >&2")).stdin(keyboard).start();
    let receiver = b.qpipe(&["recv", "x"]).start();
    sender.says("(yes/no)");

    typing.write_all(b"yes\n").unwrap();
    sender.says("pinned the key");
    typing.write_all(b"hello\n\x04").unwrap();

    assert_eq!(receiver.end().expect(0).stdout(), "hello\n");
    sender.end().expect(0);
}

#[test]
fn a_signal_ends_a_command_that_waits_for_its_node_to_start() {
    let host = Host::sharing();
    fs::create_dir(host.home("")).unwrap();
    let lock = fs::File::create(host.home("start.lock")).unwrap();
    lock.lock().unwrap();
    let sender = host.qpipe(&["send", "x"]).start();
    // It listens to signals before it makes its directories.
    until("its directories", || host.home("key").is_dir().then_some(()));

    sender.signal(Signal::INT);

    sender.end().expect(130);
}

#[test]
fn a_command_whose_node_ends_before_it_answers_asks_the_next_one() {
    let host = Host::sharing();
    host.fingerprint();
    let socket = host.home("node.sock");
    let ending = UnixListener::bind(&socket).unwrap();
    let receivers: Vec<_> =
        ["x", "y"].iter().map(|name| host.qpipe(&["recv", name]).start()).collect();
    let first = ending.accept().unwrap();
    fs::remove_file(&socket).unwrap();
    // The other one may not even be accepted.
    drop((ending, first));

    for (name, receiver) in ["x", "y"].iter().zip(receivers) {
        host.qpipe(&["send", name]).input(b"all").end().expect(0);
        assert_eq!(receiver.end().expect(0).stdout(), "all");
    }
}

#[test]
fn a_reader_that_leaves_before_the_pipe_is_open_is_noticed() {
    // One that never answers.
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (a, b, _serving) = two_hosts(&["recv:x", "send:y", "recv:y"]);
    let address = nobody.local_addr().unwrap().to_string();
    a.run(&["trust", "add", "c", "--key", &b.fingerprint(), "--address", &address]);

    assert_eq!(a.pipeline("qpipe recv c/x | true").end().statuses(), "141 0");
    // One at which nobody writes.
    assert_eq!(a.pipeline("qpipe recv --timeout 1h b/x | true").end().statuses(), "141 0");

    // Whoever holds both ends can be heard all the same.
    let (reader, writer) = std::io::pipe().unwrap();
    let far = b.qpipe(&["duplex", "y"]).stdin(reader).start();
    let near = a.pipeline("echo answer | qpipe duplex --timeout 1h b/y | true").end();
    assert!(near.statuses().starts_with("0 "), "{near:?}");
    assert_eq!(far.end().expect(0).stdout(), "answer\n");
    drop(writer);
}

#[test]
fn whoever_waits_when_serve_starts_is_found_there() {
    let (a, b) = (Host::sharing(), Host::sharing());
    let receiver = b.qpipe(&["recv", "x"]).start();
    until("the node", || has_node(&b).then_some(()));
    let serving = b.serve();
    introduce(&a, "alice", &b, &serving, &["send:x"]);

    a.qpipe(&["send", "b/x"]).input(b"all").end().expect(0);

    assert_eq!(receiver.end().expect(0).stdout(), "all");
}
