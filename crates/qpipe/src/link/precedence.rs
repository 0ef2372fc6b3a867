//! Whose bytes go first, of all that wait in a connection.
//!
//! quinn sends what waits in the streams of the highest priority, and goes round where several have
//! the same one. With a thousand busy pipes a short message would wait for a thousand packets. So
//! what a pipe has to send goes before the bytes of others if it is little: if no more than
//! [`SPARSE_BYTES_MAX`] of the pipe are under way, as fair queuing in routers lets new flows go first
//! (RFC 8290, section 4.2). Programs need not say that they are interactive.
//!
//! What goes first holds up the rest. A pipe on a slow path may have little under way all the time, and
//! many such pipes could take everything: what goes first is at most a quarter of what the path
//! carries.
//!
//! Priorities say nothing of what has left already: it waits in the hosts, and all else behind it. So the
//! congestion controller hears whether somebody sends little beside others ([`Path::set_interactive`]).

use std::time::{Duration, Instant};

use qpipe_proto::fact::Priority;

/// A pipe with no more than so many bytes under way goes first.
const SPARSE_BYTES_MAX: u64 = 16 * 1024;

/// The part of the path that what goes first may take.
const PART: u64 = 4;

/// What was not used of that part is kept for so long.
const SAVED_MAX: Duration = Duration::from_millis(100);

/// The least that is saved, in bytes: the path may not be known yet.
const SAVED_BYTES_MIN: u64 = SPARSE_BYTES_MAX;

/// What was not used is counted this often.
const REFILL_EVERY: Duration = Duration::from_millis(1);

/// The path is asked for its pace this often: that takes a lock.
const PACE_EVERY: Duration = Duration::from_millis(20);

/// A pipe that had more under way is not one that sends little for so long, and one that sends little is expected
/// to go on with it for as long.
const REMEMBERED: Duration = Duration::from_secs(1);

/// A connection, as far as it matters here.
pub(super) trait Path {
    /// What it carries.
    fn pace(&self) -> Pace;
    /// Says whether somebody sends little, who would wait behind others.
    fn set_interactive(&self, is_interactive: bool);
}

/// What a path carries: a window in a round trip.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The congestion window, in bytes.
    pub(super) window: u64,
    /// The round trip.
    pub(super) rtt: Duration,
}

/// What may go first on one connection: a token bucket.
#[derive(Debug)]
pub(super) struct Precedence {
    saved: u64,
    /// Bytes a second.
    refill: u64,
    refilled_at: Option<Instant>,
    paced_at: Option<Instant>,
    /// When somebody sent little.
    little_at: Option<Instant>,
    /// What the path was told of that.
    is_interactive: bool,
}

/// A chunk of a pipe that is sent now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(super) bytes: u64,
    /// Bytes of the pipe up to its end that are not known to be consumed.
    pub(super) under_way: u64,
    /// Of which there may be so many.
    pub(super) window: u64,
}

/// What one stream sent of late.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Habit {
    little_at: Option<Instant>,
    much_at: Option<Instant>,
}

impl Default for Precedence {
    fn default() -> Precedence {
        Precedence {
            saved: SAVED_BYTES_MIN,
            refill: 0,
            refilled_at: None,
            paced_at: None,
            little_at: None,
            is_interactive: false,
        }
    }
}

/// quinn's priority of a stream. The control stream's is above all of them.
pub(super) fn rank(priority: Priority, goes_first: bool) -> i32 {
    let level = match priority {
        Priority::Low => 0,
        Priority::Normal => 1,
        Priority::High => 2,
    };
    2 * level + i32::from(goes_first)
}

impl Precedence {
    /// Whether a chunk goes first.
    pub(super) fn grants(
        &mut self,
        habit: &mut Habit,
        sent: Sent,
        now: Instant,
        path: &impl Path,
    ) -> bool {
        let Sent { bytes, under_way, window } = sent;
        self.refill(now, path);
        let is_little = under_way <= SPARSE_BYTES_MAX;
        let is_granted = is_little && self.saved >= bytes;
        if is_granted {
            self.saved -= bytes;
        }
        // Who has half of a small window under way would send more.
        self.learn(habit, is_little && under_way <= window / 2, now);
        self.tell(now, path);
        is_granted
    }

    /// Keeps in mind who sends little. What is the first of much is little as well, until the rest comes.
    fn learn(&mut self, habit: &mut Habit, is_little: bool, now: Instant) {
        if !is_little {
            habit.much_at = Some(now);
            if self.little_at == habit.little_at {
                self.little_at = None;
            }
        } else if !is_recent(habit.much_at, now) {
            habit.little_at = Some(now);
            self.little_at = Some(now);
        }
    }

    fn tell(&mut self, now: Instant, path: &impl Path) {
        let is_interactive = is_recent(self.little_at, now);
        // Now and then anew: another path's controller does not know.
        if is_interactive != self.is_interactive || self.paced_at == Some(now) {
            self.is_interactive = is_interactive;
            path.set_interactive(is_interactive);
        }
    }

    fn refill(&mut self, now: Instant, path: &impl Path) {
        if self.paced_at.is_none_or(|at| now >= at + PACE_EVERY) {
            self.paced_at = Some(now);
            let Pace { window, rtt } = path.pace();
            let a_second = u128::from(window) * 1_000_000_000 / rtt.as_nanos().max(1);
            self.refill = u64::try_from(a_second).unwrap_or(u64::MAX) / PART;
        }
        let since = now - *self.refilled_at.get_or_insert(now);
        // Of shorter times fractions of a byte would be lost.
        if since >= REFILL_EVERY {
            self.refilled_at = Some(now);
            let more = share(self.refill, since.min(SAVED_MAX));
            let most = share(self.refill, SAVED_MAX).max(SAVED_BYTES_MIN);
            self.saved = self.saved.saturating_add(more).min(most);
        }
    }
}

