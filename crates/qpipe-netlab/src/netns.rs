//! Network namespaces with a name, as `ip netns` manages them.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Write},
    os::fd::AsFd,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

/// How long processes left in a namespace may take to end after SIGTERM.
const GRACE: Duration = Duration::from_millis(500);

/// How often to look whether they have ended.
const LOOK: Duration = Duration::from_millis(20);

const DIRECTORY: &str = "/run/netns";

/// A namespace that is deleted, with the processes in it, when this is dropped.
pub(crate) struct Netns {
    name: String,
}

impl Netns {
    pub(crate) fn create(name: String) -> Result<Self> {
        run_ip(&["netns", "add", &name])?;
        let netns = Self { name };
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// Takes over a namespace that exists already.
    pub(crate) fn adopt(name: String) -> Self {
        Self { name }
    }

    /// The names of all namespaces there are.
    pub(crate) fn list() -> Result<Vec<String>> {
        let entries = match fs::read_dir(DIRECTORY) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context(DIRECTORY),
        };
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(DIRECTORY).join(&self.name)
    }

    /// Runs `ip` inside the namespace.
    pub(crate) fn ip(&self, arguments: &[&str]) -> Result<String> {
        run_ip(&[&["-n", &self.name], arguments].concat())
    }

    /// Runs `action` on a thread that has entered the namespace.
    pub(crate) fn enter<T: Send>(&self, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file = File::open(self.path()).with_context(|| format!("namespace {}", self.name))?;
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .context("setns")?;
                action()
            });
            thread.join().map_err(|_| anyhow!("panic inside a namespace"))?
        })
    }

    /// Sets a sysctl such as `net.ipv4.tcp_congestion_control`.
    pub(crate) fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = PathBuf::from("/proc/sys").join(key.replace('.', "/"));
        self.enter(|| fs::write(&path, value).with_context(|| format!("sysctl {key}={value}")))
    }

    /// The processes inside the namespace.
    fn processes(&self) -> Vec<Pid> {
        let Ok(own) = fs::metadata(self.path()) else { return Vec::new() };
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid: &i32| {
                fs::metadata(format!("/proc/{pid}/ns/net"))
                    .is_ok_and(|other| (other.dev(), other.ino()) == (own.dev(), own.ino()))
            })
            .filter_map(Pid::from_raw)
            .collect()
    }

    /// Ends the processes inside, which would keep the namespace alive.
    fn end_processes(&self) {
        let mut deadline = Instant::now() + GRACE;
        let mut signal = Signal::TERM;
        loop {
            let processes = self.processes();
            if processes.is_empty() {
                return;
            }
            if Instant::now() >= deadline {
                if signal == Signal::KILL {
                    complain(format_args!("processes {processes:?} in {} do not end", self.name));
                    return;
                }
                signal = Signal::KILL;
                deadline += GRACE;
            }
            for pid in processes {
                let _ = kill_process(pid, signal);
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        self.end_processes();
        if let Err(error) = run_ip(&["netns", "delete", &self.name]) {
            complain(format_args!("{error:#}"));
        }
    }
}

/// Prints a message, if that is possible: tearing down must not fail over it.
fn complain(message: fmt::Arguments) {
    let _ = writeln!(io::stderr(), "netlab: {message}");
}

/// Runs `ip` and returns what it prints.
pub(crate) fn run_ip(arguments: &[&str]) -> Result<String> {
    let output = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("cannot run `ip` (is iproute2 installed?)")?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("ip {}: {}", arguments.join(" "), message.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
