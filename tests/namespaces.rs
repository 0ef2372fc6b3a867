//! Two network namespaces with a veth pair between them: hosts that share nothing but a wire.

use std::{
    env,
    process::{self, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    host::{Host, Start},
    volume::real_tree,
};

/// Two namespaces, removed with everything in them when a test is over.
struct Wire {
    left: String,
    right: String,
}

impl Wire {
    /// `None`, and a printed reason, where this user may not make namespaces; that is a failure
    /// where CI=true.
    fn new() -> Option<Wire> {
        static WIRES: AtomicU32 = AtomicU32::new(0);
        // The name of an interface has at most 15 bytes.
        let unique = format!("{}-{}", process::id(), WIRES.fetch_add(1, Ordering::Relaxed));
        let wire = Wire { left: format!("qpl{unique}"), right: format!("qpr{unique}") };
        match wire.set_up() {
            Ok(()) => Some(wire),
            Err(reason) => {
                assert!(env::var("CI").as_deref() != Ok("true"), "no namespaces: {reason}");
                eprintln!("skipped: no network namespaces here: {reason}");
                None
            }
        }
    }

    fn set_up(&self) -> Result<(), String> {
        let Wire { left, right } = self;
        for line in [
            format!("netns add {left}"),
            format!("netns add {right}"),
            format!("-n {left} link add {left} type veth peer name {right} netns {right}"),
            format!("-n {left} addr add 10.77.0.1/24 dev {left}"),
            format!("-n {right} addr add 10.77.0.2/24 dev {right}"),
            format!("-n {left} link set lo up"),
            format!("-n {right} link set lo up"),
            format!("-n {left} link set {left} up"),
            format!("-n {right} link set {right} up"),
            // Answers to nobody: what is sent there disappears on the wire.
            format!("-n {left} neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev {left}"),
        ] {
            ip(&line)?;
        }
        Ok(())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for namespace in [&self.left, &self.right] {
            let _ = ip(&format!("netns delete {namespace}"));
        }
    }
}

fn ip(line: &str) -> Result<(), String> {
    let output = Command::new("ip").args(line.split(' ')).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {line}: {error}")) }
}

/// A pipeline in a namespace.
fn inside(host: &Host, namespace: &str, pipeline: &str) -> Start {
    let script = format!("{pipeline}\necho \"statuses ${{PIPESTATUS[*]}}\" >&2");
    host.bash("exec ip netns exec $NAMESPACE bash -c \"$SCRIPT\"")
        .env("NAMESPACE", namespace)
        .env("SCRIPT", &script)
}

#[test]
fn a_tree_of_real_files_crosses_from_one_namespace_to_another() {
    let Some(wire) = Wire::new() else { return };
    let (a, b) = (Host::new(), Host::new());
    let tar = format!("tar cf - -C {} .", real_tree());
    let oracle = a.pipeline(&format!("{tar} | sha256sum")).end();
    let mut sender = inside(&a, &wire.left, &format!("{tar} | qpipe send -v")).start();

    let receiver = inside(&b, &wire.right, "qpipe recv -v | sha256sum");
    let received = receiver.ticket(&sender.ticket()).end().saying(&["10.77.0.1:"]);

    let sent = sender.end().saying(&["10.77.0.2:"]);
    assert_eq!((sent.statuses(), received.statuses()), ("0 0", "0 0"));
    assert_eq!(received.stdout(), oracle.stdout());
}

#[test]
fn the_default_port_is_found_by_address_alone() {
    let Some(wire) = Wire::new() else { return };
    let (a, b) = (Host::new(), Host::new());
    let mut serving = inside(&b, &wire.right, "qpipe serve").start();
    serving.says("listening on 0.0.0.0:7473/udp");
    let key = b.fingerprint();
    b.run(&["trust", "add", "alice", "--key", &a.fingerprint(), "--allow", "send:x"]);

    let send = "echo hello | qpipe send --accept-new 10.77.0.2/x";
    let sender = inside(&a, &wire.left, send).start();

    let received = inside(&b, &wire.right, "qpipe recv x | cat").end();
    assert_eq!((received.statuses(), &received.stdout()[..]), ("0 0", "hello\n"));
    assert_eq!(sender.end().saying(&["pinned the key", &key]).statuses(), "0 0");
}

#[test]
fn hosts_that_are_silent_absent_or_beyond_any_route_are_told_apart() {
    let Some(wire) = Wire::new() else { return };
    let sent_to = |address: &str| {
        let host = Host::new();
        let send = format!("qpipe send --accept-new {address}/x </dev/null");
        let ended = inside(&host, &wire.left, &send).end();
        assert_eq!(ended.statuses(), "1");
        ended
    };
    let (silent, nearby) = ("no answer from 10.77.0.9 (10.77.0.9:7473/udp) in 10 s", "10.77.0.2");

    sent_to("10.77.0.9").saying(&[silent, "is UDP 7473 open?"]);
    sent_to(nearby).saying(&["nothing listens at 10.77.0.2 (10.77.0.2:7473/udp)"]);
    sent_to("192.0.2.7").saying(&["there is no way to 192.0.2.7", "is the network up"]);
}

#[test]
fn a_wire_that_is_cut_is_a_failure_and_never_an_end() {
    let Some(wire) = Wire::new() else { return };
    let (a, b) = (Host::new(), Host::new());
    let mut sender = inside(&a, &wire.left, "yes | qpipe send --rate 1MiB/s --give-up 6s").start();
    let receive =
        inside(&b, &wire.right, "qpipe recv --give-up 6s | cat > f").ticket(&sender.ticket());
    let receiver = receive.start();
    crate::host::until("bytes", || {
        let taken = std::fs::metadata(b.work("f")).map_or(0, |file| file.len());
        (taken > 100_000).then_some(())
    });

    ip(&format!("-n {} link set {} down", wire.left, wire.left)).unwrap();

    let received =
        receiver.end().saying(&["was cut off after", "nothing was heard from the other host"]);
    let sent = sender.end().saying(&["nothing was heard from the other host"]);
    assert_eq!((sent.statuses(), received.statuses()), ("141 1", "1 0"));
}
