//! Two sessions, the channels between them, and an oracle that knows what either end may see.
//!
//! Messages and streams stay where they are until a test delivers them, each channel in order,
//! all of them in any order among each other. What the oracle knows it learns from the programs at
//! both ends and from the messages, never from the sessions.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use qpipe_proto::cause::Cause;
use qpipe_proto::fact::{End, EndKind, Facts, Open, OpenTarget, Opener};
use qpipe_proto::hello::Limits;
use qpipe_proto::session::{Event, OpenError, StreamVerdict};
use qpipe_proto::wire::{ControlDecoder, ControlMessage, StreamHeader, encode_control};
use qpipe_proto::{Budget, PipeId, ReadOutcome, Session, Side, WriteOutcome};

pub(crate) const RTT: Duration = Duration::from_millis(20);

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
            now: Instant::now(),
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
        if pipe.may_read() && !pipe.released[1] {
            pipe.reader_left = true;
            // What it was not handed is dropped: its program is told at once.
            self.nodes[reader].session.close_read(id, Cause::ReaderClosed);
            pipe.received = pipe.received.max(pipe.consumed);
            self.look(reader);
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

    /// Puts on the stream what the writer's node has to send; `eager` begins it with the open.
    pub(crate) fn carry(&mut self, id: PipeId, eager: bool) {
        let pipe = self.pipes.get_mut(&id).unwrap();
        let session = &self.nodes[pipe.writer].session;
        let is_known = pipe.opener == pipe.writer || pipe.is_accepted;
        if !is_known || pipe.is_stream_over || self.is_lost {
            return;
        }
        if !pipe.is_streaming && (eager || pipe.written > 0) {
            pipe.is_streaming = true;
            let open = session.own_open(id);
            if open.is_none() && pipe.opener == pipe.writer {
                pipe.is_stream_over = true;
                return;
            }
            pipe.stream.push_back(Item::Header(StreamHeader { id, offset: 0, open }));
        }
        if !pipe.is_streaming {
            return;
        }
        if pipe.written > pipe.sent {
            pipe.stream.push_back(Item::Content(pipe.written - pipe.sent));
            pipe.sent = pipe.written;
        }
        let end = session.facts(id).and_then(|facts| facts.end);
        let is_over = session.write_outcome(id).is_some() || session.facts(id).is_none();
        if let Some(end) = end {
            pipe.is_stream_over = true;
            pipe.stream.push_back(Item::Trailer(end));
        } else if is_over {
            pipe.is_stream_over = true;
            pipe.stream.push_back(Item::Cut);
        }
    }

    /// The network loses the rest of the stream.
    pub(crate) fn cut(&mut self, id: PipeId) {
        let pipe = self.pipes.get_mut(&id).unwrap();
        if pipe.is_streaming && !pipe.is_cut {
            pipe.is_cut = true;
            pipe.is_stream_over = true;
            pipe.stream.clear();
            pipe.stream.push_back(Item::Cut);
        }
    }

    /// The first thing on the pipe's stream arrives, of content at most `bytes`.
    pub(crate) fn deliver_stream(&mut self, id: PipeId, bytes: u64) -> bool {
        let now = self.now;
        let pipe = self.pipes.get_mut(&id).unwrap();
        let reader = 1 - pipe.writer;
        let session = &mut self.nodes[reader].session;
        let Some(item) = pipe.stream.pop_front() else { return false };
        if pipe.is_stopped {
            return true;
        }
        let mut verdict = StreamVerdict::Read;
        match item {
            Item::Header(header) => {
                if header.open.is_some() && !self.nodes[reader].seen.contains(&id) {
                    self.nodes[reader].seen.push(id);
                }
                verdict = self.nodes[reader].session.stream_opened(&header, now).unwrap();
                pipe.is_read = verdict == StreamVerdict::Read;
            }
            Item::Content(length) => {
                let here = length.min(bytes.max(1));
                if length > here {
                    pipe.stream.push_front(Item::Content(length - here));
                }
                verdict = session.received(id, pipe.received + here);
                if verdict == StreamVerdict::Read {
                    pipe.received += here;
                    assert!(pipe.received <= pipe.written && pipe.read_outcome.is_none());
                }
            }
            Item::Trailer(end) => {
                verdict = session.trailer(id, end);
            }
            Item::Cut => session.stream_cut(id),
        }
        pipe.is_stopped |= verdict != StreamVerdict::Read;
        self.look(reader);
        self.judge_read(id);
        true
    }

    /// A node's next message goes on its way.
    pub(crate) fn say(&mut self, node: usize) -> bool {
        let side = &mut self.nodes[node];
        let had = side.session.has_message();
        let Some(message) = side.session.poll_message() else { return false };
        assert!(had, "a message that was not announced");
        if let ControlMessage::Facts(facts) = &message {
            if let Some(told) = facts.opens_allowed {
                let is_free = |id: &&PipeId| {
                    let facts = side.session.facts(**id);
                    let is_alive = |facts: &Facts| facts.answer.is_some() && !facts.is_terminal();
                    side.session.is_settled(**id) || facts.is_some_and(is_alive)
                };
                let free = side.seen.iter().filter(is_free).count() as u64;
                assert_eq!(told, self.config.opens + free, "the allowance");
            }
            for (id, facts) in &facts.pipes {
                let pipe = self.pipes.get_mut(id).unwrap();
                if let Some(limit) = facts.limit {
                    assert_eq!(
                        *pipe.limits.entry(limit.number).or_insert(limit.offset),
                        limit.offset
                    );
                }
                if let Some(back) = facts.returned {
                    assert!(pipe.written <= back.offset, "gives back what it used");
                    pipe.returned.insert(back.number, back.offset);
                }
            }
        }
        self.control[node].push_back(encode_control(&message));
        true
    }

    /// The oldest message that `node` said arrives.
    pub(crate) fn deliver_control(&mut self, node: usize) -> bool {
        let Some(bytes) = self.control[node].pop_front() else { return false };
        let mut decoder = ControlDecoder::default();
        decoder.push(&bytes);
        let message = decoder.next().unwrap().unwrap();
        let peer = 1 - node;
        if let ControlMessage::Facts(facts) = &message {
            for (id, facts) in &facts.pipes {
                let pipe = self.pipes.get_mut(id).unwrap();
                if let Some(limit) = facts.limit {
                    pipe.granted = pipe.granted.max(limit.number);
                }
                if facts.open.is_some() && !self.nodes[peer].seen.contains(id) {
                    self.nodes[peer].seen.push(*id);
                }
            }
        }
        self.nodes[peer].session.handle(message, self.now).unwrap();
        self.look(peer);
        true
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

    /// Drains a node's events, and does what a driver does at them.
    fn look(&mut self, node: usize) {
        while let Some(event) = self.nodes[node].session.poll_event() {
            match event {
                Event::Changed(id) => self.changed(node, id),
                Event::Contradiction(id, what) => panic!("{id} at {node}: {what}"),
                Event::Finished => self.nodes[node].is_finished = true,
                Event::Incoming(offer) => self.nodes[node].offers.push(offer),
                Event::OpensAllowed => {}
            }
        }
        let (floors, pool) = self.nodes[node].budget.committed();
        assert!(floors <= self.config.memory / 2 && pool <= self.config.memory / 2);
    }

    fn changed(&mut self, node: usize, id: PipeId) {
        let pipe = self.pipes.get_mut(&id).unwrap();
        let session = &mut self.nodes[node].session;
        if node == 1 - pipe.writer {
            if session.wants_checksum(id) {
                assert!(pipe.may_read(), "complete before it was accepted");
                let sum = checksum(id, pipe.received) ^ u64::from(pipe.is_corrupt);
                session.verify(id, sum);
            }
            self.judge_read(id);
            return;
        }
        let Some(outcome) = session.write_outcome(id) else { return };
        let first = *pipe.write_outcome.get_or_insert(outcome);
        assert_eq!(first, outcome, "{id}: the writer's outcome changed");
        match outcome {
            WriteOutcome::Complete { length } => {
                assert_eq!(pipe.end, Some(EndKind::Eof));
                assert_eq!((length, pipe.consumed), (pipe.written, pipe.written));
                assert!(!pipe.is_corrupt || pipe.reader_left || length == 0);
            }
            WriteOutcome::Broken { consumed, .. } | WriteOutcome::Failed { consumed, .. } => {
                assert!(consumed <= pipe.consumed, "more consumed than was");
            }
            WriteOutcome::Refused(_) => assert!(!pipe.is_accepted),
        }
    }

    /// What the reading program sees once it was handed all that is here.
    fn judge_read(&mut self, id: PipeId) {
        let pipe = self.pipes.get_mut(&id).unwrap();
        let session = &self.nodes[1 - pipe.writer].session;
        let Some(outcome) = session.read_outcome(id).filter(|_| pipe.may_read()) else { return };
        let left = matches!(outcome, ReadOutcome::Closed(_) | ReadOutcome::Refused(_));
        if !left && pipe.consumed < pipe.received {
            return;
        }
        if outcome == ReadOutcome::Eof {
            assert_eq!(pipe.end, Some(EndKind::Eof), "{id}: EOF that the writer never said");
            assert_eq!((pipe.consumed, pipe.received), (pipe.written, pipe.written));
            assert!(!pipe.is_corrupt, "EOF of what was corrupted");
        }
        let first = *pipe.read_outcome.get_or_insert(outcome);
        let crossed = matches!((first, outcome), (ReadOutcome::Closed(_), ReadOutcome::Refused(_)));
        // Streams may still hold the rest of a pipe whose session is lost.
        let late = self.is_lost && first == ReadOutcome::Aborted(Cause::Lost);
        assert!(first == outcome || crossed || late, "{id}: {first:?} became {outcome:?}");
    }

    /// Faults are over: everybody does what is left to do, until nothing is.
    pub(crate) fn finish(&mut self) {
        let ids: Vec<PipeId> = self.pipes.keys().copied().collect();
        for _ in 0..10_000 {
            let mut moved = false;
            for node in 0..2 {
                while !self.nodes[node].offers.is_empty() {
                    self.answer(node, true);
                }
                while self.say(node) | self.deliver_control(node) {
                    moved = true;
                }
            }
            for id in &ids {
                self.end(*id, EndKind::Eof);
                self.carry(*id, false);
                while self.deliver_stream(*id, u64::MAX) {
                    moved = true;
                }
                self.consume(*id, u64::MAX);
                self.release(*id);
            }
            let timeouts = self.nodes.iter().filter_map(|node| node.session.poll_timeout());
            let Some(next) = timeouts.min() else {
                if !moved {
                    return self.check_settled();
                }
                continue;
            };
            self.pass(next.saturating_duration_since(self.now));
        }
        panic!("it never comes to rest");
    }

    fn check_settled(&mut self) {
        for (id, pipe) in &self.pipes {
            assert!(is_legal(pipe, self.is_lost), "{id}: {pipe:?}");
        }
        for node in &self.nodes {
            let session = &node.session;
            assert_eq!(session.unsettled(), 0);
            assert!(self.pipes.keys().all(|id| session.facts(*id).is_none()), "not forgotten");
            assert_eq!(node.budget.committed(), (0, node.reserved), "memory is given back");
            assert!(!session.has_message() && session.poll_timeout().is_none());
            assert_eq!(session.stream_slots(0), self.config.opens);
        }
        if !self.is_lost && !self.is_closing {
            let size = self.config.opens.min(8) as usize;
            for node in 0..2 {
                let ids = self.open(node, &vec![Opener::Writer; size]);
                assert!(ids.is_ok(), "everything is settled, yet {ids:?}");
            }
        }
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

/// The table of what the two ends may see of one pipe (P6).
fn is_legal(pipe: &Record, is_lost: bool) -> bool {
    use ReadOutcome as R;
    use WriteOutcome as W;
    let aborted = |cause| pipe.end == Some(EndKind::Aborted(cause));
    match (pipe.write_outcome, pipe.read_outcome) {
        (Some(W::Complete { .. }), Some(R::Eof)) => true,
        // It took everything and left before it heard that this was all.
        (Some(W::Complete { .. }), Some(R::Closed(_))) => pipe.reader_left,
        (Some(W::Complete { .. }), Some(R::Aborted(Cause::Cut))) => pipe.is_cut,
        (Some(W::Broken { cause, .. }), Some(R::Closed(why))) => cause == why && pipe.reader_left,
        (Some(W::Broken { cause, .. }), Some(R::Aborted(why))) => {
            cause == why && (cause == Cause::Cut && pipe.is_cut || cause == Cause::Busy)
        }
        (Some(W::Failed { cause: Cause::Corrupt, .. }), Some(R::Corrupt)) => pipe.is_corrupt,
        (Some(W::Failed { cause, .. }), Some(R::Aborted(why))) if !is_lost => {
            cause == why && aborted(cause)
        }
        // Refused before the reader of the other node had an end, or the writer.
        (Some(W::Refused(_)), None) => pipe.opener == pipe.writer && !pipe.is_accepted,
        (None, Some(R::Refused(_) | R::Closed(_))) => {
            pipe.opener != pipe.writer && !pipe.is_accepted
        }
        // It was aborted with nothing in it, or its open was never seen.
        (Some(W::Failed { cause, .. }), None) => {
            aborted(cause) || cause == Cause::Stopping || is_lost
        }
        (None, Some(R::Aborted(cause))) => cause == Cause::Stopping || is_lost,
        _ => is_lost,
    }
}
