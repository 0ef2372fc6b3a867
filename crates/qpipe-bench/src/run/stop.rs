//! Ending early, when a signal says so: programs are ended first, so that whoever waits for one goes on, finds
//! that this is over, and leaves no host and no file behind.

use std::{
    collections::BTreeSet,
    io,
    os::unix::process::CommandExt,
    process::{Child, Command},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

/// How long programs may take to end before they are killed.
const GRACE: Duration = Duration::from_millis(500);

struct State {
    is_over: bool,
    /// The process groups of programs that run. Bounded by what is measured at once.
    groups: BTreeSet<u32>,
}

static STATE: Mutex<State> = Mutex::new(State { is_over: false, groups: BTreeSet::new() });
static OVER: Condvar = Condvar::new();

/// Ends programs, now and later ones, once a signal comes that would have ended this one.
pub(crate) fn at_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("signals")?;
    thread::spawn(move || {
        for _ in signals.forever() {
            lock().is_over = true;
            OVER.notify_all();
            end_all(Signal::TERM);
            thread::sleep(GRACE);
            end_all(Signal::KILL);
        }
    });
    Ok(())
}

/// Starts a program in a process group of its own.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    command.process_group(0);
    // Held while it starts: what is there is ended, and nothing starts after that.
    let mut state = lock();
    if state.is_over {
        return Err(io::ErrorKind::Interrupted.into());
    }
    let child = command.spawn()?;
    state.groups.insert(child.id());
    Ok(child)
}

/// Says that a program has been waited for.
pub(crate) fn forget(pid: u32) {
    lock().groups.remove(&pid);
}

/// Whether to go on.
///
/// # Errors
/// A signal has come.
pub(crate) fn check() -> Result<()> {
    pause_until(Instant::now())
}

/// Sleeps.
///
/// # Errors
/// A signal has come.
pub(crate) fn pause_until(end: Instant) -> Result<()> {
    let mut state = lock();
    loop {
        if state.is_over {
            bail!("ended by a signal");
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        state = OVER.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn end_all(signal: Signal) {
    for group in lock().groups.iter().filter_map(|group| Pid::from_raw(*group as i32)) {
        // It may have ended by itself.
        let _ = kill_process_group(group, signal);
    }
}

fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}
