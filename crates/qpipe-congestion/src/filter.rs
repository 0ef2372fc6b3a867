//! The largest rate over some rounds, the smallest round trip over some time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The largest of the values of the last rounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct MaxRate {
    /// Falling values, each with its round; at most one a round.
    values: VecDeque<(u64, f64)>,
}

/// How many rounds a rate counts: a little more than a cycle of probing, so that what one probe found
/// is known until the next.
const RATE_ROUNDS: u64 = 13;

impl MaxRate {
    pub(crate) fn get(&self) -> f64 {
        self.values.front().map_or(0.0, |value| value.1)
    }

    pub(crate) fn add(&mut self, round: u64, rate: f64) {
        while self.values.back().is_some_and(|value| value.1 <= rate) {
            self.values.pop_back();
        }
        if self.values.back().is_none_or(|value| value.0 != round) {
            self.values.push_back((round, rate));
        }
        self.expire(round);
    }

    pub(crate) fn expire(&mut self, round: u64) {
        while self.values.len() > 1 && self.values[0].0 + RATE_ROUNDS <= round {
            self.values.pop_front();
        }
    }

    /// What is known holds on.
    pub(crate) fn hold(&mut self, round: u64) {
        let rate = self.get();
        if rate > 0.0 {
            self.replace(round, rate);
        }
    }

    /// What was known is wrong: it is `rate`.
    pub(crate) fn replace(&mut self, round: u64, rate: f64) {
        self.values.clear();
        self.values.push_back((round, rate));
    }
}

/// A smallest round trip that was not seen again for so long no longer counts.
const RTT_AGE_MAX: Duration = Duration::from_secs(10);

/// And for so many rounds: what an outage delayed is a round or two, and a long path is dipped into
/// seldom.
const RTT_ROUNDS: u64 = 20;

/// Then the smallest of one to two of these counts: both end within the age.
const RTT_HALF: Duration = Duration::from_secs(4);

/// A round trip within this part of the smallest confirms it.
const RTT_CONFIRMS: f64 = 1.03;

/// The smallest round trip: of the connection's whole life as long as it is confirmed, else of the
/// last four to eight seconds.
#[derive(Clone, Debug)]
pub(crate) struct MinRtt {
    value: Option<Duration>,
    confirmed: (Instant, u64),
    /// The smallest of this half of the window, and of the one before.
    halves: [Duration; 2],
    half_began: (Instant, u64),
}

impl MinRtt {
    pub(crate) fn new(now: Instant) -> MinRtt {
        MinRtt {
            value: None,
            confirmed: (now, 0),
            halves: [Duration::MAX; 2],
            half_began: (now, 0),
        }
    }

    pub(crate) fn get(&self) -> Option<Duration> {
        self.value
    }

    /// Whether the value was not seen for so long, and for so many rounds.
    pub(crate) fn is_unseen(&self, now: Instant, round: u64, age: Duration, rounds: u64) -> bool {
        now.saturating_duration_since(self.confirmed.0) > age && round >= self.confirmed.1 + rounds
    }

    /// What was known is wrong: it is `rtt`.
    pub(crate) fn replace(&mut self, now: Instant, round: u64, rtt: Duration) {
        self.value = Some(rtt);
        self.confirmed = (now, round);
    }

    pub(crate) fn add(&mut self, now: Instant, round: u64, rtt: Duration) {
        let is_past = |(at, began): (Instant, u64), age, rounds| {
            now.saturating_duration_since(at) > age && round >= began + rounds
        };
        if is_past(self.half_began, RTT_HALF, RTT_ROUNDS / 3) {
            self.halves = [Duration::MAX, self.halves[0]];
            self.half_began = (now, round);
        }
        self.halves[0] = self.halves[0].min(rtt);
        match self.value {
            Some(value) if rtt > value.mul_f64(RTT_CONFIRMS) => {
                if is_past(self.confirmed, RTT_AGE_MAX, RTT_ROUNDS) {
                    self.value = Some(self.halves[0].min(self.halves[1]));
                    self.confirmed = (now, round);
                }
            }
            Some(value) => {
                self.value = Some(value.min(rtt));
                self.confirmed = (now, round);
            }
            None => {
                self.value = Some(rtt);
                self.confirmed = (now, round);
            }
        }
    }
}

/// Pauses of the acknowledgements. A host that has a moment's other work makes one now and then; a crowded one
/// makes them all the time, and nothing gets far in its turns without a window for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pauses {
    /// The last ones, when each ended and how long it was.
    last: [Option<(Instant, Duration)>; PAUSES],
}

/// So many pauses within so short a time are no accident.
const PAUSES: usize = 3;
const PAUSES_WITHIN: Duration = Duration::from_millis(100);

/// What is shorter is none.
const PAUSE_MIN: Duration = Duration::from_millis(1);

impl Pauses {
    /// Acknowledgements have come again after so long.
    pub(crate) fn add(&mut self, now: Instant, pause: Duration) {
        if pause >= PAUSE_MIN {
            self.last.rotate_left(1);
            self.last[PAUSES - 1] = Some((now, pause));
        }
    }

    /// How long a pause is to be expected.
    pub(crate) fn get(&self, now: Instant) -> Duration {
        let is_late = |at: Instant| now.saturating_duration_since(at) <= PAUSES_WITHIN;
        let late = |pause: &Option<(Instant, Duration)>| {
            pause.filter(|(at, _)| is_late(*at)).map_or(Duration::ZERO, |(_, took)| took)
        };
        self.last.iter().map(late).min().unwrap_or_default()
    }
}
