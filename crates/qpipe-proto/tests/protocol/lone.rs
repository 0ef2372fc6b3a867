//! One session, and a peer that the test plays.

use std::time::Instant;

use qpipe_proto::cause::Cause;
use qpipe_proto::fact::{
    Answer, Attempt, Closed, ClosedKind, End, EndKind, Facts, Group, Held, Limit, Open, OpenTarget,
    Opener, Priority,
};
use qpipe_proto::hello::Limits;
use qpipe_proto::session::{Event, OpenOptions, SessionError};
use qpipe_proto::wire::{ControlMessage, FactsMessage};
use qpipe_proto::{Budget, PipeId, ReadOutcome, Session, Side, WriteOutcome};

use crate::drawn::id;
use crate::world::START;

pub(crate) const INITIAL: u64 = 4096;
pub(crate) const OPENS: u64 = 8;
/// The connection that the session begins on.
pub(crate) const EPOCH: u64 = 3;
pub(crate) const FIRST: Attempt = Attempt { epoch: EPOCH, number: 0 };
pub(crate) const LIMITS: Limits = Limits { initial_limit: INITIAL, opens_allowed: OPENS };

/// One session, and a peer that the test plays. The peer dialled: its opens are even.
pub(crate) struct Lone {
    pub(crate) session: Session,
    pub(crate) budget: Budget,
    pub(crate) now: Instant,
    /// What the session said about pipes, and which ids it settled.
    pub(crate) said: Vec<(PipeId, Facts)>,
    pub(crate) settled: Vec<(PipeId, PipeId)>,
    pub(crate) contradictions: Vec<PipeId>,
    pub(crate) offers: Vec<Vec<PipeId>>,
}

impl Lone {
    pub(crate) fn new() -> Lone {
        let budget = Budget::new(1 << 20);
        let account = budget.account();
        let reserve = account.reserve(OPENS * INITIAL).unwrap();
        Lone {
            session: Session::new(Side::Acceptor, EPOCH, LIMITS, LIMITS, account, reserve),
            budget,
            now: *START,
            said: Vec::new(),
            settled: Vec::new(),
            contradictions: Vec::new(),
            offers: Vec::new(),
        }
    }

    pub(crate) fn hears(&mut self, id: PipeId, facts: Facts) -> Result<(), SessionError> {
        let message = FactsMessage { pipes: vec![(id, facts)], ..FactsMessage::default() };
        let heard =
            self.session.handle(ControlMessage::Facts(message), self.session.epoch(), self.now);
        self.look();
        heard
    }

    pub(crate) fn hears_settled(&mut self, first: PipeId, last: PipeId) {
        let message = FactsMessage { settled: vec![(first, last)], ..FactsMessage::default() };
        self.session
            .handle(ControlMessage::Facts(message), self.session.epoch(), self.now)
            .unwrap();
        self.look();
    }

    pub(crate) fn look(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Contradiction(id, _) => self.contradictions.push(id),
                Event::Incoming(offer) => {
                    self.offers.push(offer.iter().map(|(id, _)| *id).collect());
                }
                _ => {}
            }
        }
        while let Some(message) = self.session.poll_message() {
            let ControlMessage::Facts(facts) = message else { continue };
            self.said.extend(facts.pipes);
            self.settled.extend(facts.settled);
        }
    }

    /// A pipe that the peer opened and that was accepted.
    pub(crate) fn theirs(&mut self, index: u64, opener: Opener) -> PipeId {
        self.hears(id(2 * index), opened(2 * index, opener)).unwrap();
        self.session.accept(&[id(2 * index)], self.now).unwrap();
        self.look();
        id(2 * index)
    }

    /// A pipe that this side opened and the peer accepted.
    pub(crate) fn ours(&mut self, opener: Opener) -> PipeId {
        let target = OpenTarget::Name("a".parse().unwrap());
        let id =
            self.session.open(&target, OpenOptions::default(), &[opener], self.now).unwrap()[0];
        self.hears(id, answer(Answer::Accepted)).unwrap();
        id
    }

    /// What was said of the pipe, all of it together.
    pub(crate) fn said_of(&self, id: PipeId) -> Facts {
        let mut all = Facts::default();
        for (_, facts) in self.said.iter().filter(|(other, _)| *other == id) {
            all.merge(facts).unwrap();
        }
        all
    }

    /// That the pipe ended at both ends with the cause `protocol`, and was logged.
    pub(crate) fn assert_broken(&self, id: PipeId) {
        assert!(self.contradictions.contains(&id), "not logged");
        let failed = matches!(
            self.session.write_outcome(id),
            Some(WriteOutcome::Failed { cause: Cause::Protocol, .. })
        );
        let aborted = self.session.read_outcome(id) == Some(ReadOutcome::Aborted(Cause::Protocol));
        assert!(failed || aborted, "{:?}", self.session.facts(id));
        let said = self.said_of(id);
        let end = said.end.map(|end| end.kind) == Some(EndKind::Aborted(Cause::Protocol));
        let kind = ClosedKind::Broken(Cause::Protocol);
        let closed = said.closed.map(|closed| closed.kind) == Some(kind);
        // A peer that itself said it is over is told that this was heard.
        let refused = said.answer == Some(Answer::Refused(Cause::Protocol));
        let settled = self.settled.contains(&(id, id));
        assert!(end || closed || refused || settled, "the peer is not told: {said:?}");
    }
}

pub(crate) fn opened(number: u64, opener: Opener) -> Facts {
    grouped(opener, Group { first: id(number), size: 1 })
}

pub(crate) fn grouped(opener: Opener, group: Group) -> Facts {
    let target = OpenTarget::Name("a".parse().unwrap());
    Facts {
        open: Some(Open { opener, target, no_wait: false, priority: Priority::Normal, group }),
        ..Facts::default()
    }
}

pub(crate) fn answer(answer: Answer) -> Facts {
    Facts { answer: Some(answer), ..Facts::default() }
}

pub(crate) fn consumed(consumed: u64) -> Facts {
    Facts { consumed, ..Facts::default() }
}

pub(crate) fn ended(kind: EndKind, length: u64) -> Facts {
    Facts { end: Some(End { kind, length, checksum: 7 }), ..Facts::default() }
}

pub(crate) fn closed(kind: ClosedKind, consumed: u64) -> Facts {
    Facts { closed: Some(Closed { kind, consumed }), ..Facts::default() }
}

pub(crate) fn limit(number: u64, offset: u64) -> Facts {
    Facts { limit: Some(Limit { number, offset }), ..Facts::default() }
}

pub(crate) fn returned(number: u64, offset: u64) -> Facts {
    Facts { returned: Some(Limit { number, offset }), ..Facts::default() }
}

pub(crate) fn held(epoch: u64, number: u64, offset: u64) -> Facts {
    let attempt = Attempt { epoch, number };
    Facts { held: Some(Held { attempt, offset }), ..Facts::default() }
}
