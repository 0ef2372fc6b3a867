//! Two sessions, the channels between them, and an oracle that knows what either end may see.
//!
//! Messages and streams stay where they are until a test delivers them, each channel in order,
//! all of them in any order among each other. What the oracle knows it learns from the programs at
//! both ends and from the messages, never from the sessions.

mod network;
mod oracle;

use std::collections::{BTreeMap, VecDeque};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use qpipe_proto::cause::Cause;
use qpipe_proto::fact::{End, EndKind, Open, OpenTarget, Opener};
use qpipe_proto::hello::Limits;
use qpipe_proto::session::OpenError;
use qpipe_proto::wire::StreamHeader;
use qpipe_proto::{Budget, PipeId, ReadOutcome, Session, Side, WriteOutcome};

pub(crate) const RTT: Duration = Duration::from_millis(20);

/// When every world begins: equal runs are equal to the nanosecond.
#[expect(clippy::disallowed_methods, reason = "a world needs an instant to begin at")]
pub(crate) static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What both nodes allow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub(crate) opens: u64,
    pub(crate) initial_limit: u64,
    pub(crate) memory: u64,
}

pub(crate) struct Node {
    pub(crate) session: Session,
    pub(crate) budget: Budget,
    /// Groups that wait for an answer.
    pub(crate) offers: Vec<Vec<(PipeId, Open)>>,
    pub(crate) is_finished: bool,
    reserved: u64,
    /// Opens of the peer that arrived.
    seen: Vec<PipeId>,
}

/// One thing on a pipe's stream.
#[derive(Debug)]
enum Item {
    Header(StreamHeader),
    Content(u64),
    Trailer(End),
    Cut,
}

/// A pipe, as the programs at its ends see it.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) writer: usize,
    pub(crate) opener: usize,
    pub(crate) written: u64,
    pub(crate) end: Option<EndKind>,
    pub(crate) is_accepted: bool,
    /// What the stream does to the content.
    pub(crate) is_corrupt: bool,
    pub(crate) is_cut: bool,
    pub(crate) received: u64,
    pub(crate) consumed: u64,
    pub(crate) reader_left: bool,
    pub(crate) write_outcome: Option<WriteOutcome>,
    pub(crate) read_outcome: Option<ReadOutcome>,
    released: [bool; 2],
    stream: VecDeque<Item>,
    sent: u64,
    is_streaming: bool,
    is_stream_over: bool,
    is_read: bool,
    is_stopped: bool,
    /// Limits that were stated, the highest that arrived, and what was returned of them.
    limits: BTreeMap<u64, u64>,
    granted: u64,
    returned: BTreeMap<u64, u64>,
}

pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) now: Instant,
    pub(crate) nodes: [Node; 2],
    /// What each node said and the other did not hear.
    pub(crate) control: [VecDeque<Bytes>; 2],
    pub(crate) pipes: BTreeMap<PipeId, Record>,
    pub(crate) is_lost: bool,
    /// Whether a side said goodbye.
    pub(crate) is_closing: bool,
}

impl World {
    pub(crate) fn new(config: Config) -> World {
        let node = |side| {
            let budget = Budget::new(config.memory);
            let account = budget.account();
            let reserve = account.reserve(config.opens * config.initial_limit).unwrap();
            let limits =
                Limits { initial_limit: config.initial_limit, opens_allowed: config.opens };
            let reserved = reserve.bytes();
            let session = Session::new(side, limits, limits, account, reserve);
            let (offers, seen) = (Vec::new(), Vec::new());
            Node { session, budget, offers, is_finished: false, reserved, seen }
        };
        World {
            config,
            now: *START,
            nodes: [node(Side::Dialler), node(Side::Acceptor)],
            control: Default::default(),
            pipes: BTreeMap::new(),
            is_lost: false,
            is_closing: false,
        }
    }

    pub(crate) fn open(
        &mut self,
        node: usize,
        openers: &[Opener],
    ) -> Result<Vec<PipeId>, OpenError> {
        let target = OpenTarget::Name("a/b".parse().unwrap());
        let ids = self.nodes[node].session.open(&target, false, openers, self.now)?;
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
        if !pipe.may_read() || pipe.read_outcome.is_some() {
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
        if pipe.may_read() && pipe.read_outcome.is_none() {
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
            let session = &mut self.nodes[node].session;
            if session.poll_timeout().is_some_and(|at| at <= self.now) {
                session.handle_timeout(self.now);
                let next = session.poll_timeout();
                assert!(next.is_none_or(|at| at > self.now), "a timer that does not stop");
            }
            self.look(node);
        }
    }

    pub(crate) fn lose(&mut self) {
        self.is_lost = true;
        self.control.iter_mut().for_each(VecDeque::clear);
        self.nodes.iter_mut().for_each(|node| node.session.lose(Cause::Lost));
        (0..2).for_each(|node| self.look(node));
    }

    pub(crate) fn close(&mut self, node: usize) {
        self.is_closing = true;
        self.nodes[node].session.close();
    }
}

impl Record {
    /// Whether the reading program has its end.
    pub(crate) fn may_read(&self) -> bool {
        self.opener != self.writer || self.is_accepted
    }
}

/// The model's checksum of the first `length` bytes of a pipe.
pub(crate) fn checksum(id: PipeId, length: u64) -> u64 {
    (length << 8) + 2 * id.number()
}
