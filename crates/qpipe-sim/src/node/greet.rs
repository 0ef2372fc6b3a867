//! How connections begin and end: Hello, and what becomes of a session without its connection.

use std::time::Duration;

use qpipe_proto::budget::Share;
use qpipe_proto::contact::Contact;
use qpipe_proto::hello::{Instance, Judgement, Limits, SessionId, agree, judge};
use qpipe_proto::limits::VERSION;
use qpipe_proto::wire::{ControlMessage, Hello};
use qpipe_proto::{Cause, Session};
use quinn_proto::ConnectionError;

use super::carrier::{CarrierId, Stage};
use super::sides::Shared;
use super::{Node, codes};
use crate::clock::{self, Time};
use crate::planted::Planted;

/// A connection that a newer one has replaced is closed so much later, or four round trips.
const SUPERSEDES_AFTER: Duration = Duration::from_secs(1);

impl Node {
    /// A handshake is complete: the dialling side says Hello, or drops what is not wanted any more.
    pub(super) fn is_connected(&mut self, id: CarrierId, now: Time) {
        let Some(carrier) = self.carriers.get_mut(&id) else { return };
        let Some(SessionId(session)) = carrier.session.filter(|_| carrier.is_dialled) else {
            return;
        };
        let (limits, resumed) = if self.first.as_ref().is_some_and(|f| f.carrier == Some(id)) {
            // What was offered once stays: the peer may have heard it.
            let offered = self.first.as_mut().and_then(|first| first.offered.take());
            let Some((share, limits)) = offered.or_else(|| self.reserve()) else {
                return self.drop_dial(id, now);
            };
            if let Some(first) = &mut self.first
                && let Some(carrier) = self.carriers.get_mut(&id)
            {
                first.offered = Some((share, limits));
                first.epoch = Contact::FIRST_EPOCH.max(first.epoch + 2);
                carrier.epoch = first.epoch;
            }
            (limits, false)
        } else {
            let shared = self.sessions.get_mut(&session).filter(|shared| !shared.is_over);
            let epoch = shared.and_then(|shared| shared.contact.dialled(clock::instant(now)));
            let (Some(epoch), Some(shared)) = (epoch, self.sessions.get(&session)) else {
                carrier.close(codes::DONE, now);
                return self.note("drops a dial unused", id as u64, 0);
            };
            carrier.epoch = epoch;
            (shared.session.limits(), true)
        };
        let hello = self.hello(id, SessionId(session), limits, resumed);
        if let Some(carrier) = self.carriers.get_mut(&id) {
            carrier.open_control();
            carrier.say(&ControlMessage::Hello(hello));
        }
    }

    fn hello(&mut self, id: CarrierId, session: SessionId, limits: Limits, resumed: bool) -> Hello {
        let epoch = self.carriers.get(&id).map_or(0, |carrier| carrier.epoch);
        self.note("says Hello", id as u64, epoch);
        Hello {
            versions: vec![VERSION],
            session,
            epoch,
            instance: self.instance,
            resumed,
            limits,
            ticket: None,
            enrolled: None,
            software: String::new(),
        }
    }

    /// The peer's Hello was heard.
    pub(super) fn hear_hello(&mut self, id: CarrierId, hello: &Hello, now: Time) {
        if agree(hello).is_err() {
            return self.fail_carrier(id, "no version in common", now);
        }
        let Some(carrier) = self.carriers.get(&id) else { return };
        if carrier.is_dialled {
            return self.hear_answer(id, hello, now);
        }
        let SessionId(session) = hello.session;
        let shared = self.sessions.get(&session).filter(|shared| !shared.is_over);
        // A session whose first Hello this side said is known, though its answer has not come.
        let begun = self.first.as_ref().filter(|first| first.session == session && first.epoch > 0);
        let begun = begun.map(|first| first.epoch);
        let highest = shared.map(|shared| shared.contact.highest()).or(begun);
        let judgement = match judge(hello, self.peer, highest) {
            Judgement::Gone if self.plan.planted == Some(Planted::CreatesOnResume) => {
                Judgement::New
            }
            Judgement::Superseded if self.plan.planted == Some(Planted::AdoptsLower) => {
                Judgement::Resumes
            }
            judgement => judgement,
        };
        self.note("judges Hello", id as u64, judgement as u64);
        match judgement {
            // Closed here, the connection would lose the answer: the dialler closes it.
            Judgement::Gone => self.answer(id, hello, hello.limits, false),
            Judgement::Superseded => self.turn_away(id, codes::SUPERSEDED, now),
            Judgement::Twin => self.turn_away(id, codes::TWIN, now),
            Judgement::New => {
                self.meet(hello.instance, now);
                let Some((share, ours)) = self.reserve() else {
                    return self.turn_away(id, codes::BUSY, now);
                };
                self.begin(id, hello, 1 - self.plan.host, share, ours, now);
                self.answer(id, hello, ours, false);
            }
            Judgement::Resumes if begun.is_some() => {
                self.meet(hello.instance, now);
                let first = self.first.take();
                let dial = first.as_ref().and_then(|first| first.carrier);
                if let Some((share, ours)) = first.and_then(|first| first.offered) {
                    self.begin(id, hello, self.plan.host, share, ours, now);
                    self.answer(id, hello, ours, true);
                }
                if let Some(dial) = dial {
                    self.close_carrier(dial, now);
                }
            }
            Judgement::Resumes => {
                self.meet(hello.instance, now);
                self.adopt(id, hello, now);
                let ours = self.sessions.get(&session).map(|shared| shared.session.limits());
                if let Some(ours) = ours {
                    self.answer(id, hello, ours, true);
                }
            }
        }
    }

