//! What either end may see, and what has to be left when everything is over.

use qpipe_proto::cause::Cause;
use qpipe_proto::fact::{Answer, EndKind, Facts, Opener};
use qpipe_proto::session::Event;
use qpipe_proto::{PipeId, ReadOutcome, WriteOutcome};

use super::{Record, World, checksum};

/// How often both nodes hear everything that was said, and answer, before all is at rest. The most
/// is needed by a pipe with little window and much to send.
const ROUNDS: usize = 300;

impl World {
    /// Drains a node's events, and does what a driver does at them.
    pub(super) fn look(&mut self, node: usize) {
        if self.nodes[node].is_crashed {
            return;
        }
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
        assert!(floors <= self.config.memory[node] / 2);
        assert!(floors + pool <= self.config.memory[node]);
        let session = &self.nodes[node].session;
        let is_refused = |facts: &Facts| matches!(facts.answer, Some(Answer::Refused(_)));
        let ends =
            self.pipes.iter().filter(|(id, _)| session.facts(**id).is_some_and(|f| !is_refused(f)));
        let kept: u64 = ends.map(|(_, pipe)| pipe.kept(node)).sum();
        assert!(kept <= floors + pool, "{kept} bytes in the memory of {floors} and {pool}");
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
            if session.read_outcome(id) == Some(ReadOutcome::Eof) {
                session.take_eof(id);
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
                // Nobody compared checksums if the reader left with every byte.
                let is_unchecked = pipe.reader_left || length == 0;
                assert!(!pipe.is_corrupt || is_unchecked);
            }
            WriteOutcome::Broken { consumed, .. } | WriteOutcome::Failed { consumed, .. } => {
                assert!(consumed <= pipe.consumed, "more consumed than was");
            }
            WriteOutcome::Refused(_) => assert!(!pipe.is_accepted),
        }
    }

    /// What the reading program sees once it was handed all that is here.
    pub(super) fn judge_read(&mut self, id: PipeId) {
        let pipe = self.pipes.get_mut(&id).unwrap();
        let node = &self.nodes[1 - pipe.writer];
        if node.is_crashed {
            return;
        }
        let session = &node.session;
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
        let end = session.facts(id).and_then(|facts| facts.end);
        if let (ReadOutcome::Aborted(cause), Some(EndKind::Aborted(stated))) =
            (outcome, end.map(|end| end.kind))
        {
            assert!(cause == stated || pipe.reader_left, "{id}: the writer said why");
        }
        let first = *pipe.read_outcome.get_or_insert(outcome);
        let crossed = matches!((first, outcome), (ReadOutcome::Closed(_), ReadOutcome::Refused(_)));
        // Streams may still hold the rest of a pipe whose session is lost.
        let late = node.is_over && first == ReadOutcome::Aborted(Cause::Lost);
        assert!(first == outcome || crossed || late, "{id}: {first:?} became {outcome:?}");
    }

    /// Faults are over: everybody does what is left to do, until nothing is.
    pub(crate) fn finish(&mut self) {
        let ids: Vec<PipeId> = self.pipes.keys().copied().collect();
        for _ in 0..ROUNDS {
            let mut moved = self.meet();
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
                self.carry(*id);
                while self.deliver_stream(*id, u64::MAX) {
                    moved = true;
                }
                self.consume(*id, u64::MAX);
                self.release(*id);
            }
            let nodes = self.nodes.iter().filter(|node| !node.is_crashed);
            moved |= nodes.clone().any(|node| node.session.has_message());
            let Some(next) = nodes.filter_map(|node| node.session.poll_timeout()).min() else {
                if !moved {
                    return self.check_settled();
                }
                continue;
            };
            self.pass(next.saturating_duration_since(self.now));
        }
        let pipes: Vec<_> = self.pipes.iter().collect();
        let nodes = self.nodes.each_ref().map(|node| &node.session);
        panic!("it never comes to rest: {pipes:?} {:?} {nodes:?}", self.links);
    }

    /// Sees to it that both talk on one connection, or know that the other does not any more.
    fn meet(&mut self) -> bool {
        if self.is_ended() {
            self.close_older();
            (0..2).for_each(|node| self.notice(node));
            let is_news = self.nodes.iter().any(|node| !node.is_over && !node.is_crashed);
            (0..2).for_each(|node| self.give_up(node));
            return is_news;
        }
        let is_under_way =
            self.nodes[0].session.epoch() != self.nodes[1].session.epoch() && self.is_answered();
        if self.is_connected() || is_under_way || self.is_greeting(0) || self.is_greeting(1) {
            return false;
        }
        (0..2).for_each(|node| self.notice(node));
        self.dial(0)
    }

    fn check_settled(&mut self) {
        let is_ended = self.is_ended();
        for (id, pipe) in &self.pipes {
            assert!(is_legal(pipe, is_ended), "{id}: {pipe:?}");
        }
        for node in self.nodes.iter().filter(|node| !node.is_crashed) {
            let session = &node.session;
            assert_eq!(session.unsettled(), 0);
            assert!(self.pipes.keys().all(|id| session.facts(*id).is_none()), "not forgotten");
            assert_eq!(node.budget.committed(), (0, node.reserved), "memory is given back");
            assert!(!session.has_message() && session.poll_timeout().is_none());
            assert_eq!(session.stream_slots(0), self.config.opens);
        }
        if !is_ended && !self.is_closing {
            let size = self.config.opens.min(8) as usize;
            for node in 0..2 {
                let ids = self.open(node, &vec![Opener::Writer; size]);
                assert!(ids.is_ok(), "everything is settled, yet {ids:?}");
            }
        }
    }
}

/// The table of what the two ends may see of one pipe (P6).
fn is_legal(pipe: &Record, is_ended: bool) -> bool {
    use ReadOutcome as R;
    use WriteOutcome as W;
    let aborted = |cause| pipe.end == Some(EndKind::Aborted(cause));
    match (pipe.write_outcome, pipe.read_outcome) {
        (Some(W::Complete { .. }), Some(R::Eof)) => true,
        // It took everything and left before it heard that this was all.
        (Some(W::Complete { .. }), Some(R::Closed(_))) => pipe.reader_left,
        // What the programs of a node that crashed saw, nobody knows.
        (Some(W::Complete { .. }), None) => is_ended,
        (Some(W::Complete { .. }), Some(_)) => false,
        (Some(W::Broken { cause, .. }), Some(R::Closed(why))) => cause == why && pipe.reader_left,
        (Some(W::Failed { cause: Cause::Corrupt, .. }), Some(R::Corrupt)) => pipe.is_corrupt,
        (Some(W::Failed { cause, .. }), Some(R::Aborted(why))) if !is_ended => {
            cause == why && aborted(cause)
        }
        // Refused before the reader of the other node had an end, or the writer.
        (Some(W::Refused(_)), None) => pipe.opener == pipe.writer && !pipe.is_accepted,
        (None, Some(R::Refused(_) | R::Closed(_))) if !is_ended => {
            pipe.opener != pipe.writer && !pipe.is_accepted
        }
        // It was aborted with nothing in it, or its open was never seen.
        (Some(W::Failed { cause, .. }), None) if !is_ended => {
            aborted(cause) || cause == Cause::Stopping
        }
        (None, Some(R::Aborted(Cause::Stopping))) => true,
        _ => is_ended,
    }
}
