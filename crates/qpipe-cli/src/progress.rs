//! The progress line: bytes, time, rate. Only for people, who look at a terminal.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::say;

/// How often the line is drawn anew, in times a second: faster cannot be read.
const DRAWS_PER_SECOND: u8 = 5;

/// How often the time in the line moves on when no bytes do.
const TICK: Duration = Duration::from_millis(500);

/// Counts bytes on standard error.
#[derive(Clone)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A line on standard error, if that is a terminal, the user has not said `-q`, and the data
    /// itself does not cross the same screen.
    pub(crate) fn start(data_is_on_terminal: bool) -> Self {
        if data_is_on_terminal || say::is_quiet() || !io::stderr().is_terminal() {
            return Self::none();
        }
        let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{bytes} in {elapsed}, {bytes_per_sec}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        say::keep_clear_of(bar.clone());
        Self { bar }
    }

    /// Counts and shows nothing.
    pub(crate) fn none() -> Self {
        Self { bar: ProgressBar::hidden() }
    }

    /// Whether anybody sees it.
    pub(crate) fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Counts `bytes` more.
    pub(crate) fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Leaves the line as it is now.
    pub(crate) fn stop(&self) {
        self.bar.abandon();
    }
}
