//! What lies between the nodes: control messages and pipe streams that are under way.

use qpipe_proto::PipeId;
use qpipe_proto::fact::Facts;
use qpipe_proto::session::StreamVerdict;
use qpipe_proto::wire::{ControlDecoder, ControlMessage, StreamHeader, encode_control};

use super::{Item, World};

impl World {
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

    /// The stream is lost but for its header, without which nobody can tell whose it was.
    pub(crate) fn cut(&mut self, id: PipeId) {
        let pipe = self.pipes.get_mut(&id).unwrap();
        if pipe.is_streaming && !pipe.is_cut {
            pipe.is_cut = true;
            pipe.is_stream_over = true;
            pipe.stream.retain(|item| matches!(item, Item::Header(_)));
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
        if pipe.is_stopped || (self.is_lost && pipe.read_outcome.is_some()) {
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

    pub(crate) fn has_stream(&self, id: PipeId) -> bool {
        !self.pipes[&id].stream.is_empty()
    }

    /// A node's next message goes on its way.
    pub(crate) fn say(&mut self, node: usize) -> bool {
        let side = &mut self.nodes[node];
        let had = side.session.has_message();
        let Some(message) = side.session.poll_message() else { return false };
        assert!(had, "a message that was not announced");
        if let ControlMessage::Facts(facts) = &message {
            if let Some(told) = facts.opens_allowed {
                // What is not answered is held by the node, also if its opener took it back.
                let is_free = |id: &&PipeId| {
                    let is_over = side.session.is_settled(**id);
                    let is_free =
                        |facts: &Facts| facts.answer.is_some() && (is_over || !facts.is_terminal());
                    side.session.facts(**id).is_none_or(is_free)
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
}
