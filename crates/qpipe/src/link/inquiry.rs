//! Asking the host of a silent peer whether its process is still there.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::Link;
use crate::clock;
use crate::node::Probe;

/// How often it is asked: right before every other datagram of those that go out on the connection of
/// a silent peer. A host answers about once a second (icmp_ratelimit of Linux), to the first datagram
/// that comes when it may, and answers to QUIC's are not heard: like this it is as often the one as the
/// other. Both together are ten datagrams a second.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// To come before what goes out on the connection, it may be asked so much sooner.
const ASK_EARLY: Duration = Duration::from_millis(50);

/// That goes on for so long, and then at the second pace: the host may be gone for days.
const ASK_OFTEN_FOR: Duration = Duration::from_secs(20);
const ASK_LATER_EVERY: Duration = Duration::from_secs(1);

/// Asks as long as it is kept.
pub(super) struct Inquiry {
    link: Arc<Link>,
    probe: Arc<Probe>,
    began: Instant,
    asked_at: Option<Instant>,
    hearing: JoinHandle<()>,
}

impl Inquiry {
    /// Of who was at `address`.
    ///
    /// # Errors
    /// No descriptor is left, or there is no route to the address now.
    pub(super) fn new(link: &Arc<Link>, address: SocketAddr, now: Instant) -> io::Result<Inquiry> {
        let probe = Arc::new(Probe::new(address)?);
        let hearing = link.runtime.spawn(hear(link.clone(), probe.clone()));
        Ok(Inquiry { link: link.clone(), probe, began: now, asked_at: None, hearing })
    }

    /// Asks, if it is time to; returns when it is next. `is_kick_due` says that the connection may be
    /// about to send something.
    pub(super) fn ask(&mut self, now: Instant, is_kick_due: bool) -> Instant {
        let is_early = now < self.began + ASK_OFTEN_FOR;
        let every = if is_early { ASK_EVERY } else { ASK_LATER_EVERY };
        let due = self.asked_at.map_or(now, |at| at + every);
        if now < due && !(is_kick_due && now + ASK_EARLY >= due) {
            return due;
        }
        self.asked_at = Some(now);
        if let Err(error) = self.probe.ask() {
            note(&self.link, &error);
        }
        now + every
    }
}

impl Drop for Inquiry {
    fn drop(&mut self) {
        self.hearing.abort();
    }
}

async fn hear(link: Arc<Link>, probe: Arc<Probe>) {
    loop {
        let error = probe.answer().await;
        note(&link, &error);
        if error.kind() != io::ErrorKind::ConnectionRefused {
            // Whatever it is may come again at once.
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}

fn note(link: &Link, error: &io::Error) {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        link.lock().contact.refused(clock::now());
        link.keep.notify_one();
    }
}
