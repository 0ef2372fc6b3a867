//! Named pipes: who waits at which name.
//!
//! A name has a queue of incarnations. An incarnation is one writer and one reader: whoever comes
//! first waits, and when both are there the relay joins them. It is closed to writers when its
//! writer has ended it; a later writer begins the next incarnation. Nothing is appended to a pipe
//! that was ended (FIFOs behave so as well: the readers have seen EOF).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qpipe::{Cause, PipeName, ReaderWatch};
use tokio::sync::oneshot;

use crate::join::{Client, From, Leg, join};

/// Incarnations that may wait at one name.
pub const INCARNATIONS_PER_NAME_MAX: usize = 64;

/// Names in use at once.
pub const NAMES_MAX: usize = 65_536;

/// What is opened at a name: ends of one direction, or both at once. A duplex pipe and a pipe of one
/// direction do not meet, though they have the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Shape {
    /// The opener writes and reads: its partner does as well.
    Duplex,
    /// The opener reads.
    Read,
    /// The opener writes.
    Write,
}

/// The named pipes of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    pipes: HashMap<PipeName, VecDeque<Incarnation>>,
    duplexes: HashMap<PipeName, VecDeque<Incarnation>>,
    next: u64,
}

/// One life of a name.
#[derive(Debug)]
struct Incarnation {
    number: u64,
    state: Life,
    /// Tells whether its writer has ended it. None of a duplex pipe, and while there is no writer.
    writer: Option<Writer>,
}

#[derive(Debug)]
enum Life {
    /// One side is there; its task takes the other one's leg.
    Waiting { shape: Shape, meet: oneshot::Sender<Leg> },
    /// Both are joined.
    Joined,
}

/// Who writes.
#[derive(Debug)]
enum Writer {
    Local(Arc<Client>),
    Peer(ReaderWatch),
}

/// What is known of a name in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameStatus {
    pub(crate) name: PipeName,
    pub(crate) is_duplex: bool,
    /// Incarnations that are joined, and those in which one side waits: with a writer, with a reader.
    pub(crate) joined: usize,
    pub(crate) writers_waiting: usize,
    pub(crate) readers_waiting: usize,
}

impl Names {
    /// Whether an open can be accepted now.
    ///
    /// # Errors
    /// The cause with which to refuse it.
    pub(crate) fn check(&self, name: &PipeName, shape: Shape, no_wait: bool) -> Result<(), Cause> {
        let inner = self.lock();
        let queue = inner.queue(name, shape);
        if inner.partner(name, shape).is_some() {
            return Ok(());
        }
        if no_wait {
            return Err(Cause::NoPartner);
        }
        if queue.is_none() && inner.pipes.len() + inner.duplexes.len() >= NAMES_MAX {
            return Err(Cause::Busy);
        }
        let Some(last) = queue.and_then(VecDeque::back) else { return Ok(()) };
        if queue.is_some_and(|queue| queue.len() >= INCARNATIONS_PER_NAME_MAX) {
            return Err(Cause::Busy);
        }
        if last.is_closed_to(shape) { Ok(()) } else { Err(Cause::Taken) }
    }

    /// Puts an open that was checked in its place: joins it to whoever waits, or lets it wait.
    pub(crate) fn enter(&self, name: &PipeName, shape: Shape, mut leg: Leg) {
        let writer = Writer::of(shape, &leg);
        let mut inner = self.lock();
        while let Some(partner) = inner.partner(name, shape) {
            let queue = inner.queue_mut(name, shape);
            let Some(at) = queue.iter().position(|i| i.number == partner) else { break };
            let incarnation = &mut queue[at];
            let Life::Waiting { meet, .. } =
                std::mem::replace(&mut incarnation.state, Life::Joined)
            else {
                break;
            };
            match meet.send(leg) {
                Ok(()) => {
                    incarnation.writer = incarnation.writer.take().or(writer);
                    return;
                }
                // It has just left, and its task is about to take it out.
                Err(back) => leg = back,
            }
        }
        let (meet, partner) = oneshot::channel();
        let number = inner.begin(name, shape, meet, writer);
        drop(inner);
        let (names, name) = (self.clone(), name.clone());
        tokio::spawn(async move {
            let mut partner = partner;
            let came = tokio::select! {
                biased;
                came = &mut partner => came.ok(),
                () = leg.absent() => {
                    // Whoever comes from now on is given back.
                    partner.close();
                    partner.try_recv().ok()
                }
            };
            if let Some(other) = came {
                join(leg, other).await;
            }
            names.end(&name, shape, number);
        });
    }

