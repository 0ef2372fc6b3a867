//! Asking another host's node how it is: `qpipe ls HOST` and `qpipe status HOST`.

use std::io;

use crate::host::{Host, introduce, until};

#[test]
fn a_host_is_told_of_the_pipes_that_it_may_ask_about_and_of_no_program() {
    let (a, b) = (Host::sharing(), Host::sharing());
    let serving = b.serve();
    introduce(&a, "alice", &b, &serving, &["list:inbox/*", "send:other"]);
    b.run(&["mk", "inbox/kept", "--description", "for photos"]);
    b.run(&["mk", "secret"]);
    let (input, _feed) = io::pipe().unwrap();
    let _waiting = ["inbox/used", "private"].map(|name| b.qpipe(&["recv", name]).start());
    let _sender = b.qpipe(&["send", "inbox/full"]).stdin(input).start();
    until("all of them", || (b.run(&["ls"]).stdout().lines().count() == 5).then_some(()));

    let listed = a.run(&["ls", "b"]).stdout();

    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines.len(), 3, "{listed}");
    assert_eq!(lines[0], "inbox/full: waiting for a reader, 1 writing, 0 reading");
    assert!(lines[1].starts_with("inbox/kept: nobody uses it; kept, mode rw"), "{listed}");
    assert_eq!(lines[2], "inbox/used: waiting for a writer, 0 writing, 1 reading");

    let told: serde_json::Value =
        serde_json::from_str(&a.run(&["status", "b", "--json"]).stdout()).unwrap();
    assert_eq!(told["key"], b.fingerprint());
    assert_eq!(told["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(told["sessions"][0]["key"], a.fingerprint());
    let pipes = told["pipes"].as_array().unwrap();
    assert_eq!(
        (pipes.len(), &told["pipes_in_all"], &told["names_in_all"]),
        (2, &2.into(), &3.into())
    );
    for pipe in pipes {
        assert_eq!((&pipe["process"], &pipe["pid"]), (&"".into(), &serde_json::Value::Null));
    }
    let text = a.run(&["status", "b"]).stdout();
    assert!(text.starts_with("qpipe serve on 127.0.0.1:"), "{text}");
    assert!(text.contains("pipe inbox/used (recv): waiting for a writer, "), "{text}");
    assert!(b.audit().iter().any(|line| line.contains("list") && line.contains("granted")));

    // A session that was told of everything else, too, is this host's own to see.
    let own = b.run(&["status"]).stdout();
    assert!(own.contains("pipe private (recv)") && own.contains("recv private"), "{own}");
}

#[test]
fn who_may_ask_about_nothing_is_refused_and_told_how_to_change_that() {
    let (a, b) = (Host::sharing(), Host::sharing());
    let serving = b.serve();
    introduce(&a, "alice", &b, &serving, &["send:**", "recv:**"]);

    for command in ["ls", "status"] {
        let refused = a.qpipe(&[command, "b"]).end().expect(1);
        assert!(refused.stdout.is_empty() && refused.stderr.lines().count() == 1, "{refused:?}");
        refused.saying(&["b does not tell this host", "--allow 'list:**'"]);
    }
    assert!(b.audit().iter().any(|line| line.contains("list") && line.contains("refused")));

    // The node's own names are no pipes of programs.
    for command in ["send", "recv", "duplex"] {
        a.qpipe(&[command, "b/.qpipe/status"]).end().expect(1).saying(&["no rule allows it"]);
        b.qpipe(&[command, "./.qpipe/status"]).end().expect(1).saying(&["no rule allows it"]);
    }
    b.qpipe(&["mk", "./.qpipe/status"]).end().expect(2).saying(&["the node's own"]);
}

#[test]
fn an_invitation_can_let_a_host_ask() {
    let (a, b) = (Host::sharing(), Host::sharing());
    let _serving = b.serve();
    let invited = b.run(&["invite", "--as", "alice", "--allow", "list:**"]);
    let join = format!("{} --as b", invited.stdout().trim());

    a.bash(&join).end().expect(0).saying(&["lets it: list b/**", "try: qpipe ls b"]);

    let name = a.run(&["ls", "b"]).stdout();
    assert_eq!(name, "");
    assert!(b.run(&["trust", "list"]).stdout().contains(" list:**"));
}

#[test]
fn what_is_no_host_is_wrong_usage_and_one_that_is_not_there_a_failure() {
    let host = Host::sharing();
    for text in ["inbox", "./x", "", "b/x", "qpipe1abc", "a\x1bb"] {
        let told = host.qpipe(&["ls", text]).end().expect(2);
        assert!(!told.stderr.contains('\x1b'), "{told:?}");
    }
    host.qpipe(&["status", "--accept-new"]).end().expect(2);
    host.qpipe(&["status", "nowhere.invalid"]).end().expect(1).saying(&["has no address"]);
}
