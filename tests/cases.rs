//! Cases of the conformance suite on real programs, each between two hosts, through their nodes, and
//! with both ends on one host.

use std::{
    fs,
    io::{self, Read, Write},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::host::{Host, Running, Serving, assert_same, introduce, noise, until};

/// Where the two ends of a pipe are.
struct Way {
    writer: Host,
    /// None if it is the writer's.
    reader: Option<Host>,
    _serving: Option<Serving>,
}

impl Way {
    fn both() -> [Way; 2] {
        let (a, b) = (Host::sharing(), Host::sharing());
        let serving = b.serve();
        introduce(&a, "alice", &b, &serving, &["send:**"]);
        let far = Way { writer: a, reader: Some(b), _serving: Some(serving) };
        [far, Way { writer: Host::sharing(), reader: None, _serving: None }]
    }

    fn reader(&self) -> &Host {
        self.reader.as_ref().unwrap_or(&self.writer)
    }

    /// What the writer calls the pipe that the reader calls so.
    fn name(&self, name: &str) -> String {
        if self.reader.is_some() { format!("b/{name}") } else { name.to_owned() }
    }

    /// A writer that is there until its input is dropped: one that came after the last had ended would
    /// begin another life of the pipe.
    fn kept_open(&self) -> (Running, io::PipeWriter) {
        let (input, feed) = io::pipe().unwrap();
        let sender = self.writer.qpipe(&["send", &self.name("x")]).stdin(input).start();
        until("a writer", || {
            self.reader().qpipe(&["ls"]).end().stdout().contains("1 writing").then_some(())
        });
        (sender, feed)
    }

    /// A sender and a receiver, and bytes that have gone from one to the other.
    fn flowing(&self) -> (Running, io::PipeWriter, Running) {
        let (input, mut feed) = io::pipe().unwrap();
        let sender = self.writer.qpipe(&["send", &self.name("x")]).stdin(input).start();
        let mut receiver = self.reader().qpipe(&["recv", "x"]).start();
        feed.write_all(b"hello").unwrap();
        receiver.prints(b"hello");
        (sender, feed, receiver)
    }
}

fn status(host: &Host) -> serde_json::Value {
    serde_json::from_str(&host.run(&["status", "--json"]).stdout()).unwrap()
}

fn node_of(host: &Host) -> Pid {
    let pid = status(host)["pid"].as_u64().unwrap();
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// Bytes that have come from the programs of a host, if its node runs already.
fn sent(host: &Host) -> u64 {
    let told = host.qpipe(&["status", "--json"]).end();
    let status: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap_or_default();
    let pipes = status["pipes"].as_array().cloned().unwrap_or_default();
    pipes.iter().filter_map(|pipe| pipe["sent"].as_u64()).sum()
}

/// The most memory that a process ever had resident, in bytes.
fn peak_bytes(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

#[test]
fn c09_the_end_comes_when_the_last_of_two_producers_has_gone() {
    for way in Way::both() {
        let ((input, shared), (gate, key)) = (io::pipe().unwrap(), io::pipe().unwrap());
        let first = way.writer.bash("echo one").stdout(shared.try_clone().unwrap());
        let second = way.writer.bash("read; echo two").stdin(gate).stdout(shared).start();
        let mut sender = way.writer.qpipe(&["send", &way.name("x")]).stdin(input).start();
        let mut receiver = way.reader().qpipe(&["recv", "x"]).start();

        first.end().expect(0);
        receiver.prints(b"one\n");
        assert!(!receiver.has_ended() && !sender.has_ended());
        drop(key);

        second.end().expect(0);
        sender.end().expect(0);
        assert_eq!(receiver.end().expect(0).stdout(), "one\ntwo\n");
    }
}

#[test]
fn c10_all_who_read_one_receiver_s_output_wake_at_its_end() {
    for way in Way::both() {
        for readers in [2, 3, 10, 100] {
            let readers =
                format!("for i in $(seq {readers}); do cat <&3 & done; echo all >&2; wait");
            let script = format!("qpipe recv x | {{ {readers}; }} 3<&0");
            let mut receiver = way.reader().pipeline(&script).start();
            receiver.says("all");

            way.writer.qpipe(&["send", &way.name("x")]).input(b"x").end().expect(0);

            let received = receiver.end();
            assert_eq!((received.statuses(), &received.stdout()[..]), ("0 0", "x"));
        }
    }
}

#[test]
fn c10_all_receivers_of_one_pipe_wake_at_its_end() {
    for way in Way::both() {
        let receivers: Vec<_> =
            (0..10).map(|_| way.reader().qpipe(&["recv", "x"]).start()).collect();
        until("all readers", || {
            way.reader().qpipe(&["ls"]).end().stdout().contains("10 reading").then_some(())
        });

        way.writer.qpipe(&["send", &way.name("x")]).input(b"x").end().expect(0);

        let all: String = receivers.into_iter().map(|r| r.end().expect(0).stdout()).collect();
        assert_eq!(all, "x");
    }
}

#[test]
fn c11_records_of_several_programs_that_have_the_pipe_stay_whole() {
    const RECORD_BYTES: usize = 4096;
    for way in Way::both() {
        let receiver = way.reader().qpipe(&["recv", "x"]).start();
        let (keeper, kept) = way.kept_open();
        let record = "head -c 409600 /dev/zero | tr '\\0' LETTER \
                      | dd bs=4096 iflag=fullblock status=none >&3";
        let open = |letter: &&str| {
            let script = record.replace("LETTER", letter);
            let open = ["open", "--write", &way.name("x"), "--", "sh", "-c", &script];
            way.writer.qpipe(&open).start()
        };
        let writers: Vec<_> = ["p", "q", "r", "s", "t"].iter().map(open).collect();
        writers.into_iter().for_each(|writer| drop(writer.end().expect(0)));
        drop(kept);
        keeper.end().expect(0);

        let received = receiver.end().expect(0).stdout;

        assert_eq!(received.len(), 5 * 100 * RECORD_BYTES);
        for record in received.chunks(RECORD_BYTES) {
            assert!(record.iter().all(|byte| *byte == record[0]), "torn");
        }
    }
}

#[test]
fn c12_larger_writes_of_several_programs_are_all_there() {
    const EACH_BYTES: usize = 5_000;
    for way in Way::both() {
        let receiver = way.reader().qpipe(&["recv", "x"]).start();
        let (keeper, kept) = way.kept_open();
        let letters = b"pqrstuvw";
        let send = |letter: &u8| {
            let send = way.writer.qpipe(&["send", &way.name("x")]);
            send.input(&[*letter; 20 * EACH_BYTES]).start()
        };
        let writers: Vec<_> = letters.iter().map(send).collect();
        writers.into_iter().for_each(|writer| drop(writer.end().expect(0)));
        drop(kept);
        keeper.end().expect(0);

        let received = receiver.end().expect(0).stdout;

        assert_eq!(received.len(), letters.len() * 20 * EACH_BYTES);
        for letter in letters {
            assert_eq!(received.iter().filter(|byte| *byte == letter).count(), 20 * EACH_BYTES);
        }
    }
}

#[test]
fn c29_a_node_that_is_killed_is_a_failure_at_both_ends_after_what_came() {
    for way in Way::both() {
        let (sender, mut feed, receiver) = way.flowing();

        kill_process(node_of(way.reader()), Signal::KILL).unwrap();

        let received = receiver.end().expect(1).saying(&["this host's node has ended"]);
        assert_eq!(received.stdout(), "hello");
        let sent = sender.end();
        assert!([1, 141].contains(&sent.code()) && !sent.stderr.is_empty(), "{sent:?}");
        until("SIGPIPE", || feed.write_all(b"more").is_err().then_some(()));
    }
}

#[test]
fn c41_a_reader_that_is_stopped_costs_its_window_and_loses_nothing() {
    /// As for two gibibytes that pass.
    const RESIDENT_BYTES_MAX: u64 = 120 << 20;
    /// So many looks in a row at which nothing has moved.
    const LOOKS: u32 = 20;
    let content = noise(64 << 20);
    for way in Way::both() {
        let (mut taken, output) = io::pipe().unwrap();
        let receiver = way.reader().qpipe(&["recv", "x"]).stdout(output).start();
        let sender = way.writer.qpipe(&["send", &way.name("x")]).input(&content).start();
        receiver.signal(Signal::STOP);
        let (mut moved, mut looks) = (0, 0);
        until("a full pipe", || {
            let now = sent(&way.writer);
            (moved, looks) = if now == moved && now > 0 { (moved, looks + 1) } else { (now, 0) };
            (looks == LOOKS).then_some(())
        });
        assert!(moved < content.len() as u64);

        receiver.signal(Signal::CONT);
        let mut received = Vec::new();
        taken.read_to_end(&mut received).unwrap();

        assert_same(&received, &content);
        sender.end().expect(0);
        receiver.end().expect(0);
        let peaks = [&way.writer, way.reader()].map(|host| peak_bytes(node_of(host)));
        assert!(peaks.iter().all(|peak| *peak < RESIDENT_BYTES_MAX), "{peaks:?}");
    }
}

#[test]
fn c45_hangup_and_interrupt_end_both_commands_as_they_end_cat() {
    for signal in [Signal::HUP, Signal::INT] {
        let host = Host::sharing();
        let (input, _feed) = io::pipe().unwrap();
        let mut cat = host.bash("echo begun >&2; exec cat").stdin(input).start();
        cat.says("begun");
        until("cat", || {
            let name = fs::read_to_string(format!("/proc/{}/comm", cat.pid())).unwrap();
            (name == "cat\n").then_some(())
        });
        cat.signal(signal);
        let code = cat.end().code();
        for way in Way::both() {
            let (sender, _feed, receiver) = way.flowing();
            sender.signal(signal);
            sender.end().expect(code).silent();
            let received = receiver.end().expect(1).saying(&["it was interrupted by a signal"]);
            assert_eq!(received.stdout(), "hello");

            let (sender, _feed, receiver) = way.flowing();
            receiver.signal(signal);
            assert!(receiver.end().expect(code).stderr.is_empty());
            sender.end().expect(141).saying(&["it was interrupted by a signal"]);
        }
    }
}
