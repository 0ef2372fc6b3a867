//! What a link's lock protects: the session, and the bytes of its local ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use qpipe_proto::cause::Cause;
use qpipe_proto::contact::Contact;
use qpipe_proto::fact::{Attempt, Open, OpenTarget, Opener};
use qpipe_proto::session::{Event, OpenError, OpenOptions};
use qpipe_proto::{PipeId, PipeMap, Session};

use super::incoming::ReaderSide;
use super::outgoing::{WriterSide, is_stream_over};
use super::wire::Wire;
use crate::clock;
use crate::node::Place;
use crate::session::SessionEnd;

/// Everything behind a link's lock.
pub(crate) struct State {
    pub(crate) session: Session,
    pub(crate) contact: Contact,
    /// Its place in the node, until it is over.
    pub(super) place: Option<Place>,
    /// The connection that is adopted, while it lives.
    pub(crate) wire: Option<Arc<Wire>>,
    /// All that are read, the adopted one as well.
    pub(super) wires: Vec<Arc<Wire>>,
    /// Where the peer says that it can be reached.
    pub(crate) told_addresses: Vec<SocketAddr>,
    /// Whether the peer is to be told this side's addresses.
    pub(crate) owes_addresses: bool,
    pub(crate) writers: PipeMap<WriterSide>,
    pub(crate) readers: PipeMap<ReaderSide>,
    /// The connection's round trip, as of a moment ago.
    pub(crate) rtt: Duration,
    /// Where the peer was when there last was a connection.
    pub(crate) last_remote: Option<SocketAddr>,
    /// The network changed since the keeper last looked: what arrived until then proves nothing.
    pub(crate) has_moved: bool,
    /// Dials since a connection was last adopted.
    pub(crate) redials: u32,
    /// How often another connection has taken over.
    pub(crate) resumed: u32,
    /// Opens that wait to be allowed.
    pub(crate) waiting_opens: usize,
    /// How the session ends: its connections are being closed.
    pub(crate) ended: Option<SessionEnd>,
    /// It has ended: all that arrived was read.
    pub(crate) is_finished: bool,
    /// What the control stream's writer does.
    pub(crate) control: ControlWriter,
}

/// What the task that writes the control stream does, and so whether it has to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ControlWriter {
    /// It sleeps, until a time or until it is woken.
    Asleep(Option<Instant>),
    /// It is about to ask the session for messages and timeouts.
    Awake,
}

/// The few tasks that wait for one pipe.
#[derive(Default)]
pub(crate) struct Wakers(pub(super) Vec<Waker>);

/// What is to be done after the lock is released.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) has_message: bool,
    pub(crate) opens_allowed: bool,
    pub(crate) finished: bool,
    /// Write ends whose bytes need a task to carry them.
    pub(crate) carriers: Vec<PipeId>,
    pub(crate) wakers: Vec<Waker>,
    pub(crate) incoming: Vec<Vec<(PipeId, Open)>>,
}

