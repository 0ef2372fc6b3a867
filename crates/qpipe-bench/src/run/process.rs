//! A program that is measured: from its start to its accounts.

use std::{
    env,
    fs::{self, File},
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use qpipe_netlab::Lab;
use rustix::process::{Pid, Signal, kill_process};

use super::{
    stop,
    sys::{self, Accounts},
};

/// How long a program may take to get ready.
const READY_MAX: Duration = Duration::from_secs(30);

/// How long a program may take to end after it was told to.
const GRACE: Duration = Duration::from_secs(3);

/// How long a server may take to have waited for its children.
const CHILDREN_MAX: Duration = Duration::from_secs(2);

/// How often to look at something.
const LOOK: Duration = Duration::from_millis(2);

/// Where programs run: two hosts of a lab, or this machine for both.
pub(crate) struct Site {
    lab: Option<Lab>,
    /// For what programs say, and what they keep.
    pub(crate) dir: PathBuf,
    /// Of every program.
    pub(crate) environment: Vec<(String, String)>,
}

impl Site {
    pub(crate) fn new(lab: Option<Lab>, dir: &Path) -> Site {
        Site { lab, dir: dir.to_owned(), environment: Vec::new() }
    }

    /// The address of host A (0) or B (1).
    pub(crate) fn address(&self, host: usize) -> IpAddr {
        let here = Ipv4Addr::LOCALHOST;
        self.lab.as_ref().map_or(here, |lab| lab.address(host)).into()
    }

    /// Does something on a thread of a host; threads and processes that it starts are on that host as well.
    pub(crate) fn at<T: Send>(
        &self,
        host: usize,
        action: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        match &self.lab {
            Some(lab) => lab.enter(host, action),
            None => action(),
        }
    }

    /// Where a program is that the environment of programs has.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.environment.iter().find(|(variable, _)| variable == "PATH");
        let dirs = path.map(|(_, dirs)| env::split_paths(dirs)).into_iter().flatten();
        find(name, dirs).with_context(|| format!("no program {name}"))
    }

    /// Starts a command of a shell on a host. What it says goes to files `NAME.err` and `NAME.out`.
    pub(crate) fn start(
        &self,
        name: &str,
        host: usize,
        script: &str,
        is_fed: bool,
        is_read: bool,
    ) -> Result<Process> {
        let said = self.dir.join(name);
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script]).envs(self.environment.iter().cloned());
        shell.stdin(if is_fed { Stdio::piped() } else { Stdio::null() });
        shell.stdout(match is_read {
            true => Stdio::piped(),
            false => File::create(said.with_extension("out"))?.into(),
        });
        shell.stderr(File::create(said.with_extension("err"))?);
        let mut child = self.at(host, || Ok(stop::spawn(&mut shell)?))?;
        let pid = child.id();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (sender, exits) = channel();
        thread::spawn(move || {
            let waited = sys::wait(pid).map(|accounts| Exit { accounts, at: Instant::now() });
            stop::forget(pid);
            // Nobody may want to know.
            let _ = sender.send(waited);
        });
        Ok(Process { name: name.to_owned(), said, pid, stdin, stdout, exits, exit: None })
    }
}

/// When and how a program ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exit {
    pub(crate) accounts: Accounts,
    pub(crate) at: Instant,
}

/// A program, which is ended when this is dropped.
pub(crate) struct Process {
    name: String,
    said: PathBuf,
    pid: u32,
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
    exits: Receiver<std::io::Result<Exit>>,
    exit: Option<Exit>,
}

