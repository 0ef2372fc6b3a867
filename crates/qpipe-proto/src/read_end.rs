//! The read end of a pipe, at its reader's node.
//!
//! ```text
//!            received ≤ Limit, consumed ≤ received
//!               ┌──┐
//!               │  ▼    End, every byte consumed
//!  ── open ──►  Open ───────────────────────────► Over (complete, aborted or corrupt)
//!                │
//!                └───── the reader leaves ──────► Over (broken)
//! ```
//!
//! Over is "Closed is stated"; the end of a session ends the read end without a fact.

mod streams;

use std::time::{Duration, Instant};

use crate::budget::{Draft, Share};
use crate::cause::Cause;
use crate::fact::{
    Answer, Attempt, Closed, ClosedKind, Contradiction, End, EndKind, Facts, Kinds, Limit, Opener,
};
use crate::limits::{
    CONSUMED_DELAY_MS, CONSUMED_SOON_MS, CONSUMED_SOON_PART, FLOOR_BYTES, KEPT_BYTES_MAX, PIPE_BUF,
    WINDOW_BYTES_MAX,
};
use crate::planted::{self, Planted};

/// What the reader is told after the bytes that came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// The writer aborted, or its node was lost.
    Aborted(Cause),
    /// The reader itself closed the end.
    Closed(Cause),
    /// Length or checksum did not match.
    Corrupt,
    /// EOF: every byte the writer wrote, and the checksum is right.
    Eof,
    /// The other node refused the open.
    Refused(Cause),
}

/// The read end's own state: what is not in the set of facts.
#[derive(Debug)]
pub(crate) struct ReadEnd {
    /// Bytes received without a gap.
    pub(crate) received: u64,
    /// What the writer may send while no Limit was stated.
    initial_limit: u64,
    /// How far beyond what was consumed the writer may be, in bytes.
    window: u64,
    /// The most that the window grows to.
    capacity: u64,
    /// Memory for the window. None until the open is accepted.
    share: Option<Share>,
    /// What is buffered beyond that share, on the session's reservation.
    draft: Draft,
    /// The newest stream that began.
    stream: Option<Attempt>,
    /// A stream was stopped for want of memory: another is asked for when there is some.
    is_starved: bool,
    /// When the current measurement of the reader's pace began, and what was consumed then.
    epoch: Option<(Instant, u64)>,
    /// What the reader consumed in a round trip when that was last measured.
    pace: Option<u64>,
    /// What Consumed was last told.
    told_consumed: u64,
    /// The content matched its checksum.
    verified: bool,
    /// The reader was handed EOF.
    eof_taken: bool,
    /// The cause of an end that no fact states.
    local: Option<Cause>,
}

impl ReadEnd {
    pub(crate) fn new(initial_limit: u64, draft: Draft) -> ReadEnd {
        ReadEnd {
            received: 0,
            initial_limit,
            window: 0,
            capacity: WINDOW_BYTES_MAX,
            share: None,
            draft,
            stream: None,
            is_starved: false,
            epoch: None,
            pace: None,
            told_consumed: 0,
            verified: false,
            eof_taken: false,
            local: None,
        }
    }

    /// Reserves memory and states the first Limit.
    pub(crate) fn start(&mut self, facts: &mut Facts, mut share: Share, capacity: Option<u64>) {
        self.window = share.start();
        self.share = Some(share);
        self.set_capacity(capacity.unwrap_or(WINDOW_BYTES_MAX));
        let offset = self.window.max(self.initial_limit);
        facts.limit = Some(Limit { number: 1, offset });
    }

    /// The most that the window grows to, from now on. What was granted stays granted.
    pub(crate) fn set_capacity(&mut self, bytes: u64) {
        self.capacity = bytes.clamp(FLOOR_BYTES, WINDOW_BYTES_MAX);
        self.window = self.window.min(self.capacity);
    }

