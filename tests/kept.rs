//! Named pipes that are kept: `qpipe mk` and `qpipe rm`.

use std::fs;

use crate::host::{Host, introduce, until};

fn names(host: &Host) -> serde_json::Value {
    serde_json::from_str(&host.run(&["ls", "--json"]).stdout()).unwrap()
}

#[test]
fn a_kept_name_outlives_the_node_until_it_is_removed() {
    let host = Host::sharing();
    let made = ["mk", "inbox/x", "--capacity", "64K", "--mode", "w", "--description", "photos"];
    host.run(&made).silent();
    let line = "inbox/x: nobody uses it; kept, mode w, 64KiB: photos\n";
    assert_eq!(host.run(&["ls"]).stdout(), line);

    for _ in 0..2 {
        let serving = host.serve();
        assert_eq!(host.run(&["ls"]).stdout(), line);
        let receiver = host.qpipe(&["recv", "inbox/x"]).start();
        until("a reader", || {
            host.run(&["ls"])
                .stdout()
                .starts_with("inbox/x: waiting for a writer, 0 writing, 1")
                .then_some(())
        });
        host.qpipe(&["send", "inbox/x"]).input(b"all").end().expect(0);
        assert_eq!(receiver.end().expect(0).stdout(), "all");
        drop(serving);
    }

    let serving = host.serve();
    let receiver = host.qpipe(&["recv", "inbox/x"]).start();
    until("a reader", || (names(&host)[0]["readers"] == 1).then_some(()));
    host.run(&["rm", "inbox/x"]).silent();
    assert_eq!(names(&host)[0]["kept"], false);
    // What is open goes on.
    host.qpipe(&["send", "inbox/x"]).input(b"rest").end().expect(0);
    assert_eq!(receiver.end().expect(0).stdout(), "rest");
    until("its end", || (names(&host) == serde_json::json!([])).then_some(()));
    drop(serving);
}

#[test]
fn status_and_ls_tell_programs_what_is_kept() {
    let host = Host::sharing();
    host.run(&["mk", "x", "y", "--mode", "-", "--description", "for \"me\""]);
    let idle = names(&host);
    assert_eq!(idle.as_array().unwrap().len(), 2);
    let _serving = host.serve();
    assert_eq!(names(&host), idle);

    let status: serde_json::Value =
        serde_json::from_str(&host.run(&["status", "--json"]).stdout()).unwrap();
    let x = &status["names"][0];

    assert_eq!((&x["name"], &x["kept"], &x["mode"]), (&"x".into(), &true.into(), &"-".into()));
    assert_eq!((&x["capacity"], &x["description"]), (&524_288.into(), &"for \"me\"".into()));
    assert_eq!((&x["open"], &x["writers"], &x["readers"]), (&false.into(), &0.into(), &0.into()));
}

#[test]
fn a_name_is_made_once_and_changed_by_force() {
    let host = Host::sharing();
    host.run(&["mk", "x", "--description", "first"]);

    let again = host.qpipe(&["mk", "x", "y", "--mode", "r"]).end().expect(1);

    assert_eq!(again.stderr.lines().count(), 1, "{again:?}");
    again.saying(&["`x` exists"]);
    let text = || host.run(&["ls"]).stdout();
    assert!(text().contains("x: nobody uses it; kept, mode rw, 512KiB: first\ny: "), "{}", text());
    host.run(&["mk", "-f", "x", "--mode", "r"]).silent();
    assert!(text().starts_with("x: nobody uses it; kept, mode r, 512KiB: first\n"));
    host.run(&["mk", "--force", "x", "--description", ""]).silent();
    assert!(text().starts_with("x: nobody uses it; kept, mode r, 512KiB\n"));

    let gone = host.qpipe(&["rm", "x", "z", "y"]).end().expect(1);
    assert_eq!(gone.stderr.lines().count(), 1, "{gone:?}");
    gone.saying(&["`z` is not kept"]);
    host.qpipe(&["ls"]).end().expect(1).saying(&["no node runs"]);
}

