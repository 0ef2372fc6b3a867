//! Two sessions, the channels between them, and an oracle that knows what either end may see.
//!
//! Messages and streams stay where they are until a test delivers them, each channel in order,
//! all of them in any order among each other, over one connection or several. What the oracle knows
//! it learns from the programs at both ends and from the messages, never from the sessions.

mod links;
mod network;
mod oracle;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use qpipe_proto::cause::Cause;
use qpipe_proto::fact::{Attempt, EndKind, Open, OpenTarget, Opener};
use qpipe_proto::hello::Limits;
use qpipe_proto::session::{OpenError, OpenOptions};
use qpipe_proto::{Budget, PipeId, ReadOutcome, Session, Side, WriteOutcome};

use crate::lone::EPOCH;
use links::Link;

pub(crate) const RTT: Duration = Duration::from_millis(20);

/// When every world begins: equal runs are equal to the nanosecond.
#[expect(clippy::disallowed_methods, reason = "a world needs an instant to begin at")]
pub(crate) static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What both nodes allow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub(crate) opens: u64,
    pub(crate) initial_limit: u64,
    /// Of each node, in bytes.
    pub(crate) memory: [u64; 2],
}

pub(crate) struct Node {
    pub(crate) session: Session,
    pub(crate) budget: Budget,
    /// Groups that wait for an answer.
    pub(crate) offers: Vec<Vec<(PipeId, Open)>>,
    pub(crate) is_finished: bool,
    /// Its session ended before its pipes did: it was given up, or the peer said that it is gone.
    pub(crate) is_over: bool,
    /// It is no more, and neither are the programs at its ends.
    pub(crate) is_crashed: bool,
    /// The highest epoch that it adopted or said Hello with.
    highest: u64,
    reserved: u64,
    /// The highest number of opens that it told the peer.
    told: u64,
    /// Opens of the peer that arrived.
    seen: Vec<PipeId>,
}

/// A pipe, as the programs at its ends see it.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) writer: usize,
    pub(crate) opener: usize,
    pub(crate) written: u64,
    pub(crate) end: Option<EndKind>,
    pub(crate) is_accepted: bool,
    /// Whether the content does not match its checksum.
    pub(crate) is_corrupt: bool,
    pub(crate) received: u64,
    pub(crate) consumed: u64,
    pub(crate) reader_left: bool,
    pub(crate) write_outcome: Option<WriteOutcome>,
    pub(crate) read_outcome: Option<ReadOutcome>,
    released: [bool; 2],
    /// The newest stream that the writer's node began.
    newest: Option<Attempt>,
    /// The writer's node heard that so many bytes were consumed, and has no copy of them any more.
    replay_from: u64,
    /// Limits that were stated, the highest that arrived, and what was returned of them.
    limits: BTreeMap<u64, u64>,
    granted: u64,
    returned: BTreeMap<u64, u64>,
}

pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) now: Instant,
    pub(crate) nodes: [Node; 2],
    /// The connections, in the order of their epochs.
    pub(crate) links: Vec<Link>,
    pub(crate) pipes: BTreeMap<PipeId, Record>,
    /// Whether a side said goodbye.
    pub(crate) is_closing: bool,
}

impl World {
    pub(crate) fn new(config: Config) -> World {
        let node = |side| {
            let budget = Budget::new(config.memory[usize::from(side == Side::Acceptor)]);
            let account = budget.account();
            let reserve = account.reserve(config.opens * config.initial_limit).unwrap();
            let limits =
                Limits { initial_limit: config.initial_limit, opens_allowed: config.opens };
            let reserved = reserve.bytes();
            let session = Session::new(side, EPOCH, limits, limits, account, reserve);
            let (offers, seen) = (Vec::new(), Vec::new());
            Node {
                session,
                budget,
                offers,
                is_finished: false,
                is_over: false,
                is_crashed: false,
                highest: EPOCH,
                reserved,
                told: config.opens,
                seen,
            }
        };
        World {
            config,
            now: *START,
            nodes: [node(Side::Dialler), node(Side::Acceptor)],
            links: vec![Link::new(EPOCH, 0)],
            pipes: BTreeMap::new(),
            is_closing: false,
        }
    }

    pub(crate) fn open(
        &mut self,
        node: usize,
        openers: &[Opener],
    ) -> Result<Vec<PipeId>, OpenError> {
        if self.nodes[node].is_crashed {
            return Err(OpenError::Closing);
        }
        let target = OpenTarget::Name("a/b".parse().unwrap());
        let ids =
            self.nodes[node].session.open(&target, OpenOptions::default(), openers, self.now)?;
        for (id, opener) in ids.iter().zip(openers) {
            let writer = if *opener == Opener::Writer { node } else { 1 - node };
            self.pipes.insert(*id, Record { writer, opener: node, ..Record::default() });
        }
        self.look(node);
        Ok(ids)
    }

    /// Answers the oldest offer, if there is one.
    pub(crate) fn answer(&mut self, node: usize, accept: bool) {
        if self.nodes[node].offers.is_empty() {
            return;
        }
        let offer = self.nodes[node].offers.remove(0);
        let ids: Vec<PipeId> = offer.iter().map(|(id, _)| *id).collect();
        let session = &mut self.nodes[node].session;
        if accept && session.accept(&ids, self.now).is_ok() {
            ids.iter().for_each(|id| self.pipes.get_mut(id).unwrap().is_accepted = true);
        } else if !accept {
            session.refuse(&ids, Cause::NotAllowed);
        }
        self.look(node);
    }

