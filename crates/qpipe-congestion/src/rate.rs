//! Delivery-rate samples: what was delivered between the sending of a packet and its
//! acknowledgement, over the time that took (draft-ietf-ccwg-bbr, section 4.1).
//!
//! quinn says when packets were sent, one call for a batch, and for each acknowledged packet when
//! that was: the instant is the key by which a batch is found again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Batches that are remembered: at ten packets each, the window of 10 Gbit/s over 150 ms.
const BATCHES_MAX: usize = 1 << 14;

/// What was known when a batch was sent.
#[derive(Clone, Copy, Debug)]
struct Batch {
    sent: Instant,
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
    is_app_limited: bool,
}

/// What one set of acknowledgements says of the path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Bytes in a second.
    pub(crate) rate: f64,
    /// Over this time.
    pub(crate) interval: Duration,
    /// The program had too little to send: the path may carry more.
    pub(crate) is_app_limited: bool,
    /// Bytes that had been delivered when the newest of these packets was sent.
    pub(crate) delivered_before: u64,
    /// The round trip of the newest of these packets.
    pub(crate) rtt: Duration,
    /// Bytes that these acknowledgements delivered.
    pub(crate) acked: u64,
}

/// Makes samples.
#[derive(Clone, Debug)]
pub(crate) struct Sampler {
    batches: VecDeque<Batch>,
    /// Bytes delivered so far, and when that last grew.
    delivered: u64,
    delivered_at: Instant,
    /// When the newest packet that was acknowledged had been sent.
    first_sent: Instant,
    /// Until so much is delivered, the program's pauses show in the samples.
    app_limited_until: u64,
    /// The newest batch of the acknowledgements that are coming in, and what they deliver.
    newest: Option<Batch>,
    acked: u64,
}

impl Sampler {
    pub(crate) fn new(now: Instant) -> Sampler {
        Sampler {
            batches: VecDeque::new(),
            delivered: 0,
            delivered_at: now,
            first_sent: now,
            app_limited_until: 0,
            newest: None,
            acked: 0,
        }
    }

    /// Bytes delivered so far.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// A batch is sent; `in_flight` bytes were on their way before it.
    pub(crate) fn on_sent(&mut self, now: Instant, in_flight: u64) {
        if in_flight == 0 {
            // After a pause time counts from here.
            self.first_sent = now;
            self.delivered_at = now;
        }
        if self.batches.back().is_some_and(|batch| batch.sent >= now) {
            return;
        }
        if self.batches.len() == BATCHES_MAX {
            self.batches.pop_front();
        }
        self.batches.push_back(Batch {
            sent: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
            is_app_limited: self.app_limited_until > self.delivered,
        });
    }

    /// A packet that was sent at `sent` is acknowledged.
    pub(crate) fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64) {
        self.delivered += bytes;
        self.acked += bytes;
        self.delivered_at = now;
        if self.newest.is_some_and(|batch| batch.sent >= sent) {
            return;
        }
        if let Ok(at) = self.batches.binary_search_by(|batch| batch.sent.cmp(&sent)) {
            self.newest = Some(self.batches[at]);
        }
    }

    /// The acknowledgements that came at `now` are all here. `None`: they say nothing, since newer
    /// packets were acknowledged before.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        in_flight: u64,
        is_app_limited: bool,
    ) -> Option<Sample> {
        let acked = std::mem::take(&mut self.acked);
        if is_app_limited {
            self.app_limited_until = self.delivered + in_flight;
        }
        let batch = self.newest.take()?;
        if batch.sent < self.first_sent {
            return None;
        }
        self.first_sent = batch.sent;
        // Older batches are acknowledged already, reordered, or lost.
        let keep_from = batch.sent.checked_sub(self.reordering(now, batch.sent));
        while let (Some(front), Some(from)) = (self.batches.front(), keep_from)
            && front.sent < from
        {
            self.batches.pop_front();
        }
        let took = now.saturating_duration_since(batch.delivered_at);
        let interval = took.max(batch.sent.saturating_duration_since(batch.first_sent));
        let delivered = (self.delivered - batch.delivered) as f64;
        Some(Sample {
            rate: delivered / interval.as_secs_f64().max(1e-6),
            interval,
            is_app_limited: batch.is_app_limited || is_app_limited,
            delivered_before: batch.delivered,
            rtt: now.saturating_duration_since(batch.sent),
            acked,
        })
    }

    /// How much older than the newest a packet is that may still be acknowledged.
    fn reordering(&self, now: Instant, sent: Instant) -> Duration {
        now.saturating_duration_since(sent) / 2
    }
}
