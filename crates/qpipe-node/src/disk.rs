//! Small files that several processes read, replace and lock.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

/// Directories are for their owner alone: they hold keys, rules and pending grants.
pub(crate) const PRIVATE_DIR_MODE: u32 = 0o700;

/// Files are for their owner alone unless the user chose otherwise.
pub(crate) const PRIVATE_FILE_MODE: u32 = 0o600;

/// The permission bits that let a group or everybody write.
pub(crate) const OTHERS_WRITE: u32 = 0o022;

/// Opens `path` for reading without waiting, should somebody have put a FIFO there.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)
}

/// Waits for the lock that belongs to the file (or directory) `path` and holds it until dropped.
///
/// The lock is a file of its own, `.NAME.lock` beside `path`, because `path` itself is replaced by
/// renaming, which would leave two processes with locks on two different files. The kernel gives
/// the lock up when its process ends, however it ends. Threads of one process exclude each other
/// as well.
pub(crate) fn lock_for(path: &Path) -> io::Result<FileLock> {
    let file = open_lock_file(&sibling(path, "lock")?)?;
    rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))?;
    Ok(FileLock { _file: file })
}

/// Held while it lives: see [`lock_for`].
#[must_use = "the lock is released when this is dropped"]
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: File,
}

/// Opens the file whose lock is to be taken, making it (0600) if it is missing.
pub(crate) fn open_lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE_FILE_MODE)
        .open(path)
}

/// Makes `path` hold exactly `content`: readers, and whoever comes after a crash, see the old
/// content or the new one, never a part. Call it with the lock of `path` (or its directory) held.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = sibling(path, "tmp")?;
    remove_if_there(&temporary)?;
    let written = write_new(&temporary, content, mode).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first failure is what the caller should hear of; a leftover is replaced next time.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    File::open(parent(path))?.sync_all()
}

/// Removes `path`, and says whether it was there.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The directory that `path` lies in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // The umask may have taken bits away that the file had before.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()
}

fn sibling(path: &Path, extension: &str) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".");
    hidden.push(extension);
    Ok(parent(path).join(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_file_has_the_content_and_the_mode_and_no_leftovers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(dir.path().join(".f.tmp"), "left by a crash").unwrap();

        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two", 0o666).unwrap();

        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn failed_replacement_leaves_the_old_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        fs::create_dir(&path).unwrap();

        assert!(replace(&path, b"x", 0o600).is_err());

        assert!(path.is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn lock_excludes_other_threads_of_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("counter");
        fs::write(&path, "0").unwrap();

        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let _lock = lock_for(&path).unwrap();
                        let count: u32 = fs::read_to_string(&path).unwrap().parse().unwrap();
                        fs::write(&path, (count + 1).to_string()).unwrap();
                    }
                });
            }
        });

        assert_eq!(fs::read_to_string(&path).unwrap(), "200");
    }
}
