//! Named pipes: who is at which name.
//!
//! A name has a queue of incarnations. An incarnation is one life of the pipe: it begins with its first
//! open, and lasts until its readers have heard the end, or the last of them has left. It takes any
//! number of writers until the last one has ended it, and any number of readers until one has come and
//! the writers have ended. A later writer begins the next incarnation: nothing is appended to a pipe
//! that was ended (FIFOs behave so as well: the readers have seen EOF).
//!
//! A duplex pipe is between two openers.

mod life;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qpipe::{Cause, PipeName, ReaderWatch};
use tokio::sync::Notify;

use crate::document::ReadError;
use crate::join::{Client, From, Hub, Leg};
use crate::kept::{Kept, KeptFile};

/// Incarnations that may wait at one name.
pub const INCARNATIONS_PER_NAME_MAX: usize = 64;

/// Writers and readers of one incarnation.
pub(crate) const LEGS_PER_NAME_MAX: usize = 1_024;

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
#[derive(Clone, Debug)]
pub(crate) struct Names {
    inner: Arc<Mutex<Inner>>,
    kept: Arc<KeptFile>,
}

#[derive(Debug, Default)]
struct Inner {
    pipes: HashMap<PipeName, VecDeque<Incarnation>>,
    duplexes: HashMap<PipeName, VecDeque<Incarnation>>,
    next: u64,
}

/// One life of a name. A task has its legs.
#[derive(Debug)]
struct Incarnation {
    number: u64,
    /// Those who have come and whom the task has not taken in yet.
    newcomers: Vec<(Shape, Leg)>,
    called: Arc<Notify>,
    /// Who ever wrote.
    writers: Vec<Writer>,
    /// Who is there, newcomers included.
    count: Count,
    /// Whether both sides have been there.
    is_joined: bool,
    /// Nobody comes any more: its writers have ended, or its readers have left.
    is_over: bool,
}

/// How many are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    writers: usize,
    readers: usize,
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
    /// Incarnations in which both sides are there.
    pub(crate) joined: usize,
    /// Who is there, with a partner or without.
    pub(crate) writers: usize,
    pub(crate) readers: usize,
}

impl Names {
    /// No name is in use; which of them are kept stands in the file `kept`.
    pub(crate) fn new(kept: PathBuf) -> Names {
        Names { inner: Arc::default(), kept: Arc::new(KeptFile::open(kept)) }
    }

    /// The names that are kept now.
    pub(crate) fn kept(&self) -> Arc<Kept> {
        self.kept.current()
    }

    /// What is wrong with the file that says which names are kept, if that was not told yet.
    pub(crate) fn take_broken(&self) -> Option<ReadError> {
        self.kept.take_broken()
    }

    /// Whether an open can be accepted now.
    ///
    /// # Errors
    /// The cause with which to refuse it.
    pub(crate) fn check(&self, name: &PipeName, shape: Shape, no_wait: bool) -> Result<(), Cause> {
        let inner = self.lock();
        let queue = inner.queue(name, shape);
        let open = queue.and_then(|queue| queue.iter().find(|life| life.takes(shape)));
        if no_wait && !open.is_some_and(|life| life.has_partner_for(shape)) {
            return Err(Cause::NoPartner);
        }
        let has_room = match (open, queue) {
            (Some(life), _) => life.count.writers + life.count.readers < LEGS_PER_NAME_MAX,
            (None, Some(queue)) => queue.len() < INCARNATIONS_PER_NAME_MAX,
            (None, None) => inner.pipes.len() + inner.duplexes.len() < NAMES_MAX,
        };
        if has_room { Ok(()) } else { Err(Cause::Busy) }
    }

    /// Puts an open that was checked in its place: with others, or first, to wait for them.
    pub(crate) fn enter(&self, name: &PipeName, shape: Shape, leg: Leg) {
        let capacity = self.kept().get(name).map(|kept| kept.capacity_bytes());
        let mut inner = self.lock();
        let number = inner.next;
        let queue = inner.queue_mut(name, shape);
        if let Some(life) = queue.iter_mut().find(|life| life.takes(shape)) {
            life.add(shape, leg);
            return;
        }
        let mut life = Incarnation::new(number);
        let called = life.called.clone();
        life.add(shape, leg);
        queue.push_back(life);
        inner.next += 1;
        drop(inner);
        // It was checked to be no more than a GiB.
        let capacity = capacity.and_then(|bytes| bytes.try_into().ok());
        let capacity = capacity.unwrap_or(Hub::CAPACITY_BYTES_DEFAULT);
        let at = At { names: self.clone(), name: name.clone(), number, called, capacity };
        tokio::spawn(async move {
            match shape {
                Shape::Duplex => life::duplex(&at).await,
                Shape::Read | Shape::Write => life::pipe(&at).await,
            }
            at.end(shape);
        });
    }

