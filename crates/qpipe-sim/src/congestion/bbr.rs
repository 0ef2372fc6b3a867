//! A stand-in for the kernel's BBR (version 1): another sender to be measured beside, not a
//! controller for use.
//!
//! It has the gains, the filters and the phases of the kernel's, its pacing, and what it does after a
//! loss; it has no detection of policers. quinn's own is no stand-in: it neither paces by rate nor
//! can be repeated, since it rolls dice.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics};

const HIGH_GAIN: f64 = 2.885;
const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
const CWND_GAIN: f64 = 2.0;
const PACING_MARGIN: f64 = 0.99;

const INITIAL_PACKETS: u64 = 10;
const MIN_PACKETS: u64 = 4;
/// What the kernel adds for segmentation offload.
const EXTRA_PACKETS: u64 = 3;

const RATE_ROUNDS: u64 = 10;
const MIN_RTT_AGE: Duration = Duration::from_secs(10);
const PROBE_RTT: Duration = Duration::from_millis(200);

/// Makes [`Bbr`]s.
#[derive(Debug)]
pub(super) struct BbrFactory;

impl ControllerFactory for BbrFactory {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Bbr::new(now, u64::from(mtu)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Startup,
    Drain,
    ProbeBw,
    ProbeRtt,
}

/// What was known when packets were sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Instant,
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
    is_limited: bool,
}

#[derive(Clone, Debug)]
struct Bbr {
    mtu: u64,
    mode: Mode,
    in_flight: u64,
    sent: VecDeque<Sent>,
    newest: Option<Sent>,
    first_sent: Instant,
    delivered: u64,
    delivered_at: Instant,
    /// Until so much is delivered, samples are of ProbeRtt, and count only if they are larger.
    limited_until: u64,
    acked: u64,
    lost: u64,
    round: u64,
    round_ends: u64,
    /// The largest rates of late, in bytes a second, each with its round.
    rates: VecDeque<(u64, f64)>,
    min_rtt: Duration,
    min_rtt_at: Instant,
    full: f64,
    full_rounds: u32,
    is_full: bool,
    cycle: usize,
    cycle_began: Instant,
    probe_rtt_ends: Option<(Instant, u64)>,
    cwnd: u64,
    cwnd_before: u64,
    /// Since when it recovers from a loss, and the round in which that began.
    recovery: Option<(Instant, u64)>,
}

impl Bbr {
    fn new(now: Instant, mtu: u64) -> Bbr {
        Bbr {
            mtu,
            mode: Mode::Startup,
            in_flight: 0,
            sent: VecDeque::new(),
            newest: None,
            first_sent: now,
            delivered: 0,
            delivered_at: now,
            limited_until: 0,
            acked: 0,
            lost: 0,
            round: 0,
            round_ends: 0,
            rates: VecDeque::new(),
            min_rtt: Duration::MAX,
            min_rtt_at: now,
            full: 0.0,
            full_rounds: 0,
            is_full: false,
            cycle: 0,
            cycle_began: now,
            probe_rtt_ends: None,
            cwnd: INITIAL_PACKETS * mtu,
            cwnd_before: 0,
            recovery: None,
        }
    }

    fn rate(&self) -> f64 {
        self.rates.front().map_or(0.0, |rate| rate.1)
    }

    fn target(&self, gain: f64) -> u64 {
        if self.rates.is_empty() {
            return INITIAL_PACKETS * self.mtu;
        }
        (gain * self.rate() * self.min_rtt.as_secs_f64()) as u64 + EXTRA_PACKETS * self.mtu
    }

    fn pacing_gain(&self) -> f64 {
        match self.mode {
            Mode::Startup => HIGH_GAIN,
            Mode::Drain => 1.0 / HIGH_GAIN,
            Mode::ProbeBw => CYCLE[self.cycle],
            Mode::ProbeRtt => 1.0,
        }
    }

    fn add_rate(&mut self, rate: f64) {
        while self.rates.back().is_some_and(|last| last.1 <= rate) {
            self.rates.pop_back();
        }
        self.rates.push_back((self.round, rate));
        while self.rates.len() > 1 && self.rates[0].0 + RATE_ROUNDS <= self.round {
            self.rates.pop_front();
        }
    }

    /// What the acknowledgements that came say of the path; whether a round is over.
    fn learn(&mut self, now: Instant) -> bool {
        let Some(sent) = self.newest.take() else { return false };
        self.first_sent = sent.at;
        while self.sent.front().is_some_and(|front| front.at < sent.at) {
            self.sent.pop_front();
        }
        let is_round = sent.delivered >= self.round_ends;
        if is_round {
            self.round += 1;
            self.round_ends = self.delivered;
        }
        let rtt = now.saturating_duration_since(sent.at);
        let took = now.saturating_duration_since(sent.delivered_at);
        let interval = took.max(sent.at.saturating_duration_since(sent.first_sent));
        let rate = (self.delivered - sent.delivered) as f64 / interval.as_secs_f64();
        if interval >= self.min_rtt.min(rtt) && (!sent.is_limited || rate >= self.rate()) {
            self.add_rate(rate);
        }
        let is_expired = now.saturating_duration_since(self.min_rtt_at) > MIN_RTT_AGE;
        if rtt <= self.min_rtt || is_expired {
            self.min_rtt = rtt;
            self.min_rtt_at = now;
        }
        if is_expired && self.mode != Mode::ProbeRtt {
            self.mode = Mode::ProbeRtt;
            self.cwnd_before = self.cwnd_before.max(self.cwnd);
            self.probe_rtt_ends = None;
        }
        if self.recovery.is_some_and(|(since, _)| sent.at > since) {
            self.recovery = None;
            self.cwnd = self.cwnd.max(self.cwnd_before);
            self.cwnd_before = 0;
        }
        is_round
    }

