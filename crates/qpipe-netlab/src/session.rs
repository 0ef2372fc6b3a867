//! The life of a lab: from its start to a signal, or to the end of a command.

use std::{
    fs,
    io::{IsTerminal, Write, stderr, stdin, stdout},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};
use signal_hook::{
    consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    iterator::Signals,
};

use crate::{cli::Settings, lab::Lab, schedule::Schedule, sys};

/// How long the command may take to end after it was told to.
const GRACE: Duration = Duration::from_secs(2);

/// How often to look whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

/// Longer than any lab lives.
const FOREVER: Duration = Duration::from_secs(1 << 32);

/// Runs a command in a new lab and returns its exit status.
pub(crate) fn run(settings: Settings, command: &[String]) -> Result<u8> {
    let signals = catch_signals()?;
    let lab = Lab::build(&settings.lab)?;
    let mut schedule = Schedule::new(&settings);
    let mut job = Job::start(command, lab.environment())?;
    let status = loop {
        if let Some(status) = job.status()? {
            break status;
        }
        if let Some(signal) = wait(&signals, &mut schedule, &lab)? {
            job.end(signal);
            break 128 + signal.as_raw() as u8;
        }
    };
    finish(&lab, &settings)?;
    drop(job);
    Ok(status)
}

/// Keeps a new lab until a signal comes.
pub(crate) fn up(settings: Settings) -> Result<u8> {
    let signals = catch_signals()?;
    let lab = Lab::build(&settings.lab)?;
    let mut schedule = Schedule::new(&settings);
    let mut output = stdout().lock();
    for (name, value) in lab.environment() {
        writeln!(output, "{name}={value}")?;
    }
    output.flush()?;
    while wait(&signals, &mut schedule, &lab)?.is_none() {}
    finish(&lab, &settings)?;
    Ok(0)
}

/// Reports the counters.
fn finish(lab: &Lab, settings: &Settings) -> Result<()> {
    let Some(report) = lab.report()? else { return Ok(()) };
    if !settings.quiet {
        let _ = write!(stderr(), "{report}"); // whoever read this may have gone
    }
    if let Some(path) = &settings.stats {
        let text = toml::to_string(&report)?;
        fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// The signals that end a lab, and those of its children, from now on.
fn catch_signals() -> Result<Receiver<i32>> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCHLD])?;
    let (sender, receiver) = channel();
    thread::spawn(move || signals.forever().try_for_each(|signal| sender.send(signal)));
    Ok(receiver)
}

/// Waits for a signal or a scheduled event. Returns the signal if it is one to end by.
fn wait(signals: &Receiver<i32>, schedule: &mut Schedule, lab: &Lab) -> Result<Option<Signal>> {
    let timeout = schedule
        .run(lab)?
        .map_or(FOREVER, |time| Duration::from_nanos(time.saturating_sub(lab.now())));
    match signals.recv_timeout(timeout) {
        Ok(SIGCHLD) | Err(RecvTimeoutError::Timeout) => Ok(None),
        Ok(signal) => Ok(Signal::from_named_raw(signal)),
        Err(RecvTimeoutError::Disconnected) => Ok(Some(Signal::TERM)),
    }
}

/// The command, which is ended when this is dropped: in a process group of its own, unless it is to
/// have the terminal.
struct Job {
    child: Child,
    has_group: bool,
}

impl Job {
    fn start(command: &[String], environment: Vec<(String, String)>) -> Result<Self> {
        let has_group = !stdin().is_terminal();
        let mut builder = Command::new(&command[0]);
        builder.args(&command[1..]).envs(environment);
        if has_group {
            builder.process_group(0);
        }
        sys::end_with_this_thread(&mut builder);
        let child = builder.spawn().with_context(|| command[0].clone())?;
        Ok(Self { child, has_group })
    }

    /// The exit status as shells give it, once the command has ended.
    fn status(&mut self) -> Result<Option<u8>> {
        Ok(self.child.try_wait()?.map(shell_status))
    }

    /// Passes a signal on, and sees to it that the whole group ends.
    fn end(&mut self, signal: Signal) {
        self.signal(signal);
        let deadline = Instant::now() + GRACE;
        while self.is_alive() {
            if Instant::now() >= deadline {
                self.signal(Signal::KILL);
                let _ = self.child.wait();
                return;
            }
            thread::sleep(LOOK);
        }
    }

    fn signal(&mut self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        if self.has_group {
            let _ = kill_process_group(pid, signal);
        } else if let Ok(None) = self.child.try_wait() {
            let _ = kill_process(pid, signal);
        }
    }

    /// Whether any process of the group is left.
    fn is_alive(&mut self) -> bool {
        // Else it would stay as a zombie.
        let is_running = matches!(self.child.try_wait(), Ok(None));
        is_running
            || self.has_group && test_kill_process_group(Pid::from_child(&self.child)).is_ok()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.end(Signal::TERM);
    }
}

fn shell_status(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, Some(signal)) => 128 + signal as u8,
        (None, None) => 1,
    }
}
