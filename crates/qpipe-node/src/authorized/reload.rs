//! Noticing that `authorized.toml` has changed while the node runs.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::Authorized;
use crate::document::ReadError;

/// `authorized.toml` as a running node sees it: read again when it has changed.
///
/// While the file is broken, what it said last stays in force. A file that is gone allows nobody
/// anything. Editors that empty a file before they write it may be caught half way: `qpipe trust`
/// and invitations replace it in one step.
#[derive(Debug)]
pub struct AuthorizedFile {
    path: PathBuf,
    seen: Seen,
    current: Arc<Authorized>,
}

/// What tells one version of the file from another.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Seen {
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

impl AuthorizedFile {
    /// Reads the file for the first time; a missing one allows nobody anything.
    ///
    /// # Errors
    /// As [`Authorized::load`]: a node does not start with rules that it does not understand.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, ReadError> {
        let path = path.into();
        let seen = Seen::at(&path);
        let current = Arc::new(Authorized::load(&path)?);
        Ok(Self { path, seen, current })
    }

    /// The rules in force. A clone of the `Arc` keeps them as they are now.
    pub fn current(&self) -> &Arc<Authorized> {
        &self.current
    }

    /// Reads the file again if it has changed, and says whether new rules are in force. Costs one
    /// `stat` if it has not.
    ///
    /// # Errors
    /// As [`Authorized::load`], once for each version of the file that is broken; the rules in
    /// force stay what they were.
    pub fn refresh(&mut self) -> Result<bool, ReadError> {
        // Taken before reading: a change in between is then seen as one at the next refresh.
        let seen = Seen::at(&self.path);
        if seen == self.seen {
            return Ok(false);
        }
        self.seen = seen;
        self.current = Arc::new(Authorized::load(&self.path)?);
        Ok(true)
    }
}

impl Seen {
    pub(crate) fn at(path: &std::path::Path) -> Self {
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
