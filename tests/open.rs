//! `qpipe open`: programs that have an end of a pipe as a file descriptor of their own.

use std::{fs, io::Write};

use rustix::process::Signal;

use crate::host::{Host, Serving, assert_same, introduce, noise, until};

fn two_hosts(rules: &[&str]) -> (Host, Host, Serving) {
    let (a, b) = (Host::sharing(), Host::sharing());
    let serving = b.serve();
    introduce(&a, "alice", &b, &serving, rules);
    (a, b, serving)
}

#[test]
fn a_program_writes_into_a_pipe_of_another_host_and_its_output_stays_its_own() {
    let (a, b, _serving) = two_hosts(&["send:x"]);
    let receiver = b.qpipe(&["recv", "x"]).start();

    let script = "cat; echo told >&2; echo hi >&3; (sleep 0.1; echo there >&3) &";
    let opened = a.qpipe(&["open", "--write", "b/x", "--", "sh", "-c", script]);
    let opened = opened.input(b"kept").end().expect(0);

    assert_eq!((opened.stdout(), &*opened.stderr), ("kept".into(), "told\n"));
    assert_eq!(receiver.end().expect(0).stdout(), "hi\nthere\n");
}

#[test]
fn a_program_reads_from_a_pipe_of_another_host() {
    let (a, b, _serving) = two_hosts(&["recv:x"]);
    let content = noise(3_000_000);
    let sender = b.qpipe(&["send", "x"]).input(&content).start();

    let opened = a.qpipe(&["open", "b/x", "--read", "--fd", "7", "--", "sh", "-c", "cat <&7"]);

    assert_same(&opened.end().expect(0).stdout, &content);
    sender.end().expect(0).silent();
}

#[test]
fn the_descriptor_is_that_of_a_kernel_pipe_whatever_its_number() {
    let host = Host::sharing();
    for fd in ["0", "3", "4", "9", "12", "100"] {
        let sender = host.qpipe(&["send", "x"]).input(b"all").start();
        let script = format!("readlink /proc/self/fd/{fd} && cat /proc/self/fd/{fd}");
        let opened = host.qpipe(&["open", "--read", "--fd", fd, "x", "--", "sh", "-c", &script]);
        let opened = opened.end().expect(0).stdout();
        assert!(opened.starts_with("pipe:[") && opened.ends_with("]\nall"), "{fd}: {opened}");
        sender.end().expect(0);
    }
    for fd in ["1", "2"] {
        let receiver = host.qpipe(&["recv", "x"]).start();
        let script = format!("echo hi >&{fd}");
        let opened = host.qpipe(&["open", "--write", "--fd", fd, "x", "--", "sh", "-c", &script]);
        opened.end().expect(0).silent();
        assert_eq!(receiver.end().expect(0).stdout(), "hi\n");
    }
}

#[test]
fn a_program_has_one_descriptor_more_than_without() {
    let host = Host::sharing();
    let receiver = host.qpipe(&["recv", "x"]).start();
    let count = |script: &str| host.bash(script).end().expect(0).stdout().lines().count();

    let without = count("exec ls /proc/self/fd");
    let with = count("exec qpipe open --write --fd 99 x -- ls /proc/self/fd");

    assert_eq!(with, without + 1);
    receiver.end().expect(0).silent();
}

#[test]
fn a_program_that_fails_or_is_killed_has_written_no_end_of_file() {
    let (a, b, _serving) = two_hosts(&["send:x"]);
    let ends = [("exit 7", 7, "input or output"), ("kill -9 $$", 137, "signal")];
    for (end, status, cause) in ends {
        let receiver = b.qpipe(&["recv", "x"]).start();
        let script = format!("echo begun >&3; {end}");
        let opened = a.qpipe(&["open", "--write", "b/x", "--", "sh", "-c", &script]).end();
        opened.expect(status).saying(&["the program", "was told that it is cut off"]);
        receiver.end().expect(1).saying(&["cut off", cause]);
    }
}

#[test]
fn an_end_of_file_waits_for_the_status_of_the_program() {
    let host = Host::sharing();
    let receiver = host.bash("qpipe recv x > all; echo $?").start();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let script = "echo all >&3; exec 3>&-; echo closed; read status; exit $status";
    let open = host.qpipe(&["open", "--write", "x", "--", "sh", "-c", script]);
    let mut open = open.stdin(reader).start();
    open.prints(b"closed\n");
    until("the bytes", || (fs::read(host.work("all")).ok()? == b"all\n").then_some(()));
    assert!(!open.has_ended());

    writer.write_all(b"4\n").unwrap();

    open.end().expect(4);
    assert_eq!(receiver.end().stdout(), "1\n");
}

