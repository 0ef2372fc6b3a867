//! Asking the host of a silent peer whether its process is still there.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::Link;
use crate::clock;
use crate::node::Probe;

/// How often it is asked, and how often something is sent on the connection meanwhile, right after. A
/// host answers about once a second (icmp_ratelimit of Linux), to the first datagram that comes when
/// it may, and answers to QUIC's datagrams are not heard. Both together are ten datagrams a second.
pub(super) const ASK_EVERY: Duration = Duration::from_millis(200);

/// To come before what is sent on the connection, it may be asked sooner.
const ASK_EARLY: Duration = Duration::from_millis(100);

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
        let every = if is_early { 2 * ASK_EVERY } else { ASK_LATER_EVERY };
        let due = self.asked_at.map_or(now, |at| at + every);
        let may_be_early = self.asked_at.is_some_and(|at| now >= at + ASK_EARLY);
        if now < due && !(is_early && is_kick_due && may_be_early) {
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
