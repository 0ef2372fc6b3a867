//! One `qpipe serve` for each home, and how other commands find it.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;
use toml_edit::{DocumentMut, value};

use crate::disk::{self, PRIVATE_FILE_MODE};
use crate::document::{self, Parsed, Policy, strings, unwrapped};
use crate::home::Home;

/// More than a node with a thousand addresses writes.
const SERVE_FILE_BYTES_MAX: u64 = 64 << 10;

const POLICY: Policy = Policy { bytes_max: SERVE_FILE_BYTES_MAX, owner_writes_alone: true };

/// The digits of the largest process id.
const PID_BYTES_MAX: u64 = 10;

/// The right to be the home's node. The kernel takes it back when the process ends, however it
/// ends; dropping it gives it back, and removes what [`publish`](Self::publish) wrote.
#[derive(Debug)]
pub struct ServeLock {
    serve_file: PathBuf,
    // Held, not read: closing it releases the lock. Dropped after serve.toml is removed.
    _lock: File,
}

/// What a running `qpipe serve` says about itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServeInfo {
    /// Its process id.
    pub pid: u32,
    /// Where it listens; empty while it starts.
    pub addresses: Vec<SocketAddr>,
}

impl ServeLock {
    /// Takes the lock, without waiting for a process that has it. Makes the home's directories.
    ///
    /// # Errors
    /// [`ServeLockError::AlreadyServing`] if another process (or this one) has it.
    pub fn acquire(home: &Home) -> Result<Self, ServeLockError> {
        home.create()?;
        let path = home.serve_lock_file();
        let failed = |cause| ServeLockError::Io { path: path.clone(), cause };
        let serve_file = home.serve_file();
        // Keeps away those who only look whether the lock is held, for which they take it.
        let _gate = disk::lock_for(&serve_file).map_err(failed)?;
        let mut lock = disk::open_lock_file(&path).map_err(failed)?;
        if !try_lock(&lock).map_err(failed)? {
            return Err(ServeLockError::AlreadyServing { pid: read_pid(&mut lock) });
        }
        write_pid(&mut lock).map_err(failed)?;
        // Left by a process that was killed: its addresses are not ours.
        disk::remove_if_there(&serve_file).map_err(failed)?;
        Ok(Self { serve_file, _lock: lock })
    }

    /// Tells other commands of this home where the node listens; again replaces what was told.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn publish(&self, addresses: &[SocketAddr]) -> Result<(), ServeLockError> {
        let failed = |cause| ServeLockError::Io { path: self.serve_file.clone(), cause };
        let mut document = DocumentMut::new();
        document["pid"] = value(i64::from(std::process::id()));
        document["addresses"] = value(strings(addresses));
        let _gate = disk::lock_for(&self.serve_file).map_err(failed)?;
        disk::replace(&self.serve_file, document.to_string().as_bytes(), PRIVATE_FILE_MODE)
            .map_err(failed)
    }
}

impl Drop for ServeLock {
    fn drop(&mut self) {
        // A file that stays is not believed: nobody holds the lock then.
        let _ = disk::remove_if_there(&self.serve_file);
    }
}

/// The `qpipe serve` that runs for this home: a process holds the lock now. None as well if that
/// cannot be found out.
pub fn running_serve(home: &Home) -> Option<ServeInfo> {
    let path = home.serve_lock_file();
    if !path.exists() {
        return None;
    }
    let serve_file = home.serve_file();
    let _gate = disk::lock_for(&serve_file).ok()?;
    let mut lock = File::open(&path).ok()?;
    if try_lock(&lock).ok()? {
        return None;
    }
    let pid = read_pid(&mut lock)?;
    let told = read_serve_file(&serve_file).filter(|told| told.pid == pid);
    Some(told.unwrap_or(ServeInfo { pid, addresses: Vec::new() }))
}

