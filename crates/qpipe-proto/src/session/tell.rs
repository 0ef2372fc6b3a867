//! What a session has to say, and when: messages, events, timers.

use std::time::{Duration, Instant};

use super::{Event, LocalEnd, Pipe, Session};
use crate::cause::Cause;
use crate::fact::Kinds;
use crate::id::{PipeId, Ranges};
use crate::limits::{
    FACTS_PER_MESSAGE_MAX, IN_BAND_DELAY_MS, IN_BAND_PIPES_MAX, SETTLED_RANGES_MAX,
};
use crate::wire::{Bye, ControlMessage, FactsMessage};

impl Session {
    /// The next control message to send.
    pub fn poll_message(&mut self) -> Option<ControlMessage> {
        if self.lost.is_some() || !self.is_connected {
            return None;
        }
        // What was answered because of a Bye makes sense only to a peer that has heard it.
        if let Some(opens_seen) = self.bye.said.filter(|_| !self.bye.told) {
            self.bye.told = true;
            return Some(ControlMessage::Bye(Bye { opens_seen }));
        }
        let facts = self.next_facts();
        if !facts.is_empty() {
            return Some(ControlMessage::Facts(facts));
        }
        if self.owes_bye() {
            let opens_seen = self.allowance.heard();
            (self.bye.said, self.bye.told) = (Some(opens_seen), true);
            return Some(ControlMessage::Bye(Bye { opens_seen }));
        }
        None
    }

    /// Whether [`Session::poll_message`] has something to give.
    pub fn has_message(&self) -> bool {
        let settled = self.unsettled.iter().any(|ranges| !ranges.is_empty());
        let facts = !self.untold.is_empty() || settled || self.allowance.is_due();
        self.lost.is_none() && self.is_connected && (facts || self.owes_bye())
    }

    /// Whether so many Settled wait to be told that no more facts should be read until some are:
    /// a peer that does not read its answers is not to fill memory with them (ruling 11).
    pub fn is_congested(&self) -> bool {
        self.unsettled.iter().map(Ranges::len).sum::<usize>() >= SETTLED_RANGES_MAX
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if let Event::Changed(id) = event
            && let Some(pipe) = self.pipes.get_mut(&id)
        {
            pipe.is_announced = false;
        }
        Some(event)
    }

