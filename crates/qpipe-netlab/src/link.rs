//! The link model: one direction of a bad link, as a pure state machine.
//!
//! It does no I/O and reads no clock. Packets go in through [`Link::push`], come
//! out through [`Link::pop_due`], and [`Link::next_event`] says when to call that
//! again. A packet passes these stages:
//!
//! ```text
//!   outage? ─ drop-tail queue ─ serialisation at the bit rate ─ loss, corruption,
//!   duplication ─ delay, jitter, reordering ─ outage? ─ out
//! ```
//!
//! Each packet draws the same number of random values whatever becomes of it, and
//! each impairment has its own generator. So the n-th packet offered to a link
//! meets the same fate in every run with the same seed and probabilities.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
};

use serde::Serialize;

use crate::{
    dice::{Dice, Fate, JitterWalk},
    packet::{Packet, Pool},
    params::{LinkParams, Outage},
    units::{Nanos, SECOND},
};

/// What has happened to the packets of one link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct LinkStats {
    pub(crate) packets_in: u64,
    pub(crate) bytes_in: u64,
    pub(crate) packets_delivered: u64,
    pub(crate) bytes_delivered: u64,
    pub(crate) dropped_queue: u64,
    pub(crate) dropped_loss: u64,
    pub(crate) dropped_outage: u64,
    pub(crate) corrupted: u64,
    pub(crate) duplicated: u64,
    /// Packets delivered after one that was sent later.
    pub(crate) reordered: u64,
    pub(crate) max_queue_bytes: u64,
    /// Packets in the queue or under way at the moment.
    pub(crate) in_flight: u64,
}

pub(crate) struct Link {
    params: LinkParams,
    outages: Arc<[Outage]>,
    up: bool,
    dice: Dice,
    jitter: JitterWalk,

    /// Packets waiting for, or in, serialisation.
    queue: VecDeque<Queued>,
    queued_bytes: u64,
    /// When the head of the queue will have been sent (meaningless while it is empty).
    head_sent_at: Nanos,

    /// Packets under way.
    flying: BinaryHeap<Reverse<Flying>>,
    /// The release time that no later packet may undercut, except by reordering.
    last_release: Nanos,
    next_order: u64,
    newest_delivered: u64,

    stats: LinkStats,
}

struct Queued {
    packet: Packet,
    order: u64,
    fate: Fate,
}

struct Flying {
    release: Nanos,
    order: u64,
    packet: Packet,
}

impl Flying {
    fn key(&self) -> (Nanos, u64) {
        (self.release, self.order)
    }
}

