//! Anonymous pipes: what arrives, in which order, and when it ends.

use std::{fs::File, io, process::Stdio};

use rustix::io::ioctl_fionread;

use crate::host::{Ended, Host, assert_same, noise, take, until};

/// Runs `sender` on one host, and with its ticket `receiver` on another.
pub fn over_qpipe(sender: &str, receiver: &str) -> (Ended, Ended) {
    let (a, b) = (Host::new(), Host::new());
    let mut sender = a.pipeline(sender).start();
    let receiver = b.pipeline(receiver).ticket(&sender.ticket()).start();
    (sender.end(), receiver.end())
}

#[test]
fn c01_all_that_was_written_arrives_and_then_the_end() {
    let oracle = Host::new().pipeline("seq 200000 | sha256sum").end();
    assert_eq!(oracle.statuses(), "0 0");

    let (sent, received) = over_qpipe("seq 200000 | qpipe send", "qpipe recv | sha256sum");

    assert_eq!((sent.statuses(), received.statuses()), ("0 0", "0 0"));
    assert_eq!(received.stdout(), oracle.stdout());
    assert!(sent.stdout.is_empty());
}

#[test]
fn c03_nothing_written_is_an_end_at_once() {
    for producer in ["qpipe send </dev/null", ": | qpipe send", "qpipe send < <(exit 3)"] {
        let (sent, received) = over_qpipe(producer, "qpipe recv | wc -c");

        assert!(sent.statuses().ends_with('0'), "{sent:?}");
        assert_eq!((received.statuses(), received.stdout().trim()), ("0 0", "0"));
    }
}

#[test]
fn c04_a_reader_that_leaves_ends_everything_before_it_by_sigpipe() {
    let oracle = Host::new().pipeline("yes | head -2000").end();
    assert_eq!(oracle.statuses(), "141 0");

    let (sent, received) = over_qpipe("yes | qpipe send", "qpipe recv | head -2000");

    assert_eq!((sent.statuses(), received.statuses()), ("141 141", "141 0"));
    assert_eq!(received.stdout(), oracle.stdout());
    assert_eq!(received.stdout().lines().count(), 2000);
}

#[test]
fn c05_a_producer_that_ignores_sigpipe_gets_the_error_instead() {
    let oracle = Host::new().pipeline("trap '' PIPE; yes | head -1").end();
    assert_eq!(oracle.statuses(), "1 0");

    let (sent, received) = over_qpipe("trap '' PIPE; yes | qpipe send", "qpipe recv | head -1");

    assert_eq!((sent.statuses(), received.statuses()), ("1 1", "141 0"));
    sent.saying(&["Broken pipe", "the reader closed the pipe"]);
}

#[test]
fn c07_a_producer_blocked_in_a_large_write_dies_of_sigpipe() {
    let write = "dd if=/dev/zero bs=10M count=1 status=none";
    let oracle = Host::new().pipeline(&format!("{write} | head -c 1 | wc -c")).end();
    assert_eq!(oracle.statuses(), "141 0 0");

    let (sent, received) =
        over_qpipe(&format!("{write} | qpipe send"), "qpipe recv | head -c 1 | wc -c");

    assert_eq!((sent.statuses(), received.statuses()), ("141 141", "141 0 0"));
    assert_eq!(received.stdout(), oracle.stdout());
}

#[test]
fn c09_the_end_comes_when_the_last_of_two_producers_has_gone() {
    let (a, b) = (Host::new(), Host::new());
    let ((input, shared), (gate, key)) = (io::pipe().unwrap(), io::pipe().unwrap());
    let first = a.bash("echo one").stdout(shared.try_clone().unwrap());
    let second = a.bash("read; echo two").stdin(gate).stdout(shared).start();
    let mut sender = a.qpipe(&["send"]).stdin(input).start();
    let mut receiver = b.qpipe(&["recv"]).ticket(&sender.ticket()).start();

    first.end().expect(0);
    receiver.prints(b"one\n");
    assert!(!receiver.has_ended() && !sender.has_ended());
    drop(key);

    second.end().expect(0);
    sender.end().expect(0);
    assert_eq!(receiver.end().expect(0).stdout(), "one\ntwo\n");
}

#[test]
fn c19_the_reader_may_be_first() {
    let (a, b) = (Host::new(), Host::new());
    let mut receiver = b.pipeline("qpipe recv | sha256sum").start();
    let ticket = receiver.ticket();

    let sent = a.pipeline("seq 10000 | qpipe send").ticket(&ticket).end();

    let received = receiver.end();
    assert_eq!((sent.statuses(), received.statuses()), ("0 0", "0 0"));
    let oracle = a.pipeline("seq 10000 | sha256sum").end();
    assert_eq!(received.stdout(), oracle.stdout());
}

