//! Starting a node where none listens, once, whoever asks for one at the same time.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::LocalError;
use super::error::printable;
use super::message::{Ask, Event, Request};
use super::socket::connect;
use super::stream::LocalStream;
use crate::disk::{self, PRIVATE_FILE_MODE};
use crate::home::Home;

/// How long a node may take until it listens.
pub const NODE_START_MAX: Duration = Duration::from_secs(5);

/// How often it is looked whether it listens: a start takes a few milliseconds.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// A log that has grown to this is begun anew, and the old one kept until then.
const LOG_BYTES_MAX: u64 = 1 << 20;

/// The end of the log that is looked at for why a node ended.
const LOG_TAIL_BYTES: u64 = 1 << 10;

/// Connects to the node of a home. If nobody listens, starts `program` with `args` in the background:
/// its directory is `/`, its standard input and output are `/dev/null`, its standard error is the
/// home's log, and `QPIPE_HOME` is set as for this home. It should call [`detach`](super::detach)
/// first.
///
/// Of any number of processes that call this at once, one starts it, and all connect to it.
///
/// # Errors
/// [`LocalError::Start`] if the program cannot be started, ends before it listens, or does not listen
/// within [`NODE_START_MAX`].
///
/// # Cancel safety
/// Cancel safe; a program that was started runs on.
pub async fn connect_or_start(
    home: &Home,
    program: &Path,
    args: &[OsString],
) -> Result<LocalStream, LocalError> {
    // Most often one runs, and nothing is to be made ready.
    if let Some(stream) = connect(home).await? {
        return Ok(stream);
    }
    home.create()?;
    let failed = |what: String| LocalError::Start {
        program: program.to_path_buf(),
        what,
        log: home.node_log_file(),
    };
    let looking = async {
        let mut starting: Option<Starting> = None;
        loop {
            let lock = match starting {
                Some(_) => None,
                None => try_lock(home).map_err(|error| failed(error.to_string()))?,
            };
            // Whoever had the lock before may have started one.
            if let Some(stream) = connect(home).await? {
                return Ok(stream);
            }
            if let Some(lock) = lock {
                let child =
                    start(home, program, args).map_err(|error| failed(error.to_string()))?;
                starting = Some(Starting { child, _lock: lock });
            } else if let Some(started) = &mut starting
                && let Ok(Some(status)) = started.child.try_wait()
            {
                // It ends as well if another one, of `qpipe serve`, has just begun to listen.
                let last_words = last_words(&home.node_log_file());
                let found = connect(home).await?;
                return found.ok_or_else(|| failed(format!("it ended ({status}){last_words}")));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    let late = || failed(format!("it does not listen after {} s", NODE_START_MAX.as_secs()));
    tokio::time::timeout(NODE_START_MAX, looking).await.unwrap_or_else(|_| Err(late()))
}

/// Lets the node of a home make place for another one: it takes no more opens, and ends when its last
/// pipe is over. Nothing happens if nobody listens.
///
/// # Errors
/// [`LocalError::Declined`] if it does not want to; [`LocalError::Stream`] if it does not answer within
/// [`NODE_START_MAX`].
///
/// # Cancel safety
/// Cancel safe; the node may have been told.
pub async fn retire(home: &Home) -> Result<(), LocalError> {
    let Some(mut stream) = connect(home).await? else { return Ok(()) };
    let asking = async {
        stream.send(&Request::new(Ask::Retire), &[]).await?;
        loop {
            match stream.recv().await? {
                Some(Event::Failed { text }) => return Err(LocalError::Declined(text)),
                Some(event) if !event.is_last() => {}
                Some(_) | None => return Ok(()),
            }
        }
    };
    match tokio::time::timeout(NODE_START_MAX, asking).await {
        // It has ended by itself meanwhile.
        Ok(Err(LocalError::EndedEarly | LocalError::Stream(_))) => Ok(()),
        Ok(asked) => asked,
        Err(_) => Err(LocalError::Stream(io::ErrorKind::TimedOut.into())),
    }
}

/// Keeps [`connect_or_start`] from starting a node while the file that it gives is open: whoever asks
/// for one meanwhile waits.
///
/// # Errors
/// What the system says, or that others start one for longer than [`NODE_START_MAX`].
pub async fn hold_start(home: &Home) -> io::Result<File> {
    let holding = async {
        loop {
            if let Some(lock) = try_lock(home)? {
                return Ok(lock);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    tokio::time::timeout(NODE_START_MAX, holding)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A node that was started and does not listen yet.
struct Starting {
    child: Child,
    /// Keeps others from starting one.
    _lock: File,
}

fn try_lock(home: &Home) -> io::Result<Option<File>> {
    let file = disk::open_lock_file(&home.start_lock_file())?;
    match rustix::io::retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn start(home: &Home, program: &Path, args: &[OsString]) -> io::Result<Child> {
    let log = open_log(&home.node_log_file())?;
    // A name without a directory is searched for in PATH.
    let is_path = program.components().count() > 1;
    let program = if is_path { std::path::absolute(program)? } else { program.to_path_buf() };
    let mut command = Command::new(program);
    if let Some(dir) = home.as_variable() {
        command.env("QPIPE_HOME", dir?);
    }
    // No directory is kept from being unmounted.
    command.args(args).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()
}

fn open_log(path: &Path) -> io::Result<File> {
    if path.metadata().is_ok_and(|found| found.len() >= LOG_BYTES_MAX) {
        std::fs::rename(path, old_log(path))?;
    }
    OpenOptions::new().append(true).create(true).mode(PRIVATE_FILE_MODE).open(path)
}

fn old_log(path: &Path) -> PathBuf {
    path.with_extension("log.old")
}

/// The last line of the log, after a colon.
fn last_words(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = disk::open_to_read(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read().unwrap_or_default().lines().rfind(|line| !line.trim().is_empty()) {
        Some(line) => format!(": {}", printable(line)),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests;
