//! How each of the four processes can die, and what the other three see of it.

use std::io::{self, PipeReader, PipeWriter, Read, Write};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::ioctl_fionread,
    process::Signal,
};

use crate::host::{Host, Running, assert_same, noise, take, until};

/// A pipe that has carried `partial` and waits for more; the test is producer and consumer.
struct Flowing {
    feed: PipeWriter,
    sender: Running,
    receiver: Running,
    taken: PipeReader,
    _hosts: (Host, Host),
}

fn flowing(receive: &[&str]) -> Flowing {
    let (a, b) = (Host::new(), Host::new());
    let ((input, mut feed), (mut taken, output)) = (io::pipe().unwrap(), io::pipe().unwrap());
    let mut sender = a.qpipe(&["send"]).stdin(input).start();
    let receiver = b.qpipe(receive).ticket(&sender.ticket()).stdout(output).start();
    feed.write_all(b"partial").unwrap();
    assert_eq!(take(&mut taken, 7), b"partial");
    Flowing { feed, sender, receiver, taken, _hosts: (a, b) }
}

/// Waits until nobody reads what is written here; nothing is written for that.
fn wait_until_broken(feed: &PipeWriter) {
    until("a broken pipe", || {
        let mut watched = [PollFd::new(feed, PollFlags::empty())];
        poll(&mut watched, Some(&Default::default())).unwrap();
        watched[0].revents().contains(PollFlags::ERR).then_some(())
    });
}

fn rest(mut taken: PipeReader) -> Vec<u8> {
    let mut rest = Vec::new();
    taken.read_to_end(&mut rest).unwrap();
    rest
}

#[test]
fn a_killed_producer_is_an_end_as_for_the_kernel() {
    let producer = "{ echo partial; kill -9 $BASHPID; }";
    let host = Host::new();
    let oracle = host.pipeline(&format!("{producer} | cat")).end();
    assert_eq!((oracle.statuses(), &oracle.stdout[..]), ("137 0", &b"partial\n"[..]));

    let (sent, received) =
        crate::anonymous::over_qpipe(&format!("{producer} | qpipe send"), "qpipe recv | cat");

    assert_eq!((sent.statuses(), received.statuses()), ("137 0", "0 0"));
    assert_eq!(received.stdout, oracle.stdout);
}

#[test]
fn c02_a_killed_sender_is_a_failure_after_what_came() {
    let pipe = flowing(&["recv"]);

    pipe.sender.signal(Signal::KILL);

    let sentence =
        "the anonymous pipe was cut off after 7 bytes: the process at the other end is gone";
    pipe.receiver.end().expect(1).saying(&[sentence]);
    assert_eq!(rest(pipe.taken), b"");
    pipe.sender.end().expect(137);
}

#[test]
fn an_abort_can_count_as_an_end_as_the_kernel_has_it() {
    let pipe = flowing(&["recv", "--abort-as-eof"]);

    pipe.sender.signal(Signal::TERM);

    pipe.receiver.end().expect(0).silent();
    pipe.sender.end().expect(143);
}

#[test]
fn a_killed_receiver_breaks_the_pipe_of_the_producer() {
    let pipe = flowing(&["recv"]);

    pipe.receiver.signal(Signal::KILL);

    wait_until_broken(&pipe.feed);
    let sent = pipe.sender.end();
    assert!([1, 141].contains(&sent.code()), "{sent:?}");
    sent.saying(&["the process at the other end is gone"]);
    pipe.receiver.end().expect(137);
}

#[test]
fn a_killed_consumer_ends_everything_before_it_by_sigpipe() {
    let host = Host::new();
    let consumer = "{ head -c 1000000 >/dev/null; kill -9 $BASHPID; }";
    let oracle = host.pipeline(&format!("yes | {consumer}")).end();
    assert_eq!(oracle.statuses(), "141 137");

    let (sent, received) =
        crate::anonymous::over_qpipe("yes | qpipe send", &format!("qpipe recv | {consumer}"));

    assert_eq!((sent.statuses(), received.statuses()), ("141 141", "141 137"));
}