/// Why a process may not be the home's node.
#[derive(Debug, thiserror::Error)]
pub enum ServeLockError {
    /// There is one already.
    #[error(
        "`qpipe serve` runs already for this home{}: stop it first, or set QPIPE_HOME to another \
         directory for a second node",
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    AlreadyServing {
        /// Its process id, where it could be read.
        pid: Option<u32>,
    },
    /// The home is not usable.
    #[error(transparent)]
    Home(#[from] crate::home::HomeError),
    /// A file could not be locked or written.
    #[error("cannot use {}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

#[derive(Deserialize)]
struct ServeText {
    pid: u32,
    addresses: Vec<Parsed<SocketAddr>>,
}

fn read_serve_file(path: &Path) -> Option<ServeInfo> {
    let text = document::read(path, POLICY).ok()??;
    let told: ServeText = document::parse(path, &text).ok()?;
    Some(ServeInfo { pid: told.pid, addresses: unwrapped(told.addresses) })
}

fn try_lock(file: &File) -> io::Result<bool> {
    match rustix::io::retry_on_intr(|| flock(file, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn write_pid(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    lock.write_all(std::process::id().to_string().as_bytes())
}

fn read_pid(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        (dir, home)
    }

    fn address() -> SocketAddr {
        "[::]:7473".parse().unwrap()
    }

    #[test]
    fn running_node_is_found_with_its_addresses() {
        let (_dir, home) = home();
        let lock = ServeLock::acquire(&home).unwrap();
        let pid = std::process::id();

        assert_eq!(running_serve(&home), Some(ServeInfo { pid, addresses: vec![] }));
        lock.publish(&[address()]).unwrap();

        assert_eq!(running_serve(&home), Some(ServeInfo { pid, addresses: vec![address()] }));
        let mode = fs::metadata(home.serve_file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn second_node_of_a_home_is_told_of_the_first() {
        let (_dir, home) = home();
        let _lock = ServeLock::acquire(&home).unwrap();

        let error = ServeLock::acquire(&home).unwrap_err();

        let pid = std::process::id();
        assert!(
            matches!(error, ServeLockError::AlreadyServing { pid: Some(found) } if found == pid)
        );
        assert!(error.to_string().contains(&format!("process {pid}")), "{error}");
        assert!(error.to_string().contains("QPIPE_HOME"), "{error}");
    }

    #[test]
    fn ended_node_leaves_nothing_behind() {
        let (_dir, home) = home();
        let lock = ServeLock::acquire(&home).unwrap();
        lock.publish(&[address()]).unwrap();

        drop(lock);

        assert!(!home.serve_file().exists());
        assert_eq!(running_serve(&home), None);
        assert!(ServeLock::acquire(&home).is_ok());
    }

    #[test]
    fn file_of_a_killed_node_is_not_believed() {
        let (_dir, home) = home();
        let lock = ServeLock::acquire(&home).unwrap();
        lock.publish(&[address()]).unwrap();
        let left = fs::read(home.serve_file()).unwrap();
        drop(lock);
        fs::write(home.serve_file(), left).unwrap();

        assert_eq!(running_serve(&home), None);

        let _lock = ServeLock::acquire(&home).unwrap();
        assert_eq!(running_serve(&home).map(|info| info.addresses), Some(vec![]));
    }

    #[test]
    fn corrupt_file_of_a_running_node_leaves_its_process_id() {
        let (_dir, home) = home();
        let _lock = ServeLock::acquire(&home).unwrap();
        fs::write(home.serve_file(), "pid = [").unwrap();

        let pid = std::process::id();
        assert_eq!(running_serve(&home), Some(ServeInfo { pid, addresses: vec![] }));
    }

    #[test]
    fn no_home_no_node() {
        let (dir, _) = home();
        let home = Home::at(dir.path().join("none"));

        assert_eq!(running_serve(&home), None);
        assert!(!dir.path().join("none").exists());
    }

    #[test]
    fn looking_for_a_node_waits_for_one_that_is_starting() {
        let (_dir, home) = home();
        drop(ServeLock::acquire(&home).unwrap());
        let gate = disk::lock_for(&home.serve_file()).unwrap();
        let (found, finding) = std::sync::mpsc::channel();

        std::thread::scope(|scope| {
            scope.spawn(|| found.send(running_serve(&home)));

            // Were it to look now, it would hold the lock just when the starting node tries it.
            let early = finding.recv_timeout(std::time::Duration::from_millis(100));
            assert!(early.is_err());
            drop(gate);
            assert_eq!(finding.recv().unwrap(), None);
        });
    }

    #[test]
    fn race_of_starting_nodes_has_one_winner() {
        let (_dir, home) = home();
        let barrier = std::sync::Barrier::new(8);

        let locks: Vec<_> = std::thread::scope(|scope| {
            let start = || {
                barrier.wait();
                ServeLock::acquire(&home)
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });

        assert_eq!(locks.iter().filter(|lock| lock.is_ok()).count(), 1);
    }
}
