//! What standard input and output may be, and that they are left as they were.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    thread,
};

use crate::host::{Host, assert_same, noise};

/// The flags of an open file description, octal, as the kernel shows them.
fn flags(pid: &str, descriptor: u32) -> Option<u32> {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{descriptor}")).ok()?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    Some(u32::from_str_radix(flags.trim(), 8).unwrap())
}

const O_NONBLOCK: u32 = 0o4000;

const SHARED_BYTES: usize = 64 << 20;

#[test]
fn c27_neighbours_that_share_descriptors_never_find_them_non_blocking() {
    let (a, b) = (Host::new(), Host::new());
    let ((producer, mut feed), (mut consumed, into)) = (io::pipe().unwrap(), io::pipe().unwrap());
    let script = "tee >(echo $BASHPID > pid; exec qpipe send) | cat >/dev/null; \
                  echo \"statuses ${PIPESTATUS[*]}\" >&2; wait";
    let mut tee = a.bash(script).stdin(producer).start();
    let receiver = b.qpipe(&["recv"]).ticket(&tee.ticket()).stdout(into).start();
    let pid = fs::read_to_string(a.work("pid")).unwrap().trim().to_owned();
    let receiver_pid = receiver.pid().to_string();
    let content = noise(1 << 20);
    let written = content.clone();
    let writer = thread::spawn(move || {
        for _ in 0..SHARED_BYTES >> 20 {
            feed.write_all(&written).unwrap();
        }
    });

    let mut buffer = vec![0; 1 << 20];
    for n in 0..SHARED_BYTES >> 20 {
        consumed.read_exact(&mut buffer).unwrap();
        assert_same(&buffer, &content);
        for (pid, descriptor) in [(&pid, 0), (&pid, 2), (&receiver_pid, 0), (&receiver_pid, 1)] {
            match flags(pid, descriptor) {
                Some(flags) => assert_eq!(flags & O_NONBLOCK, 0, "{descriptor} of {pid}"),
                // After the last bytes they may have ended.
                None => assert_eq!(n + 1, SHARED_BYTES >> 20),
            }
        }
    }

    writer.join().unwrap();
    let ended = tee.end();
    assert_eq!(ended.statuses(), "0 0");
    assert!(!ended.stderr.contains("temporarily unavailable"), "{ended:?}");
    receiver.end().expect(0);
}

/// Sends from the standard input that `script` sets up; gives what arrived.
fn received_from(script: &str) -> Vec<u8> {
    let (a, b) = (Host::new(), Host::new());
    fs::write(a.work("f"), noise(300_000)).unwrap();
    let mut receiver = b.qpipe(&["recv"]).start();
    a.bash(script).ticket(&receiver.ticket()).end().expect(0);
    receiver.end().expect(0).stdout
}

#[test]
fn c28_standard_input_may_be_a_file() {
    assert_same(&received_from("qpipe send < f"), &noise(300_000));
    assert_same(
        &received_from("{ head -c 100000 >/dev/null; qpipe send; } < f"),
        &noise(300_000)[100_000..],
    );
}

#[test]
fn c28_standard_input_may_be_dev_null() {
    assert_eq!(received_from("qpipe send < /dev/null"), b"");
}

#[test]
fn c28_standard_input_may_be_a_terminal() {
    let typed = "(echo typed; echo more) | script -qec 'stty -echo; qpipe send' /dev/null";

    assert_eq!(received_from(typed), b"typed\nmore\n");
}

#[test]
fn c28_standard_input_may_be_a_socket() {
    let (a, b) = (Host::new(), Host::new());
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut sender = a.qpipe(&["send"]).stdin(OwnedFd::from(theirs)).start();
    let ticket = sender.ticket();
    let writer = thread::spawn(move || (&ours).write_all(&noise(300_000)).unwrap());

    let received = b.qpipe(&["recv"]).ticket(&ticket).end().expect(0);

    writer.join().unwrap();
    assert_same(&received.stdout, &noise(300_000));
    sender.end().expect(0);
}

#[test]
fn c28_closed_descriptors_are_noticed_rather_than_lost_bytes() {
    let host = Host::new();
    host.bash("qpipe send <&-").end().expect(1).saying(&["standard input is closed", "/dev/null"]);
    host.bash("qpipe recv >&-").end().expect(1).saying(&["standard output is closed"]);
    host.bash("qpipe duplex <&-").end().expect(1).saying(&["standard input is closed"]);
}

#[test]
fn closed_standard_error_costs_only_the_messages() {
    let (a, b) = (Host::new(), Host::new());
    let mut sender = a.bash("echo hello | qpipe send").start();

    let received = b.bash("qpipe recv 2>&-").ticket(&sender.ticket()).end().expect(0);

    assert_eq!(received.stdout(), "hello\n");
    sender.end().expect(0);
}

#[test]
fn input_that_cannot_be_read_is_an_abort_and_not_an_end() {
    let (a, b) = (Host::new(), Host::new());
    let mut receiver = b.qpipe(&["recv"]).start();

    let sent = a.bash("qpipe send < /").ticket(&receiver.ticket()).end().expect(1);

    sent.saying(&["cannot read standard input", "Is a directory", "cut off"]);
    receiver.end().expect(1).saying(&["was cut off after 0 bytes: its input or output failed"]);
}

#[test]
fn output_that_cannot_be_written_fails_both_ends() {
    let (a, b) = (Host::new(), Host::new());
    let mut sender = a.pipeline("yes | qpipe send").start();
    let full = File::options().write(true).open("/dev/full").unwrap();

    let received = b.qpipe(&["recv"]).ticket(&sender.ticket()).stdout(full).end().expect(1);

    received.saying(&["cannot write standard output: No space left on device"]);
    let sent = sender.end().saying(&["its input or output failed"]);
    assert_eq!(sent.statuses(), "141 141");
}
