//! The controller: a model of the path, and the window that follows from it.
//!
//! ```text
//!            plateau, or loss with delay        drained
//!   Startup ─────────────────────────────▶ Down ───────▶ Cruise ──────────┐
//!      ▲                                    ▲  ▲            │ some rounds  │
//!      │ persistent congestion, long pause  │  └─ queue ────┘ stays        │
//!      │                                    └───── no more to be had ── Up ◀┘
//! ```
//!
//! The window is all that quinn lets a controller say; its pacer spreads 1.25 windows over a smoothed
//! round trip. So phases differ in the window, in bandwidth-delay products.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics};

use crate::contest::{Contest, MaxRtt};
use crate::filter::{MaxRate, MinRtt};
use crate::policer::{Policer, Round};
use crate::rate::{Sample, Sampler};

/// Packets of the first window. RFC 6928 allows 10; they are paced, and what a path of 1 Mbit/s
/// queues of them is gone in 0.4 s.
const INITIAL_PACKETS: u64 = 32;

/// Fewer packets would wait for delayed acknowledgements (RFC 9002 asks for two at least).
const PACKETS_MIN: u64 = 4;

/// Windows of the phases, in bandwidth-delay products.
const STARTUP_GAIN: f64 = 2.0;
const UP_GAIN: f64 = 1.25;
const CRUISE_GAIN: f64 = 1.1;
const DOWN_GAIN: f64 = 0.93;
/// When the queue of others stands, and when the empty round trip has not been seen for long.
const YIELD_GAIN: f64 = 0.95;
const YIELD_DOWN_GAIN: f64 = 0.6;
const DIP_GAIN: f64 = 0.5;

/// Packets that Up adds for each second of the round trip, up to a quarter of the product, and at
/// least: more for a small share than for a large one, so that shares approach each other.
const UP_RATE: f64 = 200.0;
const UP_PACKETS: f64 = 2.0;

/// Rounds without 1.25 times the bandwidth before: the pipe is full.
const PLATEAU_ROUNDS: u32 = 3;
const GROWS: f64 = 1.25;

/// A round of probing has found something if the bandwidth grew by so much.
const UP_GROWS: f64 = 1.1;

/// Rounds of cruising; up to three more, so that flows do not keep step.
const CRUISE_ROUNDS: u64 = 6;

/// Delay that hosts cause themselves, by timers and batches: on a LAN it is most of the round trip.
const HOST_DELAY: Duration = Duration::from_millis(3);

/// Packets that fit into any queue, in the window and in its delay.
const QUEUE_PACKETS: f64 = 2.0;

/// Delay beyond the empty round trip, as its part, that makes a queue.
const QUEUED: f64 = 0.25;

/// Packets that quinn sends without telling.
const BATCH_PACKETS: u64 = 10;

/// How much more than the window the pacer may be told.
const HASTE_MAX: u64 = 16;

/// What is left of the highest rate from round to round.
const PEAK_FADES: f64 = 0.995;

/// And what of it a contest begins with: yielding to others is not to cost the share for good.
const HELD_FADES: f64 = 0.999;

/// Rounds with a queue after which the rate is what they brought.
const QUEUED_ROUNDS: u32 = 2;

/// Loss in a round that, with a queue, is congestion.
const LOSS_MIN: f64 = 0.02;

/// Loss of more than a first window that ends a Startup that found no more.
const CROWDED: f64 = 0.2;

/// Losses that the window makes up for; more than this is congestion whatever the delay.
const RANDOM_LOSS_MAX: f64 = 0.2;
const LOSS_CEILING: f64 = 0.35;

/// Drains that find the queue of others, no shorter than the one before, until it is contested.
/// Others of this kind yield as well, so it seldom comes to that among them.
const YIELDS: u32 = 9;
const SHRINKS: f64 = 0.85;

/// A drain after which this part of what came through before still does was of this sender's queue
/// alone; so many in a row prove it: others come and go.
const ALONE: f64 = 0.9;
const ALONE_DRAINS: u32 = 3;