    /// When [`Session::handle_timeout`] wants to be called, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let groups = self.groups.deadline().filter(|_| self.is_connected);
        let in_band = self.in_band.front().map(|(at, _)| *at);
        [self.lazy_until, self.idle_at, in_band, groups].into_iter().flatten().min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.lazy_until.is_some_and(|at| at <= now) {
            self.lazy_until = None;
            for id in std::mem::take(&mut self.lazy) {
                self.tell_consumed(id);
            }
        }
        while let Some((at, id)) = self.in_band.front().copied()
            && at <= now
        {
            self.in_band.pop_front();
            self.tell_in_band(id);
        }
        if self.idle_at.is_some_and(|at| at <= now) {
            self.return_idle_credit(now);
        }
        if self.is_connected {
            let late = self.groups.expire(now);
            self.refuse(&late, Cause::Incomplete);
        }
    }

    fn owes_bye(&self) -> bool {
        let is_due = self.bye.wanted || self.bye.heard;
        match self.bye.said {
            Some(_) => !self.bye.told,
            None => is_due && self.unsettled() == 0,
        }
    }

    fn next_facts(&mut self) -> FactsMessage {
        let mut message = FactsMessage::default();
        while message.pipes.len() < FACTS_PER_MESSAGE_MAX
            && let Some(id) = self.untold.pop_front()
        {
            let Some(pipe) = self.pipes.get_mut(&id) else { continue };
            pipe.is_queued = false;
            let mut kinds = std::mem::take(&mut pipe.untold);
            if !kinds.is_empty() && !pipe.is_settled {
                // Nobody is to hear of the end of a pipe before it hears of the pipe.
                kinds.add(std::mem::take(&mut pipe.in_band));
                message.pipes.push((id, kinds.select(&pipe.facts)));
            }
        }
        let sides = [self.side, self.side.peer()];
        for (side, ranges) in sides.into_iter().zip(&mut self.unsettled) {
            for (first, last) in ranges.take(SETTLED_RANGES_MAX / 4) {
                message.settled.push((PipeId::nth(side, first), PipeId::nth(side, last)));
            }
        }
        message.opens_allowed = self.allowance.raise();
        message
    }

    pub(super) fn mark(&mut self, id: PipeId, kinds: Kinds) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        if pipe.is_settled || kinds.is_empty() {
            return;
        }
        pipe.untold.add(kinds);
        if !pipe.is_queued {
            pipe.is_queued = true;
            self.untold.push_back(id);
        }
    }

    /// The driver sends a stream of a pipe written here, or is about to, with its Open and with its End
    /// once that is stated. The control stream's copies of both wait, and mostly need not be told in the
    /// end.
    pub fn goes_in_band(&mut self, id: PipeId, now: Instant) {
        while let Some((_, first)) = self.in_band.front()
            && self.pipes.get(first).is_none_or(|pipe| pipe.in_band.is_empty())
        {
            self.in_band.pop_front();
        }
        let is_full = self.in_band.len() >= IN_BAND_PIPES_MAX;
        let Some(pipe) = self.pipes.get_mut(&id).filter(|_| !is_full) else { return };
        let waiting = pipe.untold.take(Kinds::IN_BAND);
        if pipe.in_band.is_empty() && !waiting.is_empty() {
            self.in_band.push_back((now + Duration::from_millis(IN_BAND_DELAY_MS), id));
        }
        pipe.in_band.add(waiting);
    }

    /// Tells what the peer has not shown that it heard on the pipe's stream.
    pub(super) fn tell_in_band(&mut self, id: PipeId) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        let mut kinds = std::mem::take(&mut pipe.in_band);
        if pipe.heard_at.is_some() {
            kinds.take(Kinds::OPEN);
        }
        if pipe.facts.closed.is_some() {
            kinds.take(Kinds::END);
        }
        self.mark(id, kinds);
    }

    fn tell_consumed(&mut self, id: PipeId) {
        if let Some(Pipe { end: LocalEnd::Read(end), facts, .. }) = self.pipes.get_mut(&id)
            && end.owes_consumed(facts)
        {
            let kinds = end.tell(facts);
            self.mark(id, kinds);
        }
    }

    /// Tells what the reader has consumed, at `at` or before.
    pub(super) fn tell_consumed_by(&mut self, id: PipeId, at: Instant) {
        self.lazy.insert(id);
        self.lazy_until = Some(self.lazy_until.map_or(at, |due| due.min(at)));
    }

    /// A write end was used: some time later it may have idle credit to give back.
    pub(super) fn watch_idle(&mut self, id: PipeId) {
        if let Some(Pipe { end: LocalEnd::Write(end), facts, .. }) = self.pipes.get(&id)
            && let Some(at) = end.idle_at(facts)
            && self.idle.insert(id)
        {
            self.idle_at = Some(self.idle_at.map_or(at, |other| other.min(at)));
        }
    }

    fn return_idle_credit(&mut self, now: Instant) {
        let mut next: Option<Instant> = None;
        let mut back = Vec::new();
        self.idle.retain(|id| {
            let Some(Pipe { end: LocalEnd::Write(end), facts, .. }) = self.pipes.get_mut(id) else {
                return false;
            };
            let Some(at) = end.idle_at(facts) else { return false };
            if at <= now {
                facts.returned = end.give_back(facts);
                back.push(*id);
                return false;
            }
            next = Some(next.map_or(at, |next| next.min(at)));
            true
        });
        self.idle_at = next;
        for id in back {
            self.mark(id, Kinds::RETURNED);
        }
    }
}