#[test]
fn c20_a_writer_without_a_reader_takes_nothing_from_its_producer() {
    let (a, b) = (Host::new(), Host::new());
    let (input, feed) = io::pipe().unwrap();
    rustix::io::write(&feed, b"early").unwrap();
    let mut sender = a.qpipe(&["send"]).stdin(input.try_clone().unwrap()).start();
    let ticket = sender.ticket();
    assert_eq!(ioctl_fionread(&input).unwrap(), 5, "nobody has used the ticket yet");
    drop(input);

    let mut receiver = b.qpipe(&["recv"]).ticket(&ticket).start();

    receiver.prints(b"early");
    drop(feed);
    sender.end().expect(0);
    receiver.end().expect(0);
}

#[test]
fn c22_every_size_arrives_whole() {
    let (a, b) = (Host::new(), Host::new());
    let sizes = [0, 1, 10, 100, 1024, 4095, 4096, 4097, 32 << 10];
    let larger = [65_535, 65_536, 65_537, 128 << 10, 256 << 10, 1 << 20, 16 << 20, 64 << 20];
    for size in sizes.into_iter().chain(larger) {
        let content = noise(size);
        let mut sender = a.qpipe(&["send"]).input(&content).start();

        let received = b.qpipe(&["recv"]).ticket(&sender.ticket()).end().expect(0);

        sender.end().expect(0);
        assert_same(&received.stdout, &content);
        assert_eq!(received.stderr, "");
    }
}

#[test]
fn c24_the_far_program_sees_our_end_before_it_replies_and_the_reply_is_whole() {
    let (a, b) = (Host::new(), Host::new());
    let (request, into_program) = io::pipe().unwrap();
    let (from_program, reply) = io::pipe().unwrap();
    let program = "n=$(wc -c); seq 50000; echo got $n";
    let program = b.bash(program).stdin(request).stdout(reply).start();
    let mut far = b.qpipe(&["duplex"]).stdin(from_program).stdout(into_program).start();

    let near = a.qpipe(&["duplex"]).ticket(&far.ticket()).input(&noise(300_000)).end().expect(0);

    let expected = a.bash("seq 50000; echo got 300000").end();
    assert_same(&near.stdout, &expected.stdout);
    far.end().expect(0);
    program.end().expect(0);
}

#[test]
fn a_ticket_can_be_an_argument_a_variable_or_standard_input() {
    for receiver in ["qpipe recv $T", "QPIPE_TICKET=$T qpipe recv", "echo $T | qpipe recv -"] {
        let (a, b) = (Host::new(), Host::new());
        let mut sender = a.pipeline("echo hello | qpipe send").start();
        let ticket = sender.ticket();

        let received = b.bash(receiver).env("T", &ticket).end().expect(0);

        assert_eq!(received.stdout(), "hello\n");
        assert_eq!(sender.end().statuses(), "0 0");
    }
}

#[test]
fn a_file_is_appended_to_as_the_shell_says() {
    let (a, b) = (Host::new(), Host::new());
    std::fs::write(b.work("f"), "before\n").unwrap();
    std::fs::write(a.work("f"), noise(100_000)).unwrap();
    let mut sender = a.qpipe(&["send"]).stdin(File::open(a.work("f")).unwrap()).start();

    b.bash("qpipe recv >> f").ticket(&sender.ticket()).end().expect(0).silent();

    sender.end().expect(0);
    assert_same(&std::fs::read(b.work("f")).unwrap(), &[b"before\n", &noise(100_000)[..]].concat());
}

#[test]
fn c08_a_reader_that_takes_a_part_and_leaves_breaks_the_next_write() {
    let (a, b) = (Host::new(), Host::new());
    let ((input, mut feed), (mut taken, output)) = (io::pipe().unwrap(), io::pipe().unwrap());
    let mut sender = a.qpipe(&["send"]).stdin(input).start();
    let receiver = b.qpipe(&["recv"]).ticket(&sender.ticket()).stdout(output).start();
    let content = noise(200_000);
    let written = content.clone();
    let writer = std::thread::spawn(move || {
        // The first write may fail already, and is not repeated: nothing is doubled.
        let first = io::Write::write(&mut feed, &written).map_err(|error| error.kind());
        let second = until("an error", || io::Write::write(&mut feed, &[0; 4096]).err());
        (first, second.kind())
    });

    assert_same(&take(&mut taken, 1000), &content[..1000]);
    drop(taken);

    let (first, second) = writer.join().unwrap();
    assert!(matches!(first, Ok(1..) | Err(io::ErrorKind::BrokenPipe)), "{first:?}");
    assert_eq!(second, io::ErrorKind::BrokenPipe);
    sender.end().expect(141);
    receiver.end().expect(141);
}

#[test]
fn a_receiver_whose_reader_is_gone_before_a_writer_came_does_not_wait() {
    let oracle = Host::new().pipeline("cat /dev/zero | true").end();
    assert_eq!(oracle.statuses(), "141 0");

    let (reader, output) = io::pipe().unwrap();
    drop(reader);
    let host = Host::new();
    host.qpipe(&["recv"]).stdout(Stdio::from(output)).end().expect(141);
}
