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
}

impl Default for Precedence {
    fn default() -> Precedence {
        Precedence { saved: SAVED_BYTES_MIN, refill: 0, refilled_at: None, paced_at: None }
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
    /// Whether `bytes` of a pipe go first, of which `under_way` bytes, these ones included, were not
    /// consumed.
    pub(super) fn grants(
        &mut self,
        bytes: u64,
        under_way: u64,
        now: Instant,
        pace: impl FnOnce() -> Pace,
    ) -> bool {
        if under_way > SPARSE_BYTES_MAX {
            return false;
        }
        self.refill(now, pace);
        let is_granted = self.saved >= bytes;
        if is_granted {
            self.saved -= bytes;
        }
        is_granted
    }

    fn refill(&mut self, now: Instant, pace: impl FnOnce() -> Pace) {
        if self.paced_at.is_none_or(|at| now >= at + PACE_EVERY) {
            self.paced_at = Some(now);
            let Pace { window, rtt } = pace();
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

/// What comes at such a rate, in bytes a second, within a time.
fn share(rate: u64, time: Duration) -> u64 {
    let bytes = u128::from(rate) * time.as_nanos() / 1_000_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// 1 MB a second.
    fn slow() -> Pace {
        Pace { window: 100_000, rtt: Duration::from_millis(100) }
    }

    #[test]
    fn little_goes_first_and_much_in_turn() {
        let mut precedence = Precedence::default();
        let now = clock::now();

        assert!(precedence.grants(64, 640, now, slow));
        assert!(!precedence.grants(64, SPARSE_BYTES_MAX + 1, now, slow));
    }

    #[test]
    fn what_goes_first_is_at_most_a_quarter_of_what_the_path_carries() {
        let mut precedence = Precedence::default();
        let start = clock::now();
        let mut granted = 0;

        for ms in 0..10_000 {
            let now = start + Duration::from_millis(ms);
            granted += u64::from(precedence.grants(1000, 1000, now, slow)) * 1000;
        }

        assert!((2_400_000..=2_600_000).contains(&granted), "{granted}");
    }

    #[test]
    fn silence_saves_no_more_than_a_moments_worth() {
        let mut precedence = Precedence::default();
        let start = clock::now();
        precedence.grants(1, 1, start, slow);
        let later = start + Duration::from_secs(3600);

        let granted = (0..1000).filter(|_| precedence.grants(1000, 1000, later, slow)).count();

        assert_eq!(granted, 25);
    }

    #[test]
    fn a_path_without_a_round_trip_overflows_nothing() {
        let endless = || Pace { window: u64::MAX, rtt: Duration::ZERO };
        let mut precedence = Precedence::default();
        let now = clock::now();
        assert!(precedence.grants(1, 1, now, endless));
        assert!(precedence.grants(1, 1, now + Duration::from_secs(u32::MAX.into()), endless));
    }

    #[test]
    fn priorities_stand_above_what_is_little() {
        let all = [Priority::Low, Priority::Normal, Priority::High];
        let ranks: Vec<i32> = all.iter().flat_map(|p| [rank(*p, false), rank(*p, true)]).collect();
        assert!(ranks.is_sorted_by(|a, b| a < b));
    }
}
