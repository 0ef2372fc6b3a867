//! Too much of something, or too little: of kernel pipes, of connections, of other users, of disk.
//! Whoever has too much is refused or waits, and others are served.

use std::{
    env, fs,
    io::{self, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
};

use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};

use crate::host::{Host, assert_same, introduce, noise, until};

fn status(host: &Host) -> serde_json::Value {
    serde_json::from_str(&host.run(&["status", "--json"]).stdout()).unwrap()
}

/// Whether this user is root; a printed reason if not, and a failure where CI=true.
fn is_root() -> bool {
    let is_root = geteuid().is_root();
    assert!(is_root || env::var("CI").as_deref() != Ok("true"), "not root");
    if !is_root {
        eprintln!("skipped: takes root");
    }
    is_root
}

#[test]
fn c17_pipes_past_the_kernel_s_limit_for_a_user_are_slower_and_never_stuck() {
    const PIPES: usize = 20;
    const BYTES: usize = 300_000;
    let (Some(a), Some(b)) = (Host::of_nobody(), Host::of_nobody()) else { return };
    // As many as the kernel has pages for; what comes then gets two pages, or one.
    let hold = "ulimit -n 4096; exec perl -e 'for (1..1100) { pipe(my $r, my $w) or die $!; \
                push @held, $r, $w } print STDERR \"held\\n\"; <STDIN>'";
    let (keep, _held) = io::pipe().unwrap();
    let mut holder = a.bash(hold).stdin(keep).start();
    holder.says("held");
    let size = a.bash("perl -e 'pipe(R, W); print fcntl(R, 1032, 0)'").end().stdout();
    assert!(size.parse::<usize>().unwrap() <= 8192, "a pipe has {size} bytes");

    carry(&a, &a, "", PIPES, BYTES);
    let serving = b.serve();
    introduce(&a, "alice", &b, &serving, &["send:*"]);
    carry(&a, &b, "b/", PIPES, BYTES);
}

fn carry(writer: &Host, reader: &Host, prefix: &str, pipes: usize, bytes: usize) {
    let receivers: Vec<_> =
        (0..pipes).map(|i| reader.bash(&format!("qpipe recv p{i} | cat")).start()).collect();
    let send = |i: usize| {
        let send = writer.bash(&format!("cat | qpipe send {prefix}p{i}"));
        send.input(&noise(bytes + i)).start()
    };
    let senders: Vec<_> = (0..pipes).map(send).collect();
    senders.into_iter().for_each(|sender| drop(sender.end().expect(0)));
    for (i, receiver) in receivers.into_iter().enumerate() {
        assert_same(&receiver.end().expect(0).stdout, &noise(bytes + i));
    }
}

#[test]
fn c44_ten_thousand_idle_connections_and_half_messages_hold_up_nobody() {
    const CONNECTIONS: u64 = 10_000;
    /// What the node may have resident at most.
    const RESIDENT_BYTES_MAX: u64 = 120 << 20;
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(u64::MAX).min(CONNECTIONS + 2_000);
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).unwrap();
    let at_once = CONNECTIONS.min(wanted.saturating_sub(2_000)).max(500);
    eprintln!("{at_once} of {CONNECTIONS} connections at once");
    let host = Host::sharing();
    let receiver = host.qpipe(&["recv", "x"]).start();
    until("the node", || host.qpipe(&["ls"]).end().stdout().contains('x').then_some(()));

    let mut idle = std::collections::VecDeque::new();
    for i in 0..CONNECTIONS {
        let mut stream = UnixStream::connect(host.home("node.sock")).unwrap();
        let said: &[u8] = match i % 4 {
            0 => b"",
            1 => b"\0\0",
            2 => b"\0\0\x01\0{\"qpipe\":1,",
            _ => b"\xff\xff\xff\xff",
        };
        // The oldest, or nonsense: their connections are closed.
        let _ = stream.write_all(said);
        idle.push_back(stream);
        if idle.len() as u64 > at_once {
            idle.pop_front();
        }
    }
    let content = noise(1_000_000);
    host.qpipe(&["send", "x"]).input(&content).end().expect(0);

    assert_same(&receiver.end().expect(0).stdout, &content);
    let pid = status(&host)["pid"].as_u64().unwrap();
    let peak = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().to_owned();
    let peak = peak.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024;
    assert!(peak < RESIDENT_BYTES_MAX, "{peak} bytes");
}

