//! What is done about a queue: drain it, yield to others who keep it, contend with them.

use std::time::{Duration, Instant};

use super::phases::Phase;
use super::{Model, PACKETS_MIN};
use crate::contest::Contest;

/// Rounds with a queue after which the rate is what they brought.
const QUEUED_ROUNDS: u32 = 2;

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

/// What is known of others who share the queue.
#[derive(Clone, Debug)]
pub(super) struct Others {
    /// Rounds in a row with a queue, and the most that came through in one of them.
    queued: (u32, f64),
    /// Drains in a row that found a queue, the delay that the last of them found, and the rate before
    /// the first.
    pub(super) standing: u32,
    standing_delay: Duration,
    share: f64,
    /// What came through in the last round before this drain shows, in bytes a second, and how many
    /// drains in a row have shown that nobody shares the queue.
    pub(super) before: f64,
    alone: u32,
    /// The round trip that rounds in a row were as long as, and how many.
    steady: (Duration, u32),
    /// What yielding leaves of the rate before the last truce.
    pub(super) kept: f64,
    pub(super) contest: Option<Contest>,
    /// The round in which this truce began.
    pub(super) truce: Option<u64>,
    /// When the last truce ended, and how long after it the next is due.
    truce_at: Instant,
    truce_every: Duration,
    /// When the last contest was left.
    left_at: Option<Instant>,
}

impl Others {
    pub(super) fn new(now: Instant) -> Others {
        Others {
            queued: (0, 0.0),
            standing: 0,
            standing_delay: Duration::ZERO,
            share: 0.0,
            before: 0.0,
            alone: 0,
            steady: (Duration::ZERO, 0),
            kept: 0.0,
            contest: None,
            truce: None,
            truce_at: now,
            truce_every: TRUCE_EVERY,
            left_at: None,
        }
    }
}

