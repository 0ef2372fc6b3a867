//! The streams that bring a pipe's bytes, one after the other.

use super::ReadEnd;
use crate::fact::{Attempt, Contradiction, Facts, Held};
use crate::planted::{self, Planted};

impl ReadEnd {
    /// A stream begins at `offset`; whether it is wanted. One that is older than what was asked for,
    /// or than one that began, is not.
    ///
    /// # Errors
    /// It cannot be an honest one.
    pub(crate) fn begin(
        &mut self,
        facts: &Facts,
        attempt: Attempt,
        offset: u64,
    ) -> Result<bool, Contradiction> {
        if self.newest(facts).is_some_and(|newest| attempt < newest) {
            return Ok(false);
        }
        if self.stream == Some(attempt) {
            return Err(Contradiction("a second stream"));
        }
        if offset > self.received {
            return Err(Contradiction("a stream that begins beyond what is held"));
        }
        self.stream = Some(attempt);
        self.is_starved = false;
        Ok(true)
    }

    /// Whether `attempt` is the newest stream that began.
    pub(crate) fn is_current(&self, attempt: Attempt) -> bool {
        self.stream == Some(attempt)
    }

    /// Asks for a stream on the connection `epoch`, at what is held.
    pub(crate) fn ask(&mut self, facts: &mut Facts, epoch: u64) {
        let number = match self.newest(facts) {
            Some(newest) if newest.epoch == epoch => newest.number.saturating_add(1),
            // What is to come without having been asked for has number 0.
            _ => 1,
        };
        self.is_starved = false;
        facts.held = Some(Held { attempt: Attempt { epoch, number }, offset: self.received });
        if planted::has(Planted::HeldAhead)
            && let Some(held) = &mut facts.held
        {
            held.offset += 1;
        }
    }

    /// Whether a stream was stopped for want of memory, and there is room for another now.
    pub(crate) fn is_sated(&self, facts: &Facts) -> bool {
        self.is_starved && self.share.is_some() && self.is_drained(facts)
    }

    fn newest(&self, facts: &Facts) -> Option<Attempt> {
        self.stream.max(facts.held.map(|held| held.attempt))
    }

    /// Notes that bytes 0..`upto` are here, as far as there is memory for them: returns up to where
    /// they are taken in.
    ///
    /// # Errors
    /// More than Limit allows, or more than End says there is.
    pub(crate) fn receive(&mut self, facts: &Facts, upto: u64) -> Result<u64, Contradiction> {
        if upto > facts.effective_limit().unwrap_or(self.initial_limit) {
            return Err(Contradiction("bytes beyond the Limit"));
        }
        if facts.end.is_some_and(|end| upto > end.length) {
            return Err(Contradiction("bytes beyond the End"));
        }
        if upto <= self.received {
            return Ok(upto);
        }
        let held = upto - facts.consumed.min(upto);
        let own = self.own(held);
        if self.draft.set(held.saturating_sub(own)) {
            self.received = upto;
            return Ok(upto);
        }
        self.is_starved = true;
        self.received = self.received.max(facts.consumed + own.min(held));
        Ok(self.received)
    }
}
