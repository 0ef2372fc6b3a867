//! `qpipe fifo`: programs that know nothing of qpipe, at a FIFO on disk.

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileTypeExt, PermissionsExt},
};

use rustix::process::Signal;

use crate::host::{Host, Running, Serving, assert_same, introduce, noise, until};

/// Hosts and the targets of one pipe: of the host at the far end, and of the FIFO's.
struct Two {
    here: Host,
    far: Option<(Host, Serving)>,
}

impl Two {
    /// Everything on one host.
    fn local() -> Two {
        Two { here: Host::sharing(), far: None }
    }

    fn remote() -> Two {
        let (here, far) = (Host::sharing(), Host::sharing());
        let serving = far.serve();
        introduce(&here, "alice", &far, &serving, &["send:x", "recv:x"]);
        Two { here, far: Some((far, serving)) }
    }

    fn far(&self) -> &Host {
        self.far.as_ref().map_or(&self.here, |(far, _)| far)
    }

    /// Waits until this stands in the list of names. The node may only be starting.
    fn lists(&self, texts: &[&str]) {
        until("the pipe", || {
            let list = self.far().qpipe(&["ls"]).end().stdout();
            texts.iter().all(|text| list.contains(text)).then_some(())
        });
    }

    /// Starts the command, and waits for the FIFO.
    fn fifo(&self, options: &[&str]) -> Running {
        let target = if self.far.is_some() { "b/x" } else { "x" };
        let running = self.here.qpipe(&[&["fifo", target, "f"], options].concat()).start();
        until("the FIFO", || self.here.work("f").exists().then_some(()));
        running
    }
}

fn each(test: impl Fn(Two)) {
    test(Two::local());
    test(Two::remote());
}

/// Ends a command that would go on for ever.
fn stop(fifo: Running) {
    fifo.signal(Signal::TERM);
    fifo.end().expect(143).silent();
}

#[test]
fn programs_write_into_it_one_life_after_another() {
    each(|hosts| {
        let fifo = hosts.fifo(&["--write"]);
        let content = noise(3_000_000);
        for piece in [&content[..], b"", b"second", &content[..70_000]] {
            let receiver = hosts.far().qpipe(&["recv", "x"]).start();
            hosts.here.bash("cat > f").input(piece).end().expect(0).silent();
            assert_same(&receiver.end().expect(0).stdout, piece);
        }
        stop(fifo);
        assert!(!hosts.here.work("f").exists());
    });
}

#[test]
fn programs_read_from_it_one_life_after_another() {
    each(|hosts| {
        let fifo = hosts.fifo(&["--read"]);
        let content = noise(3_000_000);
        for piece in [&content[..], b"", b"second", &content[..70_000]] {
            let reader = hosts.here.bash("cat f").start();
            hosts.far().qpipe(&["send", "x"]).input(piece).end().expect(0).silent();
            assert_same(&reader.end().expect(0).stdout, piece);
        }
        stop(fifo);
        assert!(!hosts.here.work("f").exists());
    });
}

#[test]
fn lives_that_wait_for_each_other_are_not_mixed() {
    let hosts = Two::local();
    let fifo = hosts.fifo(&["--read"]);
    let script = "for i in 1 2 3; do echo $i | qpipe send x; done";
    let senders = hosts.here.bash(script).start();
    let reader = hosts.here.bash("for i in 1 2 3; do cat f; echo eof; done");

    assert_eq!(reader.end().expect(0).stdout(), "1\neof\n2\neof\n3\neof\n");
    senders.end().expect(0).silent();
    stop(fifo);
}

#[test]
fn the_end_of_file_waits_for_the_last_of_several_writers() {
    let hosts = Two::local();
    let fifo = hosts.fifo(&["--write", "--once"]);
    let receiver = hosts.here.qpipe(&["recv", "x"]).start();

    hosts.here.bash("exec 3> f; echo one > f; echo two > f; echo three >&3").end().expect(0);

    assert_eq!(receiver.end().expect(0).stdout(), "one\ntwo\nthree\n");
    fifo.end().expect(0).silent();
}

#[test]
fn an_open_waits_for_the_far_end() {
    each(|hosts| {
        let fifo = hosts.fifo(&["--write", "--once"]);
        let mut writer = hosts.here.bash("exec > f; echo opened >&2; echo hi").start();
        hosts.lists(&["1 writing"]);
        assert!(!writer.has_ended());

        let receiver = hosts.far().qpipe(&["recv", "x"]).start();

        assert_eq!(writer.end().expect(0).stderr, "opened\n");
        assert_eq!(receiver.end().expect(0).stdout(), "hi\n");
        fifo.end().expect(0).silent();
    });
}

#[test]
fn a_program_whose_far_reader_goes_dies_of_sigpipe() {
    each(|hosts| {
        let fifo = hosts.fifo(&["--write"]);
        for _ in 0..2 {
            let receiver = hosts.far().pipeline("qpipe recv x | head -c 4").start();
            hosts.here.bash("exec yes > f").end().expect(141).silent();
            assert_eq!(receiver.end().stdout(), "y\ny\n");
        }
        stop(fifo);
        let once = hosts.fifo(&["--write", "--once"]);
        let receiver = hosts.far().pipeline("qpipe recv x | head -c 4").start();
        hosts.here.bash("exec yes > f").end().expect(141).silent();
        receiver.end().expect(0);
        once.end().expect(141).silent();
    });
}

