//! `qsend` and `qrecv`: `qpipe send` and `recv` in processes that cost next to nothing, and `qpipe` itself as
//! soon as anything is not plain. `TEST_SHARED_NODE=quick` runs most of the other tests with them as well.

use std::{fs, io::Write, thread, time::Duration};

use rustix::process::Signal;

use crate::host::{Host, assert_same, built, introduce, noise, until};

/// Longer than a quick form stays what it is.
const LONG: Duration = Duration::from_millis(qpipe_quick::PATIENCE_MS + 200);

/// What runs as this process: the name of its executable.
fn runs_as(pid: rustix::process::Pid) -> String {
    let path = fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).unwrap_or_default();
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn host_with_node() -> Host {
    let host = Host::sharing();
    let receiver = host.command("qpipe", &["recv", "first"]).start();
    host.command("qpipe", &["send", "first"]).end().expect(0);
    receiver.end().expect(0);
    host
}

#[test]
fn a_short_pipe_takes_no_other_program() {
    let host = host_with_node();
    // Whatever they would leave to it fails.
    let bin = host.work("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["qsend", "qrecv"] {
        fs::copy(built(name), bin.join(name)).unwrap();
    }
    let node = host.qpipe(&["recv", "x"]).start();
    host.bash("echo one | ./bin/qsend x").end().expect(0).silent();
    assert_eq!(node.end().expect(0).stdout(), "one\n");

    let receiver = host.bash("./bin/qrecv y").start();
    host.bash("head -c 1000000 /dev/zero | ./bin/qsend y").end().expect(0).silent();
    assert_same(&receiver.end().expect(0).stdout, &vec![0; 1_000_000]);

    host.bash("./bin/qsend --no-wait z").end().expect(1).saying(&["qsend: cannot run qpipe"]);
}

#[test]
fn quick_forms_reach_other_hosts_by_the_names_of_config_toml() {
    let (a, b) = (Host::sharing(), Host::sharing());
    let serving = b.serve();
    introduce(&a, "alice", &b, &serving, &["send:in/*", "recv:out/*"]);

    let receiver = b.command("qrecv", &["./in/x"]).start();
    a.command("qsend", &["b/in/x"]).input(b"to b").end().expect(0).silent();
    assert_eq!(receiver.end().expect(0).stdout(), "to b");

    let receiver = a.command("qrecv", &["b/out/x"]).start();
    b.command("qsend", &["out/x"]).input(b"to a").end().expect(0).silent();
    assert_eq!(receiver.end().expect(0).stdout(), "to a");
    let refused = a.command("qsend", &["b/secret"]).input(b"x").end().expect(1);
    refused.saying(&["the pipe b/secret was refused"]);
}

#[test]
fn a_host_without_a_node_gets_one() {
    let host = Host::sharing();
    let receiver = host.command("qrecv", &["x"]).start();
    host.command("qsend", &["x"]).input(b"first").end().expect(0).silent();

    assert_eq!(receiver.end().expect(0).stdout(), "first");
}

#[test]
fn what_lasts_longer_goes_on_in_qpipe() {
    let host = host_with_node();
    let mut receiver = host.command("qrecv", &["x"]).start();
    // Nobody is there yet.
    until("qpipe", || (runs_as(receiver.pid()) == "qpipe").then_some(()));

    let (reader, mut feed) = std::io::pipe().unwrap();
    let sender = host.command("qsend", &["x"]).stdin(reader).start();
    feed.write_all(b"before ").unwrap();
    receiver.prints(b"before ");
    until("qpipe", || (runs_as(sender.pid()) == "qpipe").then_some(()));
    feed.write_all(b"after").unwrap();
    drop(feed);

    sender.end().expect(0).silent();
    assert_eq!(receiver.end().expect(0).stdout(), "before after");
}

#[test]
fn bad_ends_are_told_as_by_qpipe() {
    let host = host_with_node();
    // At once, and when qpipe has taken over.
    for wait in [Duration::ZERO, LONG] {
        let (reader, mut feed) = std::io::pipe().unwrap();
        let mut receiver = host.command("qrecv", &["x"]).start();
        let mut sender = host.command("qsend", &["x"]).stdin(reader).start();
        feed.write_all(b"begun").unwrap();
        receiver.prints(b"begun");
        thread::sleep(wait);
        sender.signal(Signal::TERM);
        until("the sender's end", || sender.has_ended().then_some(()));
        receiver.end().expect(1).saying(&["cut off", "signal"]);

        let receiver = host.pipeline("qrecv y | head -c 3").start();
        let seconds = wait.as_secs_f64();
        let script = format!("{{ printf abc; sleep {seconds}; yes; }} | qsend y");
        assert_eq!(host.pipeline(&script).end().statuses(), "141 141");
        let received = receiver.end();
        assert_eq!((received.stdout().as_str(), received.statuses()), ("abc", "141 0"));
    }
}

#[test]
fn what_cannot_be_a_pipe_is_refused_as_by_qpipe() {
    let host = host_with_node();
    for arguments in
        [&["a//b"][..], &["--nonsense"], &["x", "y"], &["qpipe1nonsense"], &["b.example/"]]
    {
        let (quick, whole) = (
            host.command("qsend", arguments).end().expect(2),
            host.command("qpipe", &[&["send"], arguments].concat()).end().expect(2),
        );
        assert_eq!(quick.stderr, whole.stderr);
    }
    host.bash("qrecv x >&-").end().expect(1).saying(&["standard output is closed"]);
    host.bash("qsend x <&-").end().expect(1).saying(&["standard input is closed"]);
    let help = host.command("qsend", &["--help"]).end().expect(0).stdout();
    assert!(help.contains("Usage: qpipe send"), "{help}");
}

#[test]
fn each_has_a_manual_page_with_the_options_of_qpipe() {
    let host = Host::alone();
    host.run(&["man", "pages"]);
    for (name, page, option) in
        [("qsend", "qpipe-send", "records"), ("qrecv", "qpipe-recv", "quiet")]
    {
        let page_of =
            |name: &str| fs::read_to_string(host.work("pages").join(format!("{name}.1"))).unwrap();
        let quick = page_of(name);
        assert!(quick.contains(&format!(".TH {name} 1")), "{quick}");
        for text in [&quick, &page_of(page)] {
            assert!(text.contains(&format!("\\-\\-{option}")), "{text}");
        }
    }
}

#[test]
fn nobody_can_be_made_to_believe_that_something_was_asked() {
    let host = Host::sharing();
    for arguments in [
        &["send", "--asked=opened", "x"][..],
        &["recv", "--asked=joined", "x"],
        &["recv", "--asked=sent", "--direct", "x"],
    ] {
        let ended = host.command("qpipe", arguments).end();
        assert!(matches!(ended.code(), 1 | 2), "{arguments:?}");
        assert!(ended.stdout.is_empty());
    }
}

#[test]
fn many_at_once_lose_nothing() {
    const PIPES: usize = 200;
    let host = host_with_node();
    let content = noise(10_000);
    let receivers: Vec<_> =
        (0..PIPES).map(|i| host.command("qrecv", &[&format!("p/{i}")]).start()).collect();
    let senders: Vec<_> = (0..PIPES)
        .map(|i| host.command("qsend", &[&format!("p/{i}")]).input(&content).start())
        .collect();

    senders.into_iter().for_each(|sender| drop(sender.end().expect(0).silent()));
    for receiver in receivers {
        assert_same(&receiver.end().expect(0).stdout, &content);
    }
}
