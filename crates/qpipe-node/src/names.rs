//! Named pipes: who waits at which name.
//!
//! A name has a queue of incarnations. An incarnation is one writer and one reader: whoever comes
//! first waits, and when both are there the relay joins them. It is closed to writers when its
//! writer has ended it; a later writer begins the next incarnation. Nothing is appended to a pipe
//! that was ended (FIFOs behave so as well: the readers have seen EOF).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qpipe::{Cause, Ends, PipeName, PipeReader, PipeWriter, ReaderWatch};

use crate::relay::relay;

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
}

#[derive(Debug)]
enum Life {
    /// One side is there, with the ends that lead to it.
    Waiting { shape: Shape, ends: Box<Ends> },
    /// Both are joined; the watch tells whether the writer has ended it. None of a duplex pipe.
    Joined { writer: Option<ReaderWatch> },
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

    /// Puts an accepted open in its place: joins it to whoever waits, or lets it wait.
    pub(crate) fn enter(&self, name: &PipeName, shape: Shape, ends: Ends) {
        let mut inner = self.lock();
        let Some(partner) = inner.partner(name, shape) else {
            let number = inner.begin(name, shape, ends);
            drop(inner);
            return self.watch_waiting(name.clone(), shape, number);
        };
        let queue = inner.queue_mut(name, shape);
        let Some(incarnation) = queue.iter_mut().find(|i| i.number == partner) else { return };
        let writer = if shape == Shape::Write { ends.reader.as_ref() } else { None };
        let waiting = std::mem::replace(&mut incarnation.state, Life::Joined { writer: None });
        let Life::Waiting { ends: other, .. } = waiting else { return };
        let writer = writer.or(other.reader.as_ref()).map(PipeReader::watch);
        let writer = writer.filter(|_| shape != Shape::Duplex);
        incarnation.state = Life::Joined { writer };
        drop(inner);
        tokio::spawn(join(self.clone(), name.clone(), shape, partner, *other, ends));
    }

    /// Takes an incarnation out of its queue; with `only_waiting`, unless it is joined. Gives the
    /// ends of one that waited, to be dropped without the lock.
    fn end(&self, name: &PipeName, shape: Shape, number: u64, only_waiting: bool) -> Option<Ends> {
        let mut inner = self.lock();
        let queue = inner.table_mut(shape).get_mut(name)?;
        let at = queue.iter().position(|i| i.number == number)?;
        if only_waiting && matches!(queue[at].state, Life::Joined { .. }) {
            return None;
        }
        let ended = queue.remove(at);
        if queue.is_empty() {
            inner.table_mut(shape).remove(name);
        }
        match ended?.state {
            Life::Waiting { ends, .. } => Some(*ends),
            Life::Joined { .. } => None,
        }
    }

    /// Ends an incarnation whose only side leaves before anybody came.
    fn watch_waiting(&self, name: PipeName, shape: Shape, number: u64) {
        let (writer, reader) = {
            let inner = self.lock();
            let waiting = inner.queue(&name, shape).into_iter().flatten();
            let ends = waiting.filter(|i| i.number == number).find_map(|i| match &i.state {
                Life::Waiting { ends, .. } => Some(ends),
                Life::Joined { .. } => None,
            });
            let Some(ends) = ends else { return };
            (
                ends.writer.as_ref().map(PipeWriter::watch),
                ends.reader.as_ref().map(PipeReader::watch),
            )
        };
        let names = self.clone();
        tokio::spawn(async move {
            match (writer, reader) {
                (Some(writer), _) => drop(writer.over().await),
                // EOF is no reason to leave: what was written waits for a reader, as long as its
                // writer waits for that.
                (None, Some(reader)) => {
                    if reader.over().await.is_ok() {
                        reader.gone().await;
                    }
                }
                (None, None) => {}
            }
            drop(names.end(&name, shape, number, true));
        });
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
            Life::Joined { .. } => false,
        });
        fitting.next().map(|incarnation| incarnation.number)
    }

    fn begin(&mut self, name: &PipeName, shape: Shape, ends: Ends) -> u64 {
        let number = self.next;
        self.next += 1;
        let state = Life::Waiting { shape, ends: Box::new(ends) };
        self.queue_mut(name, shape).push_back(Incarnation { number, state });
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

impl Incarnation {
    /// Whether somebody of this shape begins the next incarnation rather than being one too many.
    fn is_closed_to(&self, shape: Shape) -> bool {
        match (&self.state, shape) {
            (Life::Waiting { shape: Shape::Write, ends }, Shape::Write) => {
                ends.reader.as_ref().is_none_or(|reader| reader.watch().is_ended())
            }
            (Life::Joined { writer: Some(writer) }, Shape::Write | Shape::Read) => {
                writer.is_ended()
            }
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

/// Joins two openers, and ends the incarnation when their pipes are over.
async fn join(names: Names, name: PipeName, shape: Shape, number: u64, one: Ends, other: Ends) {
    for ends in [&one, &other] {
        ends.writer.iter().for_each(|end| end.join());
        ends.reader.iter().for_each(|end| end.join());
    }
    let carry = |from: Option<PipeReader>, to: Option<PipeWriter>| async {
        if let (Some(from), Some(to)) = (from, to) {
            relay(from, to).await;
        }
    };
    tokio::join!(carry(one.reader, other.writer), carry(other.reader, one.writer));
    names.end(&name, shape, number, false);
}
