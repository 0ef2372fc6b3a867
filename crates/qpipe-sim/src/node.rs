//! One host's node: a QUIC endpoint, its connections, and the sessions that they carry.
//!
//! It plays the part of the product's library over quinn, with the same protocol core and the same
//! rules (docs/protocol.md), and without its tasks: every call does what there is to do and returns.
//! What it wants to say is gathered in its outbox.

mod assembler;
mod carrier;
mod dial;
mod drive;
mod greet;
mod programs;
mod sides;
mod streams;
mod tls;
pub(crate) mod transport;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use qpipe_proto::budget::{Account, Budget};
use qpipe_proto::contact::Patience;
use qpipe_proto::hello::Instance;
use qpipe_proto::{Cause, Side};
use quinn_proto::{DatagramEvent, Endpoint};

use crate::clock::{self, Time};
use crate::planted::Planted;
use crate::rng::Rng;
use carrier::{Carrier, CarrierId, Stage};
use dial::FirstDial;
use sides::Shared;
use transport::Configs;

pub use programs::{End, OpenFailure};

/// What a node is made of.
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// The run's seed.
    pub seed: u64,
    /// Which host.
    pub host: usize,
    /// Its memory for pipes, in bytes.
    pub memory: u64,
    /// How long it waits for its peer before doing what.
    pub patience: Patience,
    /// Whether it always has a session: its peer cannot dial it.
    pub keeps_session: bool,
    /// A bug to have.
    pub planted: Option<Planted>,
}

/// Something that happened at a node, for the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it was.
    pub what: &'static str,
    /// Two numbers that say more.
    pub numbers: (u64, u64),
}

/// A host's node.
pub struct Node {
    plan: NodePlan,
    endpoint: Endpoint,
    configs: Configs,
    carriers: BTreeMap<CarrierId, Carrier>,
    sessions: BTreeMap<[u8; 16], Shared>,
    first: Option<FirstDial>,
    rng: Rng,
    instance: Instance,
    /// The newest run of the peer's node that was heard of.
    peer: Option<Instance>,
    budget: Budget,
    account: Account,
    /// Where the peer is, as a name would say.
    peer_address: Option<SocketAddr>,
    outbox: Vec<(SocketAddr, Vec<u8>)>,
    notes: Vec<Note>,
    failures: Vec<(&'static str, String)>,
    /// It gave a session up since this was last asked.
    gave_up: bool,
    /// It begins no more sessions.
    is_closing: bool,
}

/// The codes of CONNECTION_CLOSE (docs/protocol.md, "Closing").
mod codes {
    pub(super) const DONE: u32 = 0;
    pub(super) const PROTOCOL: u32 = 1;
    pub(super) const BUSY: u32 = 5;
    pub(super) const GONE: u32 = 6;
    pub(super) const SUPERSEDED: u32 = 7;
    pub(super) const TWIN: u32 = 8;
    /// STOP_SENDING: the reader left; and: this stream is not wanted.
    pub(super) const STOP_BROKEN: u32 = 1;
    pub(super) const STOP_CUT: u32 = 2;
}

impl Node {
    /// The `start`-th life of a host's node.
    pub fn new(plan: NodePlan, start: u64) -> Node {
        let mut rng = Rng::new(plan.seed ^ start << 32, if plan.host == 0 { "A" } else { "B" });
        let config = transport::endpoint(plan.seed, plan.host, start);
        let configs = Configs::new(plan.host);
        let (server, _) = configs.server();
        let budget = Budget::new(plan.memory);
        let account = budget.account();
        let instance = Instance { start, random: rng.bits() };
        Node {
            endpoint: Endpoint::new(Arc::new(config), Some(server), true, None),
            configs,
            carriers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            first: None,
            rng,
            instance,
            peer: None,
            budget,
            account,
            peer_address: None,
            outbox: Vec::new(),
            notes: Vec::new(),
            failures: Vec::new(),
            gave_up: false,
            is_closing: false,
            plan,
        }
    }

    /// Where the peer is to be dialled; `None`: nobody knows.
    pub fn set_peer_address(&mut self, address: Option<SocketAddr>) {
        self.peer_address = address;
    }

