//! What lies between the nodes: control messages and pipe streams that are under way.

use std::collections::VecDeque;

use qpipe_proto::PipeId;
use qpipe_proto::fact::{Attempt, End, Facts};
use qpipe_proto::session::StreamVerdict;
use qpipe_proto::wire::{
    ControlDecoder, ControlMessage, FactsMessage, StreamHeader, encode_control,
};

use super::World;
use super::links::Parcel;

/// A pipe stream, from what its writer's node put on it to what its reader's node took off.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: PipeId,
    attempt: Attempt,
    items: VecDeque<Item>,
    /// Where it began, up to where content was put on it, and up to where that arrived.
    start: u64,
    sent: u64,
    arrived: u64,
    is_begun: bool,
    /// Nothing more is put on it.
    is_over: bool,
    /// Its reader's node does not want it.
    is_stopped: bool,
}

/// One thing on a pipe's stream.
#[derive(Debug)]
enum Item {
    Header(StreamHeader),
    Content(u64),
    Trailer(End),
    Cut,
}

impl Stream {
    pub(super) fn has_items(&self) -> bool {
        !self.items.is_empty()
    }

    /// Nothing more goes on it; of what is on it the first `kept` arrive.
    fn cut(&mut self, kept: usize) {
        if !self.is_over || !self.items.is_empty() {
            self.is_over = true;
            self.items.truncate(kept);
            self.items.push_back(Item::Cut);
        }
    }

    /// Its connection is lost: nothing arrives but, where it began, the news of that.
    pub(super) fn lose(&mut self) {
        self.cut(0);
        if !self.is_begun {
            self.items.clear();
        }
    }
}

impl World {
    /// Puts on streams what the writer's node has to send.
    pub(crate) fn carry(&mut self, id: PipeId) {
        let pipe = self.pipes.get_mut(&id).unwrap();
        let node = &mut self.nodes[pipe.writer];
        if node.is_crashed || (pipe.opener != pipe.writer && !pipe.is_accepted) {
            return;
        }
        while let Some(start) = node.session.next_stream(id) {
            let (attempt, offset) = (start.attempt, start.offset);
            assert_eq!(attempt.epoch, node.session.epoch(), "{id}: on another connection");
            assert!(pipe.newest.is_none_or(|newest| attempt > newest), "{id}: {attempt:?} again");
            assert!(offset >= pipe.replay_from, "{id}: {offset} is gone");
            assert!(offset < pipe.written, "{id}: a stream of nothing");
            assert_eq!(start.open.is_some(), pipe.opener == pipe.writer);
            pipe.newest = Some(attempt);
            let header = StreamHeader { id, attempt: attempt.number, offset, open: start.open };
            let link = self.links.iter_mut().find(|link| link.epoch == attempt.epoch).unwrap();
            link.streams.push(Stream {
                id,
                attempt,
                items: VecDeque::from([Item::Header(header)]),
                start: offset,
                sent: offset,
                arrived: offset,
                is_begun: false,
                is_over: false,
                is_stopped: false,
            });
            if link.is_dead {
                link.streams.last_mut().unwrap().lose();
            }
        }
        let session = &mut node.session;
        let end = session.facts(id).and_then(|facts| facts.end);
        let is_over = session.facts(id).is_none() || session.write_outcome(id).is_some();
        let streams = self.links.iter_mut().flat_map(|link| &mut link.streams);
        for stream in streams.filter(|stream| stream.id == id && !stream.is_over) {
            let is_old =
                pipe.newest != Some(stream.attempt) || session.is_superseded(id, stream.attempt);
            if is_old {
                let kept = stream.items.len();
                stream.cut(kept);
                continue;
            }
            if pipe.written > stream.sent {
                stream.items.push_back(Item::Content(pipe.written - stream.sent));
                stream.sent = pipe.written;
            }
            session.goes_in_band(id, self.now);
            if let Some(end) = end {
                stream.is_over = true;
                stream.items.push_back(Item::Trailer(end));
            } else if is_over {
                let kept = stream.items.len();
                stream.cut(kept);
            }
        }
    }

    /// The pipe's streams are lost but for the first `kept` things on each, and for a header,
    /// without which nobody can tell whose it was.
    pub(crate) fn cut(&mut self, id: PipeId, kept: usize) {
        let streams = self.links.iter_mut().flat_map(|link| &mut link.streams);
        for stream in streams.filter(|stream| stream.id == id) {
            stream.cut(kept + usize::from(!stream.is_begun));
        }
    }