#[test]
fn a_far_reader_that_goes_before_a_program_comes_is_one_life() {
    each(|hosts| {
        let fifo = hosts.fifo(&["--write"]);
        let receiver = hosts.far().qpipe(&["recv", "x"]).start();
        hosts.lists(&["1 writing", "1 reading"]);
        receiver.signal(Signal::KILL);
        receiver.end().expect(137);

        let receiver = hosts.far().qpipe(&["recv", "x"]).start();
        hosts.here.bash("echo next > f").end().expect(0).silent();

        assert_eq!(receiver.end().expect(0).stdout(), "next\n");
        fifo.signal(Signal::TERM);
        fifo.end().expect(143);
    });
}

#[test]
fn a_far_writer_hears_that_the_last_reader_has_gone() {
    each(|hosts| {
        let fifo = hosts.fifo(&["--read", "--once"]);
        let sender = hosts.far().pipeline("yes | qpipe send x").start();
        assert_eq!(hosts.here.bash("head -c 4 f").end().expect(0).stdout(), "y\ny\n");
        assert_eq!(sender.end().statuses(), "141 141");
        fifo.end().expect(141).silent();
        assert!(!hosts.here.work("f").exists());
    });
}

#[test]
fn an_idle_far_writer_hears_it_as_well() {
    let hosts = Two::local();
    let fifo = hosts.fifo(&["--read", "--once"]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"hi\n").unwrap();
    let sender = hosts.here.qpipe(&["send", "x"]).stdin(reader).start();

    assert_eq!(hosts.here.bash("head -n 1 f").end().expect(0).stdout(), "hi\n");

    sender.end().expect(141).silent();
    fifo.end().expect(141).silent();
}

#[test]
fn a_far_writer_that_is_killed_is_said_here_and_is_no_success() {
    each(|hosts| {
        let fifo = hosts.fifo(&["--read", "--once"]);
        let mut reader = hosts.here.bash("cat f").start();
        let script = "(echo begun; exec sleep 1000) | qpipe send x";
        let sender = hosts.far().bash(script).start();
        reader.prints(b"begun\n");

        drop(sender);

        reader.end().expect(0);
        fifo.end().expect(1).saying(&["cut off after 6 bytes"]);
    });
}

#[test]
fn a_signal_that_ends_it_cuts_the_pipe_off() {
    let hosts = Two::local();
    for (signal, status) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let fifo = hosts.fifo(&["--write"]);
        let mut receiver = hosts.here.qpipe(&["recv", "x"]).start();
        let writer = hosts.here.bash("exec > f; echo begun; exec sleep 1000").start();
        receiver.prints(b"begun\n");
        fifo.signal(signal);
        fifo.end().expect(status).silent();
        receiver.end().expect(1).saying(&["cut off", "signal"]);
        assert!(!hosts.here.work("f").exists());
        drop(writer);
    }
}

#[test]
fn what_is_at_the_path_is_used_if_it_is_a_fifo_and_left_alone() {
    let hosts = Two::local();
    let path = hosts.here.work("f");
    fs::write(&path, "precious").unwrap();
    let taken = hosts.here.qpipe(&["fifo", "--write", "x", "f"]).end().expect(1);
    assert_eq!(taken.stderr, "qpipe: f is there already and is no FIFO: name another PATH\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(&path).unwrap();

    hosts.here.bash("mkfifo f").end().expect(0);
    stop(hosts.fifo(&["--write"]));
    assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
    fs::remove_file(&path).unwrap();

    stop(hosts.fifo(&["--read", "--mode", "622", "--keep"]));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o622);
    fs::remove_file(&path).unwrap();

    let fifo = hosts.fifo(&["--write"]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    hosts.here.bash("mv f moved && mkfifo f").end().expect(0);
    stop(fifo);
    assert!(path.exists());
}

#[test]
fn a_fifo_that_was_replaced_is_a_failure_of_the_next_life() {
    let hosts = Two::local();
    let fifo = hosts.fifo(&["--write"]);
    hosts.here.bash("mv f moved && echo precious > f").end().expect(0);
    let receiver = hosts.here.qpipe(&["recv", "x"]).start();

    fifo.end().expect(1).saying(&["f is not the FIFO any more that it was"]);

    receiver.end().expect(1).saying(&["cut off"]);
    assert_eq!(fs::read_to_string(hosts.here.work("f")).unwrap(), "precious\n");
}

#[test]
fn a_pipe_that_is_refused_leaves_nothing_behind() {
    let hosts = Two::remote();
    let refused = hosts.here.qpipe(&["fifo", "--write", "b/y", "f"]).end();
    refused.expect(1).saying(&["no rule"]);
    hosts.here.qpipe(&["fifo", "--write", "qpipe1x", "f"]).end().expect(2);
    assert!(!hosts.here.work("f").exists());
    for line in ["fifo x f", "fifo --read --write x f", "fifo --read x"] {
        let arguments: Vec<_> = line.split(' ').collect();
        hosts.here.qpipe(&arguments).end().expect(2).saying(&["Usage"]);
    }
}
