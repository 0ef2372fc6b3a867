//! One call in the blocking pool, which outlives the future that waited for it.

use std::io;

use rustix::io::Errno;
use tokio::task::{JoinHandle, spawn_blocking};

/// At most one call in the blocking pool.
#[derive(Debug)]
pub(super) struct Pooled<T>(Option<JoinHandle<Result<T, Errno>>>);

impl<T: Send + 'static> Pooled<T> {
    /// None yet.
    pub(super) const fn idle() -> Self {
        Self(None)
    }

    /// Whether there is one whose result was not fetched.
    pub(super) fn is_busy(&self) -> bool {
        self.0.is_some()
    }

    /// Begins `call`; what another one came to must have been fetched. It begins anew where a
    /// signal interrupted it.
    pub(super) fn start(&mut self, mut call: impl FnMut() -> Result<T, Errno> + Send + 'static) {
        debug_assert!(!self.is_busy());
        self.0 = Some(spawn_blocking(move || restarted(&mut call)));
    }

    /// What the call came to; `None` if there is none.
    ///
    /// # Cancel safety
    /// The next call of this gets the result.
    pub(super) async fn finish(&mut self) -> Option<io::Result<Result<T, Errno>>> {
        let result = self.0.as_mut()?.await;
        self.0 = None;
        // Only a runtime that shuts down drops a call.
        Some(result.map_err(io::Error::other))
    }
}

/// Calls again while a signal interrupts it.
pub(super) fn restarted<T>(call: &mut impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