/// So many rounds whose round trips differ by less than this part, though this sender drains its share
/// again and again: they do not depend on any queue.
const STEADY_ROUNDS: u32 = 12;
const STEADY: f64 = 0.01;

/// What a drain that finds a queue leaves of the rate, at most and at least.
const YIELDS_LEAVE: f64 = 0.95;
const YIELDS_MIN: f64 = 0.7;

/// What all of them leave of the largest rate of late. Who gives up without end starves beside a
/// sender that takes whatever is given up, as BBR does.
const YIELDS_KEEP: f64 = 0.3;

/// What they leave of the rate that a contest had before it was left.
const KEPT: f64 = 0.7;

/// A trial of leaving a contest is due so long after the last, at first, and lasts so many rounds.
const TRUCE_EVERY: Duration = Duration::from_secs(5);
const TRUCE_EVERY_MAX: Duration = Duration::from_secs(60);
const TRUCE_ROUNDS: u64 = 8;

/// When the empty round trip was not seen for so long, and so many rounds, the window dips to see it.
const DIP_EVERY: Duration = Duration::from_secs(5);
const DIP_ROUNDS: u64 = 15;

/// A window that was not used for so long says nothing of the path any more.
const STALE: Duration = Duration::from_secs(10);

/// Makes [`Model`]s.
#[derive(Clone, Copy, Debug, Default)]
pub struct ModelFactory;

impl ControllerFactory for ModelFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Model::new(now, current_mtu))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Startup,
    Down,
    Cruise,
    Up,
}

/// A model of one path, and where the controller is in its cycle.
#[derive(Clone, Debug)]
pub struct Model {
    mtu: u64,
    window: u64,
    in_flight: u64,
    /// What the pacer is told of the window while it is not in use, as its multiple.
    haste: u64,
    /// The last round was held up by this host, not by its window.
    is_held_up: bool,
    sampler: Sampler,
    rate: MaxRate,
    /// The largest rate in a longer time, which fades.
    peak: f64,
    /// The same, for longer.
    held: f64,
    /// What yielding leaves of the rate at the last truce.
    kept: f64,
    /// What came through in the last round before this drain shows, in bytes a second, and how many
    /// drains in a row have shown that nobody shares the queue.
    before: f64,
    alone: u32,
    /// The round trip that rounds in a row were as long as, and how many.
    steady: (Duration, u32),
    min_rtt: MinRtt,
    max_rtt: MaxRtt,
    phase: Phase,
    /// Rounds so far, when this phase began, and what was delivered when this round's end was sent.
    round: u64,
    phase_round: u64,
    round_ends: u64,
    books: Books,
    /// Of Startup and Up: the bandwidth that growth is measured against, rounds without growth.
    full: f64,
    plateau: u32,
    /// Rounds of this Cruise.
    cruise: u64,
    /// A probe has ended since the last Cruise, and the round from which the next is due: draining
    /// a queue does not put it off, or who yields most would probe least.
    is_probed: bool,
    up_at: u64,
    /// The phase's drain reached its window in this round.
    drained: Option<u64>,
    /// Whether this Down is a deep one.
    is_dip: bool,
    /// Rounds in a row with a queue, and the most that came through in one of them.
    queued: (u32, f64),
    /// Drains in a row that found a queue of others, and the rate before.
    standing: u32,
    standing_delay: Duration,
    share: f64,
    contest: Option<Contest>,
    truce: Option<u64>,
    truce_at: Instant,
    /// How long after a truce the next is due, and when the last contest was left.
    truce_every: Duration,
    left_at: Option<Instant>,
    policer: Policer,
    /// Loss with delay has shown that more than this does not fit.
    ceiling: Option<u64>,
    /// What acknowledgements brought beyond the rate since an epoch began: bytes, its beginning; and
    /// the most of late.
    burst: (u64, Instant),
    bursts: MaxRate,
    /// When the window was last in use.
    used_at: Instant,
}