    /// The names in use, in no order.
    pub(crate) fn list(&self) -> Vec<NameStatus> {
        let inner = self.lock();
        let duplexes = inner.duplexes.iter().map(|(name, queue)| (name, queue, true));
        let all = inner.pipes.iter().map(|(name, queue)| (name, queue, false)).chain(duplexes);
        all.map(|(name, queue, is_duplex)| NameStatus {
            name: name.clone(),
            is_duplex,
            joined: queue.iter().filter(|life| life.is_joined).count(),
            writers: queue.iter().map(|life| life.count.writers).sum(),
            readers: queue.iter().map(|life| life.count.readers).sum(),
        })
        .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where an incarnation's task finds it.
struct At {
    names: Names,
    name: PipeName,
    number: u64,
    called: Arc<Notify>,
    /// What may wait in it, in bytes.
    capacity: usize,
}

impl At {
    /// Those who have come; waits until there are some.
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn newcomers(&self, shape: Shape) -> Vec<(Shape, Leg)> {
        loop {
            let come = self.with(shape, |life| std::mem::take(&mut life.newcomers));
            match come {
                Some(come) if come.is_empty() => self.called.notified().await,
                // It is in the queue until its task ends.
                come => return come.unwrap_or_default(),
            }
        }
    }

    /// Waits until somebody has come.
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn called(&self, shape: Shape) {
        while self.with(shape, |life| life.newcomers.is_empty()) == Some(true) {
            self.called.notified().await;
        }
    }

    /// From now on nobody comes any more, unless somebody just has: whether it is so.
    fn is_over(&self, shape: Shape) -> bool {
        let is_over = self.with(shape, |life| {
            life.is_over |= life.newcomers.is_empty();
            life.is_over
        });
        is_over.unwrap_or(true)
    }

    fn join(&self, shape: Shape) {
        self.with(shape, |life| life.is_joined = true);
    }

    /// Those who have come are the first of the next life.
    fn begin_anew(&self, shape: Shape) {
        self.with(shape, |life| {
            life.is_joined = false;
            life.writers = life.newcomers.iter().filter_map(|(_, leg)| Writer::of(leg)).collect();
        });
    }

    /// One who was there is not any more.
    fn leave(&self, shape: Shape) {
        self.with(shape, |life| match shape {
            Shape::Write => life.count.writers -= 1,
            Shape::Read => life.count.readers -= 1,
            Shape::Duplex => {
                life.count.writers -= 1;
                life.count.readers -= 1;
            }
        });
    }

    fn with<T>(&self, shape: Shape, look: impl FnOnce(&mut Incarnation) -> T) -> Option<T> {
        let mut inner = self.names.lock();
        let queue = inner.table_mut(shape).get_mut(&self.name)?;
        queue.iter_mut().find(|life| life.number == self.number).map(look)
    }

    /// Takes the incarnation out of its queue.
    fn end(&self, shape: Shape) {
        let mut inner = self.names.lock();
        let table = inner.table_mut(shape);
        let Some(queue) = table.get_mut(&self.name) else { return };
        queue.retain(|life| life.number != self.number);
        if queue.is_empty() {
            table.remove(&self.name);
        }
    }
}

impl Inner {
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
    /// The writer that a leg is, if it is one.
    fn of(leg: &Leg) -> Option<Writer> {
        match (&leg.from, &leg.client) {
            (Some(From::Peer(reader)), _) => Some(Writer::Peer(reader.watch())),
            (Some(From::Local(_)), Some(client)) => Some(Writer::Local(client.clone())),
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
    fn new(number: u64) -> Incarnation {
        Incarnation {
            number,
            newcomers: Vec::new(),
            called: Arc::default(),
            writers: Vec::new(),
            count: Count::default(),
            is_joined: false,
            is_over: false,
        }
    }

    fn add(&mut self, shape: Shape, leg: Leg) {
        if shape == Shape::Write {
            // One of them has not ended, or it would not take another.
            self.writers.retain(|writer| !writer.has_ended());
            self.writers.extend(Writer::of(&leg));
        }
        self.count.writers += usize::from(shape != Shape::Read);
        self.count.readers += usize::from(shape != Shape::Write);
        self.newcomers.push((shape, leg));
        self.called.notify_one();
    }

    /// Whether somebody of this shape has a place here, rather than in the next incarnation.
    fn takes(&self, shape: Shape) -> bool {
        let is_ended = !self.writers.is_empty() && self.writers.iter().all(Writer::has_ended);
        match shape {
            _ if self.is_over => false,
            Shape::Duplex => self.count.writers < 2,
            Shape::Write => !is_ended,
            Shape::Read => !(is_ended && self.is_joined),
        }
    }

    fn has_partner_for(&self, shape: Shape) -> bool {
        match shape {
            Shape::Duplex | Shape::Read => self.count.writers > 0,
            Shape::Write => self.count.readers > 0,
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
}