/// How to know that a server can be used.
#[derive(Clone, Debug)]
pub(crate) enum Ready {
    /// It is bound to this TCP or UDP port.
    Port(u16),
    /// This file is there.
    Path(PathBuf),
    /// It said a line that contains this.
    Line(&'static str),
}

impl Process {
    /// Waits until it is ready. Gives the line that says so, if one is to.
    pub(crate) fn ready(&mut self, how: &Ready) -> Result<Option<String>> {
        let end = Instant::now() + READY_MAX;
        while Instant::now() < end {
            if self.wait(Duration::ZERO).is_some() {
                bail!("{} ended early: {}", self.name, self.last_words());
            }
            match how {
                Ready::Port(port) if is_bound(self.pid, *port) => return Ok(None),
                Ready::Path(path) if path.exists() => return Ok(None),
                Ready::Line(part) => {
                    let text = self.words();
                    // The rest of the last line may be still to come.
                    let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
                    if let Some(line) = lines.find(|line| line.contains(part)) {
                        return Ok(Some(line.trim().to_owned()));
                    }
                }
                _ => {}
            }
            thread::sleep(LOOK);
        }
        bail!("{} is not ready: {}", self.name, self.last_words())
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<Exit> {
        if self.exit.is_none() {
            self.exit = self.exits.recv_timeout(limit).ok()?.ok();
        }
        self.exit
    }

    /// Waits for its end, which has to be a good one.
    pub(crate) fn succeed(&mut self, limit: Duration) -> Result<Exit> {
        let exit = self.wait(limit);
        let exit = exit.with_context(|| format!("{} does not end", self.name))?;
        if exit.accounts.status != 0 {
            bail!("{}: status {:#x}: {}", self.name, exit.accounts.status, self.last_words());
        }
        Ok(exit)
    }

    /// Ends it, once it has waited for its own children, whose accounts are otherwise lost.
    pub(crate) fn end(&mut self) -> Option<Exit> {
        let end = Instant::now() + CHILDREN_MAX;
        while self.has_children() && Instant::now() < end {
            thread::sleep(LOOK);
        }
        for signal in [Signal::TERM, Signal::KILL] {
            if self.wait(Duration::ZERO).is_none() {
                self.signal(signal);
                self.wait(GRACE);
            }
        }
        self.exit
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) -> Option<Exit> {
        if self.wait(Duration::ZERO).is_none() {
            self.signal(Signal::KILL);
        }
        self.wait(GRACE)
    }

    /// What it wrote to its standard output, if that is not a pipe.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.said.with_extension("out")).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        // Its process id is its own until somebody has waited for it, and that is noticed first.
        if let Some(pid) = Pid::from_raw(self.pid as i32) {
            let _ = kill_process(pid, signal);
        }
    }

    fn has_children(&self) -> bool {
        let pid = self.pid;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        children.is_ok_and(|children| !children.trim().is_empty())
    }

    fn words(&self) -> String {
        let said = fs::read_to_string(self.said.with_extension("err")).unwrap_or_default();
        said + &self.output()
    }

    /// The last lines that it wrote.
    pub(crate) fn last_words(&self) -> String {
        let words = self.words();
        let lines: Vec<&str> = words.lines().collect();
        lines[lines.len().saturating_sub(3)..].join(" / ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where a program is: in the first of these directories that has it.
pub(crate) fn find(name: &str, dirs: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    dirs.into_iter().map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Waits until a process is bound to a port, TCP or UDP.
pub(crate) fn wait_for_port(pid: Option<u32>, port: u16) -> Result<()> {
    let pid = pid.context("no process")?;
    let end = Instant::now() + READY_MAX;
    while !is_bound(pid, port) {
        if Instant::now() > end {
            bail!("nobody listens on port {port}");
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Whether a port is bound in the network of a process; a TCP port, whether somebody listens.
fn is_bound(pid: u32, port: u16) -> bool {
    let is_here = |table: &str, is_tcp: bool| {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        let suffix = format!(":{port:04X}");
        text.lines().any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let is_local = fields.next().is_some_and(|local| local.ends_with(&suffix));
            is_local && (!is_tcp || fields.nth(1) == Some("0A"))
        })
    };
    ["udp", "udp6"].iter().any(|table| is_here(table, false))
        || ["tcp", "tcp6"].iter().any(|table| is_here(table, true))
}
