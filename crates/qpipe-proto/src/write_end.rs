//! The write end of a pipe, at its writer's node.
//!
//! ```text
//!             write, up to Limit and budget
//!               ┌──┐
//!               │  ▼   finish, abort          Closed, Refused
//!  ── open ──►  Open ─────────────────► Ended ─────────────► Over
//!                │                                            ▲
//!                └──────────── Closed, Refused, lost ─────────┘
//! ```
//!
//! The states are not stored: Ended is "End is stated", Over is "[`WriteEnd::outcome`] is some",
//! and both are computed from the set of facts.

use std::time::{Duration, Instant};

use crate::budget::Share;
use crate::cause::Cause;
use crate::fact::{
    Answer, Attempt, ClosedKind, Contradiction, End, EndKind, Facts, Limit, Priority,
};
use crate::limits::{FLOOR_BYTES, IDLE_RETURN_MS, START_WINDOW_BYTES};
use crate::planted::{self, Planted};

/// What became of a pipe, as its writer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The reader left (EPIPE); so many bytes were consumed.
    Broken {
        /// Why it left.
        cause: Cause,
        /// Bytes consumed.
        consumed: u64,
    },
    /// The writer ended it and the reader consumed every byte.
    Complete {
        /// Bytes in all.
        length: u64,
    },
    /// It failed; at least so many bytes were consumed.
    Failed {
        /// Why.
        cause: Cause,
        /// Bytes known to be consumed.
        consumed: u64,
    },
    /// The other node refused the open.
    Refused(Cause),
}

/// The write end's own state: what is not in the set of facts.
#[derive(Debug)]
pub(crate) struct WriteEnd {
    /// Bytes taken from the writing program.
    pub(crate) written: u64,
    /// What may be sent while no Limit is known.
    initial_limit: u64,
    /// How far beyond what was consumed the program may write.
    capacity: u64,
    /// How its bytes are sent, if that was said here: else as the open says.
    pub(crate) priority: Option<Priority>,
    /// Memory for bytes written and not consumed.
    share: Share,
    /// When it last wrote or heard a Limit.
    active: Instant,
    /// The newest stream that was started.
    stream: Option<Attempt>,
    /// It ended before its time.
    is_stream_lost: bool,
    /// The cause of an end that no fact states: the session was lost, the protocol broken.
    local: Option<Cause>,
}

impl WriteEnd {
    pub(crate) fn new(
        initial_limit: u64,
        share: Share,
        capacity: Option<u64>,
        now: Instant,
    ) -> WriteEnd {
        let mut end = WriteEnd {
            written: 0,
            initial_limit,
            capacity: u64::MAX,
            priority: None,
            share,
            active: now,
            stream: None,
            is_stream_lost: false,
            local: None,
        };
        if let Some(bytes) = capacity {
            end.set_capacity(bytes);
        }
        end
    }

    /// How many bytes may be written and not consumed, from now on.
    pub(crate) fn set_capacity(&mut self, bytes: u64) {
        self.capacity = bytes.max(FLOOR_BYTES);
    }

    /// How many bytes the program may write now, of the `wanted` that it would like to.
    pub(crate) fn room(&mut self, facts: &Facts, wanted: u64) -> u64 {
        if facts.end.is_some() || self.outcome(facts).is_some() {
            return 0;
        }
        let full = facts.consumed_at_least().saturating_add(self.capacity);
        let credit = self.limit(facts).min(full).saturating_sub(self.written).min(wanted);
        let held = self.written - facts.consumed_at_least().min(self.written);
        let needed = held + credit;
        if needed > self.share.bytes() {
            // Doubling keeps calls of the shared budget rare.
            self.share.grow(needed.max(2 * self.share.bytes()));
        } else if needed < self.share.bytes() / 2 && self.share.is_scarce() {
            self.share.shrink(needed);
        }
        credit.min(self.share.bytes().saturating_sub(held))
    }

    /// Notes that the program wrote `bytes`, which [`WriteEnd::room`] allowed.
    pub(crate) fn wrote(&mut self, bytes: u64, now: Instant) {
        self.written += bytes;
        self.active = now;
    }

    /// Notes that a Limit was heard: what it grants may go back if it is not used for a while.
    pub(crate) fn granted(&mut self, now: Instant) {
        self.active = now;
    }

    /// Ends the pipe for a cause that no fact states, unless it is over.
    pub(crate) fn fail(&mut self, facts: &Facts, cause: Cause) {
        if self.outcome(facts).is_none() {
            self.local = Some(cause);
        }
    }

