//! A session: what two nodes share, independent of the connection that carries it.
//!
//! Inputs are the local program's calls, control messages, and what pipe streams bring; after each,
//! [`Session::poll_message`] and [`Session::poll_event`] are drained until they give nothing.
//! Extra polls are harmless. Pipe bytes do not pass through: the session sees offsets and ends.

mod ask;
mod ends;
mod hear;
mod opens;
mod pipe;
mod resume;
mod settle;
mod streams;
mod tell;

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use crate::budget::{Account, Reservation, Share};
use crate::cause::Cause;
use crate::fact::{Answer, Contradiction, Facts, Group, Kinds, Open, OpenTarget, Opener, Priority};
use crate::hello::Limits;
use crate::id::{PipeId, PipeMap, Ranges, Side};
use crate::limits::GROUP_PIPES_MAX;
use crate::read_end::ReadEnd;
use crate::write_end::WriteEnd;
use opens::{Allowance, Groups};
use pipe::{LocalEnd, Pipe};

pub use hear::SessionError;
pub use resume::StreamStart;
pub use streams::{StreamVerdict, Taken};

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

/// How to open a pipe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// Refuse at once if nobody is at the other end, instead of waiting.
    pub no_wait: bool,
    /// How the pipe's bytes are sent beside those of others: told to the writer's node.
    pub priority: Priority,
    /// How many bytes may be written and not consumed, at least
    /// [`FLOOR_BYTES`](crate::limits::FLOOR_BYTES). Without it, as many
    /// as keep the way to the other node full. This side alone keeps to it: the writer's by writing
    /// no further, the reader's by granting no more.
    pub capacity: Option<u64>,
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
    reserve: Reservation,
    ours: Limits,
    theirs: Limits,
    pipes: PipeMap<Pipe>,
    /// Indexes of pipes that are not settled: our opens, the peer's.
    live: [BTreeSet<u64>; 2],
    /// How many of those the peer writes.
    inbound: u64,
    /// Indexes of forgotten ids: our opens, the peer's. Only what lives between them leaves gaps,
    /// and the allowance and floors bound that, so they bound the ranges.
    forgotten: [Ranges; 2],
    /// Indexes whose Settled is to be told: our opens, the peer's.
    unsettled: [Ranges; 2],
    /// Opens that we made.
    opened: u64,
    allowance: Allowance,
    groups: Groups,
    /// Pipes with untold facts; each stands here once.
    untold: VecDeque<PipeId>,
    /// Pipes that have facts in band, and when those are told on the control stream as well. Those
    /// whose facts need not be told any more stand here until they are the first.
    in_band: VecDeque<(Instant, PipeId)>,
    /// Pipes whose Consumed may wait, and until when.
    lazy: BTreeSet<PipeId>,
    lazy_until: Option<Instant>,
    /// Write ends that may have idle credit to give back.
    idle: BTreeSet<PipeId>,
    idle_at: Option<Instant>,
    events: VecDeque<Event>,
    bye: Goodbye,
    /// The connection that is adopted, or was last.
    epoch: u64,
    /// Whether there is one.
    is_connected: bool,
    /// Why the session ended, if it did.
    lost: Option<Cause>,
}

#[derive(Debug, Default)]
struct Goodbye {
    wanted: bool,
    /// It was said, with so many opens of the peer that were seen.
    said: Option<u64>,
    /// It was said on the adopted connection.
    told: bool,
    heard: bool,
}

impl Session {
    /// A session whose Hellos were exchanged on the connection `epoch`. `reserve` covers what `ours`
    /// allows the peer.
    pub fn new(
        side: Side,
        epoch: u64,
        ours: Limits,
        theirs: Limits,
        account: Account,
        reserve: Share,
    ) -> Session {
        Session {
            side,
            account,
            reserve: Reservation::new(reserve),
            ours,
            theirs: theirs.clamped(),
            pipes: PipeMap::default(),
            live: Default::default(),
            inbound: 0,
            forgotten: Default::default(),
            unsettled: Default::default(),
            opened: 0,
            allowance: Allowance::new(ours.opens_allowed),
            groups: Groups::default(),
            untold: VecDeque::new(),
            in_band: VecDeque::new(),
            lazy: BTreeSet::new(),
            lazy_until: None,
            idle: BTreeSet::new(),
            idle_at: None,
            events: VecDeque::new(),
            bye: Goodbye::default(),
            epoch,
            is_connected: true,
            lost: None,
        }
    }

    /// Opens a group of pipes at the peer, one for each of `openers`.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing was opened then.
    pub fn open(
        &mut self,
        target: &OpenTarget,
        options: OpenOptions,
        openers: &[Opener],
        now: Instant,
    ) -> Result<Vec<PipeId>, OpenError> {
        if self.lost.is_some() || self.bye.wanted || self.bye.heard {
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
            let OpenOptions { no_wait, priority, capacity } = options;
            let target = target.clone();
            let open = Open { opener: *opener, target, no_wait, priority, group };
            let mut facts = Facts { open: Some(open), ..Facts::default() };
            let end = match opener {
                Opener::Writer => {
                    let initial_limit = self.theirs.initial_limit;
                    LocalEnd::Write(WriteEnd::new(initial_limit, floor, capacity, now))
                }
                Opener::Reader => {
                    let mut end = ReadEnd::new(0, self.reserve.draft());
                    end.start(&mut facts, floor, capacity);
                    LocalEnd::Read(end)
                }
            };
            self.insert(id, Pipe::new(true, facts, end));
            self.mark(id, Kinds::OPEN);
            if *opener == Opener::Reader {
                self.mark(id, Kinds::LIMIT);
            }
            ids.push(id);
        }
        Ok(ids)
    }

