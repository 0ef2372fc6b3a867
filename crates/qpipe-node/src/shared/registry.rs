//! What programs of this host have open.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use qpipe::{Cause, End, Fingerprint, PipeError};
use tokio::sync::watch;
use tokio::time::Instant;

use super::open::ending;
use crate::join::Client;
use crate::local::OpenAsk;

/// The pipes of this host's programs. Clones are the same. As many as there are connections at the
/// local socket, which are bounded.
#[derive(Clone, Debug, Default)]
pub(super) struct Registry {
    opens: Arc<Mutex<Opens>>,
    activity: watch::Sender<Activity>,
}

/// What goes on.
#[derive(Clone, Copy, Debug, Default)]
struct Activity {
    /// Programs that are being answered.
    answered: usize,
    /// Those of them that opened something.
    open: usize,
    /// How many ever did: whoever comes and goes unseen has needed the node all the same.
    opened: u64,
}

#[derive(Debug, Default)]
struct Opens {
    by_number: BTreeMap<u64, Arc<Open>>,
    next: u64,
}

/// What a program has open.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) place: String,
    /// Whether it is a pipe of this node.
    pub(super) is_local: bool,
    pub(super) end: End,
    pub(super) process: String,
    pub(super) pid: Option<i32>,
    pub(super) since: Instant,
    pub(super) client: Arc<Client>,
    /// The host that it leads to, once there is a session.
    pub(super) host: OnceLock<Fingerprint>,
    counted: AtomicU64,
    rate: AtomicU64,
}

/// Removes what a program had open when it is dropped.
pub(super) struct Entry {
    number: u64,
    open: Arc<Open>,
    registry: Registry,
}

/// A program is being answered: the node is not idle while this lives.
pub(super) struct Busy {
    activity: watch::Sender<Activity>,
    is_open: bool,
}

impl Registry {
    pub(super) fn add(
        &self,
        ask: &OpenAsk,
        is_local: bool,
        pid: Option<i32>,
        client: Arc<Client>,
    ) -> Entry {
        let open = Arc::new(Open {
            place: ask.place.to_string(),
            is_local,
            end: ask.end,
            process: ask.process.clone(),
            pid,
            since: Instant::now(),
            client,
            host: OnceLock::new(),
            counted: AtomicU64::new(0),
            rate: AtomicU64::new(0),
        });
        let mut opens = self.lock();
        let number = opens.next;
        opens.next += 1;
        opens.by_number.insert(number, open.clone());
        drop(opens);
        Entry { number, open, registry: self.clone() }
    }

    /// The node is not idle while what this gives lives.
    pub(super) fn begin(&self) -> Busy {
        self.activity.send_modify(|activity| activity.answered += 1);
        Busy { activity: self.activity.clone(), is_open: false }
    }

    /// All of them, the oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Open>> {
        self.lock().by_number.values().cloned().collect()
    }

    /// Gives all of them up.
    pub(super) fn cut(&self, cause: Cause) -> usize {
        let all = self.all();
        all.iter().for_each(|open| open.cut(cause));
        all.len()
    }

    /// Gives up those that wait at a name of this node, where nobody comes any more.
    pub(super) fn cut_waiting(&self, cause: Cause) {
        self.all().iter().filter(|open| open.waits_here()).for_each(|open| open.cut(cause));
    }

    /// Lets go of those that wait at a name of this node: they ask the next one.
    pub(super) fn release(&self) {
        for open in self.all().iter().filter(|open| open.waits_here()) {
            open.client.leave(Cause::Stopping);
        }
    }

    /// Waits until nobody is being answered.
    pub(super) async fn idle(&self) {
        // The sender is here: the channel is not closed.
        let _ = self.activity.subscribe().wait_for(|activity| activity.answered == 0).await;
    }

    /// Waits until nothing has been open for `linger`. Questions about the node do not count: whoever
    /// watches it is not to keep it alive.
    pub(super) async fn unused_for(&self, linger: Duration) {
        let mut activity = self.activity.subscribe();
        loop {
            // The sender is here: the channel is not closed.
            let unused =
                activity.wait_for(|activity| activity.open == 0).await.map(|now| now.opened);
            let opened = unused.unwrap_or_default();
            tokio::select! {
                _ = activity.wait_for(|activity| activity.opened != opened) => {}
                () = tokio::time::sleep(linger) => return,
            }
        }
    }

    /// Notes how much has moved since this was called before.
    pub(super) fn take_rates(&self) {
        for open in self.all() {
            let bytes = open.client.moved();
            let before = open.counted.swap(bytes, Ordering::Relaxed);
            open.rate.store(bytes.saturating_sub(before), Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Opens> {
        self.opens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Bytes that moved within the last second.
    pub(super) fn rate(&self) -> u64 {
        self.rate.load(Ordering::Relaxed)
    }

    /// Whether it waits for somebody at a name of this node.
    fn waits_here(&self) -> bool {
        self.is_local && !self.client.is_joined()
    }

    /// Gives it up: the program hears the cause, from here or from whoever carries the pipe.
    fn cut(&self, cause: Cause) {
        if !self.client.is_opened() {
            self.client.tell(ending(self.end, PipeError::Refused { cause }.into()));
        }
        self.client.leave(cause);
    }
}

impl std::ops::Deref for Entry {
    type Target = Open;

    fn deref(&self) -> &Open {
        &self.open
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.lock().by_number.remove(&self.number);
    }
}

impl Busy {
    /// It is an open.
    pub(super) fn open(&mut self) {
        if !std::mem::replace(&mut self.is_open, true) {
            self.activity.send_modify(|activity| {
                activity.open += 1;
                activity.opened += 1;
            });
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.activity.send_modify(|activity| {
            activity.answered -= 1;
            activity.open -= usize::from(self.is_open);
        });
    }
}
