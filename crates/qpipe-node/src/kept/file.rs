//! Noticing that `names.toml` has changed while the node runs.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::Kept;
use crate::authorized::Seen;
use crate::document::ReadError;

/// `names.toml` as a running node sees it: read again when it has changed.
///
/// While the file is broken, what it said last stays: nothing, where it was broken from the start.
#[derive(Debug)]
pub(crate) struct KeptFile {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seen: Option<Seen>,
    current: Arc<Kept>,
    /// Why the newest version is not in force, until that was told.
    broken: Option<ReadError>,
}

impl KeptFile {
    /// Reads it at once: what it says at the start is what stays when the first change breaks it.
    pub(crate) fn open(path: impl Into<PathBuf>) -> KeptFile {
        let file = KeptFile { path: path.into(), state: Mutex::default() };
        file.current();
        file
    }

    /// What is kept now. Costs one `stat` if the file has not changed.
    pub(crate) fn current(&self) -> Arc<Kept> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before reading: a change in between is then seen as one at the next look.
        let seen = Some(Seen::at(&self.path));
        if state.seen != seen {
            state.seen = seen;
            match Kept::load(&self.path) {
                Ok(kept) => {
                    state.current = Arc::new(kept);
                    state.broken = None;
                }
                Err(error) => state.broken = Some(error),
            }
        }
        state.current.clone()
    }

    /// Why what the file says now is not in force: told once for each version of it.
    pub(crate) fn take_broken(&self) -> Option<ReadError> {
        self.current();
        self.state.lock().unwrap_or_else(PoisonError::into_inner).broken.take()
    }
}
