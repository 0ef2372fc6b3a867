//! A host: a home of its own, a working directory, and the programs that run there.

mod running;

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{Read, Write},
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Once, atomic::AtomicBool},
    thread,
    time::{Duration, Instant},
};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tempfile::TempDir;

pub use running::{Ended, Running};

/// Nothing here takes nearly as long, however busy the machine is: past it, something hangs.
pub const LIMIT: Duration = Duration::from_secs(120);

/// How often a condition is looked at that is waited for.
const LOOK: Duration = Duration::from_millis(5);

/// A host, as far as qpipe can tell.
pub struct Host {
    dir: TempDir,
    shares: bool,
    /// Whose programs run there, if they are not this user's.
    user: Option<u32>,
}

impl Host {
    /// One whose commands work each for itself, unless [`SHARED_VARIABLE`] says otherwise.
    pub fn new() -> Host {
        Host::with(env::var_os(SHARED_VARIABLE).is_some())
    }

    /// One whose commands share a node.
    pub fn sharing() -> Host {
        Host::with(true)
    }

    /// One whose commands work each for itself.
    pub fn alone() -> Host {
        Host::with(false)
    }

    /// One whose commands share a node and have no privileges. `None`, and a printed reason, where
    /// this user cannot start programs as another one; that is a failure where CI=true.
    pub fn of_nobody() -> Option<Host> {
        if !rustix::process::geteuid().is_root() {
            assert!(env::var("CI").as_deref() != Ok("true"), "not root");
            eprintln!("skipped: only root can start programs as another user");
            return None;
        }
        let mut host = Host::with(true);
        host.user = Some(NOBODY);
        // That user may not see where it was built.
        fs::create_dir(host.path("bin")).unwrap();
        for name in ["qpipe", "qsend", "qrecv"] {
            fs::copy(built(name), host.path("bin").join(name)).unwrap();
        }
        for path in [host.dir.path(), &host.path("work")] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Some(host)
    }

    fn with(shares: bool) -> Host {
        let dir = TempDir::with_prefix("qpipe-host-").unwrap();
        let host = Host { dir, shares, user: None };
        fs::create_dir(host.path("work")).unwrap();
        host
    }

    /// A file in the home.
    pub fn home(&self, file: &str) -> PathBuf {
        self.path("home").join(file)
    }

    /// A file in the directory that programs run in.
    pub fn work(&self, file: &str) -> PathBuf {
        self.path("work").join(file)
    }

    pub fn qpipe(&self, arguments: &[&str]) -> Start {
        match arguments {
            ["send", arguments @ ..] if is_quick() => self.command("qsend", arguments),
            ["recv", arguments @ ..] if is_quick() => self.command("qrecv", arguments),
            _ => self.command("qpipe", arguments),
        }
    }

    /// One of the commands that were built: `qpipe`, or one of its quick forms.
    pub fn command(&self, name: &str, arguments: &[&str]) -> Start {
        let mut start = match self.user {
            None => self.program(built(name)),
            Some(_) => self.program(self.path("bin").join(name)),
        };
        start.command.args(arguments);
        start.what = format!("{name} {}", arguments.join(" "));
        start
    }

    /// A script for bash, in which `qpipe` is the command under test.
    pub fn bash(&self, script: &str) -> Start {
        let mut start = self.program("bash");
        let script = match is_quick() {
            true => script.replace("qpipe send", "qsend").replace("qpipe recv", "qrecv"),
            false => script.to_owned(),
        };
        start.command.args(["-c", &script]);
        start.what = script;
        start
    }

    /// A pipeline for bash, whose statuses [`Ended::statuses`] knows afterwards.
    pub fn pipeline(&self, pipeline: &str) -> Start {
        self.bash(&format!("{pipeline}\necho \"statuses ${{PIPESTATUS[*]}}\" >&2"))
    }

    /// Runs a program that needs no more than its arguments, and wants it to succeed.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.qpipe(arguments).end().expect(0)
    }

    pub fn fingerprint(&self) -> String {
        self.run(&["key", "fingerprint"]).stdout().trim().to_owned()
    }

    /// Starts this host's node on a free port of the loopback.
    pub fn serve(&self) -> Serving {
        self.serve_at("127.0.0.1:0")
    }

    pub fn serve_at(&self, listen: &str) -> Serving {
        let mut running = self.qpipe(&["serve", "--listen", listen]).start();
        let address = running.word_of_stderr("listening on ", "/udp");
        Serving { running, address }
    }

    /// What the audit log says, line by line.
    pub fn audit(&self) -> Vec<String> {
        let text = fs::read_to_string(self.home("audit.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn program(&self, program: impl AsRef<OsStr>) -> Start {
        static ONCE: Once = Once::new();
        ONCE.call_once(handle_what_is_ignored);
        let mut command = Command::new(program);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("QPIPE_") {
                command.env_remove(name);
            }
        }
        let own = self.path("bin");
        let directory = match self.user {
            None => Path::new(QPIPE).parent().unwrap().as_os_str(),
            Some(user) => {
                command.uid(user).gid(user);
                own.as_os_str()
            }
        };
        let path = [directory, &env::var_os("PATH").unwrap_or_default()].join(OsStr::new(":"));
        command
            .current_dir(self.path("work"))
            .env("QPIPE_HOME", self.path("home"))
            .env("HOME", self.dir.path())
            .env("PATH", path)
            .env("LC_ALL", "C")
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .stdin(Stdio::null());
        if !self.shares {
            command.env("QPIPE_DIRECT", "1");
        }
        Start { command, what: String::new(), captures_stdout: true }
    }
}