#[test]
fn c06_an_idle_producer_is_told_that_its_reader_left() {
    let pipe = flowing(&["recv"]);

    drop(pipe.taken);

    wait_until_broken(&pipe.feed);
    pipe.sender.end().expect(141).saying(&["qpipe recv qpipe1"]);
    pipe.receiver.end().expect(141).silent();
}

#[test]
fn c16_sigterm_to_a_blocked_sender_kills_it_and_the_receiver_hears_why() {
    let pipe = flowing(&["recv"]);

    pipe.sender.signal(Signal::TERM);

    pipe.sender.end().expect(143);
    let sentence = "was cut off after 7 bytes: it was interrupted by a signal";
    pipe.receiver.end().expect(1).saying(&[sentence]);
    assert_eq!(rest(pipe.taken), b"");
}

#[test]
fn c16_sigterm_to_a_blocked_receiver_kills_it_and_the_sender_hears_why() {
    let pipe = flowing(&["recv"]);

    pipe.receiver.signal(Signal::TERM);

    pipe.receiver.end().expect(143);
    wait_until_broken(&pipe.feed);
    let sentence = ": it was interrupted by a signal";
    pipe.sender.end().expect(141).saying(&[sentence]);
}

#[test]
fn c16_sigterm_kills_ends_that_nobody_has_joined() {
    for command in ["send", "recv", "duplex"] {
        let (host, (input, _feed)) = (Host::new(), io::pipe().unwrap());
        let mut end = host.qpipe(&[command]).stdin(input).start();
        end.ticket();

        end.signal(Signal::TERM);

        end.end().expect(143);
    }
}

#[test]
fn c26_sigterm_to_a_busy_sender_is_an_abort() {
    let (a, b) = (Host::new(), Host::new());
    let mut producer = a.bash("yes | { echo $BASHPID > pid; exec qpipe send; }").start();
    let mut receiver = b.pipeline("qpipe recv | tail -c 1").ticket(&producer.ticket()).start();
    let pid = std::fs::read_to_string(a.work("pid")).unwrap();
    until("bytes", || (!receiver.has_ended() && is_writing(&pid)).then_some(()));

    a.bash(&format!("kill {}", pid.trim())).end().expect(0);

    let received = receiver.end().saying(&["it was interrupted by a signal; what came is right"]);
    assert_eq!(received.statuses(), "1 0");
    producer.end().expect(143);
}

/// Whether more than a mebibyte was read by the process.
fn is_writing(pid: &str) -> bool {
    let io = std::fs::read_to_string(format!("/proc/{}/io", pid.trim())).unwrap();
    let read = io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
    read.parse::<u64>().unwrap() > 1 << 20
}

#[test]
fn c30_what_came_stays_readable_after_the_writer_died() {
    let (a, b) = (Host::new(), Host::new());
    let ((input, mut feed), (mut taken, output)) = (io::pipe().unwrap(), io::pipe().unwrap());
    let mut sender = a.qpipe(&["send"]).stdin(input).start();
    let receiver = b.qpipe(&["recv"]).ticket(&sender.ticket()).stdout(output).start();
    let content = noise(50_000);
    feed.write_all(&content).unwrap();
    let first = take(&mut taken, 10);
    until("all bytes", || (ioctl_fionread(&taken).unwrap() == 49_990).then_some(()));

    sender.signal(Signal::KILL);

    receiver.end().expect(1).saying(&["was cut off after 50000 bytes"]);
    assert_same(&[first, rest(taken)].concat(), &content);
}

#[test]
fn pipefail_shows_what_the_consumer_cannot_see() {
    let (a, b) = (Host::new(), Host::new());
    let (input, mut feed) = io::pipe().unwrap();
    feed.write_all(b"partial").unwrap();
    let mut sender = a.qpipe(&["send"]).stdin(input).start();
    let script = "set -o pipefail; qpipe recv | cat > f; echo status $?";
    let mut receiver = b.bash(script).ticket(&sender.ticket()).start();
    until("bytes", || (std::fs::read(b.work("f")).ok()? == b"partial").then_some(()));
    assert!(!receiver.has_ended());

    sender.signal(Signal::INT);

    sender.end().expect(130);
    assert_eq!(receiver.end().expect(0).stdout(), "status 1\n");
}