    pub(crate) fn write(&mut self, id: PipeId, wanted: u64) -> u64 {
        let pipe = self.pipes.get_mut(&id).unwrap();
        if self.nodes[pipe.writer].is_crashed {
            return 0;
        }
        let session = &mut self.nodes[pipe.writer].session;
        let room = session.room(id, wanted);
        assert!(room <= wanted);
        if room == 0 {
            return 0;
        }
        session.wrote(id, room, self.now);
        assert!(pipe.end.is_none() && pipe.write_outcome.is_none(), "room after the end");
        pipe.written += room;
        // The oracle's own sum: the newest Limit that arrived, or the initial one.
        let grant = pipe.limits.get(&pipe.granted).copied();
        let first = if pipe.opener == pipe.writer { self.config.initial_limit } else { 0 };
        let cap = pipe.returned.get(&pipe.granted).copied().unwrap_or(u64::MAX);
        assert!(pipe.written <= grant.unwrap_or(first).min(cap), "{id}: beyond the Limit");
        let writer = pipe.writer;
        self.look(writer);
        room
    }

    pub(crate) fn end(&mut self, id: PipeId, kind: EndKind) {
        let pipe = self.pipes.get_mut(&id).unwrap();
        if self.nodes[pipe.writer].is_crashed {
            return;
        }
        let session = &mut self.nodes[pipe.writer].session;
        match kind {
            EndKind::Eof => session.finish(id, checksum(id, pipe.written)),
            EndKind::Aborted(cause) => session.abort(id, cause),
        }
        if session.facts(id).is_some_and(|facts| facts.end.is_some()) && !pipe.released[0] {
            pipe.end = pipe.end.or(Some(kind));
        }
        let writer = pipe.writer;
        self.look(writer);
    }

    /// The reading program takes up to `bytes`.
    pub(crate) fn consume(&mut self, id: PipeId, bytes: u64) {
        let pipe = self.pipes.get_mut(&id).unwrap();
        let reader = 1 - pipe.writer;
        let is_over = pipe.read_outcome.is_some() || self.nodes[reader].is_crashed;
        if !pipe.may_read() || is_over {
            return;
        }
        pipe.consumed = pipe.received.min(pipe.consumed.saturating_add(bytes));
        self.nodes[reader].session.consume(id, pipe.consumed, self.now, RTT);
        self.look(reader);
        self.judge_read(id);
    }

    pub(crate) fn close_read(&mut self, id: PipeId) {
        let pipe = self.pipes.get_mut(&id).unwrap();
        let reader = 1 - pipe.writer;
        let is_over = pipe.read_outcome.is_some() || self.nodes[reader].is_crashed;
        if pipe.may_read() && !is_over {
            pipe.reader_left = true;
            self.nodes[reader].session.close_read(id, Cause::ReaderClosed);
            self.look(reader);
            self.judge_read(id);
        }
    }

    /// Ends that are over are no longer used.
    pub(crate) fn release(&mut self, id: PipeId) {
        let pipe = self.pipes.get_mut(&id).unwrap();
        if pipe.write_outcome.is_some() && !pipe.released[0] {
            pipe.released[0] = true;
            self.nodes[pipe.writer].session.release(id);
        }
        if pipe.read_outcome.is_some() && !pipe.released[1] {
            pipe.released[1] = true;
            self.nodes[1 - pipe.writer].session.release(id);
        }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        for node in 0..2 {
            if self.nodes[node].is_crashed {
                continue;
            }
            let session = &mut self.nodes[node].session;
            if session.poll_timeout().is_some_and(|at| at <= self.now) {
                session.handle_timeout(self.now);
                let next = session.poll_timeout();
                assert!(next.is_none_or(|at| at > self.now), "a timer that does not stop");
            }
            self.look(node);
        }
    }

    /// What is due soon at the node is done now, so that no time passes.
    pub(crate) fn tick(&mut self, node: usize) {
        self.nodes[node].session.handle_timeout(World::soon());
        self.look(node);
    }

    /// When all that waits but little is due.
    pub(crate) fn soon() -> Instant {
        *START + Duration::from_secs(1)
    }

    pub(crate) fn close(&mut self, node: usize) {
        self.is_closing = true;
        self.nodes[node].session.close();
    }
}

impl Record {
    /// How many of its bytes the node keeps: to send them again, or for its reader.
    fn kept(&self, node: usize) -> u64 {
        let is_writer = usize::from(node == self.writer);
        match [self.received - self.consumed, self.written - self.replay_from][is_writer] {
            _ if self.released[1 - is_writer] => 0,
            bytes => bytes,
        }
    }

    /// Whether the reading program has its end.
    pub(crate) fn may_read(&self) -> bool {
        self.opener != self.writer || self.is_accepted
    }
}

/// The model's checksum of the first `length` bytes of a pipe.
pub(crate) fn checksum(id: PipeId, length: u64) -> u64 {
    (length << 8) + 2 * id.number()
}
