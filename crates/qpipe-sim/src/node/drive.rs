//! What a node does when something arrived or is due: all there is to do, and no more.

use std::net::SocketAddr;
use std::time::Instant;

use qpipe_proto::contact::{ContactAction, GiveUp};
use qpipe_proto::hello::SessionId;
use qpipe_proto::wire::ControlMessage;
use qpipe_proto::{Cause, PipeId};
use quinn_proto::{Dir, Event, StreamEvent};

use super::carrier::{CarrierId, Stage};
use super::dial::FirstDial;
use super::sides::WriterSide;
use super::{Node, codes};
use crate::clock::{self, Time};
use crate::planted::Planted;

/// Rounds of work that one input may cause; more is spinning.
const ROUNDS_MAX: usize = 10_000;

impl Node {
    /// When [`Node::drive`] wants to be called, if nothing happens before.
    pub fn poll_timeout(&mut self) -> Option<Time> {
        let mut earliest: Option<Time> = self.first.as_ref().and_then(FirstDial::due);
        let mut take = |at: Option<Time>| {
            earliest = match (earliest, at) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        };
        for carrier in self.carriers.values_mut() {
            take(carrier.quic.poll_timeout().map(clock::time));
            take(carrier.probe_at);
            take(carrier.close_at.filter(|_| carrier.stage == Stage::Bound));
            if let Stage::Greeting { until } = carrier.stage {
                take(Some(until));
            }
        }
        for shared in self.sessions.values().filter(|shared| !shared.is_over) {
            take(shared.session.poll_timeout().map(clock::time));
            let is_wanted = self.plan.keeps_session || shared.session.unsettled() > 0;
            take(shared.contact.poll_timeout(is_wanted).map(clock::time));
        }
        earliest
    }

    /// What [`Node::drive`] waits for, for people.
    pub fn explain(&mut self) -> String {
        let (held, reserved) = (self.committed(), self.reserved());
        let first = self.first.as_ref().and_then(FirstDial::due);
        let mut text = format!("holds {held} bytes, reserved {reserved}; first dial {first:?}");
        for (id, carrier) in &mut self.carriers {
            let quic = carrier.quic.poll_timeout().map(clock::time);
            text += &format!(
                "; connection {id} of epoch {} {:?}: quic {quic:?}, probe {:?}",
                carrier.epoch, carrier.stage, carrier.probe_at
            );
        }
        for shared in self.sessions.values() {
            let unsettled = shared.session.unsettled();
            let session = shared.session.poll_timeout().map(clock::time);
            let contact = shared.contact.poll_timeout(unsettled > 0).map(clock::time);
            text += &format!(
                "; {:?} of {unsettled} pipes, over {}, adopted {:?}: session {session:?}, \
                 contact {contact:?}",
                shared.id, shared.is_over, shared.adopted
            );
        }
        text
    }

    /// Does all there is to do; returns what is to be sent.
    pub fn drive(&mut self, now: Time) -> Vec<(SocketAddr, Vec<u8>)> {
        let at = clock::instant(now);
        if self.plan.keeps_session && !self.is_closing {
            let mut shared = self.sessions.values();
            if shared.all(|shared| shared.is_over) {
                self.want_session(now);
            }
        }
        self.first_dial_is_due(now);
        for round in 0.. {
            if round == ROUNDS_MAX {
                self.break_promise("P12", "it spins".to_owned());
                break;
            }
            let mut is_busy = false;
            for id in self.carriers.keys().copied().collect::<Vec<_>>() {
                is_busy |= self.drive_carrier(id, at, now);
            }
            for id in self.sessions.keys().copied().collect::<Vec<_>>() {
                is_busy |= self.drive_session(id, now);
            }
            for id in self.carriers.keys().copied().collect::<Vec<_>>() {
                self.transmit(id, at, now);
            }
            self.sessions.retain(|_, shared| !shared.is_forgettable());
            if !is_busy {
                break;
            }
        }
        std::mem::take(&mut self.outbox)
    }

