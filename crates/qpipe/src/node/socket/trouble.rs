//! Receiving that fails: tried again, ever more slowly.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

/// The first failure is taken for what the kernel had to say of an earlier send, and forgets by
/// saying it. After the next one there is a pause, which doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// So many failures in a row, which take 15 ms, are the socket's, and another one may do better.
const FAILURES_OF_SOCKET: u32 = 5;

/// Failures in a row.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    failures: u32,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Trouble {
    /// Ready unless receiving has to wait.
    pub(super) fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }

    pub(super) fn is_over(&mut self) {
        self.failures = 0;
    }

    /// Receiving has failed once more: returns whether the socket should be replaced.
    pub(super) fn failed(&mut self) -> bool {
        self.failures = self.failures.saturating_add(1);
        if let Some(doublings) = self.failures.checked_sub(2) {
            let pause = PAUSE_MIN * 2_u32.saturating_pow(doublings.min(16));
            self.pause = Some(Box::pin(tokio::time::sleep(pause.min(PAUSE_MAX))));
        }
        self.failures >= FAILURES_OF_SOCKET
    }

    #[cfg(test)]
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}