impl Model {
    /// Loss with delay: the path holds less than the window.
    pub(super) fn congested(&mut self) {
        if self.phase == Phase::Startup || self.others.contest.is_some() {
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
    pub(super) fn follow_down(&mut self, now: Instant, has_queue: bool) {
        if !has_queue || self.phase == Phase::Startup {
            self.others.queued = (0, 0.0);
            return;
        }
        if self.others.standing > 0 {
            // What comes through beside a queue of others is what they leave: `judge` decides.
            return self.rate.hold(self.round);
        }
        self.others.queued.0 += 1;
        let goodput = self.books.goodput(now);
        self.others.queued.1 = self.others.queued.1.max(goodput);
        if self.others.queued.0 < QUEUED_ROUNDS || self.others.contest.is_some() {
            return;
        }
        let rate = self.others.queued.1.max(self.floor()).min(self.rate.get());
        if rate < 0.9 * self.rate.get() {
            self.others.share = self.others.share.max(self.rate.get());
        }
        self.rate.replace(self.round, rate);
        self.others.queued = (0, 0.0);
        if self.phase != Phase::Down {
            self.enter(Phase::Down);
        }
    }

    /// Others' queues sway, and shrink with this sender's part: what stays as long as it is through
    /// some drains is the path, which has become longer.
    pub(super) fn follow_path(&mut self, now: Instant, has_queue: bool) {
        let rtt = self.books.min_rtt;
        let sways = rtt.abs_diff(self.others.steady.0) > self.others.steady.0.mul_f64(STEADY);
        if !has_queue || sways {
            self.others.steady = (rtt, 0);
            return;
        }
        self.others.steady.1 += 1;
        if self.others.steady.1 >= STEADY_ROUNDS
            && self.others.standing > 1
            && self.others.contest.is_none()
        {
            self.min_rtt.replace(now, self.round, rtt);
            self.restart(now, self.window);
        }
    }

    /// After a drain: a queue that is still there belongs to others.
    pub(super) fn judge(&mut self, now: Instant, has_queue: bool) {
        self.is_dip = false;
        if self.others.contest.is_some() {
            return;
        }
        let goodput = self.books.goodput(now);
        if self.is_alone(has_queue, goodput) {
            // The path has become slower.
            self.rate.replace(self.round, goodput);
            self.peak = goodput;
            self.others.kept = 0.0;
            self.others.standing = 0;
            self.others.share = 0.0;
            return;
        }
        if !has_queue {
            self.others.standing = self.others.standing.saturating_sub(1);
            if self.others.standing == 0 {
                self.others.share = 0.0;
            }
            return;
        }
        let delay = self.books.min_rtt.saturating_sub(self.min_rtt.get().unwrap_or_default());
        if self.others.standing == 0 {
            self.others.share = self.others.share.max(self.rate.get());
        }
        let rate = self.rate.get();
        let left = goodput.clamp(rate * YIELDS_MIN, rate * YIELDS_LEAVE);
        let floor = self.floor().min(rate);
        self.rate.replace(self.round, left.max(floor));
        // What others keep may shrink for a while: who has no more to give does not wait for that.
        let stands = delay > self.others.standing_delay.mul_f64(SHRINKS);
        if self.others.standing == 0 || stands || left < floor {
            self.others.standing += 1;
        }
        self.others.standing_delay = delay;
        if self.others.standing > YIELDS {
            self.begin_contest(now);
        }
    }

    /// After a drain: whether no less came through than before it, though less was sent. Then the
    /// queue is this sender's own: beside others the same drain costs it a part of its rate.
    fn is_alone(&mut self, has_queue: bool, goodput: f64) -> bool {
        let costs_nothing = has_queue && goodput > self.others.before * ALONE;
        self.others.alone = if costs_nothing { self.others.alone + 1 } else { 0 };
        self.others.alone >= ALONE_DRAINS
    }

    /// What yielding leaves, in bytes a second. Others of this kind fit beside that: however many
    /// come, one after the other, the parts of what each has seen do not add up to the path.
    fn floor(&self) -> f64 {
        self.others.kept.max(self.peak * YIELDS_KEEP)
    }

    fn begin_contest(&mut self, now: Instant) {
        // Others were taken to be gone, and are not: a queue also empties because this sender gives
        // way, as beside BBR.
        let is_same = self
            .others
            .left_at
            .is_some_and(|at| now.saturating_duration_since(at) < self.others.truce_every);
        let longer = (2 * self.others.truce_every).min(TRUCE_EVERY_MAX);
        self.others.truce_every = if is_same { longer } else { TRUCE_EVERY };
        let rate = self.others.share.max(self.held);
        self.others.contest = Some(Contest::new(now, self.round, rate, self.books.min_rtt));
        self.others.truce_at = now;
        self.others.share = 0.0;
    }

    /// Now and then a contest is suspended, best when all have just lost packets: if the queue
    /// empties, there is nobody to contend with.
    pub(super) fn step_truce(&mut self, now: Instant, has_queue: bool) {
        let Some(began) = self.others.truce else { return };
        let rounds = self.round.saturating_sub(began);
        if rounds >= 3 && has_queue {
            self.others.truce = None;
            self.others.truce_at = now;
        } else if rounds >= TRUCE_ROUNDS {
            self.others.truce = None;
            self.others.contest = None;
            self.others.standing = 0;
            self.others.left_at = Some(now);
        }
    }

    /// A loss, or a mark, while others hold a queue.
    pub(super) fn contend(&mut self, now: Instant, sent: Instant) {
        let rtt = now.saturating_duration_since(sent).min(self.books.min_rtt);
        let min_rtt = self.min_rtt.get().unwrap_or_default();
        let Some(contest) = &mut self.others.contest else { return };
        if self.others.truce.is_some() || !self.max_rtt.is_full(min_rtt, rtt) {
            return;
        }
        let is_due = now.saturating_duration_since(self.others.truce_at) > self.others.truce_every;
        if contest.cut(now, self.round, rtt, self.mtu) && is_due {
            self.others.truce = Some(self.round);
            // What came through: all who take a truce together then fit.
            let rate = self.books.goodput(now).min(self.rate.get());
            if rate > 0.0 {
                self.others.kept = self.others.kept.max(rate * KEPT);
                self.rate.replace(self.round, rate);
            }
        }
    }
}
