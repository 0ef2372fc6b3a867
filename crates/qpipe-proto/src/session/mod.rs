//! A session: what two nodes share, independent of the connection that carries it.
//!
//! Inputs are the local program's calls, control messages, and what pipe streams bring; after each,
//! [`Session::poll_message`] and [`Session::poll_event`] are drained until they give nothing.
//! Extra polls are harmless. Pipe bytes do not pass through: the session sees offsets and ends.

mod ends;
mod hear;
mod opens;
mod pipe;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::budget::{Account, Share};
use crate::cause::Cause;
use crate::fact::{Answer, Contradiction, Facts, Group, Kinds, Open, OpenTarget, Opener};
use crate::hello::Limits;
use crate::id::{PipeId, Ranges, Side};
use crate::limits::{CONSUMED_DELAY_MS, FACTS_PER_MESSAGE_MAX, GROUP_PIPES_MAX, SETTLED_RANGES_MAX};
use crate::read_end::ReadEnd;
use crate::wire::{Bye, ControlMessage, FactsMessage};
use crate::write_end::WriteEnd;
use opens::{Allowance, Groups};
use pipe::{LocalEnd, Pipe};

pub use hear::{SessionError, StreamVerdict};

/// Something the driver has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something about this pipe changed: its ends look again.
    Changed(PipeId),
    /// The peer broke the protocol on this pipe, which ends: for the log.
    Contradiction(PipeId, Contradiction),
    /// Both sides said Bye, this side first: it closes the connection.
    Finished,
    /// A group of opens, complete, waits for [`Session::accept`] or [`Session::refuse`].
    Incoming(Vec<(PipeId, Open)>),
    /// More pipes may be opened than before.
    OpensAllowed,
}

/// Why a pipe could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// This node has no memory floor left.
    #[error("no memory left for another pipe: raise --memory or close pipes")]
    Busy,
    /// The session is closing or over.
    #[error("the session is closing")]
    Closing,
    /// As many opens are unanswered as the peer allows: wait for [`Event::OpensAllowed`].
    #[error("as many opens wait for an answer as the peer allows")]
    NotYet,
}

/// The protocol state that two nodes share.
#[derive(Debug)]
pub struct Session {
    side: Side,
    account: Account,
    /// Covers what the peer may send on pipes that are not answered yet.
    _reserve: Share,
    ours: Limits,
    theirs: Limits,
    pipes: HashMap<PipeId, Pipe>,
    /// Indexes of forgotten ids: our opens, the peer's.
    forgotten: [Ranges; 2],
    /// Indexes whose Settled is to be told: our opens, the peer's.
    unsettled: [Ranges; 2],
    /// Opens that we made.
    opened: u64,
    allowance: Allowance,
    groups: Groups,
    /// Pipes with untold facts; each stands here once.
    untold: VecDeque<PipeId>,
    /// Pipes whose Consumed may wait, and until when.
    lazy: BTreeSet<PipeId>,
    lazy_until: Option<Instant>,
    /// Write ends that may have idle credit to give back.
    idle: BTreeSet<PipeId>,
    idle_at: Option<Instant>,
    events: VecDeque<Event>,
    bye: Goodbye,
    is_lost: bool,
}

#[derive(Debug, Default)]
struct Goodbye {
    wanted: bool,
    said: bool,
    heard: bool,
}

impl Session {
    /// A session whose Hellos were exchanged. `reserve` covers what `ours` allows the peer.
    pub fn new(side: Side, ours: Limits, theirs: Limits, account: Account, reserve: Share) -> Session {
        Session {
            side,
            account,
            _reserve: reserve,
            ours,
            theirs,
            pipes: HashMap::new(),
            forgotten: Default::default(),
            unsettled: Default::default(),
            opened: 0,
            allowance: Allowance::new(ours.opens_allowed),
            groups: Groups::default(),
            untold: VecDeque::new(),
            lazy: BTreeSet::new(),
            lazy_until: None,
            idle: BTreeSet::new(),
            idle_at: None,
            events: VecDeque::new(),
            bye: Goodbye::default(),
            is_lost: false,
        }
    }

