//! Holding a share beside senders that keep a queue full.
//!
//! Who only keeps to the model yields to them without end: as the round trip grows, the same window
//! is a smaller rate. So when the queue stays though this sender drained its part again and again,
//! a second window grows and shrinks as CUBIC's does (RFC 9438), and the larger of the two holds.
//! It counts losses only at a full queue: those at a shorter one are the path's.

use std::time::{Duration, Instant};

/// CUBIC's constants (RFC 9438, sections 4.1 and 4.6): packets per second cubed; what is left of
/// the window after a loss.
const CUBIC_C: f64 = 0.4;
const BETA: f64 = 0.7;

/// Growth in packets per round trip that is as fast as Reno's with this [`BETA`] (section 4.3).
const RENO_ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// A queue is full when it delays for this part of the longest delay of late.
const FULL: f64 = 0.75;

/// The longest delay is remembered for one to two of these.
const DELAY_AGE: Duration = Duration::from_secs(10);

/// Rounds from one cut to the next, at least.
const CUT_ROUNDS: u64 = 4;

/// Losses at a full queue again within two times so many rounds: nobody else has reacted to the
/// last. Then cuts are smaller, and so far apart.
const VAIN_ROUNDS: u64 = 12;
const VAIN_BETA: f64 = 0.9;

/// The window begins with this part of what was held: the others have grown since.
const BEGINS: f64 = BETA;

/// The part of the rate before that is not given up, and what is left of that after each cut: the path
/// itself may have become slower.
const LEAST: f64 = 0.5;
const LEAST_FADES: f64 = 0.99;

/// A window beside the model's.
#[derive(Clone, Debug)]
pub(crate) struct Contest {
    /// In bytes.
    window: f64,
    /// The window before the last cut, in bytes, and one that grows as Reno's would.
    before: f64,
    cut_to: f64,
    reno: f64,
    cut_at: Instant,
    cut_round: u64,
    /// Cuts in a row that relieved nobody.
    in_vain: u32,
    /// Half of the rate that was held before, in bytes a second: some senders, as BBR, never react to a
    /// loss, and would be left everything.
    least: f64,
}

impl Contest {
    /// Begins with the rate that was held until now, in bytes a second, at this round trip.
    pub(crate) fn new(now: Instant, round: u64, rate: f64, rtt: Duration) -> Contest {
        let window = BEGINS * rate * rtt.as_secs_f64();
        Contest {
            least: rate * LEAST,
            window,
            before: window,
            cut_to: window,
            reno: window,
            cut_at: now,
            cut_round: round,
            in_vain: 0,
        }
    }

    pub(crate) fn window(&self) -> u64 {
        self.window as u64
    }

    /// `acked` bytes were delivered while the window was in use.
    pub(crate) fn grow(&mut self, now: Instant, rtt: Duration, acked: u64, mtu: u64) {
        let mtu = mtu as f64;
        let part = (acked as f64 / self.window.max(mtu)).min(1.0);
        let missing = (self.before - self.cut_to).max(0.0) / mtu;
        let until = (missing / CUBIC_C).cbrt();
        let t = (now.saturating_duration_since(self.cut_at) + rtt).as_secs_f64() - until;
        let target = self.before + CUBIC_C * t.powi(3) * mtu;
        let target = target.clamp(self.window, 1.5 * self.window);
        self.reno += RENO_ALPHA * mtu * part;
        self.window += (target - self.window) * part;
        self.window = self.window.max(self.reno);
    }

    /// Packets were lost at a full queue, which makes the round trip `rtt`; whether that led to a cut.
    pub(crate) fn cut(&mut self, now: Instant, round: u64, rtt: Duration, mtu: u64) -> bool {
        let since = round.saturating_sub(self.cut_round);
        let is_vain = self.in_vain > 0;
        if since < if is_vain { VAIN_ROUNDS } else { CUT_ROUNDS } {
            return false;
        }
        self.in_vain = if since < 2 * VAIN_ROUNDS { self.in_vain + 1 } else { 0 };
        let beta = match self.in_vain {
            0 => BETA,
            // The others did not react: what was given up has gone to them.
            1 => (self.before / self.window).max(1.0) * VAIN_BETA,
            _ => VAIN_BETA,
        };
        // Fast convergence (section 4.7).
        let is_less = self.window < self.before && self.in_vain == 0;
        self.before = if is_less { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.least *= LEAST_FADES;
        let least = (self.least * rtt.as_secs_f64()).max(4.0 * mtu as f64);
        self.window = (self.window * beta).max(least);
        self.reno = self.window;
        self.cut_to = self.window;
        self.cut_at = now;
        self.cut_round = round;
        true
    }
}

/// The longest of the rounds' shortest round trips of late: how far the queue reaches. A single one
/// may be long for a delayed acknowledgement.
#[derive(Clone, Debug)]
pub(crate) struct MaxRtt {
    halves: [Duration; 2],
    began: Instant,
}

impl MaxRtt {
    pub(crate) fn new(now: Instant) -> MaxRtt {
        MaxRtt { halves: [Duration::ZERO; 2], began: now }
    }

    pub(crate) fn add(&mut self, now: Instant, rtt: Duration) {
        if now.saturating_duration_since(self.began) > DELAY_AGE {
            self.halves = [Duration::ZERO, self.halves[0]];
            self.began = now;
        }
        self.halves[0] = self.halves[0].max(rtt);
    }

    /// Whether a round trip of `rtt` met a full queue.
    pub(crate) fn is_full(&self, min_rtt: Duration, rtt: Duration) -> bool {
        let longest = self.halves[0].max(self.halves[1]).saturating_sub(min_rtt);
        rtt.saturating_sub(min_rtt) >= longest.mul_f64(FULL)
    }
}