    /// Whether the writer's node may state `heard`.
    ///
    /// # Errors
    /// It cannot be true, given what was received and granted.
    pub(crate) fn check(&self, facts: &Facts, heard: &Facts) -> Result<(), Contradiction> {
        if heard.end.is_some_and(|end| end.length < self.received) {
            return Err(Contradiction("an End before bytes that were sent"));
        }
        let Some(back) = heard.returned else { return Ok(()) };
        match facts.limit {
            Some(limit) if back.number < limit.number => Ok(()),
            Some(limit) if back.number == limit.number && back.offset >= self.received => Ok(()),
            _ => Err(Contradiction("credit given back that was not there")),
        }
    }

    /// Covers what is buffered: by the end's own share, which grows if it can, and beyond that by
    /// the session's reservation, since an initial limit may be more than the floor that an accepted
    /// pipe is sure of.
    fn cover(&mut self, facts: &Facts) {
        let held = self.received - facts.consumed.min(self.received);
        let own = self.own(held);
        // Less is buffered than before, so this cannot fail.
        self.draft.set(held.saturating_sub(own));
    }

    /// Memory of the end's own for `held` bytes.
    fn own(&mut self, held: u64) -> u64 {
        match &mut self.share {
            Some(share) if held > share.bytes() => share.grow(held),
            Some(share) => share.bytes(),
            None => 0,
        }
    }

    /// Notes that the program consumed bytes 0..`consumed`; returns what is to be told at once.
    pub(crate) fn consume(
        &mut self,
        facts: &mut Facts,
        consumed: u64,
        now: Instant,
        rtt: Duration,
    ) -> Kinds {
        let consumed = if planted::has(Planted::ConsumedEarly) { self.received } else { consumed };
        facts.consumed = facts.consumed.max(consumed.min(self.received));
        self.cover(facts);
        self.tune(facts, now, rtt);
        let is_short = rtt < TURN_MIN && self.is_drained(facts);
        let worth = self.window / if is_short { WORTH_PART_SHORT } else { WORTH_PART };
        let kinds = self.raise_limit(facts, worth);
        self.let_go(facts);
        if kinds.has(Kinds::CONSUMED) {
            self.told_consumed = facts.consumed;
        }
        kinds
    }

    /// Gives back memory that a window that was made smaller no longer needs, once that is much: what
    /// was granted stays granted.
    fn let_go(&mut self, facts: &Facts) {
        let granted = facts.effective_limit().unwrap_or(0).saturating_sub(facts.consumed);
        let needed = granted.max(self.window).max(self.received - facts.consumed);
        if let Some(share) = &mut self.share
            && needed < share.bytes() - share.bytes() / 8
        {
            share.shrink(needed);
        }
    }

    /// Takes in credit that the writer's node gave back.
    pub(crate) fn take_back(&mut self, facts: &Facts) {
        let Some(limit) = facts.effective_limit() else { return };
        let window = limit.saturating_sub(facts.consumed).max(FLOOR_BYTES);
        if window < self.window {
            self.window = window;
            self.epoch = None;
            if let Some(share) = &mut self.share {
                share.shrink(window);
            }
        }
    }

    /// Raises the window to `wanted` bytes, as far as capacity and budget allow; returns whether
    /// there is something to tell.
    pub(crate) fn widen(&mut self, facts: &mut Facts, wanted: u64) -> Kinds {
        self.grow(wanted);
        self.raise_limit(facts, self.window / WORTH_PART)
    }

    /// Whether Consumed is true beyond what was told.
    pub(crate) fn owes_consumed(&self, facts: &Facts) -> bool {
        facts.consumed > self.told_consumed && facts.closed.is_none()
    }

    /// How long Consumed may wait to be told: less where the writer's own capacity may hold it back until then.
    pub(crate) fn consumed_delay(&self, facts: &Facts, rtt: Duration) -> Duration {
        let untold = facts.consumed.saturating_sub(self.told_consumed);
        let longest = Duration::from_millis(CONSUMED_DELAY_MS);
        if self.is_drained(facts) && untold >= PIPE_BUF {
            let soon = Duration::from_millis(CONSUMED_SOON_MS);
            return (rtt / CONSUMED_SOON_PART).clamp(soon, longest);
        }
        longest
    }

    /// Consumed is told on its own; returns what goes with it: all the credit that there is, in the
    /// same message.
    pub(crate) fn tell(&mut self, facts: &mut Facts) -> Kinds {
        self.told_consumed = facts.consumed;
        let mut kinds = self.raise_limit(facts, 0);
        kinds.add(Kinds::CONSUMED);
        kinds
    }