    /// Opens a group of pipes at the peer, one for each of `openers`.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing was opened then.
    pub fn open(
        &mut self,
        target: &OpenTarget,
        no_wait: bool,
        openers: &[Opener],
        now: Instant,
    ) -> Result<Vec<PipeId>, OpenError> {
        if self.is_lost || self.bye.wanted || self.bye.heard {
            return Err(OpenError::Closing);
        }
        let size = openers.len() as u64;
        if self.opened + size > self.theirs.opens_allowed {
            return Err(OpenError::NotYet);
        }
        let floors: Option<Vec<Share>> = openers.iter().map(|_| self.account.floor()).collect();
        let floors = floors.ok_or(OpenError::Busy)?;
        debug_assert!(!openers.is_empty() && openers.len() <= GROUP_PIPES_MAX as usize);
        let first = PipeId::nth(self.side, self.opened);
        let group = Group { first, size: openers.len() as u32 };
        let mut ids = Vec::with_capacity(openers.len());
        for (opener, floor) in openers.iter().zip(floors) {
            let id = PipeId::nth(self.side, self.opened);
            self.opened += 1;
            let open = Open { opener: *opener, target: target.clone(), no_wait, group };
            let mut facts = Facts { open: Some(open), ..Facts::default() };
            let end = match opener {
                Opener::Writer => {
                    LocalEnd::Write(WriteEnd::new(self.theirs.initial_limit, floor, now))
                }
                Opener::Reader => {
                    let mut end = ReadEnd::new(0);
                    end.start(&mut facts, floor, None);
                    LocalEnd::Read(end)
                }
            };
            self.pipes.insert(id, Pipe::new(true, facts, end));
            let mut kinds = Kinds::OPEN;
            kinds.add(if *opener == Opener::Reader { Kinds::LIMIT } else { Kinds::OPEN });
            self.mark(id, kinds);
            ids.push(id);
        }
        Ok(ids)
    }

    /// Accepts the group of opens whose members are `ids`: reserves memory for each.
    ///
    /// # Errors
    /// [`Cause::Busy`] if there is none left: the group was refused instead.
    pub fn accept(&mut self, ids: &[PipeId], now: Instant) -> Result<(), Cause> {
        let floors: Option<Vec<Share>> = ids.iter().map(|_| self.account.floor()).collect();
        let Some(floors) = floors else {
            self.refuse(ids, Cause::Busy);
            return Err(Cause::Busy);
        };
        for (id, floor) in ids.iter().zip(floors) {
            let Some(pipe) = self.pipes.get_mut(id) else { continue };
            if pipe.facts.answer.is_some() {
                continue;
            }
            pipe.facts.answer = Some(Answer::Accepted);
            let mut kinds = Kinds::ANSWER;
            match &mut pipe.end {
                LocalEnd::Read(end) => {
                    end.start(&mut pipe.facts, floor, None);
                    kinds.add(Kinds::LIMIT);
                }
                end => *end = LocalEnd::Write(WriteEnd::new(0, floor, now)),
            }
            if !pipe.facts.is_terminal() {
                pipe.is_free = true;
                self.allowance.release();
            }
            self.mark(*id, kinds);
            self.announce(*id);
        }
        Ok(())
    }

    /// Refuses the group of opens whose members are `ids`.
    pub fn refuse(&mut self, ids: &[PipeId], cause: Cause) {
        for id in ids {
            let Some(pipe) = self.pipes.get_mut(id) else { continue };
            if pipe.facts.answer.is_none() {
                pipe.facts.answer = Some(Answer::Refused(cause));
                pipe.end = LocalEnd::Unanswered;
                pipe.is_released = true;
                self.mark(*id, Kinds::ANSWER);
                self.announce(*id);
                self.drop_if_done(*id);
            }
        }
    }

    /// States that a partner is at the other end of an accepted pipe.
    pub fn join(&mut self, id: PipeId) {
        if let Some(pipe) = self.pipes.get_mut(&id)
            && !pipe.is_ours
            && !pipe.facts.joined
        {
            pipe.facts.joined = true;
            self.mark(id, Kinds::JOINED);
        }
    }

    /// The facts known of a pipe; `None` once it is forgotten.
    pub fn facts(&self, id: PipeId) -> Option<&Facts> {
        self.pipes.get(&id).map(|pipe| &pipe.facts)
    }

    /// The local end is no longer in use: the pipe may be forgotten as soon as it is settled.
    pub fn release(&mut self, id: PipeId) {
        if let Some(pipe) = self.pipes.get_mut(&id) {
            pipe.is_released = true;
            self.drop_if_done(id);
        }
    }

    /// Pipes that are not settled.
    pub fn unsettled(&self) -> usize {
        self.pipes.values().filter(|pipe| !pipe.is_settled).count()
    }

    /// Streams that the peer may have open at once: what it may carry without ever waiting for a
    /// slot, given `undrained` streams of pipes that are over (ruling 12).
    pub fn stream_slots(&self, undrained: u64) -> u64 {
        let alive = self.pipes.values().filter(|pipe| pipe.peer_writes() && !pipe.is_settled);
        alive.count() as u64 + self.ours.opens_allowed + undrained
    }