    /// Accepts the group of opens whose members are `ids`: reserves memory for each. A member that
    /// ended since it was offered gets an end that says so.
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
            if pipe.is_ours || pipe.is_released || pipe.facts.answer == Some(Answer::Accepted) {
                continue;
            }
            let is_refused = pipe.facts.answer.is_some();
            let mut kinds = Kinds::default();
            if !is_refused {
                pipe.facts.answer = Some(Answer::Accepted);
                kinds.add(Kinds::ANSWER);
            }
            match &mut pipe.end {
                LocalEnd::Read(_) if is_refused => {}
                LocalEnd::Read(end) => {
                    end.start(&mut pipe.facts, floor, None);
                    kinds.add(Kinds::LIMIT);
                    if end.is_sated(&pipe.facts) {
                        end.ask(&mut pipe.facts, self.epoch);
                        kinds.add(Kinds::HELD);
                    }
                }
                end => *end = LocalEnd::Write(WriteEnd::new(0, floor, None, now)),
            }
            if let Some(cause) = self.lost {
                pipe.fail(cause);
            }
            if std::mem::take(&mut pipe.is_owed) {
                self.allowance.release();
            } else if !pipe.facts.is_terminal() {
                pipe.is_free = true;
                self.allowance.release();
            }
            self.watch_idle(*id);
            self.mark(*id, kinds);
            self.look_at_end(*id);
            self.announce(*id);
        }
        Ok(())
    }

    /// Refuses the group of opens whose members are `ids`.
    pub fn refuse(&mut self, ids: &[PipeId], cause: Cause) {
        for id in ids {
            let Some(pipe) = self.pipes.get_mut(id) else { continue };
            if pipe.is_ours || pipe.facts.answer == Some(Answer::Accepted) {
                continue;
            }
            pipe.end = LocalEnd::Unanswered;
            pipe.is_released = true;
            if std::mem::take(&mut pipe.is_owed) {
                self.allowance.release();
            }
            if pipe.facts.answer.is_none() {
                pipe.facts.answer = Some(Answer::Refused(cause));
                self.mark(*id, Kinds::ANSWER);
                self.announce(*id);
            }
            self.drop_if_done(*id);
        }
    }

    /// States that a partner is at the other end of an accepted pipe.
    pub fn join(&mut self, id: PipeId) {
        if let Some(pipe) = self.pipes.get_mut(&id)
            && !pipe.is_ours
            && pipe.facts.answer == Some(Answer::Accepted)
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

    /// The local end is no longer in use: the pipe may be forgotten as soon as it is settled. An
    /// end that is not over was finished, aborted or closed before.
    pub fn release(&mut self, id: PipeId) {
        if let Some(pipe) = self.pipes.get_mut(&id) {
            pipe.is_released = true;
            if let LocalEnd::Read(end) = &mut pipe.end
                && pipe.facts.is_terminal()
            {
                // A peer that never says Settled is not to hold memory.
                end.free();
            }
            self.drop_if_done(id);
        }
    }

    /// Pipes that are not settled.
    pub fn unsettled(&self) -> usize {
        self.live.iter().map(BTreeSet::len).sum()
    }

    /// Streams that the peer may have open at once: what it may carry without ever waiting for a
    /// slot, given `undrained` streams of pipes that are over (ruling 12).
    pub fn stream_slots(&self, undrained: u64) -> u64 {
        self.inbound + self.ours.opens_allowed + undrained
    }

    /// The session ended: every unfinished end gets the local cause `cause`. What streams still
    /// hold may be taken in; it can complete a pipe.
    pub fn lose(&mut self, cause: Cause) {
        self.lost.get_or_insert(cause);
        for id in self.groups.clear() {
            if let Some(pipe) = self.pipes.get_mut(&id) {
                pipe.is_released = true;
            }
        }
        let mut ids: Vec<PipeId> = self.pipes.keys().copied().collect();
        // Equal runs are to be equal.
        ids.sort_unstable();
        for id in ids {
            if let Some(pipe) = self.pipes.get_mut(&id) {
                pipe.fail(cause);
            }
            self.announce(id);
            self.retire(id);
        }
        self.untold.clear();
        self.events.push_back(Event::OpensAllowed);
    }

    /// Says Bye once every pipe is settled. New opens fail from now on.
    pub fn close(&mut self) {
        self.bye.wanted = true;
        // Whoever waits to open hears that there will be none.
        self.events.push_back(Event::OpensAllowed);
    }

    fn announce(&mut self, id: PipeId) {
        if let Some(pipe) = self.pipes.get_mut(&id)
            && !pipe.is_announced
        {
            pipe.is_announced = true;
            self.events.push_back(Event::Changed(id));
        }
    }
}
