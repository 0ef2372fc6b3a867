//! The window that follows from the model.

use std::time::Instant;

use super::phases::Phase;
use super::{
    BATCH_PACKETS, HOST_DELAY, HOST_SLACK, HOST_SLACK_BYTES, INITIAL_PACKETS, Model, PACKETS_MIN,
    QUEUE_PACKETS, RANDOM_LOSS_MAX,
};
use crate::rate::Sample;

/// Windows of the phases, in bandwidth-delay products.
const STARTUP_GAIN: f64 = 2.0;
const UP_GAIN: f64 = 1.25;
const CRUISE_GAIN: f64 = 1.1;
const DOWN_GAIN: f64 = 0.93;
/// When the queue of others stands, and when the empty round trip has not been seen for long.
const YIELD_GAIN: f64 = 0.95;
const YIELD_DOWN_GAIN: f64 = 0.6;
const DIP_GAIN: f64 = 0.5;

/// Packets that Up adds for each second of the round trip, up to a part of the product, and at least:
/// more for a small share than for a large one, so that shares approach each other. What ends that is
/// the part: with a quarter of the product eight flows on a round trip of 40 ms kept far apart
/// (Jain's index 0.85 to 0.94), with all of it some took each other for strangers and contended.
const UP_RATE: f64 = 200.0;
const UP_PART: f64 = 0.5;
const UP_PACKETS: f64 = 2.0;

impl Model {
    /// The bandwidth-delay product, in bytes.
    pub(super) fn bdp(&self) -> f64 {
        self.rate.get() * self.min_rtt.get().unwrap_or_default().as_secs_f64()
    }

    fn gain(&self) -> f64 {
        match self.phase {
            Phase::Startup => STARTUP_GAIN,
            Phase::Up => UP_GAIN,
            Phase::Cruise if self.others.standing > 0 => YIELD_GAIN,
            Phase::Cruise => CRUISE_GAIN,
            Phase::Down if self.is_dip => DIP_GAIN,
            Phase::Down if self.others.standing > 0 => YIELD_DOWN_GAIN,
            Phase::Down => DOWN_GAIN,
        }
    }

    /// The window that the model asks for, in bytes.
    fn modelled(&self, now: Instant) -> u64 {
        let min_rtt = self.min_rtt.get().unwrap_or_default().as_secs_f64();
        let rate = self.rate.get();
        if let Some(limit) = self.policer.limit() {
            // Where no queue is, a larger window is a larger rate.
            return (limit.min(rate * CRUISE_GAIN) * min_rtt) as u64;
        }
        if let Some(limit) = self.policer.trial_rate() {
            return (limit.min(rate) * min_rtt) as u64;
        }
        let bdp = rate * min_rtt;
        // On a LAN what hosts delay is most of the window.
        let most = rate * HOST_DELAY.as_secs_f64();
        let least = rate * self.slack.as_secs_f64();
        let pauses = rate * self.pauses.get(now).as_secs_f64();
        let host = pauses.max(least).max(HOST_SLACK_BYTES).min(most);
        let gain = self.gain();
        let bytes = if gain > 1.0 {
            // The pacer's own batches come back as bursts: they need no more.
            let own = if self.haste > 1 { 0 } else { BATCH_PACKETS * self.mtu };
            let burst = (self.bursts.get() - own as f64).clamp(0.0, bdp.max(0.0));
            let slack = host.max(burst).max(QUEUE_PACKETS * self.mtu as f64);
            let probe = if self.phase == Phase::Up { self.probe(bdp) } else { 0.0 };
            (bdp * gain).max(bdp + slack) + probe
        } else {
            // Less than hosts delay would not empty a queue, it would leave the path idle.
            let drained = rate * HOST_SLACK.as_secs_f64();
            (bdp * gain).max(host / 2.0).max(drained)
        };
        // What is lost on the way was sent all the same.
        (bytes / (1.0 - self.policer.random_loss().min(RANDOM_LOSS_MAX))) as u64
    }

    /// What Up adds to its gain, in bytes.
    fn probe(&self, bdp: f64) -> f64 {
        let packet = self.mtu as f64;
        let min_rtt = self.min_rtt.get().unwrap_or_default().as_secs_f64();
        (UP_RATE * min_rtt * packet).min(UP_PART * bdp).max(UP_PACKETS * packet)
    }

    pub(super) fn adjust(&mut self, now: Instant, sample: Sample) {
        let least = PACKETS_MIN * self.mtu;
        let modelled = self.modelled(now);
        if self.phase == Phase::Startup {
            let most = modelled.max(INITIAL_PACKETS * self.mtu);
            if !sample.is_app_limited {
                self.window = (self.window + sample.acked).min(most.max(self.window));
            }
            return;
        }
        let mut window = self.ceiling.map_or(modelled, |ceiling| modelled.min(ceiling));
        if let Some(contest) = &mut self.others.contest
            && self.others.truce.is_none()
        {
            if self.in_flight + sample.acked >= contest.window() * 4 / 5 {
                contest.grow(now, sample.rtt, sample.acked, self.mtu);
            }
            window = window.max(contest.window());
        }
        self.window = window.max(least);
        if self.phase == Phase::Down && self.drained.is_none() && self.in_flight <= self.window {
            self.drained = Some(self.round);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::BULK_SLACK;
    use super::*;
    use crate::tests::zero;

    /// The window while a queue is drained at `rate` bytes a second, over `rtt` when it is empty,
    /// with and without somebody who sends little.
    fn drained(rate: f64, rtt: Duration, is_interactive: bool) -> f64 {
        let now = zero();
        let mut model = Model::new(now, 1200);
        model.rate.add(0, rate);
        model.min_rtt.add(now, 0, rtt);
        model.phase = Phase::Down;
        model.set_interactive(is_interactive);
        model.modelled(now) as f64
    }

    #[test]
    fn a_drain_empties_the_queue_of_a_path_and_leaves_a_lan_what_hosts_delay() {
        for is_interactive in [false, true] {
            let far = drained(12.5e6, Duration::from_millis(50), is_interactive);
            assert!(far < 12.5e6 * 0.05, "less than the product: {far}");
        }
        let near = drained(1e9, Duration::from_micros(100), true);
        assert!((near - 1e9 * HOST_SLACK.as_secs_f64()).abs() < 1200.0, "{near}");
        let bulk = drained(1e9, Duration::from_micros(100), false);
        assert!((bulk - 1e9 * BULK_SLACK.as_secs_f64() / 2.0).abs() < 1200.0, "{bulk}");
    }
}