    /// The session ended: every unfinished end gets the local cause `cause`.
    pub fn lose(&mut self, cause: Cause) {
        self.is_lost = true;
        let ids: Vec<PipeId> = self.pipes.keys().copied().collect();
        for id in ids {
            if let Some(pipe) = self.pipes.get_mut(&id) {
                pipe.fail(cause);
                pipe.is_settled = true;
            }
            self.announce(id);
            self.drop_if_done(id);
        }
        self.untold.clear();
        self.events.push_back(Event::OpensAllowed);
    }

    /// Says Bye once every pipe is settled. New opens fail from now on.
    pub fn close(&mut self) {
        self.bye.wanted = true;
    }

    /// The next control message to send.
    pub fn poll_message(&mut self) -> Option<ControlMessage> {
        if self.is_lost {
            return None;
        }
        let facts = self.next_facts();
        if !facts.is_empty() {
            return Some(ControlMessage::Facts(facts));
        }
        let is_due = (self.bye.wanted || self.bye.heard) && !self.bye.said;
        if is_due && self.unsettled() == 0 {
            self.bye.said = true;
            return Some(ControlMessage::Bye(Bye { opens_seen: self.allowance.heard() }));
        }
        None
    }

    /// Whether [`Session::poll_message`] has something to give.
    pub fn has_message(&self) -> bool {
        let bye = (self.bye.wanted || self.bye.heard) && !self.bye.said && self.unsettled() == 0;
        let settled = self.unsettled.iter().any(|ranges| !ranges.is_empty());
        !self.is_lost && (!self.untold.is_empty() || settled || self.allowance.is_due() || bye)
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
        [self.lazy_until, self.idle_at, self.groups.deadline()].into_iter().flatten().min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.lazy_until.is_some_and(|at| at <= now) {
            self.lazy_until = None;
            for id in std::mem::take(&mut self.lazy) {
                self.tell_consumed(id);
            }
        }
        if self.idle_at.is_some_and(|at| at <= now) {
            self.return_idle_credit(now);
        }
        let late = self.groups.expire(now);
        self.refuse(&late, Cause::Incomplete);
    }

    fn next_facts(&mut self) -> FactsMessage {
        let mut message = FactsMessage::default();
        while message.pipes.len() < FACTS_PER_MESSAGE_MAX
            && let Some(id) = self.untold.pop_front()
        {
            let Some(pipe) = self.pipes.get_mut(&id) else { continue };
            pipe.is_queued = false;
            let kinds = std::mem::take(&mut pipe.untold);
            if !kinds.is_empty() && !pipe.is_settled {
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

    fn mark(&mut self, id: PipeId, kinds: Kinds) {
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

    fn announce(&mut self, id: PipeId) {
        if let Some(pipe) = self.pipes.get_mut(&id)
            && !pipe.is_announced
        {
            pipe.is_announced = true;
            self.events.push_back(Event::Changed(id));
        }
    }

    fn tell_consumed(&mut self, id: PipeId) {
        if let Some(Pipe { end: LocalEnd::Read(end), facts, .. }) = self.pipes.get_mut(&id)
            && end.owes_consumed(facts)
        {
            end.told(facts);
            self.mark(id, Kinds::CONSUMED);
        }
    }

    fn tell_consumed_soon(&mut self, id: PipeId, now: Instant) {
        self.lazy.insert(id);
        let until = now + Duration::from_millis(CONSUMED_DELAY_MS);
        self.lazy_until.get_or_insert(until);
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

    /// Index of a set of ids by whose opens they are: ours first.
    fn owner(&self, id: PipeId) -> usize {
        usize::from(id.opener() != self.side)
    }

    fn is_forgotten(&self, id: PipeId) -> bool {
        self.forgotten[self.owner(id)].contains(id.index())
    }

    /// Both sides are through with the pipe, or as good as.
    fn settle(&mut self, id: PipeId, tell: bool) {
        let owner = self.owner(id);
        let is_new = self.forgotten[owner].insert(id.index());
        if tell {
            self.unsettled[owner].insert(id.index());
        }
        let was_free = self.pipes.get(&id).is_some_and(|pipe| pipe.is_free);
        if is_new && owner == 1 {
            self.allowance.hear(id);
            if !was_free {
                self.allowance.release();
            }
        }
        if let Some(pipe) = self.pipes.get_mut(&id) {
            pipe.is_settled = true;
            pipe.untold = Kinds::default();
            self.drop_if_done(id);
        }
    }

    fn drop_if_done(&mut self, id: PipeId) {
        if self.pipes.get(&id).is_some_and(|pipe| pipe.is_settled && pipe.is_released) {
            self.pipes.remove(&id);
            self.lazy.remove(&id);
            self.idle.remove(&id);
        }
    }
}
