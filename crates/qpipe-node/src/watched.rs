//! Noticing that a file has changed while the node runs.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::document::ReadError;

/// A file as a running node sees it: read again when it has changed.
///
/// While the file is broken, what it said last stays in force. Editors that empty a file before they
/// write it may be caught half way: qpipe's own commands replace files in one step.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    path: PathBuf,
    load: fn(&Path) -> Result<T, ReadError>,
    /// None: not read yet, or to be read again in any case.
    seen: Option<Seen>,
    current: Arc<T>,
}

/// What tells one version of the file from another.
#[derive(Debug, Eq, PartialEq)]
enum Seen {
    Missing,
    Unreachable(io::ErrorKind),
    Version {
        inode: (u64, u64),
        size: u64,
        modified: (i64, i64),
        changed: (i64, i64),
        /// Permissions alone can make a refused file acceptable, and the other way round.
        mode: u32,
    },
}

impl<T: Default> Watched<T> {
    /// A file that `load` reads, and has not read yet.
    pub(crate) fn new(path: PathBuf, load: fn(&Path) -> Result<T, ReadError>) -> Self {
        Self { path, load, seen: None, current: Arc::default() }
    }
}

impl<T> Watched<T> {
    /// What is in force. A clone of the `Arc` keeps it as it is now.
    pub(crate) fn current(&self) -> &Arc<T> {
        &self.current
    }

    /// Reads the file again if it has changed, and says whether something new is in force. Costs one
    /// `stat` if it has not.
    ///
    /// # Errors
    /// As `load`, once for each version of the file that is broken; what is in force stays.
    pub(crate) fn refresh(&mut self) -> Result<bool, ReadError> {
        // Taken before reading: a change in between is then seen as one at the next refresh.
        let seen = Some(Seen::at(&self.path));
        if seen == self.seen {
            return Ok(false);
        }
        self.seen = seen;
        self.current = Arc::new((self.load)(&self.path)?);
        Ok(true)
    }

    /// What the file says now.
    ///
    /// # Errors
    /// As `load`, each time while the file is broken.
    pub(crate) fn latest(&mut self) -> Result<&Arc<T>, ReadError> {
        match self.refresh() {
            Ok(_) => Ok(&self.current),
            Err(error) => {
                self.seen = None;
                Err(error)
            }
        }
    }
}

impl Seen {
    fn at(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(metadata) => Self::version(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Missing,
            Err(error) => Self::Unreachable(error.kind()),
        }
    }

    fn version(metadata: &Metadata) -> Self {
        Self::Version {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            mode: metadata.mode(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_latest_is_told_each_time_and_what_is_broken_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let mut watched = Watched::new(path.clone(), Config::load);
        assert!(watched.latest().unwrap().hosts.is_empty());

        fs::write(&path, "[hosts.b]\naddress = \"b.example:7473\"\n").unwrap();
        let first = watched.latest().unwrap().clone();
        assert!(first.host("b").is_some());
        assert!(Arc::ptr_eq(&first, watched.latest().unwrap()), "read once");

        fs::write(&path, "[hosts.b\n").unwrap();
        for _ in 0..2 {
            assert!(matches!(watched.latest(), Err(ReadError::Invalid { .. })));
        }
        fs::remove_file(&path).unwrap();
        assert!(watched.latest().unwrap().hosts.is_empty());
    }
}