    /// Whether the reader's node may state `heard` of a pipe of which `written` bytes were sent.
    ///
    /// # Errors
    /// It cannot be true.
    pub(crate) fn check(written: u64, facts: &Facts, heard: &Facts) -> Result<(), Contradiction> {
        if heard.consumed_at_least() > written {
            return Err(Contradiction("more consumed than was sent"));
        }
        if heard.held.is_some_and(|held| held.offset > written) {
            return Err(Contradiction("more held than was sent"));
        }
        match heard.closed.map(|closed| closed.kind) {
            Some(ClosedKind::Broken(_)) | None => Ok(()),
            Some(_) if facts.end.is_some() => Ok(()),
            Some(_) => Err(Contradiction("a pipe said to be over before its End")),
        }
    }

    /// The stream that is to be started now on the connection `epoch`, if one is: its number there
    /// and its offset. `is_new` says that the reader's node can have heard of the pipe on no earlier
    /// connection, so that it will ask for none.
    pub(crate) fn next_stream(
        &self,
        facts: &Facts,
        epoch: u64,
        is_new: bool,
    ) -> Option<(Attempt, u64)> {
        if self.outcome(facts).is_some() {
            return None;
        }
        let started = self.stream.filter(|attempt| attempt.epoch == epoch);
        let asked = facts.held.filter(|held| held.attempt.epoch == epoch);
        let (attempt, from) = match (asked, started) {
            (Some(held), started) if started.is_none_or(|s| held.attempt > s) => {
                (held.attempt, held.offset)
            }
            (None, None) if is_new => (Attempt { epoch, number: 0 }, 0),
            (_, Some(started)) if self.is_stream_lost => {
                let from = asked.map_or(0, |held| held.offset);
                (Attempt { number: started.number.saturating_add(1), ..started }, from)
            }
            _ => return None,
        };
        // What was consumed meanwhile is held as well, and is no longer here to be sent.
        let offset = from.max(facts.consumed_at_least());
        (offset < self.written).then_some((attempt, offset))
    }

    /// Notes that a stream was started.
    pub(crate) fn started(&mut self, attempt: Attempt) {
        self.stream = Some(attempt);
        self.is_stream_lost = false;
    }

    /// Notes that the stream ended before its time.
    pub(crate) fn stream_lost(&mut self, attempt: Attempt) {
        self.is_stream_lost |= self.stream == Some(attempt);
    }

    /// Whether `attempt` is the newest stream that was started.
    pub(crate) fn is_newest(&self, attempt: Attempt) -> bool {
        self.stream == Some(attempt)
    }

    /// Up to which offset bytes may be sent.
    pub(crate) fn limit(&self, facts: &Facts) -> u64 {
        let extra = u64::from(planted::has(Planted::LimitPlusOne));
        facts.effective_limit().unwrap_or(self.initial_limit) + extra
    }

    /// The pipe's outcome, once there is one (design: "The writer's result, in this order").
    pub(crate) fn outcome(&self, facts: &Facts) -> Option<WriteOutcome> {
        let consumed = facts.consumed_at_least();
        // First, because it was set when there was no outcome, and an outcome never changes.
        if let Some(cause) = self.local {
            return Some(WriteOutcome::Failed { cause, consumed });
        }
        if let Some(Answer::Refused(cause)) = facts.answer {
            return Some(WriteOutcome::Refused(cause));
        }
        let closed = facts.closed?;
        if let Some(End { kind: EndKind::Eof, length, .. }) = facts.end
            && closed.consumed == length
            && closed.kind != ClosedKind::Corrupt
        {
            return Some(WriteOutcome::Complete { length });
        }
        Some(match closed.kind {
            ClosedKind::Broken(cause) => WriteOutcome::Broken { cause, consumed },
            ClosedKind::Corrupt => WriteOutcome::Failed { cause: Cause::Corrupt, consumed },
            ClosedKind::Aborted | ClosedKind::Complete => {
                WriteOutcome::Failed { cause: abort_cause(facts), consumed }
            }
        })
    }

    /// When to look whether idle credit should go back, if there is any to give.
    pub(crate) fn idle_at(&self, facts: &Facts) -> Option<Instant> {
        let spare = self.limit(facts).saturating_sub(self.written) > START_WINDOW_BYTES;
        let over = facts.end.is_some() || self.outcome(facts).is_some();
        (spare && !over && facts.limit.is_some())
            .then(|| self.active + Duration::from_millis(IDLE_RETURN_MS))
    }

    /// The credit to give back: all of the newest Limit beyond one start window.
    pub(crate) fn give_back(&mut self, facts: &Facts) -> Option<Limit> {
        let held = self.written - facts.consumed_at_least().min(self.written);
        self.share.shrink(held);
        let number = facts.limit?.number;
        Some(Limit { number, offset: self.written + START_WINDOW_BYTES })
    }
}

fn abort_cause(facts: &Facts) -> Cause {
    match facts.end {
        Some(End { kind: EndKind::Aborted(cause), .. }) => cause,
        _ => Cause::Protocol,
    }
}
