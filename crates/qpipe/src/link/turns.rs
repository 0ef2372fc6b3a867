//! Turns of the tasks that many others wait for.

use std::future::poll_fn;
use std::mem;
use std::task::Poll;

/// So many pieces of work, each of which may wake another task, are one turn.
const PIECES: u32 = 8;

/// Divides the work of a task that others wait for. All that it wakes in a turn run one after the
/// other, and what they send goes out once the last of them has run. Were all of it one turn, the peer
/// would have nothing to do meanwhile, and everything to do after that, while this side has nothing.
#[derive(Default)]
pub(super) struct Turns {
    done: u32,
}

impl Turns {
    /// Another piece of work is to be done: lets every task that can run have its turn, where this one
    /// has had its own.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn next(&mut self) {
        self.done += 1;
        if self.done <= PIECES {
            return;
        }
        self.done = 1;
        others_first().await;
    }
}

/// Lets every task that can run have its turn.
///
/// # Cancel safety
/// Cancel safe.
pub(super) async fn others_first() {
    let mut has_waited = false;
    poll_fn(|cx| {
        if mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        // Not tokio's own way, after which this task would be woken only when I/O was looked for.
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    #[tokio::test]
    async fn others_run_after_each_few_pieces() {
        let pieces = AtomicU32::new(0);
        let works = async {
            let mut turns = Turns::default();
            for _ in 0..10 * PIECES {
                turns.next().await;
                pieces.fetch_add(1, Relaxed);
            }
        };
        let mut each = Vec::new();
        let watches = async {
            loop {
                each.push(pieces.swap(0, Relaxed));
                tokio::task::yield_now().await;
            }
        };

        tokio::select! {
            biased;
            () = works => {}
            () = watches => {}
        }

        assert_eq!(each, [PIECES; 9], "the last turn ends the work");
    }
}