impl PartialEq for Flying {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Flying {}

impl PartialOrd for Flying {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Flying {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl Link {
    /// `stream` tells apart the links that share one seed.
    pub(crate) fn new(params: LinkParams, outages: Arc<[Outage]>, seed: u64, stream: u64) -> Self {
        Self {
            params,
            outages,
            up: true,
            dice: Dice::new(seed, stream),
            jitter: JitterWalk::default(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            head_sent_at: 0,
            flying: BinaryHeap::new(),
            last_release: 0,
            next_order: 0,
            newest_delivered: 0,
            stats: LinkStats::default(),
        }
    }

    pub(crate) fn params(&self) -> &LinkParams {
        &self.params
    }

    /// Changes the parameters; what is left of the packet being sent goes at the new rate.
    pub(crate) fn set_params(&mut self, now: Nanos, pool: &mut Pool, params: LinkParams) {
        self.serve(now, pool);
        let old_rate = std::mem::replace(&mut self.params, params).rate;
        if !self.queue.is_empty() {
            let left = self.head_sent_at - now;
            self.head_sent_at = now
                + match (old_rate, self.params.rate) {
                    (Some(old), Some(new)) => (left as u128 * old as u128 / new as u128) as Nanos,
                    _ => 0,
                };
        }
    }

    /// Cuts the link (it drops everything that goes in or is due to come out), or restores it.
    pub(crate) fn set_up(&mut self, up: bool) {
        self.up = up;
    }

    pub(crate) fn stats(&self) -> LinkStats {
        let in_flight = (self.queue.len() + self.flying.len()) as u64;
        LinkStats { in_flight, ..self.stats.clone() }
    }

    /// Offers a packet to the link. `now` must never decrease from call to call.
    pub(crate) fn push(&mut self, now: Nanos, packet: Packet, pool: &mut Pool) {
        let fate = self.dice.roll(&self.params);
        let order = self.next_order;
        self.next_order += 1;
        let len = packet.len() as u64;
        self.stats.packets_in += 1;
        self.stats.bytes_in += len;

        if self.is_down(now) {
            self.stats.dropped_outage += 1;
            return pool.give(packet);
        }
        self.serve(now, pool);
        if self.queue.is_empty() {
            self.head_sent_at = now + self.send_time(len);
        } else if self.queued_bytes + len > self.params.queue_limit() {
            self.stats.dropped_queue += 1;
            return pool.give(packet);
        }
        self.queue.push_back(Queued { packet, order, fate });
        self.queued_bytes += len;
        if self.params.rate.is_some() {
            self.stats.max_queue_bytes = self.stats.max_queue_bytes.max(self.queued_bytes);
        }
    }

    /// The next packet that is to be delivered by `now`, if any.
    pub(crate) fn pop_due(&mut self, now: Nanos, pool: &mut Pool) -> Option<Packet> {
        self.serve(now, pool);
        while self.flying.peek().is_some_and(|Reverse(next)| next.release <= now) {
            let Reverse(Flying { release, order, packet }) = self.flying.pop()?;
            if self.is_down(release) {
                self.stats.dropped_outage += 1;
                pool.give(packet);
                continue;
            }
            if order < self.newest_delivered {
                self.stats.reordered += 1;
            }
            self.newest_delivered = self.newest_delivered.max(order);
            self.stats.packets_delivered += 1;
            self.stats.bytes_delivered += packet.len() as u64;
            return Some(packet);
        }
        None
    }

    /// When [`Link::pop_due`] should be called next: no packet comes out before.
    pub(crate) fn next_event(&self) -> Option<Nanos> {
        let flying = self.flying.peek().map(|Reverse(next)| next.release);
        let queued = (!self.queue.is_empty()).then(|| {
            let least_delay = self.params.delay.saturating_sub(self.params.max_jitter());
            self.head_sent_at + least_delay
        });
        flying.into_iter().chain(queued).min()
    }

    fn is_down(&self, time: Nanos) -> bool {
        !self.up || self.outages.iter().any(|outage| outage.covers(time))
    }

    fn send_time(&self, bytes: u64) -> Nanos {
        match self.params.rate {
            None => 0,
            Some(rate) => (bytes as u128 * 8 * SECOND as u128 / rate as u128) as Nanos,
        }
    }

    /// Moves the packets that have been sent by `now` from the queue on to the wire.
    fn serve(&mut self, now: Nanos, pool: &mut Pool) {
        while self.head_sent_at <= now
            && let Some(head) = self.queue.pop_front()
        {
            let sent_at = self.head_sent_at;
            self.queued_bytes -= head.packet.len() as u64;
            if let Some(next) = self.queue.front() {
                self.head_sent_at += self.send_time(next.packet.len() as u64);
            }
            self.launch(sent_at, head, pool);
        }
    }

    /// Puts a packet on the wire.
    fn launch(&mut self, sent_at: Nanos, queued: Queued, pool: &mut Pool) {
        let Queued { mut packet, order, fate } = queued;
        if fate.lost {
            self.stats.dropped_loss += 1;
            return pool.give(packet);
        }
        let on_time = sent_at.saturating_add_signed(self.delay_at(sent_at));
        let release = if fate.held_back {
            on_time + self.params.reorder_delay
        } else if self.params.jitter_reorder {
            on_time
        } else {
            self.last_release = self.last_release.max(on_time);
            self.last_release
        };
        if fate.duplicated {
            self.stats.duplicated += 1;
            let packet = pool.copy_of(packet.bytes());
            self.flying.push(Reverse(Flying { release, order, packet }));
        }
        if let Some(pick) = fate.corrupted {
            self.stats.corrupted += 1;
            packet.flip_bit(pick);
        }
        self.flying.push(Reverse(Flying { release, order, packet }));
    }

    /// The delay, jitter included, of a packet sent at `time`.
    fn delay_at(&mut self, time: Nanos) -> i64 {
        let limit = self.params.max_jitter();
        let mut draw = || self.dice.jitter(self.params.jitter_dist, self.params.jitter);
        let jitter = match (limit, self.params.jitter_reorder) {
            (0, _) => 0,
            (_, true) => draw(),
            (_, false) => self.jitter.at(time, limit, draw),
        };
        (self.params.delay as i64 + jitter).max(0)
    }
}

#[cfg(test)]
mod tests;
