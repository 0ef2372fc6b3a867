//! What the flags of `send`, `recv`, `duplex` and `loop` change, and where messages go.

use std::time::{Duration, Instant};

use crate::{anonymous::over_qpipe, host::Host};

#[test]
fn a_rate_holds_the_bytes_back_and_loses_none() {
    let began = Instant::now();

    let (sent, received) =
        over_qpipe("seq 40000 | qpipe send --rate 200kB/s --burst 10kB", "qpipe recv | sha256sum");

    // 228,894 bytes, of which the first 10,000 are free.
    assert!(began.elapsed() > Duration::from_secs(1));
    assert_eq!((sent.statuses(), received.statuses()), ("0 0", "0 0"));
    let oracle = Host::new().bash("seq 40000 | sha256sum").end();
    assert_eq!(received.stdout(), oracle.stdout());
}

#[test]
fn quiet_leaves_the_ticket_and_nothing_else() {
    let (a, b) = (Host::new(), Host::new());
    let mut sender = a.qpipe(&["send", "-q"]).input(b"hello").start();

    let received = b.qpipe(&["recv", "-q"]).ticket(&sender.ticket()).end().expect(0);

    assert_eq!((received.stdout(), &received.stderr[..]), ("hello".to_owned(), ""));
    let sent = sender.end().expect(0);
    assert!(sent.stdout.is_empty() && sent.stderr.starts_with("qpipe recv qpipe1"), "{sent:?}");
    assert_eq!(sent.stderr.lines().count(), 1);
}

#[test]
fn verbose_tells_what_became_of_the_pipe_and_never_the_ticket() {
    let (a, b) = (Host::new(), Host::new());
    let mut sender = a.qpipe(&["send", "-vvv"]).input(b"hello").start();
    let ticket = sender.ticket();

    let received = b.qpipe(&["recv", "-vvv"]).ticket(&ticket).end().expect(0);

    let sent = sender.end().expect(0).saying(&["the reader consumed all 5 bytes"]);
    assert!(!received.stderr.contains(&ticket), "{received:?}");
    assert_eq!(sent.stderr.matches(&ticket).count(), 1, "shown once, not logged");
    received.saying(&["all 5 bytes came"]);
}

#[test]
fn nobody_in_time_is_a_failure_that_says_so() {
    for command in ["send", "recv", "duplex"] {
        let host = Host::new();
        let ended = host.qpipe(&[command, "--timeout", "100ms"]).end().expect(1);

        assert!(ended.stdout.is_empty());
        ended.saying(&["nobody used the ticket in 100ms", "--timeout"]);
    }
}

#[test]
fn colours_are_for_terminals_whose_user_wants_them() {
    let host = Host::new();
    let on_terminal = "script -qec 'qpipe recv nonsense/' /dev/null";
    let coloured = |script: &str| host.bash(script).end().stdout().contains('\u{1b}');

    assert!(coloured(on_terminal));
    assert!(!coloured(&format!("NO_COLOR=1 {on_terminal}")));
    assert!(!coloured(&format!("TERM=dumb {on_terminal}")));
    assert!(!host.bash("qpipe recv nonsense/").end().expect(2).stderr.contains('\u{1b}'));
}

#[test]
fn progress_is_for_terminals() {
    let (a, b) = (Host::new(), Host::new());
    let mut receiver = b.qpipe(&["recv"]).start();
    let script = "seq 100000 > f; script -qec 'qpipe send < f' /dev/null";
    let shown = a.bash(script).ticket(&receiver.ticket()).end().expect(0);

    assert!(shown.stdout().contains("575.09 KiB in "), "{shown:?}");
    receiver.ticket();
    let received = receiver.end().expect(0);
    assert_eq!((received.stdout.len(), received.stderr.lines().count()), (588_895, 2));
}

#[test]
fn the_standard_output_of_a_sender_and_of_what_fails_is_empty() {
    let host = Host::alone();
    for arguments in [&["recv", "qpipe1x"][..], &["recv", "./x"], &["send", "./x"], &["serve", "x"]]
    {
        let ended = host.qpipe(arguments).end();
        assert!(ended.code() != 0 && ended.stdout.is_empty(), "{ended:?}");
        assert!(!ended.stderr.is_empty());
    }
}

#[test]
fn loop_carries_standard_input_to_standard_output_and_says_through_what() {
    let looped = Host::new().pipeline("seq 1000000 | qpipe loop | tail -1").end();

    assert_eq!((looped.statuses(), &looped.stdout()[..]), ("0 0 0", "1000000\n"));
    looped.saying(&["SHA256:", "AES_128_GCM", "6888896 bytes", "(XXH3-64)"]);
}

#[test]
fn loop_dies_of_sigpipe_as_cat_does() {
    let oracle = Host::new().pipeline("yes | cat | head -1").end();
    let looped = Host::new().pipeline("yes | qpipe loop | head -1").end();

    assert_eq!((oracle.statuses(), looped.statuses()), ("141 141 0", "141 141 0"));
    assert_eq!(looped.stdout(), "y\n");
}

#[test]
fn wrong_usage_is_status_2() {
    let host = Host::new();
    for arguments in [
        &["send", "--rate", "0"][..],
        &["send", "--burst", "1K"],
        &["send", "-"],
        &["recv", "a//b"],
        &["recv", "b/"],
        &["serve", "--listen", "here"],
        &["invite", "--as", "alice"],
        &["invite", "--as", "a/b", "--allow", "send:x"],
        &["trust", "add", "b"],
        &["join"],
        &["nonsense"],
        &[],
    ] {
        let ended = host.qpipe(arguments).end().expect(2);
        assert!(ended.stdout.is_empty() && !ended.stderr.is_empty(), "{ended:?}");
    }
}

#[test]
fn the_version_names_commit_protocol_and_tls_library() {
    let version = Host::new().run(&["--version"]).stdout();

    for text in ["qpipe 0.", "commit ", "build ", "protocol qpipe/1", "rustls", "aws-lc-rs"] {
        assert!(version.contains(text), "{version}");
    }
}
