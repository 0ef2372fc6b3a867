//! Telling a policer from random loss.
//!
//! Both lose without delay. A token bucket loses nothing once less is sent than it lets through,
//! while random loss stays what it is: so if loss goes on, less is sent for some rounds, and the loss
//! of those rounds decides.

use std::time::{Duration, Instant};

/// Loss from which a policer is thought of.
const SUSPECT: f64 = 0.03;

/// Rounds from one trial to the next, and rounds of loss before one.
const TRIAL_EVERY_ROUNDS: u64 = 50;
const LOSSY_ROUNDS: u32 = 6;

/// A round that loses more than this part is an outage, not a policer.
const OUTAGE: f64 = 0.9;

/// Losses that a trial has to make likely before it decides, and its length in rounds: random losses
/// may come in bursts, and a round or two without one.
const TRIAL_LOSSES: f64 = 10.0;
const TRIAL_ROUNDS_MIN: u64 = 6;
const TRIAL_ROUNDS_MAX: u64 = 12;

/// Each trial that fails doubles the time to the next, so many times at the most.
const TRIAL_DOUBLES_MAX: u32 = 2;

/// The first rounds of a trial still lose what was sent before it.
const TRIAL_SKIP_ROUNDS: u64 = 2;

/// With less than this part of the loss before, the trial has found a policer.
const TRIAL_PASSES: f64 = 0.3;

/// The part of the rounds that has to be without any queue behind a policer.
const FLAT: f64 = 0.5;

/// What is sent of what comes through during a trial, and of the policed rate after it.
const TRIAL_GAIN: f64 = 0.85;
const POLICED_GAIN: f64 = 0.97;

/// How often the policed rate is raised to see whether it still holds, and by how much.
const RAISE_EVERY: Duration = Duration::from_secs(3);
const RAISE: f64 = 0.03;

/// So many cuts of a policed rate that was not raised meanwhile may correct what was taken for it: what
/// is lost then is no policer's.
const VAIN_CUTS: u32 = 2;

/// What is known of a policer.
#[derive(Clone, Debug)]
pub(crate) struct Policer {
    /// The part of bytes that is lost while there is no queue, smoothed.
    loss: f64,
    /// Rounds that lost, less those that did not.
    lossy: u32,
    /// What the last trial has shown to be lost whatever is sent.
    proven: f64,
    /// Bytes in a second that come through, smoothed over rounds.
    goodput: f64,
    /// How many of the rounds had no queue at all, smoothed.
    flat: f64,
    trial: Option<Trial>,
    tried_round: Option<u64>,
    /// Trials in a row that found none, as far as they count.
    failed: u32,
    /// The rate that it lets through, and since when.
    limit: Option<Limit>,
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    /// Bytes in a second.
    rate: f64,
    since: Instant,
    /// By how much it is raised next.
    raise: f64,
    /// Cuts since it was raised.
    cuts: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Trial {
    began: u64,
    acked: u64,
    lost: u64,
    loss_before: f64,
    goodput_before: f64,
    flat_before: f64,
}

/// One round trip's books.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) number: u64,
    pub(crate) acked: u64,
    pub(crate) lost: u64,
    /// Bytes in a second.
    pub(crate) goodput: f64,
    /// There was a standing queue: its losses are congestion.
    pub(crate) has_queue: bool,
    /// Nothing waited at all: what was sent is not more than the link carries.
    pub(crate) is_flat: bool,
}

impl Policer {
    pub(crate) fn new() -> Policer {
        Policer {
            loss: 0.0,
            lossy: 0,
            proven: 0.0,
            goodput: 0.0,
            flat: 0.0,
            trial: None,
            tried_round: None,
            failed: 0,
            limit: None,
        }
    }

    /// The part of bytes that is lost without delay.
    pub(crate) fn loss(&self) -> f64 {
        self.loss
    }

    /// The part of bytes that a trial has shown to be lost whatever is sent.
    pub(crate) fn random_loss(&self) -> f64 {
        if self.limit.is_some() { 0.0 } else { self.loss.min(self.proven) }
    }

    /// What is to be sent during a trial, in bytes in a second: of what came through, since a bucket
    /// that was full at first let much more through.
    pub(crate) fn trial_rate(&self) -> Option<f64> {
        self.trial.map(|trial| trial.goodput_before * TRIAL_GAIN)
    }

    /// Not more than this is to be sent, in bytes in a second.
    pub(crate) fn limit(&self) -> Option<f64> {
        self.limit.map(|limit| limit.rate * POLICED_GAIN)
    }