/// What happened in a round.
#[derive(Clone, Copy, Debug)]
struct Books {
    acked: u64,
    lost: u64,
    min_rtt: Duration,
    began: Instant,
    best: f64,
    is_app_limited: bool,
    /// The most that was in flight.
    most: u64,
}

impl Books {
    fn new(now: Instant) -> Books {
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
    fn goodput(&self, now: Instant) -> f64 {
        let took = now.saturating_duration_since(self.began).as_secs_f64();
        self.acked as f64 / took.max(1e-6)
    }

    fn loss(&self) -> f64 {
        self.lost as f64 / (self.lost + self.acked).max(1) as f64
    }
}

impl Model {
    fn new(now: Instant, mtu: u16) -> Model {
        let mtu = u64::from(mtu);
        Model {
            mtu,
            window: INITIAL_PACKETS * mtu,
            in_flight: 0,
            haste: 1,
            is_held_up: false,
            sampler: Sampler::new(now),
            rate: MaxRate::default(),
            peak: 0.0,
            held: 0.0,
            kept: 0.0,
            before: 0.0,
            alone: 0,
            steady: (Duration::ZERO, 0),
            min_rtt: MinRtt::new(now),
            max_rtt: MaxRtt::new(now),
            phase: Phase::Startup,
            round: 0,
            phase_round: 0,
            round_ends: 0,
            books: Books::new(now),
            full: 0.0,
            plateau: 0,
            cruise: CRUISE_ROUNDS,
            is_probed: true,
            up_at: 0,
            drained: None,
            is_dip: false,
            queued: (0, 0.0),
            standing: 0,
            standing_delay: Duration::ZERO,
            share: 0.0,
            contest: None,
            truce: None,
            truce_at: now,
            truce_every: TRUCE_EVERY,
            left_at: None,
            policer: Policer::new(),
            ceiling: None,
            burst: (0, now),
            bursts: MaxRate::default(),
            used_at: now,
        }
    }

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

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.phase_round = self.round;
        self.drained = None;
        match phase {
            Phase::Down => {}
            Phase::Cruise => {
                // Dice without dice: what was delivered so far differs from flow to flow.
                let jitter = (self.sampler.delivered() / self.mtu) % 4;
                if self.is_probed {
                    self.up_at = self.round + CRUISE_ROUNDS + jitter;
                }
                self.is_probed = false;
                let until = self.up_at.saturating_sub(self.round).max(1);
                self.cruise = if self.standing > 0 { 1 } else { until };
            }
            Phase::Startup | Phase::Up => {
                self.is_probed = true;
                self.full = self.rate.get();
                self.plateau = 0;
            }
        }
    }

    /// Begins anew, with what is known of the round trip.
    fn restart(&mut self, now: Instant, window: u64) {
        self.enter(Phase::Startup);
        self.rate = MaxRate::default();
        self.bursts = MaxRate::default();
        self.peak = 0.0;
        self.kept = 0.0;
        self.full = 0.0;
        self.contest = None;
        self.truce = None;
        self.standing = 0;
        self.alone = 0;
        self.queued = (0, 0.0);
        self.ceiling = None;
        self.books = Books::new(now);
        self.window = window.max(INITIAL_PACKETS * self.mtu);
    }