    /// Whether every byte is here and its checksum is still to be compared.
    pub(crate) fn wants_checksum(&self, facts: &Facts) -> bool {
        matches!(facts.end, Some(End { kind: EndKind::Eof, length, .. }) if length == self.received)
            && !self.verified
            && facts.closed.is_none()
            // Until it is accepted, nobody may learn that the pipe is complete.
            && self.share.is_some()
    }

    /// Compares the checksum of all bytes; returns whether it is right.
    pub(crate) fn verify(&mut self, facts: &Facts, checksum: u64) -> bool {
        self.verified = facts.end.is_some_and(|end| end.checksum == checksum);
        self.verified
    }

    /// Notes that the reader was handed EOF; whether that is news.
    pub(crate) fn take_eof(&mut self) -> bool {
        !std::mem::replace(&mut self.eof_taken, true)
    }

    /// The Closed that is due now that the reader consumed what there was, if it is.
    pub(crate) fn closing(&self, facts: &Facts) -> Option<Closed> {
        let end = facts.end?;
        // Before it is accepted nothing is consumed, not even a pipe of no bytes.
        if facts.closed.is_some() || facts.consumed < end.length || self.share.is_none() {
            return None;
        }
        let kind = match end.kind {
            EndKind::Aborted(_) => ClosedKind::Aborted,
            // Of an empty pipe there is nothing to consume but its EOF.
            EndKind::Eof if self.verified && (end.length > 0 || self.eof_taken) => {
                ClosedKind::Complete
            }
            EndKind::Eof => return None,
        };
        Some(Closed { kind, consumed: facts.consumed })
    }

    /// Ends the pipe for a cause that no fact states, unless it is over.
    pub(crate) fn fail(&mut self, facts: &Facts, cause: Cause) {
        if !facts.is_terminal() {
            self.local.get_or_insert(cause);
        }
    }

    /// Gives back the memory of a pipe that is over and no longer in use.
    pub(crate) fn free(&mut self) {
        self.share = None;
    }

    /// What to tell the reader once it was handed every byte that is here.
    pub(crate) fn outcome(&self, facts: &Facts) -> Option<ReadOutcome> {
        match facts.closed.map(|closed| closed.kind) {
            Some(ClosedKind::Corrupt) => return Some(ReadOutcome::Corrupt),
            Some(ClosedKind::Broken(cause)) => {
                return Some(match self.local {
                    Some(local) => ReadOutcome::Aborted(local),
                    None => ReadOutcome::Closed(cause),
                });
            }
            Some(ClosedKind::Aborted | ClosedKind::Complete) | None => {}
        }
        // Holding End(eof) and every byte, the reader gets EOF whatever becomes of the session, and
        // whatever the peer says of the open then.
        if let Some(End { kind: EndKind::Eof, length, .. }) = facts.end
            && length == self.received
            && self.verified
        {
            return Some(ReadOutcome::Eof);
        }
        if let Some(Answer::Refused(cause)) = facts.answer {
            // Refused by this node itself, for what the stream did before it was accepted.
            return Some(self.local.map_or(ReadOutcome::Refused(cause), ReadOutcome::Aborted));
        }
        match (facts.end, self.local) {
            (Some(End { kind: EndKind::Aborted(cause), length, .. }), local)
                if length == self.received || local.is_some() =>
            {
                Some(ReadOutcome::Aborted(cause))
            }
            (_, local) => local.map(ReadOutcome::Aborted),
        }
    }

    /// Whether the reader has consumed all that is here, but what it may keep back.
    fn is_drained(&self, facts: &Facts) -> bool {
        facts.consumed + KEPT_BYTES_MAX >= self.received
    }

