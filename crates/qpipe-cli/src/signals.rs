//! The signals that end a command: it tells the peer first, then dies of the signal after all.

use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::startup;

/// SIGHUP, SIGINT and SIGTERM as they come. Those that were ignored when the process started stay
/// ignored, so that `nohup` and background jobs work.
pub(crate) struct Signals {
    hangup: Option<Signal>,
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
}

impl Signals {
    /// Begins to listen.
    ///
    /// # Errors
    /// If the system does not let this process handle a signal.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: unless_ignored(SIGHUP)?,
            interrupt: unless_ignored(SIGINT)?,
            terminate: unless_ignored(SIGTERM)?,
        })
    }

    /// The number of the next signal.
    ///
    /// # Cancel safety
    /// No signal is lost by dropping the future.
    pub(crate) async fn next(&mut self) -> i32 {
        tokio::select! {
            () = arrival(&mut self.hangup) => SIGHUP,
            () = arrival(&mut self.interrupt) => SIGINT,
            () = arrival(&mut self.terminate) => SIGTERM,
        }
    }
}

fn unless_ignored(number: i32) -> io::Result<Option<Signal>> {
    if startup::was_ignored(number) {
        return Ok(None);
    }
    signal(SignalKind::from_raw(number)).map(Some)
}

async fn arrival(signal: &mut Option<Signal>) {
    let came = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if came.is_none() {
        std::future::pending::<()>().await;
    }
}
