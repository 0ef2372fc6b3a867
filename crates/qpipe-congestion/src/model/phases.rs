//! The cycle of phases: when each begins and ends.

use std::time::{Duration, Instant};

use super::rounds::Books;
use super::yields::Others;
use super::{CRUISE_ROUNDS, INITIAL_PACKETS, Model};
use crate::filter::MaxRate;

/// Rounds without 1.25 times the bandwidth before: the pipe is full.
const PLATEAU_ROUNDS: u32 = 3;
const GROWS: f64 = 1.25;

/// A round of probing has found something if the bandwidth grew by so much.
const UP_GROWS: f64 = 1.1;

/// Loss of more than a first window that ends a Startup that found no more.
const CROWDED: f64 = 0.2;

/// When the empty round trip was not seen for so long, and so many rounds, the window dips to see it.
const DIP_EVERY: Duration = Duration::from_secs(5);
const DIP_ROUNDS: u64 = 15;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Startup,
    Down,
    Cruise,
    Up,
}

impl Model {
    pub(super) fn enter(&mut self, phase: Phase) {
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
                self.cruise = if self.others.standing > 0 { 1 } else { until };
            }
            Phase::Startup | Phase::Up => {
                self.is_probed = true;
                self.full = self.rate.get();
                self.plateau = 0;
            }
        }
    }

    /// Begins anew, with what is known of the round trip.
    pub(super) fn restart(&mut self, now: Instant, window: u64) {
        self.enter(Phase::Startup);
        self.rate = MaxRate::default();
        self.bursts = MaxRate::default();
        self.peak = 0.0;
        self.full = 0.0;
        self.others = Others::new(now);
        self.ceiling = None;
        self.books = Books::new(now);
        self.window = window.max(INITIAL_PACKETS * self.mtu);
    }

    /// A round is over: the phase may be, too.
    pub(super) fn step(&mut self, now: Instant, has_queue: bool, is_congested: bool) {
        let rounds = self.round.saturating_sub(self.phase_round);
        let grew = self.rate.get() >= self.full * GROWS;
        let loss = self.books.loss();
        if self.phase == Phase::Down && rounds == 1 {
            self.others.before = self.books.goodput(now);
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
                    self.is_dip = is_unseen && self.others.contest.is_none();
                    let can_probe = self.others.standing == 0 && !self.is_dip;
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
}
