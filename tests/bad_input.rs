//! What is broken, missing or wrong: each has its error, and none takes anything else with it.

use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    time::{Duration, Instant},
};

use crate::host::{Host, introduce};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The one file of the key that holds the secret.
fn key_file(host: &Host) -> std::path::PathBuf {
    let files = fs::read_dir(host.home("key")).unwrap().map(|entry| entry.unwrap().path());
    let is_secret = |path: &std::path::PathBuf| {
        fs::read_to_string(path).is_ok_and(|text| text.contains("PRIVATE KEY"))
    };
    files.into_iter().find(is_secret).unwrap()
}

#[test]
fn a_ticket_that_was_not_copied_whole_is_wrong_usage_and_not_repeated() {
    let (a, b) = (Host::new(), Host::new());
    let mut sender = a.qpipe(&["send"]).start();
    let ticket = sender.ticket();
    let changed = ticket.replace(&ticket[20..22], "zz");
    for broken in [&ticket[..ticket.len() - 1], &ticket[..40], &changed, "qpipe1", "qpipe1é"] {
        let ended = b.qpipe(&["recv", broken]).end().expect(2);

        assert!(ended.stdout.is_empty() && !ended.stderr.contains(broken), "{ended:?}");
    }
    let whole = b.qpipe(&["recv", &ticket]).end();
    whole.expect(0);
    sender.end().expect(0);
}

#[test]
fn a_ticket_works_once() {
    let (a, b) = (Host::new(), Host::new());
    let (input, feed) = std::io::pipe().unwrap();
    let mut sender = a.qpipe(&["send"]).stdin(input).start();
    let ticket = sender.ticket();
    rustix::io::write(&feed, b"hello").unwrap();
    let mut first = b.qpipe(&["recv", &ticket]).start();
    first.prints(b"hello");

    let second = Host::new().qpipe(&["recv", &ticket]).end().expect(1);

    assert!(second.stdout.is_empty());
    second.saying(&["unknown, used or expired"]);
    drop(feed);
    sender.end().expect(0);
    assert_eq!(first.end().expect(0).stdout(), "hello");
}

#[test]
fn a_ticket_whose_command_has_ended_is_refused_at_once() {
    let (a, b) = (Host::new(), Host::new());
    let mut sender = a.qpipe(&["send", "--listen", "127.0.0.1:0"]).start();
    let ticket = sender.ticket();
    sender.signal(rustix::process::Signal::KILL);
    sender.end().expect(137);

    let refused = b.qpipe(&["recv", &ticket]).end().expect(1);

    refused.saying(&["nothing listens at", "the command that made the ticket has ended"]);
}

#[test]
fn a_port_where_nothing_listens_is_refused_at_once_and_named() {
    let address = {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().to_string()
    };
    let (host, key) = (Host::new(), Host::new().fingerprint());
    host.run(&["trust", "add", "b", "--key", &key, "--address", &address]);
    let began = Instant::now();

    let refused = host.qpipe(&["send", "b/x"]).end().expect(1);

    // Silence would be waited for longer: this proves that it was not.
    assert!(began.elapsed() < Duration::from_secs(9));
    refused.saying(&["nothing listens at b", &address, "start `qpipe serve` there"]);
}

#[test]
fn a_port_that_does_not_answer_is_told_apart() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let (host, key) = (Host::new(), Host::new().fingerprint());
    host.run(&["trust", "add", "b", "--key", &key, "--address", &address.to_string()]);

    let ended = host.qpipe(&["send", "b/x"]).end().expect(1);

    let sentence = format!(
        "no answer from b ({address}/udp) in 10 s: is qpipe serve running there, is UDP {} open?",
        address.port()
    );
    ended.saying(&[&sentence]);
}

#[test]
fn a_name_without_an_address_is_told() {
    let ended = Host::new().qpipe(&["send", "nowhere.invalid/x"]).end().expect(1);

    ended.saying(&["nowhere.invalid has no address", "./NAME"]);
}

