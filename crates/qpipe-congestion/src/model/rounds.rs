//! What a round trip of acknowledgements says of the path.

use std::time::{Duration, Instant};

use super::phases::Phase;
use super::{HOST_DELAY, LOSS_CEILING, Model, QUEUE_PACKETS};
use crate::policer::Round;
use crate::rate::Sample;

/// Delay beyond the empty round trip, as its part, that makes a queue.
const QUEUED: f64 = 0.25;

/// How much more than the window the pacer may be told.
const HASTE_MAX: u64 = 16;

/// What is left of the highest rate from round to round.
const PEAK_FADES: f64 = 0.995;

/// And what of it a contest begins with: yielding to others is not to cost the share for good.
const HELD_FADES: f64 = 0.999;

/// Loss in a round that, with a queue, is congestion.
const LOSS_MIN: f64 = 0.02;

/// What happened in a round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Books {
    pub(super) acked: u64,
    pub(super) lost: u64,
    pub(super) min_rtt: Duration,
    pub(super) began: Instant,
    pub(super) best: f64,
    pub(super) is_app_limited: bool,
    /// The most that was in flight.
    pub(super) most: u64,
}

impl Books {
    pub(super) fn new(now: Instant) -> Books {
        Books {
            acked: 0,
            lost: 0,
            min_rtt: Duration::MAX,
            began: now,
            best: 0.0,
            is_app_limited: false,
            most: 0,
        }
    }

    /// Bytes in a second that came through so far.
    pub(super) fn goodput(&self, now: Instant) -> f64 {
        let took = now.saturating_duration_since(self.began).as_secs_f64();
        self.acked as f64 / took.max(1e-6)
    }

    pub(super) fn loss(&self) -> f64 {
        self.lost as f64 / (self.lost + self.acked).max(1) as f64
    }
}

impl Model {
    /// The round trip from which there is a queue.
    fn queue_rtt(&self) -> Duration {
        let min = self.min_rtt.get().unwrap_or_default();
        // The rate of the path, of which this sender's may be a small share.
        let packets = 3.0 * QUEUE_PACKETS * self.mtu as f64 / self.peak.max(1.0);
        let packets = packets.min(min.as_secs_f64() / 2.0);
        min + min.mul_f64(QUEUED).max(HOST_DELAY).max(Duration::from_secs_f64(packets))
    }

    /// Up to this round trip nothing waits anywhere.
    fn flat_rtt(&self) -> Duration {
        let min = self.min_rtt.get().unwrap_or_default();
        min + (min / 20).max(Duration::from_millis(1))
    }

    fn has_queue(&self) -> bool {
        !self.is_held_up
            && self.books.min_rtt != Duration::MAX
            && self.books.min_rtt > self.queue_rtt()
    }

    pub(super) fn learn(&mut self, now: Instant, sample: Sample) {
        self.min_rtt.add(now, self.round, sample.rtt);
        self.books.acked += sample.acked;
        self.books.min_rtt = self.books.min_rtt.min(sample.rtt);
        self.books.is_app_limited |= sample.is_app_limited;
        let is_limited = sample.is_app_limited || self.is_held_up;
        let min = self.min_rtt.get().unwrap_or_default();
        // Shorter ones are bursts of acknowledgements.
        if sample.interval >= min / 2 && (!is_limited || sample.rate > self.rate.get()) {
            self.rate.add(self.round, sample.rate);
            self.books.best = self.books.best.max(sample.rate);
        }
        // What was sent after a pause of the program says nothing of one.
        let pause = now.saturating_duration_since(self.heard).min(sample.rtt);
        self.pauses.add(now, pause);
        self.heard = now;
        self.learn_burst(now, sample);
        if sample.delivered_before >= self.round_ends {
            self.end_round(now);
        }
    }

    /// Acknowledgements that come in bursts need a window for what waits between them
    /// (draft-ietf-ccwg-bbr, section 5.5.9).
    fn learn_burst(&mut self, now: Instant, sample: Sample) {
        let took = |since| now.saturating_duration_since(since).as_secs_f64();
        let mut expected = self.rate.get() * took(self.burst.1);
        if expected >= self.burst.0 as f64 {
            self.burst = (0, now);
            expected = 0.0;
        }
        self.burst.0 += sample.acked;
        let beyond = (self.burst.0 as f64 - expected).clamp(0.0, self.window as f64);
        self.bursts.add(self.round, beyond);
    }

    fn end_round(&mut self, now: Instant) {
        self.hasten();
        if self.books.min_rtt != Duration::MAX {
            self.max_rtt.add(now, self.books.min_rtt);
        }
        let loss = self.books.loss();
        let has_queue = self.has_queue();
        let round = Round {
            number: self.round,
            acked: self.books.acked,
            lost: self.books.lost,
            goodput: self.books.goodput(now),
            has_queue: has_queue || self.phase == Phase::Startup,
            is_flat: self.books.min_rtt < self.flat_rtt(),
        };
        if !self.books.is_app_limited {
            self.policer.round(now, round, self.mtu);
        }
        let is_congested = has_queue && loss > LOSS_MIN.max(2.0 * self.policer.loss());
        if is_congested || loss > LOSS_CEILING && self.books.lost > 20 * self.mtu {
            self.congested();
        }
        self.follow_down(now, has_queue);
        self.rate.expire(self.round);
        self.peak = self.rate.get().max(self.peak * PEAK_FADES);
        self.held = self.rate.get().max(self.held * HELD_FADES);
        self.others.kept *= HELD_FADES;
        self.step(now, has_queue, is_congested);
        self.follow_path(now, has_queue && !is_congested);
        self.round += 1;
        self.round_ends = self.sampler.delivered();
        self.books = Books::new(now);
    }

    /// A busy host sends less than its window, since quinn's pacer forgets what it did not send within
    /// two milliseconds: then the pacer has to be told more.
    fn hasten(&mut self) {
        let is_used = 4 * self.books.most >= 3 * self.window;
        self.is_held_up = !is_used && !self.books.is_app_limited;
        if self.is_held_up {
            self.haste = (2 * self.haste).min(HASTE_MAX);
        } else if is_used {
            self.haste = (self.haste / 2).max(1);
        }
    }
}