    /// The pipe's newest stream ends at its writer's node, which knows it; what is on it is lost but
    /// for the first `kept` things, its header too.
    pub(crate) fn drop_stream(&mut self, id: PipeId, kept: usize) {
        let pipe = &self.pipes[&id];
        let node = &mut self.nodes[pipe.writer];
        let Some(attempt) = pipe.newest.filter(|_| !node.is_crashed) else { return };
        let link = self.links.iter_mut().find(|link| link.epoch == attempt.epoch).unwrap();
        let stream = link.streams.iter_mut().find(|one| one.id == id && one.attempt == attempt);
        let Some(stream) = stream.filter(|stream| !stream.is_over) else { return };
        stream.cut(kept);
        if kept == 0 && !stream.is_begun {
            stream.items.clear();
        }
        node.session.stream_lost(id, attempt);
        let writer = pipe.writer;
        self.look(writer);
    }

    /// The first thing on a stream of the pipe arrives, of content at most `bytes`: on the oldest
    /// that has something.
    pub(crate) fn deliver_stream(&mut self, id: PipeId, bytes: u64) -> bool {
        let live = (0..self.links.len()).filter(|link| !self.links[*link].is_dead);
        let mut live = live.collect::<Vec<_>>().into_iter();
        live.any(|link| self.deliver_stream_on(link, id, 0, bytes))
    }

    /// As [`World::deliver_stream`], on the `nth` stream of one connection that has something.
    pub(crate) fn deliver_stream_on(
        &mut self,
        link: usize,
        id: PipeId,
        nth: usize,
        bytes: u64,
    ) -> bool {
        let pipe = self.pipes.get_mut(&id).unwrap();
        let reader = 1 - pipe.writer;
        let node = &mut self.nodes[reader];
        let link = &mut self.links[link];
        // Streams are let in once both Hellos are known.
        if node.session.epoch() < link.epoch {
            return false;
        }
        let ready = |stream: &&mut Stream| stream.id == id && !stream.items.is_empty();
        let Some(stream) = link.streams.iter_mut().filter(ready).nth(nth) else { return false };
        let Some(item) = stream.items.pop_front() else { return false };
        let is_unread = node.is_crashed || (node.is_over && pipe.read_outcome.is_some());
        if stream.is_stopped || is_unread {
            return true;
        }
        let (attempt, session) = (stream.attempt, &mut node.session);
        let mut verdict = StreamVerdict::Read;
        match item {
            Item::Header(header) => {
                if header.open.is_some() && !node.seen.contains(&id) {
                    node.seen.push(id);
                }
                stream.is_begun = true;
                verdict = session.stream_opened(&header, link.epoch, self.now).unwrap();
                let is_read = verdict == StreamVerdict::Read;
                assert_eq!(is_read, !session.is_stale(id, attempt) && session.facts(id).is_some());
            }
            Item::Content(length) => {
                let here = length.min(bytes.max(1));
                if length > here {
                    stream.items.push_front(Item::Content(length - here));
                }
                stream.arrived += here;
                let is_stale = session.is_stale(id, attempt);
                let taken = session.received(id, attempt, stream.arrived);
                verdict = taken.verdict;
                if taken.received > pipe.received {
                    assert!(!is_stale && stream.start <= pipe.received, "{id}: a gap");
                    assert!(taken.received <= stream.arrived, "{id}: bytes that did not come");
                    assert!(pipe.read_outcome.is_none() && taken.received <= pipe.written);
                    pipe.received = taken.received;
                }
                if verdict == StreamVerdict::Read {
                    assert!(pipe.received >= stream.arrived, "{id}: bytes thrown away");
                }
            }
            Item::Trailer(end) => verdict = session.trailer(id, attempt, end),
            Item::Cut => session.stream_cut(id, attempt),
        }
        stream.is_stopped |= verdict != StreamVerdict::Read;
        self.look(reader);
        self.judge_read(id);
        true
    }

    /// What of a dead connection's streams `node` still hears of.
    pub(super) fn deliver_on(&mut self, link: usize, id: PipeId, node: usize) -> bool {
        self.pipes[&id].writer != node && self.deliver_stream_on(link, id, 0, 0)
    }

    pub(crate) fn has_stream(&self, id: PipeId) -> bool {
        let mut streams = self.links.iter().flat_map(|link| &link.streams);
        streams.any(|stream| stream.id == id && !stream.items.is_empty())
    }