#[test]
fn a_key_that_others_may_read_is_not_used() {
    let host = Host::new();
    host.fingerprint();
    let file = key_file(&host);
    set_mode(&file, 0o644);

    for command in [&["serve"][..], &["send"], &["key", "show"]] {
        let ended = host.qpipe(command).end().expect(1);
        assert!(ended.stdout.is_empty());
        ended.saying(&[file.to_str().unwrap(), "0644", "chmod 600"]);
    }
}

#[test]
fn a_damaged_or_unreadable_key_is_never_replaced_by_a_new_one() {
    let host = Host::new();
    host.fingerprint();
    let file = key_file(&host);
    fs::write(&file, "damaged").unwrap();
    host.qpipe(&["key", "show"]).end().expect(1).saying(&[file.to_str().unwrap(), "restore it"]);
    assert_eq!(fs::read(&file).unwrap(), b"damaged");

    // Unreadable for root, too.
    fs::remove_file(&file).unwrap();
    symlink(&file, &file).unwrap();
    host.qpipe(&["key", "show"]).end().expect(1).saying(&["cannot read the key file"]);
}

#[test]
fn a_home_that_others_may_write_is_not_used() {
    let host = Host::new();
    host.fingerprint();
    set_mode(&host.home(""), 0o777);

    host.qpipe(&["serve"]).end().expect(1).saying(&["other users may write to", "chmod go-w"]);
}

#[test]
fn broken_settings_are_told_with_their_line() {
    let host = Host::new();
    host.fingerprint();
    for (text, line, what) in [
        ("[node]\nmemory = \"many\"\n", 2, "size"),
        ("[node]\n\nlisten = 7\n", 3, "expected a sequence"),
        ("[node]\nmemry = \"1GiB\"\n", 2, "memry"),
        ("[hosts.b]\naddress = \"192.0.2.7\"\nfingerprint = \"SHA256:x\"\n", 3, ""),
        ("[node\n", 1, ""),
    ] {
        fs::write(host.home("config.toml"), text).unwrap();
        for command in [&["serve"][..], &["send"], &["trust", "list"]] {
            let place = format!("config.toml:{line}: ");
            host.qpipe(command).end().expect(1).saying(&[&place, what]);
        }
    }
}

#[test]
fn broken_rules_are_told_with_their_line() {
    let host = Host::new();
    let key = host.fingerprint();
    for (text, line) in [
        (format!("[[peer]]\nkey = \"{key}\"\nsnd = [\"x\"]\n"), 3),
        (format!("[[peer]]\nkey = \"{key}\"\nsend = [\"a//b\"]\n"), 3),
        ("[[peer]]\nkey = \"SHA256:x\"\n".to_owned(), 2),
        ("[[peer]\n".to_owned(), 1),
    ] {
        fs::write(host.home("authorized.toml"), text).unwrap();
        for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["trust", "list"]] {
            let place = format!("authorized.toml:{line}: ");
            host.qpipe(command).end().expect(1).saying(&[&place]);
        }
    }
}

#[test]
fn rules_that_others_may_write_are_not_used() {
    let host = Host::new();
    host.fingerprint();
    fs::write(host.home("authorized.toml"), "").unwrap();
    set_mode(&host.home("authorized.toml"), 0o666);

    let refused = host.qpipe(&["serve", "--listen", "127.0.0.1:0"]).end().expect(1);

    refused.saying(&["authorized.toml", "0666", "chmod"]);
}

#[test]
fn garbage_at_the_port_disturbs_no_pipe() {
    let (a, b) = (Host::new(), Host::new());
    let serving = b.serve();
    introduce(&a, "alice", &b, &serving, &["send:x"]);
    let receiver = b.bash("qpipe recv x | sha256sum").start();
    let sender = a.bash("seq 300000 | qpipe send b/x").start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..2000 {
        let garbage = crate::host::noise(1 + n % 1400);
        let _ = socket.send_to(&garbage, &serving.address);
    }

    sender.end().expect(0);
    let received = receiver.end().expect(0);
    assert_eq!(received.stdout(), a.bash("seq 300000 | sha256sum").end().stdout());
}
