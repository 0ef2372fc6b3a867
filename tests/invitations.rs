//! `invite` and `join`: what an invitation grants, to whom, how often and how long.

use crate::host::{Ended, Host, Serving, until};

fn invite(host: &Host, rules: &[&str]) -> String {
    let mut arguments = vec!["invite", "--as", "alice"];
    for rule in rules {
        arguments.extend(["--allow", rule]);
    }
    ticket_of(&host.run(&arguments))
}

/// The ticket in the one line that is printed.
fn ticket_of(invited: &Ended) -> String {
    let line = invited.stdout();
    let ticket = line.strip_prefix("qpipe join ").and_then(|rest| rest.strip_suffix('\n'));
    let ticket = ticket.filter(|ticket| !ticket.contains(['\n', ' ']));
    ticket.unwrap_or_else(|| panic!("{invited:?}")).to_owned()
}

fn serving() -> (Host, Serving) {
    let host = Host::new();
    let serving = host.serve();
    (host, serving)
}

#[test]
fn an_invitation_works_for_one_host_only() {
    let ((b, _serving), first, second) = (serving(), Host::new(), Host::new());
    let ticket = invite(&b, &["send:x"]);
    first.run(&["join", &ticket, "--as", "b"]);

    let refused = second.qpipe(&["join", &ticket, "--as", "b"]).end().expect(1);

    refused.saying(&["unknown, used or expired", "ask for a new one"]);
    assert_eq!(second.run(&["trust", "list"]).stdout, b"");
    let audit = b.audit().join("\n");
    assert!(audit.contains("verb=\"join\"") && audit.contains("outcome=\"refused\""), "{audit}");
    assert!(!audit.contains(&ticket[..30]), "{audit}");
}

#[test]
fn an_invitation_grants_what_it_prints_and_nothing_else() {
    let ((b, _serving), a) = (serving(), Host::new());
    let ticket = invite(&b, &["send:inbox/*", "recv:log"]);
    a.run(&["join", &ticket, "--as", "b"]);

    for (command, name) in [("send", "outbox/x"), ("send", "inbox/x/y"), ("recv", "inbox/x")] {
        let place = format!("b/{name}");
        let refused = a.qpipe(&[command, &place]).end().expect(1);
        let rule = format!("'{command}:{name}'");
        refused.saying(&["no rule allows it", &format!("the pipe {place}"), &rule]);
    }
    a.qpipe(&["duplex", "b/log"]).end().expect(1).saying(&["no rule allows it"]);

    let sender = a.qpipe(&["send", "b/inbox/x"]).input(b"allowed").start();
    assert_eq!(b.qpipe(&["recv", "inbox/x"]).end().expect(0).stdout(), "allowed");
    sender.end().expect(0);
}

#[test]
fn a_refusal_is_told_at_one_end_and_audited_at_the_other() {
    let ((b, _serving), a) = (serving(), Host::new());
    a.run(&["join", &invite(&b, &["send:inbox/*"]), "--as", "b"]);

    a.qpipe(&["send", "b/secret"]).end().expect(1);
    let sender = a.qpipe(&["send", "b/inbox/x"]).start();
    b.qpipe(&["recv", "inbox/x"]).end().expect(0);
    sender.end().expect(0);

    let (audit, key) = (b.audit(), a.fingerprint());
    let line = |what: &str| {
        let line = audit.iter().find(|line| line.contains(what));
        line.unwrap_or_else(|| panic!("no {what} in {audit:?}")).clone()
    };
    let refused = line("what=\"secret\"");
    for text in ["verb=\"send\"", &key, "name=\"alice\"", "outcome=\"refused\"", "no rule"] {
        assert!(refused.contains(text), "{refused}");
    }
    assert!(line("what=\"inbox/x\"").contains("outcome=\"granted\""));
    assert!(line("verb=\"join\"").contains("outcome=\"granted\""));
}

#[test]
fn an_invitation_expires() {
    let ((b, _serving), a) = (serving(), Host::new());
    let rule = ["invite", "--as", "alice", "--allow", "send:x", "--expires", "1s"];
    let ticket = ticket_of(&b.run(&rule));

    let refused = until("the time to be over", || {
        let joined = a.qpipe(&["join", &ticket, "--as", "b"]).end();
        if joined.code() != 0 {
            return Some(joined);
        }
        // Joining again with the same key is no second use; here it only takes time.
        None
    });

    refused.expect(1).saying(&["expired"]);
}

#[test]
fn an_invitation_without_a_node_waits_for_its_guest_itself() {
    let (a, b) = (Host::new(), Host::new());
    let rule = ["--as", "alice", "--allow", "send:x", "--listen", "127.0.0.1:0"];
    let mut inviting = b.bash(&format!("qpipe invite {} | tee line", rule.join(" "))).start();
    inviting.says("no `qpipe serve` runs here: waiting for it on 127.0.0.1:");
    let line = until("the line", || {
        let line = std::fs::read_to_string(b.work("line")).ok()?;
        line.ends_with('\n').then_some(line)
    });

    a.bash(&format!("{} --as b", line.trim())).end().expect(0);

    let invited = inviting.end().expect(0).saying(&["alice (SHA256:", "joined"]);
    assert!(!invited.stderr.contains("qpipe1"), "{invited:?}");
    let trusted = b.run(&["trust", "list"]).stdout();
    assert_eq!(trusted.trim(), format!("peer alice {} send:x", a.fingerprint()));
}

#[test]
fn a_withdrawn_invitation_is_no_good() {
    let (a, b) = (Host::new(), Host::new());
    let rule = ["invite", "--as", "alice", "--allow", "send:x", "--listen", "127.0.0.1:0"];
    let mut inviting = b.qpipe(&rule).start();
    inviting.says("waiting for it on");
    inviting.signal(rustix::process::Signal::TERM);
    let ticket = ticket_of(&inviting.end().expect(143));
    let _serving = b.serve();

    a.qpipe(&["join", &ticket, "--as", "b"]).end().expect(1);

    assert_eq!(b.run(&["trust", "list"]).stdout, b"");
}

#[test]
fn a_name_that_is_known_here_is_not_taken_over() {
    let ((b, _b_serves), (c, _c_serves), a) = (serving(), serving(), Host::new());
    a.run(&["join", &invite(&b, &["send:x"]), "--as", "b"]);
    let ticket = invite(&c, &["send:x"]);

    let refused = a.qpipe(&["join", &ticket, "--as", "b"]).end().expect(1);

    refused.saying(&["there is another host called b already", "--as NAME"]);
    a.run(&["join", &ticket, "--as", "c"]);
}

#[test]
fn tickets_are_for_one_thing() {
    let ((b, _serving), a) = (serving(), Host::new());
    let invitation = invite(&b, &["send:x"]);
    let mut sender = b.qpipe(&["send"]).start();
    let pipe = sender.ticket();

    a.qpipe(&["send", &invitation]).end().expect(2).saying(&["`qpipe join`"]);
    a.qpipe(&["send", &pipe]).end().expect(2).saying(&["`qpipe recv`"]);
    a.qpipe(&["duplex", &pipe]).end().expect(2).saying(&["`qpipe recv`"]);
    a.qpipe(&["join", &pipe]).end().expect(2).saying(&["`qpipe recv`"]);

    a.qpipe(&["recv", &pipe]).end().expect(0);
    sender.end().expect(0);
}