    /// A round is over.
    pub(crate) fn round(&mut self, now: Instant, round: Round, mtu: u64) {
        let loss = round.lost as f64 / (round.lost + round.acked).max(1) as f64;
        if self.trial.is_some() {
            self.go_on(now, round, mtu);
            return;
        }
        let flat = if round.is_flat { 1.0 } else { 0.0 };
        self.flat += (flat - self.flat) / 8.0;
        if self.flat < FLAT {
            // There is a queue behind it all, which a policer does not let come about.
            self.limit = None;
        }
        if round.has_queue || loss > OUTAGE {
            return;
        }
        self.lossy = if loss > SUSPECT / 2.0 { self.lossy + 1 } else { self.lossy / 2 };
        self.loss += (loss - self.loss) / 8.0;
        // Before it lost anything it may have sent less than it could, and in the first round that did
        // the queue was still drained.
        let is_first = self.lossy <= 2;
        self.goodput += (round.goodput - self.goodput) / if is_first { 1.0 } else { 8.0 };
        if let Some(limit) = &mut self.limit {
            if self.loss > SUSPECT && limit.cuts >= VAIN_CUTS {
                self.limit = None;
                self.failed = TRIAL_DOUBLES_MAX;
                self.tried_round = Some(round.number);
                self.proven = 1.25 * self.loss;
            } else if self.loss > SUSPECT {
                limit.rate = limit.rate.min(self.goodput);
                limit.raise = RAISE;
                limit.since = now;
                limit.cuts += 1;
                self.loss = 0.0;
            } else if now.saturating_duration_since(limit.since) > RAISE_EVERY {
                limit.rate *= 1.0 + limit.raise;
                limit.raise *= 2.0;
                limit.since = now;
                limit.cuts = 0;
            }
            return;
        }
        let is_suspect = self.loss > SUSPECT && self.lossy >= LOSSY_ROUNDS;
        let every = TRIAL_EVERY_ROUNDS << self.failed;
        let is_due = self.tried_round.is_none_or(|at| round.number >= at + every);
        if is_suspect && is_due {
            self.trial = Some(Trial {
                began: round.number,
                loss_before: self.loss,
                goodput_before: self.goodput,
                flat_before: self.flat,
                ..Trial::default()
            });
        }
    }

    fn go_on(&mut self, now: Instant, round: Round, mtu: u64) {
        let Some(trial) = &mut self.trial else { return };
        let rounds = round.number - trial.began;
        if rounds <= TRIAL_SKIP_ROUNDS {
            return;
        }
        trial.acked += round.acked;
        trial.lost += round.lost;
        let sent = trial.acked + trial.lost;
        let likely = trial.loss_before * (sent / mtu.max(1)) as f64;
        let is_enough = likely >= TRIAL_LOSSES && rounds >= TRIAL_ROUNDS_MIN;
        if !is_enough && rounds < TRIAL_ROUNDS_MAX {
            return;
        }
        let loss = trial.lost as f64 / sent.max(1) as f64;
        let has_passed = likely >= TRIAL_LOSSES && loss < trial.loss_before * TRIAL_PASSES;
        if has_passed && trial.flat_before > FLAT {
            let rate = trial.goodput_before;
            self.limit = Some(Limit { rate, since: now, raise: RAISE, cuts: 0 });
            self.loss = 0.0;
            self.failed = 0;
        } else {
            self.proven = 1.25 * loss;
            self.failed = (self.failed + 1).min(TRIAL_DOUBLES_MAX);
        }
        self.trial = None;
        self.tried_round = Some(round.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOODPUT: f64 = 1e6;

    struct Path {
        now: Instant,
        policer: Policer,
        round: u64,
    }

    impl Path {
        /// One that has found a policer.
        #[allow(clippy::disallowed_methods, reason = "any time will do to begin with")]
        fn policed() -> Path {
            let mut path = Path { now: Instant::now(), policer: Policer::new(), round: 0 };
            while path.policer.trial_rate().is_none() {
                path.go(1, 50_000);
                assert!(path.round < 100);
            }
            path.go(TRIAL_ROUNDS_MAX, 0);
            assert!(path.policer.limit().is_some_and(|limit| limit > 0.9 * GOODPUT));
            path
        }

        /// So many rounds of 50 ms and a megabyte each, that lose so many bytes.
        fn go(&mut self, rounds: u64, lost: u64) {
            for _ in 0..rounds {
                let round = Round {
                    number: self.round,
                    acked: 1_000_000,
                    lost,
                    goodput: self.policer.limit().unwrap_or(GOODPUT),
                    has_queue: false,
                    is_flat: true,
                };
                self.policer.round(self.now, round, 1400);
                self.round += 1;
                self.now += Duration::from_millis(50);
            }
        }
    }

    #[test]
    fn what_is_lost_at_the_rate_that_passed_is_no_policers() {
        let mut path = Path::policed();

        path.go(50, 50_000);

        assert_eq!(path.policer.limit(), None);
        assert!(path.policer.random_loss() > SUSPECT);
        // Nor is it looked for again so soon.
        path.go(100, 50_000);
        assert!(path.policer.trial_rate().is_none() && path.policer.limit().is_none());
    }

    #[test]
    fn a_rate_without_loss_is_kept_and_raised() {
        let mut path = Path::policed();
        let before = path.policer.limit();

        path.go(200, 0);

        assert!(path.policer.limit() > before);
    }
}
