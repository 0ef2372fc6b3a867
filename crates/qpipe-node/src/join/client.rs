//! A program of this host that handed over its descriptors and waits for the end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qpipe::Cause;
use tokio::sync::watch;

use crate::fd::Source;
use crate::local::{Event, EventSender};

/// What is known of a program that holds an end of a pipe.
#[derive(Debug)]
pub(crate) struct Client {
    events: EventSender,
    said: watch::Sender<Said>,
    /// It holds both ends: what comes back tells it more than a broken pipe would.
    is_duplex: bool,
    /// Bytes that came from it and that went to it.
    pub(crate) sent: Arc<AtomicU64>,
    received: AtomicU64,
    /// Who counts what goes to it, while that is done together.
    counter: Mutex<Option<Arc<AtomicU64>>>,
}

/// What it said so far.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    is_eof_meant: bool,
    left: Option<Cause>,
    /// What it was told: that a partner is there, how it ended.
    is_opened: bool,
    is_joined: bool,
    is_over: bool,
}

impl Client {
    pub(crate) fn new(events: EventSender, is_duplex: bool) -> Client {
        Client {
            events,
            is_duplex,
            said: watch::Sender::new(Said::default()),
            sent: Arc::default(),
            received: AtomicU64::new(0),
            counter: Mutex::default(),
        }
    }

    /// Tells it something. One that does not listen is not waited for. After the last event nothing
    /// more is told.
    pub(crate) fn tell(&self, event: Event) {
        let is_last = event.is_last();
        self.said.send_if_modified(|said| {
            if !said.is_over {
                said.is_opened |= matches!(event, Event::Opened { .. });
                self.events.send(event);
                said.is_over = is_last;
            }
            is_last
        });
    }

    /// A partner is there.
    pub(crate) fn set_joined(&self) {
        self.said.send_modify(|said| said.is_joined = true);
        self.tell(Event::Joined);
    }

    /// Whether it was told that bytes may move.
    pub(crate) fn is_opened(&self) -> bool {
        self.said.borrow().is_opened
    }

    pub(crate) fn is_joined(&self) -> bool {
        self.said.borrow().is_joined
    }

    /// Waits until a partner is there, or it was told how it ended.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn joined_or_over(&self) {
        self.until(|said| said.is_joined || said.is_over).await;
    }

    /// Waits until it was told how it ended, or is gone.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn over(&self) {
        self.until(|said| said.is_over).await;
    }

    async fn until(&self, is_so: impl Fn(&Said) -> bool) -> Said {
        let mut said = self.said.subscribe();
        // The sender is here: the channel is not closed.
        said.wait_for(is_so).await.map(|said| *said).unwrap_or_default()
    }

    /// It confirmed that the end of its input is meant as one.
    pub(crate) fn confirm(&self) {
        self.said.send_modify(|said| said.is_eof_meant = true);
    }

    /// It gave up, or is gone: the first cause counts.
    pub(crate) fn leave(&self, cause: Cause) {
        self.said.send_modify(|said| said.left = said.left.or(Some(cause)));
    }

    /// Waits until it gave up or is gone.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn left(&self) -> Cause {
        self.until(|said| said.left.is_some()).await.left.unwrap_or(Cause::Lost)
    }

    /// Asks it whether the end of its input is meant as one, and waits for the answer: a program
    /// that was killed closes its descriptors, too.
    ///
    /// # Errors
    /// It gave up, or is gone.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn means_eof(&self) -> Result<(), Cause> {
        self.tell(Event::Eof);
        let said = self.until(|said| said.is_eof_meant || said.left.is_some()).await;
        if said.is_eof_meant { Ok(()) } else { Err(said.left.unwrap_or(Cause::Lost)) }
    }

    /// Whether it confirmed the end of its input.
    pub(crate) fn has_ended(&self) -> bool {
        self.said.borrow().is_eof_meant
    }

    /// Waits until everything it was told is on its way, or it is gone.
    pub(crate) async fn flushed(&self) {
        self.events.flushed().await;
    }

    /// Waits until it must have heard that bytes may move, or is gone: one that has not, and finds its
    /// node dead, asks the next node to read what this one would have read already.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn knows(&self) {
        tokio::select! {
            () = self.flushed() => {}
            _ = self.left() => {}
        }
    }

    /// Counts bytes that came from it.
    pub(crate) fn count_sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that went to it.
    pub(crate) fn count_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether a reader that leaves after it `consumed` so much has lost nothing of what this program
    /// wrote, and the program is to go on with what it reads: the kernel, too, would tell it at its
    /// next write only, which never comes.
    pub(crate) fn lost_nothing(&self, consumed: u64, source: &Source) -> bool {
        let is_all = consumed == self.sent() && source.is_drained();
        self.is_duplex && is_all
    }

    /// Bytes that came from it.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes that went to it.
    pub(crate) fn received(&self) -> u64 {
        let together = self.counter().as_ref().map_or(0, |sent| sent.load(Ordering::Relaxed));
        self.received.load(Ordering::Relaxed) + together
    }

    /// From now on it gets what `writer` sends, which was counted there from its first byte on.
    pub(crate) fn receive_with(&self, writer: &Client) {
        *self.counter() = Some(writer.sent.clone());
    }

    /// From now on what goes to it is counted apart.
    pub(crate) fn receive_apart(&self) {
        let together = self.counter().take();
        self.count_received(together.map_or(0, |sent| sent.load(Ordering::Relaxed)));
    }

    /// Bytes that moved, both ways.
    pub(crate) fn moved(&self) -> u64 {
        self.sent() + self.received()
    }

    fn counter(&self) -> MutexGuard<'_, Option<Arc<AtomicU64>>> {
        self.counter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