    /// Whether all that is written here was ended and handed to QUIC, and nothing is read here.
    fn has_handed_over(&self, id: [u8; 16]) -> bool {
        self.sessions.get(&id).is_some_and(|shared| {
            let is_ended = |(id, side): (&PipeId, &WriterSide)| {
                let has_end = shared.session.facts(*id).is_some_and(|facts| facts.end.is_some());
                has_end && side.stream.is_none()
            };
            let has_written = shared.writers.values().any(|side| side.written > 0);
            has_written && shared.writers.iter().all(is_ended) && shared.readers.is_empty()
        })
    }

    fn drive_carrier(&mut self, id: CarrierId, at: Instant, now: Time) -> bool {
        let Some(carrier) = self.carriers.get_mut(&id) else { return false };
        let mut is_busy = false;
        if carrier.quic.poll_timeout().is_some_and(|due| due <= at) {
            carrier.quic.handle_timeout(at);
            is_busy = true;
        }
        let mut is_drained = false;
        while let Some(event) = carrier.quic.poll_endpoint_events() {
            is_busy = true;
            is_drained |= event.is_drained();
            let handle = quinn_proto::ConnectionHandle(id);
            if let Some(answer) = self.endpoint.handle_event(handle, event) {
                carrier.quic.handle_event(answer);
            }
        }
        while let Some(carrier) = self.carriers.get_mut(&id)
            && let Some(event) = carrier.quic.poll()
        {
            is_busy = true;
            self.hear_quic(id, event, now);
        }
        if is_drained {
            self.carriers.remove(&id);
            self.note("connection drained", id as u64, 0);
            return true;
        }
        self.hear_control(id, now);
        let Some(carrier) = self.carriers.get_mut(&id) else { return true };
        if carrier.close_at.is_some_and(|at| at <= now) {
            carrier.close_at = None;
            carrier.close(codes::SUPERSEDED, now);
        }
        if let Stage::Greeting { until } = carrier.stage
            && until <= now
        {
            self.drop_dial(id, now);
            is_busy = true;
        }
        is_busy
    }