#[test]
fn a_mode_refuses_peers_what_their_rules_allow_and_not_this_host() {
    let (a, b) = (Host::sharing(), Host::sharing());
    let serving = b.serve();
    introduce(&a, "alice", &b, &serving, &["send:*", "recv:*"]);
    b.run(&["mk", "in", "--mode", "w"]);
    b.run(&["mk", "own", "--mode", "-"]);

    // At once, in a node that runs.
    for arguments in [["recv", "b/in"], ["duplex", "b/in"], ["recv", "b/own"], ["send", "b/own"]] {
        a.qpipe(&arguments).end().expect(1).saying(&["no rule allows it"]);
    }
    assert!(b.audit().iter().any(|line| line.contains("own") && line.contains("refused")));
    let receiver = b.qpipe(&["recv", "in"]).start();
    a.qpipe(&["send", "b/in"]).input(b"all").end().expect(0);
    assert_eq!(receiver.end().expect(0).stdout(), "all");

    // A program that works for itself dials its own node, and is no peer.
    for direct in [false, true] {
        let start = |arguments: &[&str]| {
            let start = b.qpipe(arguments);
            if direct { start.env("QPIPE_DIRECT", "1") } else { start }
        };
        let receiver = start(&["recv", "own"]).start();
        start(&["send", "own"]).input(b"all").end().expect(0);
        assert_eq!(receiver.end().expect(0).stdout(), "all");
    }

    b.run(&["mk", "-f", "own", "--mode", "rw"]);
    let receiver = b.qpipe(&["recv", "own"]).start();
    a.qpipe(&["send", "b/own"]).input(b"all").end().expect(0);
    assert_eq!(receiver.end().expect(0).stdout(), "all");
}

#[test]
fn a_small_capacity_carries_everything() {
    let (a, b) = (Host::sharing(), Host::sharing());
    let serving = b.serve();
    introduce(&a, "alice", &b, &serving, &["send:*"]);
    b.run(&["mk", "x", "--capacity", "4KiB"]);
    let receiver = b.qpipe(&["recv", "x"]).start();
    let content = crate::host::noise(3_000_000);

    a.qpipe(&["send", "b/x"]).input(&content).end().expect(0);

    crate::host::assert_same(&receiver.end().expect(0).stdout, &content);
}

#[test]
fn a_corrupt_file_is_told_with_its_line_and_breaks_nothing_else() {
    let host = Host::sharing();
    host.run(&["mk", "x"]);
    let mut serving = host.serve();
    let good = fs::read_to_string(host.home("names.toml")).unwrap();
    // At once, as editors do: a node that looks amid a write finds an empty file, which keeps nothing.
    fs::write(host.home("new.toml"), format!("{good}mode = \"x\x1b\"\n")).unwrap();
    fs::rename(host.home("new.toml"), host.home("names.toml")).unwrap();

    serving.running.says("names.toml:2: ");
    for arguments in [&["mk", "y"] as &[&str], &["mk", "-f", "x"], &["rm", "x"], &["ls"]] {
        let told = host.qpipe(arguments).end().expect(1).saying(&["names.toml:2: "]);
        assert_eq!(told.stderr.lines().count(), 1, "{told:?}");
        assert!(!told.stderr.contains('\x1b'), "{told:?}");
    }
    // What it said before stays.
    assert!(host.qpipe(&["ls"]).end().stdout().starts_with("x: nobody uses it; kept"));

    // Also from the start.
    drop(serving);
    let mut serving = host.serve();
    serving.running.says("names.toml:2: ");
    let receiver = host.qpipe(&["recv", "x"]).start();
    host.qpipe(&["send", "x"]).input(b"all").end().expect(0);
    assert_eq!(receiver.end().expect(0).stdout(), "all");
}

#[test]
fn what_is_no_name_of_this_host_is_wrong_usage() {
    let host = Host::sharing();
    let long = "x".repeat(256);
    for name in ["a\x1bb", "a b", &long, "", "a//b", "*", "b.example/x", "qpipe1abc"] {
        for command in ["mk", "rm"] {
            let told = host.qpipe(&[command, name]).end().expect(2);
            assert_eq!(told.stderr.lines().count(), 1, "{told:?}");
            assert!(!told.stderr.contains('\x1b'), "{told:?}");
        }
    }
    let (capacity, text) = ("--capacity", "--description");
    for (option, value) in
        [(capacity, "4095"), (capacity, "2GiB"), ("--mode", "0600"), (text, "a\nb"), (text, &long)]
    {
        let value = if value == long { format!("{value}x") } else { value.to_owned() };
        host.qpipe(&["mk", "x", option, &value]).end().expect(2);
    }
    assert!(!host.home("names.toml").exists());
    // Written so, it is one.
    host.run(&["mk", "./b.example/x"]);
    assert!(host.run(&["ls"]).stdout().starts_with("b.example/x: "));
}
