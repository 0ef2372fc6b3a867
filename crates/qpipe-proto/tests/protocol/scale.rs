//! Thousands of pipes in one session.

use std::time::Instant;

use qpipe_proto::PipeId;
use qpipe_proto::fact::{Facts, Group, Open, OpenTarget, Opener, Priority};
use qpipe_proto::hello::Limits;
use qpipe_proto::session::{Event, OpenError, OpenOptions, SessionError};
use qpipe_proto::wire::{ControlMessage, FactsMessage};
use qpipe_proto::{Budget, Cause, Session, Side};

use crate::drawn::id;
use crate::lone::EPOCH;
use crate::world::START;

const OPENS: u64 = 256;

/// Two sessions whose messages arrive at once, and whose opens are accepted at once.
struct Pair {
    sessions: [Session; 2],
    budgets: [Budget; 2],
    now: Instant,
}

impl Pair {
    fn new() -> Pair {
        let budgets = [(); 2].map(|()| Budget::new(256 << 20));
        let limits = Limits { initial_limit: 16 * 1024, opens_allowed: OPENS };
        let session = |side, budget: &Budget| {
            let account = budget.account();
            let reserve = account.reserve(OPENS * limits.initial_limit).unwrap();
            Session::new(side, EPOCH, limits, limits, account, reserve)
        };
        let sessions = [session(Side::Dialler, &budgets[0]), session(Side::Acceptor, &budgets[1])];
        Pair { sessions, budgets, now: *START }
    }

    fn open(&mut self) -> Result<PipeId, OpenError> {
        let target = OpenTarget::Name("a".parse().unwrap());
        let ids =
            self.sessions[0].open(&target, OpenOptions::default(), &[Opener::Writer], self.now);
        self.talk();
        ids.map(|ids| ids[0])
    }

    fn talk(&mut self) {
        let mut quiet = 0;
        while quiet < 4 {
            for from in 0..2 {
                quiet += 1;
                while let Some(event) = self.sessions[from].poll_event() {
                    if let Event::Incoming(offer) = event {
                        let ids: Vec<PipeId> = offer.iter().map(|(id, _)| *id).collect();
                        self.sessions[from].accept(&ids, self.now).unwrap();
                    }
                }
                while let Some(message) = self.sessions[from].poll_message() {
                    self.sessions[1 - from].handle(message, EPOCH, self.now).unwrap();
                    quiet = 0;
                }
            }
        }
    }

    fn end(&mut self, id: PipeId) {
        self.sessions[0].finish(id, 5);
        self.talk();
        self.sessions[1].verify(id, 5);
        self.sessions[1].take_eof(id);
        self.talk();
        (0..2).for_each(|node| self.sessions[node].release(id));
        self.talk();
    }
}

#[test]
fn ten_thousand_pipes_one_after_another() {
    let mut pair = Pair::new();
    for _ in 0..10_000 {
        let id = pair.open().unwrap();
        pair.end(id);
    }
    assert_eq!(pair.sessions[0].unsettled() + pair.sessions[1].unsettled(), 0);
    assert!(pair.budgets.iter().all(|budget| budget.committed().0 == 0));
}

#[test]
fn five_thousand_pipes_at_once() {
    let mut pair = Pair::new();
    let ids: Vec<PipeId> = (0..5_000).map(|_| pair.open().unwrap()).collect();
    assert_eq!(pair.sessions[1].unsettled(), 5_000);
    assert_eq!(pair.sessions[1].stream_slots(3), 5_000 + OPENS + 3);
    for id in ids.iter().step_by(2).chain(ids.iter().skip(1).step_by(2)) {
        pair.end(*id);
    }
    assert_eq!(pair.sessions[0].unsettled() + pair.sessions[1].unsettled(), 0);
    assert!(pair.budgets.iter().all(|budget| budget.committed().0 == 0));
}

#[test]
fn a_peer_that_never_settles_what_is_over_gets_no_more_opens_and_holds_no_memory() {
    let mut pair = Pair::new();
    let mut opened = 0;
    let mut told = OPENS;
    // The peer of session 1 is a hostile one: it opens, and answers nothing.
    loop {
        let open = Open {
            opener: Opener::Writer,
            target: OpenTarget::Name("a".parse().unwrap()),
            no_wait: false,
            priority: Priority::Normal,
            group: Group { first: id(2 * opened), size: 1 },
        };
        let facts = Facts { open: Some(open), ..Facts::default() };
        let message = FactsMessage { pipes: vec![(id(2 * opened), facts)], ..Default::default() };
        let heard = pair.sessions[1].handle(ControlMessage::Facts(message), EPOCH, pair.now);
        if heard.is_err() {
            assert_eq!((heard, opened), (Err(SessionError::Opens), told));
            break;
        }
        pair.sessions[1].accept(&[id(2 * opened)], pair.now).unwrap();
        pair.sessions[1].close_read(id(2 * opened), Cause::ReaderClosed);
        pair.sessions[1].release(id(2 * opened));
        while let Some(message) = pair.sessions[1].poll_message() {
            let ControlMessage::Facts(facts) = message else { continue };
            told = facts.opens_allowed.unwrap_or(told);
        }
        while pair.sessions[1].poll_event().is_some() {}
        opened += 1;
        assert!(opened <= OPENS, "what is over is not counted");
    }
    assert_eq!(opened, OPENS);
    assert_eq!(pair.budgets[1].committed().0, 0);
}

#[test]
fn settled_ranges_cost_what_they_settle_and_no_more() {
    let mut pair = Pair::new();
    let ids: Vec<PipeId> = (0..5_000).map(|_| pair.open().unwrap()).collect();
    // A thousand ranges over all ids there can be, a thousand times: without a bound that is
    // 5,000,000,000 looks at a pipe.
    pair.sessions[1].contradict(ids[0], qpipe_proto::fact::Contradiction("test"));
    let all = (id(0), id(PipeId::MAX - 1));
    for _ in 0..1_000 {
        let message = FactsMessage { settled: vec![all; 1_000], ..Default::default() };
        pair.sessions[1].handle(ControlMessage::Facts(message), EPOCH, pair.now).unwrap();
    }
    assert_eq!(pair.sessions[1].unsettled(), 0);
}
