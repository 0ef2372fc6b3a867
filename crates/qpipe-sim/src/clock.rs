//! Virtual time: a duration since the run began.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Time since the run began.
pub type Time = Duration;

/// One beginning for all runs of a process: only differences of instants matter to what is simulated.
static ZERO: LazyLock<Instant> = LazyLock::new(real_now);

/// The instant that stands for `time`.
pub fn instant(time: Time) -> Instant {
    *ZERO + time
}

/// The time that `instant` stands for.
pub fn time(instant: Instant) -> Time {
    instant.saturating_duration_since(*ZERO)
}

/// The real clock: for rates, never inside a run.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the real clock")]
pub fn real_now() -> Instant {
    Instant::now()
}