    /// Widens the window when the reader used half of it within a round trip, or took in all that
    /// a writer at its Limit had sent: then the window is what holds the writer back. Makes it smaller
    /// where memory is scarce, the faster the larger it is, so that pipes that began later get theirs.
    fn tune(&mut self, facts: &Facts, now: Instant, rtt: Duration) {
        let limit = facts.effective_limit().unwrap_or(self.initial_limit);
        let drained = self.is_drained(facts) && limit - self.received.min(limit) < PIPE_BUF;
        let (since, from) = *self.epoch.get_or_insert((now, facts.consumed));
        let elapsed = now.saturating_duration_since(since);
        let taken = u128::from(facts.consumed - from);
        let pace = taken * rtt.as_nanos();
        let turn = if self.window < AMPLE_BYTES { rtt.max(TURN_MIN) } else { rtt };
        let used = taken * turn.as_nanos();
        let fast = elapsed >= rtt && used >= u128::from(self.window / 2) * elapsed.as_nanos();
        // On a short path a window is drained as often as it is filled, however large it is.
        let is_ample = self.window >= AMPLE_BYTES
            && self.pace.is_some_and(|pace| self.window / AMPLE_PACES >= pace);
        if elapsed >= rtt {
            self.epoch = Some((now, facts.consumed));
            let pace = pace / elapsed.as_nanos().max(1);
            self.pace = Some(u64::try_from(pace).unwrap_or(u64::MAX));
            if self.share.as_ref().is_some_and(Share::is_scarce) {
                self.window = (self.window - self.window / 8).max(FLOOR_BYTES);
            }
        }
        if (drained && !is_ample || fast) && facts.end.is_none() {
            // A small one is not to hold up the congestion window, which doubles in a round trip, and
            // does not while it is not used.
            let times = if self.window < AMPLE_BYTES { 4 } else { 2 };
            self.grow(self.window.saturating_mul(times));
        }
    }

    fn grow(&mut self, wanted: u64) {
        let wanted = wanted.min(self.capacity);
        if let Some(share) = &mut self.share
            && wanted > self.window
        {
            let held = if wanted > share.bytes() { share.grow(wanted) } else { wanted };
            self.window = self.window.max(held.min(wanted));
        }
    }

    /// States a higher Limit if that is worth telling: by `worth` bytes or more, or to a writer that may
    /// have to wait.
    fn raise_limit(&self, facts: &mut Facts, worth: u64) -> Kinds {
        let mut kinds = Kinds::default();
        let Some(limit) = facts.effective_limit() else { return kinds };
        if facts.closed.is_some() || facts.end.is_some_and(|end| end.length <= limit) {
            return kinds;
        }
        let next = facts.consumed + self.window;
        let gain = next.saturating_sub(limit);
        let left = limit - self.received.min(limit);
        let drained = self.is_drained(facts);
        // A writer may wait for room for an atomic write: then less than that must not be left.
        let low = (self.window / 2).max(PIPE_BUF);
        if gain > 0 && (gain >= worth || (drained && left < low)) {
            let number = facts.limit.map_or(0, |limit| limit.number) + 1;
            facts.limit = Some(Limit { number, offset: next });
            kinds.add(Kinds::LIMIT);
            kinds.add(Kinds::CONSUMED);
        }
        kinds
    }
}

/// A window of so many bytes, and of so many times what the reader takes in a round trip, is not made
/// larger only because it was drained. More than twice: what was lost comes a round trip later, or two.
const AMPLE_BYTES: u64 = 1024 * 1024;
const AMPLE_PACES: u64 = 8;

/// By what part of its window a Limit has to be higher to be worth a message, which wakes the writer at the
/// other host. On a short path, where the reader takes what comes, the writer has the other half to go on
/// with until it is there. One who waits is told sooner, and of the rest with Consumed.
const WORTH_PART: u64 = 4;
const WORTH_PART_SHORT: u64 = 2;

/// From Limit to the bytes that it let through it takes a round trip, and at both hosts the time
/// until the tasks in between had their turn: on a short path that is most of it. A window that did
/// without would leave its pipe behind others whose window happened to be large.
const TURN_MIN: Duration = Duration::from_millis(4);

