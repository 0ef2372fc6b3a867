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
/// within [`NODE_START_MAX`]; [`LocalError::Io`] if a file in the home is in the way.
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
                None => try_lock(home)?,
            };
            // Whoever had the lock before may have started one.
            if let Some(stream) = connect(home).await? {
                return Ok(stream);
            }
            if let Some(lock) = lock {
                let (log, log_from) = open_log(&home.node_log_file())?;
                let child =
                    start(home, program, args, log).map_err(|error| failed(error.to_string()))?;
                starting = Some(Starting { child, log_from, _lock: lock });
            } else if let Some(started) = &mut starting
                && let Ok(Some(status)) = started.child.try_wait()
            {
                // It ends as well if another one, of `qpipe serve`, has just begun to listen.
                let last_words = last_words(&home.node_log_file(), started.log_from);
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
pub async fn hold_start(home: &Home) -> Result<File, LocalError> {
    let holding = async {
        loop {
            if let Some(lock) = try_lock(home)? {
                return Ok(lock);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    let late = || cannot("lock", &home.start_lock_file())(io::ErrorKind::TimedOut.into());
    tokio::time::timeout(NODE_START_MAX, holding).await.unwrap_or_else(|_| Err(late()))
}

/// A node that was started and does not listen yet.
struct Starting {
    child: Child,
    /// Where in the log its own words begin.
    log_from: u64,
    /// Keeps others from starting one.
    _lock: File,
}

fn try_lock(home: &Home) -> Result<Option<File>, LocalError> {
    let path = home.start_lock_file();
    let file = disk::open_lock_file(&path).map_err(cannot("lock", &path))?;
    match rustix::io::retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(cannot("lock", &path)(error.into())),
    }
}

fn start(home: &Home, program: &Path, args: &[OsString], log: File) -> io::Result<Child> {
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

/// The log, and how long it is.
fn open_log(path: &Path) -> Result<(File, u64), LocalError> {
    let open = || -> io::Result<(File, u64)> {
        if path.metadata().is_ok_and(|found| found.is_file() && found.len() >= LOG_BYTES_MAX) {
            std::fs::rename(path, old_log(path))?;
        }
        let options = &mut OpenOptions::new();
        let log = options.append(true).create(true).mode(PRIVATE_FILE_MODE).open(path)?;
        let length = log.metadata()?.len();
        Ok((log, length))
    };
    open().map_err(cannot("write", path))
}

/// What the system says of a file in the home.
fn cannot(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LocalError {
    let path = path.to_path_buf();
    move |cause| LocalError::Io { what, path, cause }
}

fn old_log(path: &Path) -> PathBuf {
    path.with_extension("log.old")
}

/// The last line that was written to the log after the first `from` bytes, after a colon.
fn last_words(log: &Path, from: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = disk::open_to_read(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(LOG_TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read().unwrap_or_default().lines().rfind(|line| !line.trim().is_empty()) {
        Some(line) => format!(": {}", printable(line)),
        // A full disk takes none.
        None => " and left no word".to_owned(),
    }
}

#[cfg(test)]
mod tests;