    fn hear_quic(&mut self, id: CarrierId, event: Event, now: Time) {
        match event {
            Event::Connected => self.is_connected(id, now),
            Event::ConnectionLost { reason } => self.is_lost(id, &reason, now),
            Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                if let Some(carrier) = self.carriers.get_mut(&id) {
                    carrier.accept_control();
                }
            }
            Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => self.accept_streams(id, now),
            Event::Stream(StreamEvent::Readable { id: stream }) => {
                self.read_stream(id, stream, now)
            }
            Event::Stream(StreamEvent::Stopped { id: stream, error_code }) => {
                self.is_stopped(id, stream, error_code.into_inner() as u32);
            }
            Event::Stream(StreamEvent::Writable { .. } | StreamEvent::Available { .. }) => {
                self.may_write(id);
            }
            Event::Stream(StreamEvent::Finished { .. })
            | Event::HandshakeDataReady
            | Event::DatagramReceived
            | Event::DatagramsUnblocked => {}
        }
    }

    fn hear_control(&mut self, id: CarrierId, now: Time) {
        while let Some(carrier) = self.carriers.get_mut(&id)
            && carrier.stage != Stage::Over
        {
            match carrier.hear() {
                Ok(None) => break,
                Ok(Some(ControlMessage::Hello(hello))) if carrier.stage != Stage::Bound => {
                    self.hear_hello(id, &hello, now);
                }
                Ok(Some(message)) => self.hear_message(id, message, now),
                Err(what) => self.fail_carrier(id, what, now),
            }
        }
    }

    fn hear_message(&mut self, id: CarrierId, message: ControlMessage, now: Time) {
        let Some(carrier) = self.carriers.get(&id) else { return };
        let (epoch, session) = (carrier.epoch, carrier.session);
        let shared = session.and_then(|SessionId(session)| self.sessions.get_mut(&session));
        let Some(shared) = shared.filter(|_| carrier.stage == Stage::Bound) else {
            return self.fail_carrier(id, "a message before Hello", now);
        };
        let heard = shared.session.handle(message, epoch, clock::instant(now));
        shared.settle();
        if let Err(error) = heard {
            self.break_promise("P15", format!("an honest peer broke the session: {error}"));
            self.fail_carrier(id, "the protocol was broken", now);
        }
    }

    fn drive_session(&mut self, id: [u8; 16], now: Time) -> bool {
        let at = clock::instant(now);
        let Some(shared) = self.sessions.get_mut(&id) else { return false };
        if shared.is_over {
            return false;
        }
        if let Some(carrier) = shared.adopted.and_then(|id| self.carriers.get_mut(&id)) {
            if carrier.has_heard() {
                shared.contact.heard(at);
            }
            shared.rtt = carrier.quic.rtt();
        }
        if shared.session.poll_timeout().is_some_and(|due| due <= at) {
            shared.session.handle_timeout(at);
        }
        shared.settle();
        if shared.is_finished {
            self.is_finished(id, now);
            return true;
        }
        let mut is_busy = false;
        while let Some(shared) = self.sessions.get_mut(&id)
            && let is_wanted = (self.plan.keeps_session || shared.session.unsettled() > 0)
            && let Some(action) = shared.contact.poll(is_wanted, at)
        {
            is_busy = true;
            self.act(id, action, now);
        }
        self.carry(id, now);
        self.tell(id);
        if self.plan.planted == Some(Planted::ClosesEarly) && self.has_handed_over(id) {
            self.end_session(id, Cause::Lost, codes::DONE, now);
        }
        is_busy
    }

    fn act(&mut self, id: [u8; 16], action: ContactAction, now: Time) {
        match action {
            ContactAction::Dial => self.dial_again(id, now),
            ContactAction::GiveUp(why) => {
                let why = match why {
                    GiveUp::Idle => 0,
                    GiveUp::Refused => 1,
                    GiveUp::Silence => 2,
                };
                self.note("gives up", why, 0);
                self.gave_up = true;
                self.end_session(id, Cause::Unheard, codes::GONE, now);
            }
            ContactAction::Back { .. } => self.note("is back", 0, 0),
            ContactAction::Notice { .. } => self.note("notices silence", 0, 0),
        }
    }

    /// Says what the session has to say on its adopted connection.
    fn tell(&mut self, id: [u8; 16]) {
        let Some(shared) = self.sessions.get_mut(&id) else { return };
        let Some(carrier) = shared.adopted.and_then(|id| self.carriers.get_mut(&id)) else {
            return;
        };
        while let Some(mut message) = shared.session.poll_message() {
            if let ControlMessage::Facts(facts) = &mut message {
                match self.plan.planted {
                    Some(Planted::ForgetsHeld) => {
                        facts.pipes.iter_mut().for_each(|(_, facts)| facts.held = None);
                    }
                    Some(Planted::ForgetsSettled) => facts.settled.clear(),
                    _ => {}
                }
            }
            carrier.say(&message);
        }
        carrier.push_control();
        // A stream that does not say which pipe it carries makes no room for another.
        let begun = carrier.inbound.values().filter(|stream| stream.pipe.is_some()).count();
        carrier.open_slots(shared.session.stream_slots(begun as u64));
    }

    fn transmit(&mut self, id: CarrierId, at: Instant, now: Time) {
        let Some(carrier) = self.carriers.get_mut(&id) else { return };
        carrier.probe(now);
        let mut packet = Vec::new();
        while let Some(transmit) = carrier.quic.poll_transmit(at, 1, &mut packet) {
            self.outbox.push((transmit.destination, std::mem::take(&mut packet)));
        }
    }
}