/// Whether the node at this end of a pipe may state `facts`, given who opened it.
pub(crate) fn check_teller(
    facts: &Facts,
    teller_opened: bool,
    opener: Opener,
) -> Result<(), Contradiction> {
    let teller_writes = teller_opened == (opener == Opener::Writer);
    let writers = facts.end.is_some() || facts.returned.is_some();
    let readers = facts.limit.is_some()
        || facts.consumed > 0
        || facts.held.is_some()
        || facts.closed.is_some();
    let answers = facts.answer.is_some() || facts.joined;
    if teller_writes && readers || !teller_writes && writers {
        return Err(Contradiction("a fact that only the other end may state"));
    }
    if teller_opened && answers || !teller_opened && facts.open.is_some() {
        return Err(Contradiction("an open answered by its opener"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::limits::START_WINDOW_BYTES;

    fn started(capacity: Option<u64>) -> (ReadEnd, Facts) {
        let account = Budget::new(256 << 20).account();
        let draft = account.reserve(1 << 20).map(crate::budget::Reservation::new).unwrap().draft();
        let (mut end, mut facts) = (ReadEnd::new(0, draft), Facts::default());
        end.start(&mut facts, account.floor().unwrap(), capacity);
        (end, facts)
    }

    /// A window that comes round in `turn`, a quarter of it at a time, for a second.
    #[expect(clippy::disallowed_methods, reason = "a test needs an instant to begin at")]
    fn window_after(rtt: Duration, turn: Duration) -> u64 {
        let (mut end, mut facts) = started(None);
        let start = Instant::now();
        let mut now = start;
        while now < start + Duration::from_secs(1) {
            now += turn / 4;
            end.received += end.window / 4;
            let consumed = end.received;
            end.consume(&mut facts, consumed, now, rtt);
        }
        end.window
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs an instant to consume at")]
    fn a_short_path_is_told_of_half_a_window_and_a_long_one_of_a_quarter() {
        let (now, piece) = (Instant::now(), START_WINDOW_BYTES / 8);
        for (rtt, pieces) in [(Duration::from_micros(100), 4), (Duration::from_millis(20), 2)] {
            let (mut end, mut facts) = started(None);
            let told = (1..).find(|count| {
                end.received = count * piece;
                end.consume(&mut facts, count * piece, now, rtt).has(Kinds::LIMIT)
            });
            assert_eq!(told, Some(pieces), "{rtt:?}");
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs an instant to consume at")]
    fn whoever_waits_is_told_of_a_quarter_and_of_less_with_consumed() {
        let (mut end, mut facts) = started(Some(START_WINDOW_BYTES));
        end.received = START_WINDOW_BYTES;
        let mut consume =
            |consumed| end.consume(&mut facts, consumed, Instant::now(), Duration::ZERO);
        assert!(!consume(START_WINDOW_BYTES / 4 - 1).has(Kinds::LIMIT));
        assert!(consume(START_WINDOW_BYTES / 4).has(Kinds::LIMIT));
        assert!(!consume(START_WINDOW_BYTES / 4 + 1).has(Kinds::LIMIT));

        assert!(end.tell(&mut facts).has(Kinds::LIMIT));
        assert!(!end.tell(&mut facts).has(Kinds::LIMIT));
    }

    #[test]
    fn tasks_that_wait_for_their_turn_do_not_keep_a_window_small() {
        let (rtt, turn) = (Duration::from_micros(700), Duration::from_millis(3));

        assert!(window_after(rtt, turn) >= AMPLE_BYTES);
    }

    #[test]
    fn a_reader_that_takes_little_in_a_round_trip_keeps_its_window() {
        let (rtt, turn) = (Duration::from_millis(20), Duration::from_millis(100));

        assert_eq!(window_after(rtt, turn), START_WINDOW_BYTES);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs an instant to consume at")]
    fn a_byte_that_is_kept_back_holds_no_atomic_write_up() {
        let now = Instant::now();
        for step in 1..=FLOOR_BYTES {
            let (mut end, mut facts) = started(Some(PIPE_BUF));
            // The smallest window that there is.
            end.window = FLOOR_BYTES;
            facts.limit = Some(Limit { number: 1, offset: FLOOR_BYTES });
            for _ in 0..3 {
                let limit = facts.limit.unwrap().offset;
                end.received = limit.min(end.received + step);
                end.consume(&mut facts, end.received - KEPT_BYTES_MAX, now, Duration::ZERO);

                let room = facts.limit.unwrap().offset - end.received;
                assert!(room >= PIPE_BUF, "{room} after {step} more");
            }
        }
    }
}