/// What runs the tests may ignore signals (`nohup`, a script's job in the background), and programs
/// would inherit that. They do not inherit a handler, so the signals get one that does nothing.
fn handle_what_is_ignored() {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        if ignored >> (signal - 1) & 1 == 1 {
            signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false))).unwrap();
        }
    }
}

impl Drop for Host {
    /// Ends the node that commands may have started.
    fn drop(&mut self) {
        if self.shares {
            let mut stop = self.qpipe(&["-q", "stop", "--within", "0s"]);
            let _ = stop.command.stderr(Stdio::null()).status();
        }
    }
}

/// Set, it has the commands of all hosts share a node: everything is to be as without one. With `quick` as its
/// value, they are started as `qsend` and `qrecv`: everything is to be as with `qpipe send` and `recv`.
const SHARED_VARIABLE: &str = "TEST_SHARED_NODE";

fn is_quick() -> bool {
    env::var(SHARED_VARIABLE).is_ok_and(|value| value == "quick")
}

/// A user with no rights.
const NOBODY: u32 = 65_534;

/// The command under test.
const QPIPE: &str = env!("CARGO_BIN_EXE_qpipe");

/// Where a program is that was built with these tests.
pub fn built(name: &str) -> PathBuf {
    Path::new(QPIPE).with_file_name(name)
}

/// A program that is about to start: its standard input is empty and its output captured, unless
/// told otherwise.
pub struct Start {
    command: Command,
    what: String,
    captures_stdout: bool,
}

impl Start {
    /// Hands it a ticket in the environment.
    pub fn ticket(self, ticket: &str) -> Start {
        self.env("QPIPE_TICKET", ticket)
    }

    pub fn env(mut self, name: &str, value: &str) -> Start {
        self.command.env(name, value);
        self
    }

    /// As a user with no rights, on a host of this one's.
    pub fn by_nobody(mut self) -> Start {
        self.command.uid(NOBODY).gid(NOBODY);
        self
    }

    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Start {
        self.command.stdin(stdin);
        self
    }

    /// Feeds it these bytes, then closes its standard input.
    pub fn input(self, bytes: &[u8]) -> Start {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let bytes = bytes.to_vec();
        // It ends when the program does, which may leave before it has read everything.
        thread::spawn(move || drop(writer.write_all(&bytes)));
        self.stdin(reader)
    }

    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Start {
        self.command.stdout(stdout);
        self.captures_stdout = false;
        self
    }

    pub fn start(self) -> Running {
        Running::start(self.command, self.what, self.captures_stdout)
    }

    /// Starts it and waits for its end.
    pub fn end(self) -> Ended {
        self.start().end()
    }
}

/// A host's node.
pub struct Serving {
    pub running: Running,
    pub address: String,
}

/// Lets `peer` do what `rules` say on `server`, which calls it `alias`, and tells it where and who
/// that is: as `b`.
pub fn introduce(peer: &Host, alias: &str, server: &Host, serving: &Serving, rules: &[&str]) {
    let (key, server_key) = (peer.fingerprint(), server.fingerprint());
    let mut arguments = vec!["trust", "add", alias, "--key", &key];
    for rule in rules {
        arguments.extend(["--allow", rule]);
    }
    server.run(&arguments);
    peer.run(&["trust", "add", "b", "--key", &server_key, "--address", &serving.address]);
}

/// Waits until there is an answer.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < LIMIT, "waited {LIMIT:?} in vain: {what}");
        thread::sleep(LOOK);
    }
}

/// Bytes in which any gap, repetition or swap shows: all values, no short period.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ bytes as u64;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

/// Fails without showing megabytes.
pub fn assert_same(found: &[u8], expected: &[u8]) {
    let differs = found.iter().zip(expected).position(|(found, expected)| found != expected);
    assert_eq!((found.len(), differs), (expected.len(), None), "length, first wrong byte");
}

/// Reads exactly so many bytes.
pub fn take(from: &mut impl Read, bytes: usize) -> Vec<u8> {
    let mut taken = vec![0; bytes];
    from.read_exact(&mut taken).unwrap();
    taken
}