    /// The names in use, in no order.
    pub(crate) fn list(&self) -> Vec<NameStatus> {
        let inner = self.lock();
        let duplexes = inner.duplexes.iter().map(|(name, queue)| (name, queue, true));
        let all = inner.pipes.iter().map(|(name, queue)| (name, queue, false)).chain(duplexes);
        all.map(|(name, queue, is_duplex)| {
            let waits = |wanted: Shape| {
                let waits = |i: &&Incarnation| {
                    matches!(i.state, Life::Waiting { shape, .. } if shape == wanted)
                };
                queue.iter().filter(waits).count()
            };
            let both = waits(Shape::Duplex);
            NameStatus {
                name: name.clone(),
                is_duplex,
                joined: queue.iter().filter(|i| matches!(i.state, Life::Joined)).count(),
                writers_waiting: waits(Shape::Write) + both,
                readers_waiting: waits(Shape::Read) + both,
            }
        })
        .collect()
    }

    /// Takes an incarnation out of its queue.
    fn end(&self, name: &PipeName, shape: Shape, number: u64) {
        let mut inner = self.lock();
        let table = inner.table_mut(shape);
        let Some(queue) = table.get_mut(name) else { return };
        queue.retain(|incarnation| incarnation.number != number);
        if queue.is_empty() {
            table.remove(name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The incarnation that waits for a partner of this shape.
    fn partner(&self, name: &PipeName, shape: Shape) -> Option<u64> {
        let wanted = shape.partner();
        let waiting = self.queue(name, shape)?.iter();
        let mut fitting = waiting.filter(|incarnation| match &incarnation.state {
            Life::Waiting { shape, .. } => *shape == wanted,
            Life::Joined => false,
        });
        fitting.next().map(|incarnation| incarnation.number)
    }

    fn begin(
        &mut self,
        name: &PipeName,
        shape: Shape,
        meet: oneshot::Sender<Leg>,
        writer: Option<Writer>,
    ) -> u64 {
        let number = self.next;
        self.next += 1;
        let state = Life::Waiting { shape, meet };
        self.queue_mut(name, shape).push_back(Incarnation { number, state, writer });
        number
    }

    fn queue(&self, name: &PipeName, shape: Shape) -> Option<&VecDeque<Incarnation>> {
        match shape {
            Shape::Duplex => self.duplexes.get(name),
            Shape::Read | Shape::Write => self.pipes.get(name),
        }
    }

    fn queue_mut(&mut self, name: &PipeName, shape: Shape) -> &mut VecDeque<Incarnation> {
        self.table_mut(shape).entry(name.clone()).or_default()
    }

    fn table_mut(&mut self, shape: Shape) -> &mut HashMap<PipeName, VecDeque<Incarnation>> {
        match shape {
            Shape::Duplex => &mut self.duplexes,
            Shape::Read | Shape::Write => &mut self.pipes,
        }
    }
}

impl Writer {
    /// The writer of an incarnation, if whoever opens in this shape is it.
    fn of(shape: Shape, leg: &Leg) -> Option<Writer> {
        match (shape, &leg.from, &leg.client) {
            (Shape::Write, Some(From::Peer(reader)), _) => Some(Writer::Peer(reader.watch())),
            (Shape::Write, Some(From::Local(_)), Some(client)) => {
                Some(Writer::Local(client.clone()))
            }
            _ => None,
        }
    }

    fn has_ended(&self) -> bool {
        match self {
            Writer::Local(client) => client.has_ended(),
            Writer::Peer(reader) => reader.is_ended(),
        }
    }
}

impl Incarnation {
    /// Whether somebody of this shape begins the next incarnation rather than being one too many.
    fn is_closed_to(&self, shape: Shape) -> bool {
        let has_ended = self.writer.as_ref().is_some_and(Writer::has_ended);
        match (&self.state, shape) {
            (Life::Waiting { shape: Shape::Write, .. }, Shape::Write) => has_ended,
            (Life::Joined, Shape::Write | Shape::Read) => has_ended,
            _ => false,
        }
    }
}

impl Shape {
    /// The shape of a group of opens with so many writing and reading openers, if it is one.
    pub(crate) fn of(shape: (usize, usize)) -> Option<Shape> {
        match shape {
            (1, 1) => Some(Shape::Duplex),
            (0, 1) => Some(Shape::Read),
            (1, 0) => Some(Shape::Write),
            _ => None,
        }
    }

    fn partner(self) -> Shape {
        match self {
            Shape::Duplex => Shape::Duplex,
            Shape::Read => Shape::Write,
            Shape::Write => Shape::Read,
        }
    }
}
