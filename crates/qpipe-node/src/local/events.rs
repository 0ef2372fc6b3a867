//! The node's side of a connection: what is told to a program never waits for it, and what it says.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::{Shutdown, shutdown};
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};

use super::LocalError;
use super::message::{Event, Word};
use super::stream::{Incoming, LocalStream, framed, write};

/// Events that wait for a program that does not read them, beside what the kernel's buffer takes.
pub const EVENTS_WAITING_MAX: usize = 64;

/// Tells a program what happens, without ever waiting for it. Dropped, it lets the rest go out and
/// ends the connection.
#[derive(Debug)]
pub struct EventSender {
    shared: Arc<Shared>,
}

/// What a program says once it holds an end.
#[derive(Debug)]
pub struct Words {
    socket: Arc<UnixStream>,
    incoming: Incoming,
}

#[derive(Debug)]
struct Shared {
    socket: Arc<UnixStream>,
    queue: Mutex<Queue>,
    /// Told when the queue has changed.
    changed: Notify,
    /// Whether everything is written, as far as it can be.
    is_idle: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    /// Nothing more comes.
    is_finished: bool,
    /// Nothing more can be written.
    is_broken: bool,
}

/// The two directions of a connection. Call it inside a tokio runtime: a task writes.
pub(super) fn into_parts(stream: LocalStream) -> (EventSender, Words) {
    let socket = Arc::new(stream.socket);
    let shared = Arc::new(Shared {
        socket: socket.clone(),
        queue: Mutex::default(),
        changed: Notify::new(),
        is_idle: watch::Sender::new(true),
    });
    tokio::spawn(shared.clone().write_all());
    (EventSender { shared }, Words { socket, incoming: stream.incoming })
}

impl EventSender {
    /// Tells it. Of several [`Event::Progress`] that wait, only the last is told; a program that
    /// does not read at all misses the oldest of what passes, and is cut off when there is none.
    pub fn send(&self, event: Event) {
        let mut queue = self.shared.lock();
        if queue.is_broken {
            return;
        }
        if queue.push(event).is_err() {
            queue.is_broken = true;
            queue.events.clear();
            // Its end of the connection tells it, and ours tells whoever waits for its words.
            let _ = shutdown(&*self.shared.socket, Shutdown::Both);
        }
        self.shared.is_idle.send_replace(queue.is_broken);
        drop(queue);
        self.shared.changed.notify_one();
    }

    /// Waits until everything is written, or nothing more can be. A program that does not read can
    /// make this last for ever.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn flushed(&self) {
        // The sender is in `shared`, so there is always one.
        let _ = self.shared.is_idle.subscribe().wait_for(|is_idle| *is_idle).await;
    }
}

impl Drop for EventSender {
    fn drop(&mut self) {
        self.shared.lock().is_finished = true;
        self.shared.changed.notify_one();
    }
}

impl Words {
    /// The next word; none when the program is gone.
    ///
    /// # Errors
    /// What came is no word, or had descriptors with it. The program is to be treated as gone.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Word>, LocalError> {
        self.incoming.message(&self.socket, 0).await
    }
}

impl Shared {
    async fn write_all(self: Arc<Self>) {
        loop {
            let next = {
                let mut queue = self.lock();
                let next = queue.events.pop_front();
                if next.is_none() {
                    self.is_idle.send_replace(true);
                    if queue.is_finished || queue.is_broken {
                        break;
                    }
                }
                next
            };
            let Some(event) = next else {
                self.changed.notified().await;
                continue;
            };
            if self.write(&event).await.is_err() {
                let mut queue = self.lock();
                queue.is_broken = true;
                queue.events.clear();
            }
        }
        // Ends the connection for the program, whoever still waits for its words.
        let _ = shutdown(&*self.socket, Shutdown::Write);
    }

    async fn write(&self, event: &Event) -> Result<(), LocalError> {
        let mut bytes = match framed(event) {
            Ok(bytes) => bytes,
            Err(error) if event.is_last() => framed(&Event::Failed { text: error.to_string() })?,
            // It holds names that are too long to be told.
            Err(_) => return Ok(()),
        };
        write(&self.socket, &mut bytes, &[]).await.map_err(LocalError::Stream)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More waits than may.
struct Full;

impl Queue {
    fn push(&mut self, event: Event) -> Result<(), Full> {
        if matches!(event, Event::Progress { .. }) {
            self.events.retain(|waiting| !matches!(waiting, Event::Progress { .. }));
        }
        if self.events.len() >= EVENTS_WAITING_MAX {
            let oldest = self.events.iter().position(Event::is_passing).ok_or(Full)?;
            self.events.remove(oldest);
        }
        self.events.push_back(event);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