    fn answer(&mut self, id: CarrierId, hello: &Hello, ours: Limits, resumed: bool) {
        if let Some(carrier) = self.carriers.get_mut(&id) {
            carrier.epoch = hello.epoch;
        }
        let answer = self.hello(id, hello.session, ours, resumed);
        if let Some(carrier) = self.carriers.get_mut(&id) {
            carrier.say(&ControlMessage::Hello(answer));
        }
    }

    fn hear_answer(&mut self, id: CarrierId, hello: &Hello, now: Time) {
        let Some(carrier) = self.carriers.get(&id) else { return };
        if carrier.session != Some(hello.session) || carrier.epoch != hello.epoch {
            return self.fail_carrier(id, "the answer is to another Hello", now);
        }
        self.meet(hello.instance, now);
        if let Some(mut first) = self.first.take_if(|first| first.carrier == Some(id)) {
            if let Some((share, ours)) = first.offered.take() {
                self.begin(id, hello, self.plan.host, share, ours, now);
            }
            return;
        }
        let SessionId(session) = hello.session;
        let shared = self.sessions.get(&session).filter(|shared| !shared.is_over);
        if let Some(shared) = shared.filter(|_| !hello.resumed) {
            let is_restarted = shared.peer != hello.instance;
            let cause = if is_restarted { Cause::Restarted } else { Cause::Gone };
            return self.end_session(session, cause, codes::GONE, now);
        }
        match shared.map(|shared| shared.session.epoch()) {
            Some(epoch) if epoch < hello.epoch => {
                let older = self.adopt(id, hello, now);
                let rtt = self.carriers.get(&id).map_or(SUPERSEDES_AFTER, |c| c.quic.rtt());
                // The side that dialled the newest closes the older.
                for older in older {
                    if let Some(carrier) = self.carriers.get_mut(&older) {
                        carrier.close_at = Some(now + SUPERSEDES_AFTER.max(4 * rtt));
                    }
                }
            }
            _ => self.turn_away(id, codes::SUPERSEDED, now),
        }
    }