#[test]
fn c44_another_user_who_reaches_the_socket_gets_no_word() {
    if !is_root() {
        return;
    }
    let host = Host::sharing();
    let _receiver = host.qpipe(&["recv", "x"]).start();
    until("the node", || host.qpipe(&["ls"]).end().stdout().contains('x').then_some(()));
    for (path, mode) in [("..", 0o755), ("", 0o755), ("node.sock", 0o666)] {
        fs::set_permissions(host.home(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let ask = "perl -MIO::Socket::UNIX -e '$s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die $!; \
               $SIG{PIPE} = \"IGNORE\"; $m = q({\"qpipe\":1,\"ask\":\"status\"}); \
               print $s pack(\"N\", length $m), $m; $s->flush; print while <$s>' $SOCKET";
    let ask = || host.bash(ask).env("SOCKET", host.home("node.sock").to_str().unwrap());

    assert_eq!(ask().by_nobody().end().expect(0).stdout, b"");
    assert!(!ask().end().expect(0).stdout.is_empty());
}

#[test]
fn a_full_disk_is_told_and_takes_no_pipe_along() {
    if !is_root() {
        return;
    }
    let host = Host::sharing();
    fs::create_dir(host.home("")).unwrap();
    // A home of its own on a disk of 256 KiB.
    let script = "set -e
        mount -t tmpfs -o size=256k,mode=700 disk $QPIPE_HOME
        qpipe key fingerprint
        fill() { dd if=/dev/zero of=$QPIPE_HOME/fill bs=4k status=none 2>/dev/null || true; }
        fill
        qpipe mk kept && exit 10
        qpipe trust add a --key $(qpipe key fingerprint) --allow send:x && exit 11
        qpipe recv x > got & echo all | qpipe send x; wait $!; cat got
        qpipe stop
        qpipe serve --listen 127.0.0.1:0 && exit 12
        rm $QPIPE_HOME/fill; qpipe mk kept
        qpipe serve --listen 127.0.0.1:0 & serve=$!
        until qpipe -q status >/dev/null 2>&1; do kill -0 $serve; done
        fill
        qpipe recv y > got & echo served | qpipe send y; wait $!; cat got
        qpipe ls; kill $serve; wait $serve";
    let script = format!("exec unshare -m bash -c '{script}'");

    let ended = host.bash(&script).end().expect(0);

    let said = ended.stdout();
    assert!(said.contains("\nall\n") && said.contains("\nserved\n"), "{ended:?}");
    let ended =
        ended.saying(&["No space left on device", "names.toml", "authorized.toml", "serve.lock"]);
    assert!(said.contains("kept: nobody uses it"), "{ended:?}");
}

#[test]
fn names_that_are_none_are_refused_before_anything_starts() {
    let host = Host::sharing();
    let long = "x".repeat(256);
    for name in ["a\x1b[2J", "a\nb", "a\u{202e}b", "a b", &long] {
        for arguments in [
            &["send", name] as &[&str],
            &["recv", name],
            &["duplex", name],
            &["open", "--read", name, "--", "true"],
            &["fifo", "--read", name, "f"],
        ] {
            let told = host.qpipe(arguments).end().expect(2);
            assert_eq!(told.stderr.lines().count(), 1, "{told:?}");
            assert!(!told.stderr.contains(['\x1b', '\u{202e}']), "{told:?}");
        }
    }
    assert!(!host.home("node.sock").exists() && !host.work("f").exists());
}

#[test]
fn serve_writes_json_for_those_who_gather_logs() {
    let host = Host::new();
    let listen = ["serve", "--listen", "127.0.0.1:0", "--log-format", "json"];
    let mut serving = host.qpipe(&listen).start();
    serving.says("listening on");
    fs::write(host.home("authorized.toml"), "nonsense\n").unwrap();
    serving.signal(rustix::process::Signal::HUP);
    serving.says("authorized.toml:1");

    serving.signal(rustix::process::Signal::TERM);

    let ended = serving.end().expect(0);
    let lines = ended.stderr.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<serde_json::Value> = lines.collect();
    assert!(lines.iter().all(|line| line["timestamp"].is_string() && line["message"].is_string()));
    assert_eq!((&lines[0]["level"], &lines[2]["level"]), (&"INFO".into(), &"ERROR".into()));
}