    fn learn(&mut self, now: Instant, sample: Sample) {
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
        self.kept *= HELD_FADES;
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

    /// Loss with delay: the path holds less than the window.
    fn congested(&mut self) {
        if self.phase == Phase::Startup || self.contest.is_some() {
            return;
        }
        let bdp = self.bdp() as u64;
        self.ceiling = Some((self.window * 85 / 100).max(bdp).max(PACKETS_MIN * self.mtu));
        if self.phase == Phase::Up {
            self.enter(Phase::Down);
        }
    }

    /// A queue that stays: the rate is what comes through, and the queue is drained. All who share
    /// it see it at about the same time, so the sum of their rates becomes the path's.
    fn follow_down(&mut self, now: Instant, has_queue: bool) {
        if !has_queue || self.phase == Phase::Startup {
            self.queued = (0, 0.0);
            return;
        }
        if self.standing > 0 {
            // What comes through beside a queue of others is what they leave: `judge` decides.
            return self.rate.hold(self.round);
        }
        self.queued.0 += 1;
        let goodput = self.books.goodput(now);
        self.queued.1 = self.queued.1.max(goodput);
        if self.queued.0 < QUEUED_ROUNDS || self.contest.is_some() {
            return;
        }
        let rate = self.queued.1.max(self.floor()).min(self.rate.get());
        if rate < 0.9 * self.rate.get() {
            self.share = self.share.max(self.rate.get());
        }
        self.rate.replace(self.round, rate);
        self.queued = (0, 0.0);
        if self.phase != Phase::Down {
            self.enter(Phase::Down);
        }
    }

    /// Others' queues sway, and shrink with this sender's part: what stays as long as it is through
    /// some drains is the path, which has become longer.
    fn follow_path(&mut self, now: Instant, has_queue: bool) {
        let rtt = self.books.min_rtt;
        let sways = rtt.abs_diff(self.steady.0) > self.steady.0.mul_f64(STEADY);
        if !has_queue || sways {
            self.steady = (rtt, 0);
            return;
        }
        self.steady.1 += 1;
        if self.steady.1 >= STEADY_ROUNDS && self.standing > 1 && self.contest.is_none() {
            self.min_rtt.replace(now, self.round, rtt);
            self.restart(now, self.window);
        }
    }

    fn step(&mut self, now: Instant, has_queue: bool, is_congested: bool) {
        let rounds = self.round.saturating_sub(self.phase_round);
        let grew = self.rate.get() >= self.full * GROWS;
        let loss = self.books.loss();
        if self.phase == Phase::Down && rounds == 1 {
            self.before = self.books.goodput(now);
        }
        match self.phase {
            Phase::Startup => {
                if grew {
                    self.full = self.rate.get();
                    self.plateau = 0;
                } else if !self.books.is_app_limited && !self.is_held_up {
                    self.plateau += 1;
                }
                let is_full = self.plateau >= PLATEAU_ROUNDS || !grew && has_queue;
                let is_crowded = loss > CROWDED && self.books.lost > INITIAL_PACKETS * self.mtu;
                if is_full || is_congested || is_crowded {
                    self.enter(Phase::Down);
                }
            }
            Phase::Up if rounds >= 2 => {
                let grew = self.rate.get() >= self.full * UP_GROWS;
                self.full = self.rate.get();
                self.ceiling = None;
                if !grew || has_queue && rounds > 2 {
                    self.enter(Phase::Down);
                }
            }
            Phase::Up => {}
            Phase::Cruise => {
                if rounds >= self.cruise {
                    let is_unseen = self.min_rtt.is_unseen(now, self.round, DIP_EVERY, DIP_ROUNDS);
                    self.is_dip = is_unseen && self.contest.is_none();
                    let can_probe = self.standing == 0 && !self.is_dip;
                    let is_policed = self.policer.limit().is_some();
                    let up = can_probe && !self.books.is_app_limited && !is_policed;
                    self.is_probed |= !up;
                    self.enter(if up { Phase::Up } else { Phase::Down });
                }
            }
            Phase::Down => {
                if self.drained.is_some_and(|round| self.round > round + 1) || rounds > 6 {
                    self.judge(now, has_queue);
                    self.enter(Phase::Cruise);
                }
            }
        }
        self.step_truce(now, has_queue);
    }

    /// After a drain: a queue that is still there belongs to others.
    fn judge(&mut self, now: Instant, has_queue: bool) {
        self.is_dip = false;
        if self.contest.is_some() {
            return;
        }
        let goodput = self.books.goodput(now);
        if self.is_alone(has_queue, goodput) {
            // The path has become slower.
            self.rate.replace(self.round, goodput);
            self.peak = goodput;
            self.kept = 0.0;
            self.standing = 0;
            self.share = 0.0;
            return;
        }
        if !has_queue {
            self.standing = self.standing.saturating_sub(1);
            if self.standing == 0 {
                self.share = 0.0;
            }
            return;
        }
        let delay = self.books.min_rtt.saturating_sub(self.min_rtt.get().unwrap_or_default());
        if self.standing == 0 {
            self.share = self.share.max(self.rate.get());
        }
        let rate = self.rate.get();
        let left = goodput.clamp(rate * YIELDS_MIN, rate * YIELDS_LEAVE);
        self.rate.replace(self.round, left.max(self.floor().min(rate)));
        if self.standing == 0 || delay > self.standing_delay.mul_f64(SHRINKS) {
            self.standing += 1;
        }
        self.standing_delay = delay;
        if self.standing > YIELDS {
            self.begin_contest(now);
        }
    }

    /// After a drain: whether no less came through than before it, though less was sent. Then the
    /// queue is this sender's own: beside others the same drain costs it a part of its rate.
    fn is_alone(&mut self, has_queue: bool, goodput: f64) -> bool {
        let costs_nothing = has_queue && goodput > self.before * ALONE;
        self.alone = if costs_nothing { self.alone + 1 } else { 0 };
        self.alone >= ALONE_DRAINS
    }

    /// What yielding leaves, in bytes a second. Others of this kind fit beside that: however many
    /// come, one after the other, the parts of what each has seen do not add up to the path.
    fn floor(&self) -> f64 {
        self.kept.max(self.peak * YIELDS_KEEP)
    }

    fn begin_contest(&mut self, now: Instant) {
        // Others were taken to be gone, and are not: a queue also empties because this sender gives
        // way, as beside BBR.
        let is_same =
            self.left_at.is_some_and(|at| now.saturating_duration_since(at) < self.truce_every);
        let longer = (2 * self.truce_every).min(TRUCE_EVERY_MAX);
        self.truce_every = if is_same { longer } else { TRUCE_EVERY };
        let rate = self.share.max(self.held);
        self.contest = Some(Contest::new(now, self.round, rate, self.books.min_rtt));
        self.truce_at = now;
        self.share = 0.0;
    }

    /// Now and then a contest is suspended, best when all have just lost packets: if the queue
    /// empties, there is nobody to contend with.
    fn step_truce(&mut self, now: Instant, has_queue: bool) {
        let Some(began) = self.truce else { return };
        let rounds = self.round.saturating_sub(began);
        if rounds >= 3 && has_queue {
            self.truce = None;
            self.truce_at = now;
        } else if rounds >= TRUCE_ROUNDS {
            self.truce = None;
            self.contest = None;
            self.standing = 0;
            self.left_at = Some(now);
        }
    }

    /// The bandwidth-delay product, in bytes.
    fn bdp(&self) -> f64 {
        self.rate.get() * self.min_rtt.get().unwrap_or_default().as_secs_f64()
    }

    fn gain(&self) -> f64 {
        match self.phase {
            Phase::Startup => STARTUP_GAIN,
            Phase::Up => UP_GAIN,
            Phase::Cruise if self.standing > 0 => YIELD_GAIN,
            Phase::Cruise => CRUISE_GAIN,
            Phase::Down if self.is_dip => DIP_GAIN,
            Phase::Down if self.standing > 0 => YIELD_DOWN_GAIN,
            Phase::Down => DOWN_GAIN,
        }
    }

    /// The window that the model asks for, in bytes.
    fn modelled(&self) -> u64 {
        let rate = self.policer.limit().map_or(self.rate.get(), |limit| limit.min(self.rate.get()));
        let min_rtt = self.min_rtt.get().unwrap_or_default().as_secs_f64();
        let bdp = rate * min_rtt;
        if let Some(gain) = self.policer.trial_gain() {
            return (bdp * gain) as u64;
        }
        // On a LAN what hosts delay is most of the window.
        let host = rate * HOST_DELAY.as_secs_f64();
        let gain = self.gain();
        let bytes = if gain > 1.0 {
            // The pacer's own batches come back as bursts: they need no more.
            let own = if self.haste > 1 { 0 } else { BATCH_PACKETS * self.mtu };
            let burst = (self.bursts.get() - own as f64).clamp(0.0, bdp.max(0.0));
            let slack = host.max(burst).max(QUEUE_PACKETS * self.mtu as f64);
            let probe = if self.phase == Phase::Up { self.probe(bdp) } else { 0.0 };
            (bdp * gain).max(bdp + slack) + probe
        } else {
            (bdp * gain).max(host / 2.0)
        };
        // What is lost on the way was sent all the same.
        (bytes / (1.0 - self.policer.random_loss().min(RANDOM_LOSS_MAX))) as u64
    }

    /// What Up adds to its gain, in bytes.
    fn probe(&self, bdp: f64) -> f64 {
        let packet = self.mtu as f64;
        let min_rtt = self.min_rtt.get().unwrap_or_default().as_secs_f64();
        (UP_RATE * min_rtt * packet).min(bdp / 4.0).max(UP_PACKETS * packet)
    }

    fn adjust(&mut self, now: Instant, sample: Sample) {
        let least = PACKETS_MIN * self.mtu;
        let modelled = self.modelled();
        if self.phase == Phase::Startup {
            let most = modelled.max(INITIAL_PACKETS * self.mtu);
            if !sample.is_app_limited {
                self.window = (self.window + sample.acked).min(most.max(self.window));
            }
            return;
        }
        let mut window = self.ceiling.map_or(modelled, |ceiling| modelled.min(ceiling));
        if let Some(contest) = &mut self.contest
            && self.truce.is_none()
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

    /// A loss, or a mark, while others hold a queue.
    fn contend(&mut self, now: Instant, sent: Instant) {
        let rtt = now.saturating_duration_since(sent).min(self.books.min_rtt);
        let min_rtt = self.min_rtt.get().unwrap_or_default();
        let Some(contest) = &mut self.contest else { return };
        if self.truce.is_some() || !self.max_rtt.is_full(min_rtt, rtt) {
            return;
        }
        let is_due = now.saturating_duration_since(self.truce_at) > self.truce_every;
        if contest.cut(now, self.round, rtt, self.mtu) && is_due {
            self.truce = Some(self.round);
            // What came through: all who take a truce together then fit.
            let rate = self.books.goodput(now).min(self.rate.get());
            if rate > 0.0 {
                self.kept = self.kept.max(rate * KEPT);
                self.rate.replace(self.round, rate);
            }
        }
    }
}

impl Controller for Model {
    fn on_sent(&mut self, now: Instant, bytes: u64, _last_packet_number: u64) {
        if 2 * self.in_flight > self.window {
            self.used_at = now;
        } else if self.in_flight == 0 && now.saturating_duration_since(self.used_at) > STALE {
            self.restart(now, self.window / 2);
            self.used_at = now;
        }
        self.sampler.on_sent(now, self.in_flight);
        self.in_flight += bytes;
        self.books.most = self.books.most.max(self.in_flight);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        _app_limited: bool,
        _rtt: &RttEstimator,
    ) {
        self.sampler.on_ack(now, sent, bytes);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        _largest_packet_num_acked: Option<u64>,
    ) {
        self.in_flight = in_flight;
        if let Some(sample) = self.sampler.take(now, in_flight, app_limited) {
            self.learn(now, sample);
            self.adjust(now, sample);
        }
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.in_flight = self.in_flight.saturating_sub(lost_bytes);
        self.books.lost += lost_bytes;
        if is_persistent_congestion {
            // Whatever the path was, it is not known any more (RFC 9002, section 7.6).
            self.restart(now, 0);
        } else if lost_bytes == 0 {
            self.congested();
        }
        self.contend(now, sent);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = u64::from(new_mtu);
    }

    /// The window; a multiple of it while it has room for a batch, which only the pacer minds.
    fn window(&self) -> u64 {
        let window = self.window.max(PACKETS_MIN * self.mtu);
        if self.in_flight + BATCH_PACKETS * self.mtu < window {
            window * self.haste
        } else {
            window
        }
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.window;
        metrics.pacing_rate = Some((self.rate.get() * 8.0) as u64);
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
