//! The one file that reads the clock, so that tests which pause tokio's time pause all of it.

use std::time::Instant;

/// Now, by tokio's clock.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