    fn step(&mut self, now: Instant, is_round: bool) {
        if self.mode == Mode::Startup && is_round && !self.is_full {
            if self.rate() >= 1.25 * self.full {
                self.full = self.rate();
                self.full_rounds = 0;
            } else {
                self.full_rounds += 1;
                self.is_full = self.full_rounds >= 3;
            }
        }
        if self.mode == Mode::Startup && self.is_full {
            self.mode = Mode::Drain;
        }
        if self.mode == Mode::Drain && self.in_flight <= self.target(1.0) {
            self.probe_bw(now);
        }
        if self.mode == Mode::ProbeBw {
            let is_past = now.saturating_duration_since(self.cycle_began) > self.min_rtt;
            let gain = CYCLE[self.cycle];
            let is_over = if gain > 1.0 {
                is_past && (self.lost > 0 || self.in_flight >= self.target(gain))
            } else if gain < 1.0 {
                is_past || self.in_flight <= self.target(1.0)
            } else {
                is_past
            };
            if is_over {
                self.cycle = (self.cycle + 1) % CYCLE.len();
                self.cycle_began = now;
            }
        }
        if self.mode == Mode::ProbeRtt {
            self.limited_until = self.delivered + self.in_flight;
            match self.probe_rtt_ends {
                None if self.in_flight <= MIN_PACKETS * self.mtu => {
                    self.probe_rtt_ends = Some((now + PROBE_RTT, self.round));
                }
                Some((ends, round)) if now > ends && self.round > round => {
                    self.min_rtt_at = now;
                    self.cwnd = self.cwnd.max(self.cwnd_before);
                    self.cwnd_before = 0;
                    if self.is_full { self.probe_bw(now) } else { self.mode = Mode::Startup }
                }
                _ => {}
            }
        }
    }

    /// Any of the cycle's parts may be first, but the one that drains.
    fn probe_bw(&mut self, now: Instant) {
        self.mode = Mode::ProbeBw;
        let dice = (self.delivered / self.mtu) as usize % (CYCLE.len() - 1);
        self.cycle = if dice > 0 { dice + 1 } else { 0 };
        self.cycle_began = now;
    }

    fn set_cwnd(&mut self) {
        let (acked, lost) = (std::mem::take(&mut self.acked), std::mem::take(&mut self.lost));
        let least = MIN_PACKETS * self.mtu;
        self.cwnd = self.cwnd.saturating_sub(lost).max(self.mtu);
        if self.recovery.is_some_and(|(_, round)| self.round <= round) {
            self.cwnd = self.cwnd.max(self.in_flight + acked);
        } else {
            let gain = if self.mode == Mode::ProbeBw { CWND_GAIN } else { HIGH_GAIN };
            let target = self.target(gain);
            if self.is_full {
                self.cwnd = (self.cwnd + acked).min(target);
            } else if self.cwnd < target || self.delivered < INITIAL_PACKETS * self.mtu {
                self.cwnd += acked;
            }
        }
        self.cwnd = self.cwnd.max(least);
        if self.mode == Mode::ProbeRtt {
            self.cwnd = self.cwnd.min(least);
        }
    }
}

impl Controller for Bbr {
    fn on_sent(&mut self, now: Instant, bytes: u64, _last_packet_number: u64) {
        if self.in_flight == 0 {
            self.first_sent = now;
            self.delivered_at = now;
        }
        self.in_flight += bytes;
        if self.sent.back().is_none_or(|last| last.at < now) {
            self.sent.push_back(Sent {
                at: now,
                delivered: self.delivered,
                delivered_at: self.delivered_at,
                first_sent: self.first_sent,
                is_limited: self.limited_until > self.delivered,
            });
        }
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _: bool, _: &RttEstimator) {
        self.delivered += bytes;
        self.delivered_at = now;
        self.acked += bytes;
        if self.newest.is_none_or(|newest| newest.at < sent)
            && let Ok(at) = self.sent.binary_search_by(|one| one.at.cmp(&sent))
        {
            self.newest = Some(self.sent[at]);
        }
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, _: bool, _: Option<u64>) {
        self.in_flight = in_flight;
        let is_round = self.learn(now);
        self.step(now, is_round);
        self.set_cwnd();
    }

    fn on_congestion_event(&mut self, now: Instant, _: Instant, _: bool, lost_bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(lost_bytes);
        self.lost += lost_bytes;
        if self.recovery.is_none() && lost_bytes > 0 {
            self.recovery = Some((now, self.round));
            self.cwnd_before = self.cwnd_before.max(self.cwnd);
            self.cwnd = (self.in_flight + self.mtu).max(MIN_PACKETS * self.mtu);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = u64::from(new_mtu);
    }

    /// Either there is room for a packet, and quinn's pacer, which a window beyond 32 bits turns
    /// off, has no say; or there is none.
    fn window(&self) -> u64 {
        if self.in_flight + self.mtu <= self.cwnd { 1 << 40 } else { self.in_flight }
    }

    /// By its pacing rate the host sends.
    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.cwnd;
        let rate = self.rate() * self.pacing_gain() * PACING_MARGIN * 8.0;
        metrics.pacing_rate = (rate > 0.0).then_some(rate as u64);
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_PACKETS * self.mtu
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