    /// A datagram arrived.
    pub fn datagram(&mut self, from: SocketAddr, bytes: &[u8], now: Time) {
        let at = clock::instant(now);
        let mut response = Vec::new();
        match self.endpoint.handle(at, from, None, None, BytesMut::from(bytes), &mut response) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(carrier) = self.carriers.get_mut(&handle.0) {
                    carrier.quic.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                let (config, probe) = self.configs.server();
                match self.endpoint.accept(incoming, at, &mut response, Some(config)) {
                    Ok((handle, quic)) => {
                        let until = now + dial::GREETING_MAX;
                        let carrier = Carrier::new(quic, probe, false, until);
                        self.carriers.insert(handle.0, carrier);
                        self.note("connection comes", handle.0 as u64, 0);
                    }
                    Err(error) => {
                        if let Some(transmit) = error.response {
                            self.outbox
                                .push((transmit.destination, response[..transmit.size].into()));
                        }
                    }
                }
            }
            Some(DatagramEvent::Response(transmit)) => {
                self.outbox.push((transmit.destination, response[..transmit.size].into()));
            }
            None => {}
        }
    }

    /// The peer's host says that nothing listens where this node sends (ICMP port unreachable).
    pub fn unreachable(&mut self, now: Time) {
        for shared in self.sessions.values_mut() {
            shared.contact.refused(clock::instant(now));
        }
    }

    /// This host's address changed, and it knows.
    pub fn network_changed(&mut self, now: Time) {
        for carrier in self.carriers.values_mut().filter(|carrier| carrier.is_dialled) {
            carrier.quic.local_address_changed();
        }
        for shared in self.sessions.values_mut() {
            shared.contact.network_changed(clock::instant(now));
        }
    }

    /// Dials the peer, as a node that was started anew does where it had sessions.
    pub fn greet(&mut self, now: Time) {
        self.want_session(now);
    }

    /// What happened since this was last asked: for the trace, and as broken promises.
    pub fn take_notes(&mut self) -> (Vec<Note>, Vec<(&'static str, String)>) {
        for shared in self.sessions.values_mut() {
            for what in shared.contradictions.drain(..) {
                let what = format!("a contradiction between honest nodes: {what}");
                self.failures.push(("P15", what));
            }
        }
        (std::mem::take(&mut self.notes), std::mem::take(&mut self.failures))
    }

    /// Whether a session was given up since this was last asked.
    pub fn take_gave_up(&mut self) -> bool {
        std::mem::take(&mut self.gave_up)
    }

    /// What it holds of its memory for pipes.
    pub fn committed(&self) -> u64 {
        let (floors, pool) = self.budget.committed();
        floors + pool
    }

    /// What of that is reserved for opens that may come, by the sessions that are alive.
    pub fn reserved(&self) -> u64 {
        let alive = self.sessions.values().filter(|shared| !shared.is_over);
        alive.map(|shared| shared.reserved).sum()
    }

    /// Pipes that are not settled, sessions, connections that are not over.
    pub fn counts(&self) -> (usize, usize, usize) {
        let unsettled = self.sessions.values().map(|shared| shared.session.unsettled()).sum();
        let sessions = self.sessions.len() + usize::from(self.first.is_some());
        let alive = self.carriers.values().filter(|carrier| carrier.stage != Stage::Over);
        (unsettled, sessions, alive.count())
    }

    /// Ends its sessions gracefully.
    pub fn close(&mut self, now: Time) {
        // A dial that runs may have begun a session at the peer: that is to end by Bye as well.
        self.first.take_if(|first| first.due().is_some());
        self.is_closing = true;
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            let Some(shared) = self.sessions.get_mut(&id) else { continue };
            shared.session.close();
            if shared.adopted.is_none() && shared.session.unsettled() == 0 {
                // There is nothing to say goodbye to.
                self.end_session(id, Cause::Stopping, codes::GONE, now);
            }
        }
    }

    fn break_promise(&mut self, promise: &'static str, what: String) {
        self.failures.push((promise, what));
    }

    fn note(&mut self, what: &'static str, a: u64, b: u64) {
        self.notes.push(Note { what, numbers: (a, b) });
    }

    /// Which side of a session this node is.
    fn side(&self, dialled_by: usize) -> Side {
        if dialled_by == self.plan.host { Side::Dialler } else { Side::Acceptor }
    }
}