    /// A run of the peer's node was heard of: sessions with an older one are over.
    fn meet(&mut self, instance: Instance, now: Time) {
        if self.peer.is_none_or(|known| instance.ends(known)) {
            self.peer = Some(instance);
        }
        let ended = self.sessions.iter().filter(|(_, shared)| instance.ends(shared.peer));
        for id in ended.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.note("ends a session of an older run", 0, 0);
            self.end_session(id, Cause::Restarted, codes::GONE, now);
        }
    }

    fn begin(
        &mut self,
        id: CarrierId,
        hello: &Hello,
        dialled_by: usize,
        share: Share,
        ours: Limits,
        now: Time,
    ) {
        let Some(carrier) = self.carriers.get_mut(&id) else { return };
        carrier.session = Some(hello.session);
        carrier.epoch = hello.epoch;
        carrier.stage = Stage::Bound;
        let rtt = carrier.quic.rtt();
        let side = self.side(dialled_by);
        let theirs = hello.limits.clamped();
        let account = self.account.clone();
        let reserved = share.bytes();
        let session = Session::new(side, hello.epoch, ours, theirs, account, share);
        let contact = Contact::new(side, self.plan.patience, hello.epoch, rtt, clock::instant(now));
        let mut shared =
            Shared::new(hello.session, session, contact, dialled_by, hello.instance, id);
        shared.reserved = reserved;
        self.sessions.insert(hello.session.0, shared);
        self.note("session begins", id as u64, dialled_by as u64);
    }

    /// Adopts another connection; returns those that carried the session until now.
    fn adopt(&mut self, id: CarrierId, hello: &Hello, now: Time) -> Vec<CarrierId> {
        let Some(carrier) = self.carriers.get_mut(&id) else { return Vec::new() };
        carrier.session = Some(hello.session);
        carrier.epoch = hello.epoch;
        carrier.stage = Stage::Bound;
        let rtt = carrier.quic.rtt();
        let at = clock::instant(now);
        let Some(shared) = self.sessions.get_mut(&hello.session.0) else { return Vec::new() };
        if hello.epoch <= shared.session.epoch() {
            self.break_promise("P2", "an older connection is adopted after a newer one".to_owned());
            return Vec::new();
        }
        shared.session.connected(hello.epoch, hello.limits.clamped(), at);
        shared.contact.adopted(hello.epoch, rtt, at);
        shared.adopted = Some(id);
        shared.is_resumed = true;
        if self.plan.planted == Some(Planted::ForgetsToRetell) {
            while shared.session.poll_message().is_some() {}
        }
        shared.changed.extend(shared.writers.keys().copied());
        shared.settle();
        self.note("adopts", id as u64, hello.epoch);
        let older = self.carriers.iter().filter(|(other, carrier)| {
            **other != id && carrier.session == Some(hello.session) && carrier.stage == Stage::Bound
        });
        older.map(|(id, _)| *id).collect()
    }

    fn turn_away(&mut self, id: CarrierId, code: u32, now: Time) {
        if let Some(carrier) = self.carriers.get_mut(&id) {
            carrier.close(code, now);
        }
    }

    /// QUIC says that a connection is over.
    pub(super) fn is_lost(&mut self, id: CarrierId, reason: &ConnectionError, now: Time) {
        let code = match reason {
            ConnectionError::ApplicationClosed(close) => close.error_code.into_inner() as u32,
            _ => u32::MAX,
        };
        self.note("connection lost", id as u64, code.into());
        let Some(carrier) = self.carriers.get_mut(&id) else { return };
        let before = std::mem::replace(&mut carrier.stage, Stage::Over);
        let Some(SessionId(session)) = carrier.session else { return };
        if code == codes::PROTOCOL && before == Stage::Bound {
            self.break_promise(
                "P15",
                "an honest peer says that the protocol was broken".to_owned(),
            );
        }
        if matches!(before, Stage::Greeting { .. }) {
            return self.greeting_failed(id, now);
        }
        if before == Stage::Bound && matches!(code, codes::GONE | codes::PROTOCOL) {
            return self.end_session(session, Cause::Gone, codes::DONE, now);
        }
        self.detach(id, session, now);
    }

    /// The session's connection is gone, if that was its.
    fn detach(&mut self, id: CarrierId, session: [u8; 16], now: Time) {
        let Some(shared) = self.sessions.get_mut(&session) else { return };
        if shared.adopted == Some(id) {
            shared.adopted = None;
            shared.session.disconnected();
            shared.contact.lost(clock::instant(now));
            if self.plan.planted == Some(Planted::EofOnLost) {
                shared.end_readers();
            }
        }
        if shared.session.is_finished() {
            self.end_session(session, Cause::Lost, codes::DONE, now);
        }
    }

    /// Both sides said Bye: this one, which said it first, closes.
    pub(super) fn is_finished(&mut self, session: [u8; 16], now: Time) {
        self.note("both said Bye", 0, 0);
        self.end_session(session, Cause::Lost, codes::DONE, now);
    }

    /// Ends a session and closes what carries it.
    pub(super) fn end_session(&mut self, id: [u8; 16], cause: Cause, code: u32, now: Time) {
        if let Some(shared) = self.sessions.get_mut(&id) {
            shared.lose(cause);
        }
        for carrier in self.carriers.values_mut() {
            if carrier.session == Some(SessionId(id)) {
                carrier.close(code, now);
            }
        }
    }

    /// The peer broke the rules of a connection.
    pub(super) fn fail_carrier(&mut self, id: CarrierId, what: &'static str, now: Time) {
        self.note(what, id as u64, 0);
        let Some(carrier) = self.carriers.get_mut(&id) else { return };
        let before = carrier.stage;
        carrier.close(codes::PROTOCOL, now);
        match (before, carrier.session) {
            (Stage::Bound, Some(SessionId(session))) => {
                self.break_promise("P15", format!("an honest peer broke the protocol: {what}"));
                self.end_session(session, Cause::Protocol, codes::PROTOCOL, now);
            }
            _ => self.greeting_failed(id, now),
        }
    }

    fn close_carrier(&mut self, id: CarrierId, now: Time) {
        if let Some(carrier) = self.carriers.get_mut(&id) {
            carrier.close(codes::DONE, now);
        }
    }
}
