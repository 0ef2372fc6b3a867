//! What the user is told. This is the one file that writes to standard error, where sentences go,
//! and the one place that writes short answers to standard output, where data goes.

use std::{
    env, fmt,
    io::{self, IsTerminal, Write},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use indicatif::ProgressBar;
pub(crate) use qpipe_node::clean;

/// Sets how much is said: nothing but errors if `quiet`, more with each step of `verbose`.
pub(crate) fn configure(quiet: bool, verbose: u8) {
    QUIET.store(quiet, Ordering::Relaxed);
    VERBOSE.store(verbose, Ordering::Relaxed);
}

/// From now on what is said to the user goes into tracing's log, under [`TARGET`].
pub(crate) fn to_log() {
    IS_LOGGED.store(true, Ordering::Relaxed);
}

/// What the log calls where sentences for the user come from.
pub(crate) const TARGET: &str = "qpipe::said";

fn is_logged() -> bool {
    IS_LOGGED.load(Ordering::Relaxed)
}

/// Whether `-q` was given.
pub(crate) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Whether standard error is a terminal that takes colours and the user has not said NO_COLOR.
pub(crate) fn takes_colour() -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stderr().is_terminal() && !is_set("NO_COLOR") && !is_dumb
}

/// Says what went wrong, whatever `-q` says.
pub(crate) fn error(what: impl fmt::Display) {
    if is_logged() {
        return tracing::error!(target: TARGET, "{}", clean(&what.to_string()));
    }
    let prefix = if takes_colour() { "\x1b[1;31mqpipe:\x1b[0m " } else { "qpipe: " };
    write_lines(prefix, &what.to_string());
}

/// Says what is good to know; not with `-q`.
pub(crate) fn note(what: impl fmt::Display) {
    match is_logged() {
        _ if is_quiet() => {}
        true => tracing::info!(target: TARGET, "{}", clean(&what.to_string())),
        false => write_lines("qpipe: ", &what.to_string()),
    }
}

/// Says what only those want to know who asked with `-v`.
pub(crate) fn detail(what: impl fmt::Display) {
    match is_logged() {
        _ if VERBOSE.load(Ordering::Relaxed) == 0 => {}
        true => tracing::debug!(target: TARGET, "{}", clean(&what.to_string())),
        false => write_lines("qpipe: ", &what.to_string()),
    }
}

/// Shows something to copy, such as a command for the other host: nothing stands before it, and
/// `-q` does not keep it back.
pub(crate) fn show(what: impl fmt::Display) {
    write_lines("", &what.to_string());
}

/// Writes an answer and a line's end to standard output.
///
/// # Errors
/// What the system says, a broken pipe among it.
pub(crate) fn answer(text: impl fmt::Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// Keeps messages and this progress line from overwriting each other.
pub(crate) fn keep_clear_of(bar: ProgressBar) {
    // A command has one progress line; a second one would only be drawn less well.
    let _ = BAR.set(bar);
}

static QUIET: AtomicBool = AtomicBool::new(false);
static VERBOSE: AtomicU8 = AtomicU8::new(0);
static IS_LOGGED: AtomicBool = AtomicBool::new(false);
static BAR: OnceLock<ProgressBar> = OnceLock::new();

/// Lines that follow the first one are indented. A message that cannot be written is lost: there
/// is nobody left to tell.
fn write_lines(prefix: &str, text: &str) {
    let lines: Vec<String> = text.lines().map(clean).collect();
    let message = format!("{prefix}{}\n", lines.join("\n  "));
    let write = || {
        let _ = io::stderr().lock().write_all(message.as_bytes());
    };
    match BAR.get() {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}