    pub(crate) fn has_control(&self, node: usize) -> bool {
        self.links.iter().any(|link| !link.control[node].is_empty())
    }

    /// Whether a message of the node's is under way on the connection that it has adopted.
    pub(crate) fn is_talking(&self, node: usize) -> bool {
        let epoch = self.nodes[node].session.epoch();
        self.links.iter().any(|link| link.epoch == epoch && link.has_control(node))
    }

    /// Whether one of the pipe's streams on a connection that lives is not over.
    pub(crate) fn has_stream_open(&self, id: PipeId) -> bool {
        let live = self.links.iter().filter(|link| !link.is_dead);
        let mut streams = live.flat_map(|link| &link.streams).filter(|stream| stream.id == id);
        streams.any(|stream| !stream.is_over || !stream.items.is_empty())
    }

    /// A node's next message goes on its way.
    pub(crate) fn say(&mut self, node: usize) -> bool {
        let side = &mut self.nodes[node];
        if side.is_crashed {
            return false;
        }
        let had = side.session.has_message();
        let Some(message) = side.session.poll_message() else { return false };
        assert!(had, "a message that was not announced");
        let epoch = side.session.epoch();
        if let ControlMessage::Facts(facts) = &message {
            self.check_said(node, facts);
        }
        let link = self.links.iter_mut().find(|link| link.epoch == epoch).unwrap();
        if !link.is_dead {
            link.control[node].push_back(Parcel::Message(encode_control(&message)));
        }
        true
    }

    fn check_said(&mut self, node: usize, message: &FactsMessage) {
        let side = &self.nodes[node];
        let epoch = side.session.epoch();
        if let Some(told) = message.opens_allowed {
            // What is not answered is held by the node, also if its opener took it back.
            let is_free = |id: &&PipeId| {
                let is_over = side.session.is_settled(**id);
                let is_free =
                    |facts: &Facts| facts.answer.is_some() && (is_over || !facts.is_terminal());
                side.session.facts(**id).is_none_or(is_free)
            };
            let free = side.seen.iter().filter(is_free).count() as u64;
            // What was told once is true for ever, and may be told again.
            let allowed = side.told.max(self.config.opens + free);
            assert_eq!(told, allowed, "the allowance");
            self.nodes[node].told = told;
        }
        for (id, facts) in &message.pipes {
            let pipe = self.pipes.get_mut(id).unwrap();
            if let Some(limit) = facts.limit {
                assert_eq!(*pipe.limits.entry(limit.number).or_insert(limit.offset), limit.offset);
            }
            if let Some(held) = facts.held {
                assert!(held.offset <= pipe.received && held.attempt.epoch <= epoch);
            }
            if let Some(back) = facts.returned {
                let written = pipe.written;
                let cap = *pipe.returned.entry(back.number).or_insert_with(|| {
                    assert!(written <= back.offset, "gives back what it used");
                    back.offset
                });
                assert_eq!(cap, back.offset);
            }
        }
    }

    /// The oldest message that `node` said arrives, on the oldest connection that has one.
    pub(crate) fn deliver_control(&mut self, node: usize) -> bool {
        (0..self.links.len()).any(|link| self.deliver_control_on(link, node))
    }

    /// As [`World::deliver_control`], on one connection.
    pub(crate) fn deliver_control_on(&mut self, link: usize, node: usize) -> bool {
        let Some(parcel) = self.links[link].control[node].pop_front() else { return false };
        let (peer, epoch) = (1 - node, self.links[link].epoch);
        if self.nodes[peer].is_crashed || self.nodes[peer].is_over {
            return true;
        }
        let bytes = match parcel {
            Parcel::Hello(limits) => {
                self.greet(link, node, limits);
                return true;
            }
            Parcel::Message(bytes) => bytes,
        };
        let mut decoder = ControlDecoder::default();
        decoder.push(&bytes);
        let message = decoder.next().unwrap().unwrap();
        if let ControlMessage::Facts(facts) = &message {
            for (id, facts) in &facts.pipes {
                let pipe = self.pipes.get_mut(id).unwrap();
                if let Some(limit) = facts.limit {
                    pipe.granted = pipe.granted.max(limit.number);
                }
                pipe.replay_from = pipe.replay_from.max(facts.consumed_at_least());
                if facts.open.is_some() && !self.nodes[peer].seen.contains(id) {
                    self.nodes[peer].seen.push(*id);
                }
            }
        }
        self.nodes[peer].session.handle(message, epoch, self.now).unwrap();
        self.look(peer);
        true
    }
}
