//! Noticing that `names.toml` has changed while the node runs.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::Kept;
use crate::document::ReadError;
use crate::watched::Watched;

/// `names.toml` as a running node sees it: nothing is kept where it was broken from the start.
#[derive(Debug)]
pub(crate) struct KeptFile(Mutex<State>);

#[derive(Debug)]
struct State {
    file: Watched<Kept>,
    /// Why the newest version is not in force, until that was told.
    broken: Option<ReadError>,
}

impl KeptFile {
    /// Reads it at once: what it says at the start is what stays when the first change breaks it.
    pub(crate) fn open(path: impl Into<PathBuf>) -> KeptFile {
        let file = Watched::new(path.into(), Kept::load);
        let kept = KeptFile(Mutex::new(State { file, broken: None }));
        kept.current();
        kept
    }

    /// What is kept now. Costs one `stat` if the file has not changed.
    pub(crate) fn current(&self) -> Arc<Kept> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.file.refresh() {
            Ok(false) => {}
            Ok(true) => state.broken = None,
            Err(error) => state.broken = Some(error),
        }
        state.file.current().clone()
    }

    /// Why what the file says now is not in force: told once for each version of it.
    pub(crate) fn take_broken(&self) -> Option<ReadError> {
        self.current();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).broken.take()
    }
}
