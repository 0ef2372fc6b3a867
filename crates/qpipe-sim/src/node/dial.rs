//! Dials: the one that begins a session, and those for its further connections.

use std::net::SocketAddr;
use std::time::Duration;

use qpipe_proto::budget::Share;
use qpipe_proto::hello::{Limits, SessionId};
use qpipe_proto::limits::{INITIAL_LIMIT_BYTES, OPENS_UNANSWERED_MAX};

use super::carrier::{Carrier, CarrierId};
use super::{Node, codes};
use crate::clock::{self, Time};

/// Handshake and Hello of one connection take at most so long.
pub(super) const GREETING_MAX: Duration = Duration::from_secs(10);

/// The fewest opens that a session is allowed.
const OPENS_MIN: u64 = 4;

/// The pause before a first dial is tried again, and the most that doubling makes of it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const FIRST_PAUSE_MAX: Duration = Duration::from_secs(4);

/// The dial that is to begin a session.
#[derive(Debug)]
pub(super) struct FirstDial {
    /// The session's id. It stays: the answer to an earlier Hello may have been lost.
    pub(super) session: [u8; 16],
    /// Of the last Hello that was said.
    pub(super) epoch: u64,
    /// The connection that runs.
    pub(super) carrier: Option<CarrierId>,
    /// When to try next, if none runs.
    next: Time,
    failures: u32,
    /// What this side allows, once Hello was said.
    pub(super) offered: Option<(Share, Limits)>,
}

impl FirstDial {
    /// When to dial, if no dial runs.
    pub(super) fn due(&self) -> Option<Time> {
        self.carrier.is_none().then_some(self.next)
    }
}

impl Node {
    /// Sees to it that there is a session, some time.
    pub(super) fn want_session(&mut self, now: Time) {
        if self.first.is_none() {
            let mut session = [0; 16];
            session[..8].copy_from_slice(&self.rng.bits().to_le_bytes());
            session[8..].copy_from_slice(&self.rng.bits().to_le_bytes());
            let (carrier, next, failures, offered) = (None, now, 0, None);
            let epoch = 0;
            self.first = Some(FirstDial { session, epoch, carrier, next, failures, offered });
        }
    }

    /// Dials for the first session, if that is due.
    pub(super) fn first_dial_is_due(&mut self, now: Time) {
        let Some(first) = self.first.as_ref().filter(|f| f.due().is_some_and(|due| due <= now))
        else {
            return;
        };
        let carrier = self.dial(first.session, self.peer_address, now);
        let Some(first) = &mut self.first else { return };
        first.carrier = carrier;
        if carrier.is_none() {
            self.first_dial_failed(now);
        }
    }

    /// Dials another connection of a session.
    pub(super) fn dial_again(&mut self, id: [u8; 16], now: Time) {
        let Some(shared) = self.sessions.get_mut(&id) else { return };
        let known = shared.adopted.and_then(|carrier| self.carriers.get(&carrier));
        let address = self.peer_address.or(known.map(|carrier| carrier.quic.remote_address()));
        if self.dial(id, address, now).is_none() {
            self.dial_again_failed(id, now);
        }
    }

    fn dial(&mut self, id: [u8; 16], to: Option<SocketAddr>, now: Time) -> Option<CarrierId> {
        let (config, probe) = self.configs.client(&mut self.rng);
        let dialled = self.endpoint.connect(clock::instant(now), config, to?, "qpipe");
        let (handle, quic) = dialled.ok()?;
        let mut carrier = Carrier::new(quic, probe, true, now + GREETING_MAX);
        carrier.session = Some(SessionId(id));
        self.carriers.insert(handle.0, carrier);
        self.note("dials", handle.0 as u64, 0);
        Some(handle.0)
    }

    pub(super) fn first_dial_failed(&mut self, now: Time) {
        let jitter = self.rng.within(50, 100) as u32;
        if let Some(first) = &mut self.first {
            let pause = (FIRST_PAUSE * (1 << first.failures.min(8))).min(FIRST_PAUSE_MAX);
            first.failures += 1;
            first.next = now + pause * jitter / 100;
            first.carrier = None;
        }
    }

    fn dial_again_failed(&mut self, id: [u8; 16], now: Time) {
        let jitter = self.rng.within(0, 1000) as f64 / 1000.0;
        if let Some(shared) = self.sessions.get_mut(&id) {
            shared.contact.dial_failed(jitter, clock::instant(now));
        }
    }

    /// A connection in its greeting is given up.
    pub(super) fn drop_dial(&mut self, id: CarrierId, now: Time) {
        let Some(carrier) = self.carriers.get_mut(&id) else { return };
        carrier.close(codes::DONE, now);
        self.greeting_failed(id, now);
    }

    pub(super) fn greeting_failed(&mut self, id: CarrierId, now: Time) {
        let Some(carrier) = self.carriers.get(&id).filter(|carrier| carrier.is_dialled) else {
            return;
        };
        if self.first.as_ref().is_some_and(|first| first.carrier == Some(id)) {
            self.first_dial_failed(now);
        } else if let Some(SessionId(session)) = carrier.session {
            self.dial_again_failed(session, now);
        }
    }

    /// Memory for what the peer may send before its opens are answered.
    pub(super) fn reserve(&self) -> Option<(Share, Limits)> {
        let mut opens = OPENS_UNANSWERED_MAX;
        while opens >= OPENS_MIN {
            if let Some(share) = self.account.reserve_if_ample(opens * INITIAL_LIMIT_BYTES) {
                let limits = Limits { initial_limit: INITIAL_LIMIT_BYTES, opens_allowed: opens };
                return Some((share, limits));
            }
            opens /= 2;
        }
        None
    }
}