impl Wakers {
    /// Wakes this task, too, at the next change.
    pub(crate) fn register(&mut self, cx: &Context<'_>) {
        if !self.0.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.0.push(cx.waker().clone());
        }
    }

    pub(super) fn wake(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

impl State {
    pub(crate) fn new(
        session: Session,
        contact: Contact,
        begun: Option<(Arc<Wire>, Place)>,
    ) -> State {
        let (wire, place) = begun.unzip();
        let rtt = wire.as_ref().map_or(Duration::ZERO, |wire| wire.conn.rtt());
        State {
            session,
            contact,
            place,
            wires: wire.iter().cloned().collect(),
            wire,
            told_addresses: Vec::new(),
            owes_addresses: true,
            writers: PipeMap::default(),
            readers: PipeMap::default(),
            rtt,
            last_remote: None,
            has_moved: false,
            redials: 0,
            resumed: 0,
            waiting_opens: 0,
            ended: None,
            is_finished: false,
            control: ControlWriter::Awake,
        }
    }

    /// How the session ended, once nothing more can come of it.
    pub(crate) fn final_end(&self) -> Option<SessionEnd> {
        self.ended.clone().filter(|_| self.is_finished)
    }

    /// Whether there are pipes, or some are to be opened: then it is not idle.
    pub(super) fn is_in_use(&self) -> bool {
        self.session.unsettled() > 0 || self.waiting_opens > 0
    }

    /// Opens a group of pipes, with the local sides of its ends.
    pub(crate) fn open(
        &mut self,
        target: &OpenTarget,
        options: OpenOptions,
        openers: &[Opener],
        now: Instant,
    ) -> Result<Vec<PipeId>, OpenError> {
        let ids = self.session.open(target, options, openers, now)?;
        for (id, opener) in ids.iter().zip(openers) {
            self.add_side(*id, *opener == Opener::Writer);
        }
        Ok(ids)
    }

    /// Makes the local side of a pipe, if there is none yet.
    pub(crate) fn add_side(&mut self, id: PipeId, writes: bool) {
        if writes {
            self.writers.entry(id).or_default();
        } else {
            self.readers.entry(id).or_default().is_held = true;
        }
    }

    /// Ends every unfinished pipe of this side for `cause`.
    pub(crate) fn abort_all(&mut self, cause: Cause) {
        let writers: Vec<PipeId> = self.writers.keys().copied().collect();
        let readers: Vec<PipeId> = self.readers.keys().copied().collect();
        writers.into_iter().for_each(|id| self.session.abort(id, cause));
        readers.into_iter().for_each(|id| self.session.close_read(id, cause));
    }

    /// Takes the session's events, and gathers what is to be done outside of the lock.
    pub(crate) fn settle(&mut self) -> Effects {
        let mut effects = Effects::default();
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Changed(id) => self.changed(id, &mut effects),
                Event::Contradiction(id, contradiction) => {
                    tracing::warn!(pipe = %id, %contradiction, "the peer broke the protocol");
                }
                Event::Finished => {
                    self.ended.get_or_insert(SessionEnd::Bye);
                    effects.finished = true;
                }
                Event::Incoming(members) => {
                    for (id, open) in &members {
                        self.add_side(*id, open.opener == Opener::Reader);
                    }
                    effects.incoming.push(members);
                }
                Event::OpensAllowed => effects.opens_allowed = true,
            }
        }
        let is_overslept = match (self.control, self.session.poll_timeout()) {
            (ControlWriter::Asleep(until), Some(at)) => until.is_none_or(|until| at < until),
            _ => false,
        };
        effects.has_message = self.has_message() || is_overslept;
        effects
    }

    /// Whether there is something to say to the peer, and a connection to say it on.
    pub(crate) fn has_message(&self) -> bool {
        self.session.has_message() || self.owes_addresses && self.session.is_connected()
    }

    fn changed(&mut self, id: PipeId, effects: &mut Effects) {
        let Effects { carriers, wakers, .. } = effects;
        if let Some(side) = self.writers.get_mut(&id) {
            wakers.append(&mut side.waiting.0);
            // Most changes are new Limits, which are nothing to the task that carries the bytes.
            let session = &self.session;
            let is_over = |watched: &mut (Attempt, Waker)| is_stream_over(session, id, watched.0);
            if let Some((_, carrier)) = side.watch.take_if(is_over) {
                wakers.push(carrier);
            }
            let is_ended = self.session.facts(id).is_some_and(|facts| facts.end.is_some());
            if is_ended {
                wakers.extend(side.carrier.take());
            }
            let is_carried = side.has_carrier;
            self.look_at_writer(id);
            if self.starts_carrier(id) {
                carriers.push(id);
            } else if is_ended && is_carried {
                self.session.goes_in_band(id, clock::now());
            }
        }
        if let Some(side) = self.readers.get_mut(&id) {
            if self.session.wants_checksum(id) {
                let checksum = side.hash.value();
                self.session.verify(id, checksum);
            }
            wakers.append(&mut side.waiting.0);
            if self.session.facts(id).is_none_or(|facts| facts.is_terminal()) {
                wakers.extend(side.carrier.take());
                if !side.is_held {
                    self.readers.remove(&id);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