fn is_recent(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| now < at + REMEMBERED)
}

/// What comes at such a rate, in bytes a second, within a time.
fn share(rate: u64, time: Duration) -> u64 {
    let bytes = u128::from(rate) * time.as_nanos() / 1_000_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::clock;

    /// A path, and what it was told.
    struct Told {
        pace: Pace,
        is_interactive: Cell<bool>,
    }

    impl Path for Told {
        fn pace(&self) -> Pace {
            self.pace
        }

        fn set_interactive(&self, is_interactive: bool) {
            self.is_interactive.set(is_interactive);
        }
    }

    fn path(window: u64, rtt: Duration) -> Told {
        Told { pace: Pace { window, rtt }, is_interactive: Cell::new(false) }
    }

    fn sent(bytes: u64, under_way: u64) -> Sent {
        Sent { bytes, under_way, window: 1 << 20 }
    }

    /// 1 MB a second.
    fn slow() -> Told {
        path(100_000, Duration::from_millis(100))
    }

    #[test]
    fn little_goes_first_and_much_in_turn() {
        let mut precedence = Precedence::default();
        let now = clock::now();
        let (mut habit, path) = (Habit::default(), slow());

        assert!(precedence.grants(&mut habit, sent(64, 640), now, &path));
        assert!(!precedence.grants(&mut habit, sent(64, SPARSE_BYTES_MAX + 1), now, &path));
    }

    #[test]
    fn what_goes_first_is_at_most_a_quarter_of_what_the_path_carries() {
        let mut precedence = Precedence::default();
        let start = clock::now();
        let mut granted = 0;
        let (mut habit, path) = (Habit::default(), slow());

        for ms in 0..10_000 {
            let now = start + Duration::from_millis(ms);
            granted +=
                u64::from(precedence.grants(&mut habit, sent(1000, 1000), now, &path)) * 1000;
        }

        assert!((2_400_000..=2_600_000).contains(&granted), "{granted}");
    }

    #[test]
    fn silence_saves_no_more_than_a_moments_worth() {
        let mut precedence = Precedence::default();
        let start = clock::now();
        let (mut habit, path) = (Habit::default(), slow());
        precedence.grants(&mut habit, sent(1, 1), start, &path);
        let later = start + Duration::from_secs(3600);

        let granted = (0..1000)
            .filter(|_| precedence.grants(&mut habit, sent(1000, 1000), later, &path))
            .count();

        assert_eq!(granted, 25);
    }

    #[test]
    fn a_path_without_a_round_trip_overflows_nothing() {
        let endless = path(u64::MAX, Duration::ZERO);
        let mut habit = Habit::default();
        let mut precedence = Precedence::default();
        let now = clock::now();
        assert!(precedence.grants(&mut habit, sent(1, 1), now, &endless));
        let later = now + Duration::from_secs(u32::MAX.into());
        assert!(precedence.grants(&mut habit, sent(1, 1), later, &endless));
    }

    #[test]
    fn a_path_hears_of_who_sends_little_beside_others_and_not_of_how_much_begins() {
        let mut precedence = Precedence::default();
        let start = clock::now();
        let path = slow();
        let (mut bulk, mut echo) = (Habit::default(), Habit::default());
        let at = |ms| start + Duration::from_millis(ms);
        let much = SPARSE_BYTES_MAX + 1;

        precedence.grants(&mut bulk, sent(1000, 1000), at(0), &path);
        precedence.grants(&mut bulk, sent(much, much), at(1), &path);
        assert!(!path.is_interactive.get(), "it was the first of much");
        precedence.grants(&mut echo, sent(64, 64), at(2), &path);
        assert!(path.is_interactive.get(), "at once");
        precedence.grants(&mut bulk, sent(much, much), at(3), &path);
        assert!(path.is_interactive.get(), "much goes on");
        precedence.grants(&mut bulk, sent(much, much), at(900), &path);
        assert!(path.is_interactive.get(), "for a while after a message");
        precedence.grants(&mut bulk, sent(1000, 1000), at(1100), &path);
        assert!(!path.is_interactive.get(), "what bulk leaves at its pauses is no message");
    }

    #[test]
    fn who_fills_a_small_window_does_not_send_little() {
        let mut precedence = Precedence::default();
        let path = slow();
        let sent = Sent { bytes: 4000, under_way: 8000, window: 13_000 };

        assert!(precedence.grants(&mut Habit::default(), sent, clock::now(), &path));
        assert!(!path.is_interactive.get());
    }

    #[test]
    fn another_path_hears_of_it_as_well() {
        let mut precedence = Precedence::default();
        let start = clock::now();
        let (before, after) = (slow(), slow());
        let mut echo = Habit::default();

        precedence.grants(&mut echo, sent(64, 64), start, &before);
        precedence.grants(&mut echo, sent(64, 64), start + PACE_EVERY, &after);

        assert!(after.is_interactive.get());
    }

    #[test]
    fn priorities_stand_above_what_is_little() {
        let all = [Priority::Low, Priority::Normal, Priority::High];
        let ranks: Vec<i32> = all.iter().flat_map(|p| [rank(*p, false), rank(*p, true)]).collect();
        assert!(ranks.is_sorted_by(|a, b| a < b));
    }
}