#[test]
fn a_program_whose_reader_has_gone_dies_of_sigpipe() {
    let (a, b, _serving) = two_hosts(&["send:x"]);
    let receiver = b.pipeline("qpipe recv x | head -c 1000 | wc -c").start();

    let opened = a.qpipe(&["open", "--write", "b/x", "--", "sh", "-c", "exec yes >&3"]);

    opened.end().expect(141).silent();
    assert_eq!(receiver.end().statuses(), "141 0 0");
}

#[test]
fn a_program_that_reads_no_more_breaks_the_pipe_and_may_succeed() {
    let (a, b, _serving) = two_hosts(&["recv:x"]);
    let sender = b.pipeline("yes | qpipe send x").start();

    let opened = a.qpipe(&["open", "--read", "b/x", "--", "sh", "-c", "head -c 2 <&3"]);

    assert_eq!(opened.end().expect(0).stdout(), "y\n");
    assert_eq!(sender.end().statuses(), "141 141");
}

#[test]
fn a_pipe_that_is_cut_off_is_no_success_of_its_reader() {
    let host = Host::sharing();
    let script = "echo begun >&3; exit 1";
    let opened = host.qpipe(&["open", "--read", "x", "--fd", "0", "--", "cat"]).start();
    host.qpipe(&["open", "--write", "x", "--", "sh", "-c", script]).end().expect(1);

    let opened = opened.end().expect(1).saying(&["cut off after 6 bytes"]);
    assert_eq!(opened.stdout(), "begun\n");
}

#[test]
fn signals_are_passed_to_the_program() {
    let host = Host::sharing();
    for (signal, number) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let receiver = host.qpipe(&["recv", "x"]).start();
        let script = "echo begun >&3; echo runs; exec sleep 1000";
        let mut open = host.qpipe(&["open", "--write", "x", "--", "sh", "-c", script]).start();
        open.prints(b"runs\n");
        open.signal(signal);
        open.end().expect(number);
        receiver.end().expect(1).saying(&["cut off", "signal"]);
    }
    let receiver = host.qpipe(&["recv", "x"]).start();
    let script = "trap 'echo done >&3; kill $!; exit 0' TERM; sleep 1000 3>&- & echo runs; wait";
    let mut open = host.qpipe(&["open", "--write", "x", "--", "sh", "-c", script]).start();
    open.prints(b"runs\n");
    open.signal(Signal::TERM);
    open.end().expect(0);
    assert_eq!(receiver.end().expect(0).stdout(), "done\n");
}

#[test]
fn a_program_that_cannot_be_run_is_told_as_shells_do_and_aborts_the_pipe() {
    let host = Host::sharing();
    fs::write(host.work("text"), "no program").unwrap();
    for (name, status) in [("./missing", 127), ("./text", 126)] {
        for fd in ["3", "9", "10", "11", "12", "13", "14", "15", "16"] {
            let receiver = host.qpipe(&["recv", "x"]).start();
            let opened = host.qpipe(&["open", "--write", "x", "--fd", fd, "--", name]);
            opened.end().expect(status).saying(&["cannot run", name]);
            let received = receiver.end().expect(1);
            assert_eq!(received.stdout(), "", "{fd}");
        }
    }
}

#[test]
fn nothing_runs_if_the_pipe_is_refused() {
    let (a, _b, _serving) = two_hosts(&["send:x"]);
    for (options, status, says) in [
        ("--write b/y", 1, "no rule"),
        ("--write --no-wait b/x", 1, "nobody"),
        ("--write --timeout 50ms b/x", 1, "nobody came"),
        ("--read --fd 100000000 x", 1, "--fd 100000000"),
        ("--write qpipe1x", 2, "ticket"),
    ] {
        let mut arguments = vec!["open"];
        arguments.extend(options.split(' '));
        arguments.extend(["--", "touch", "ran"]);
        a.qpipe(&arguments).end().expect(status).saying(&[says]);
        assert!(!a.work("ran").exists(), "{options}");
    }
}

#[test]
fn what_belongs_to_an_open_is_demanded() {
    let host = Host::alone();
    for line in ["open x -- true", "open --read --write x -- true", "open --read x"] {
        let arguments: Vec<_> = line.split(' ').collect();
        host.qpipe(&arguments).end().expect(2).saying(&["Usage"]);
    }
}

#[test]
fn a_program_between_two_pipes_is_two_opens() {
    let host = Host::sharing();
    let content = noise(500_000);
    let filter = "qpipe open --read in -- qpipe open --write out --fd 4 -- sh -c 'cat <&3 >&4'";
    let filter = host.bash(filter).start();
    let receiver = host.qpipe(&["recv", "out"]).start();
    host.qpipe(&["send", "in"]).input(&content).end().expect(0);

    assert_same(&receiver.end().expect(0).stdout, &content);
    filter.end().expect(0).silent();
}
