//! `qpipe fifo`: a FIFO on disk that is one end of a pipe.
//!
//! ```text
//! programs --FIFO--> [this process] --kernel pipe, handed over--> this host's node     with --write
//! programs <--FIFO-- [this process] <--kernel pipe, handed over-- this host's node     with --read
//! ```
//!
//! The pipe is opened first. Only when somebody is at its far end does this process open the FIFO:
//! until then a program's open of it waits, as fifo(7) has it. A life of the pipe is over when both
//! the pipe and the FIFO's programs are through; then the next one begins.

mod carry;
mod file;
mod settling;

use std::{io, os::fd::OwnedFd, time::Duration};

use anyhow::{Context, bail};
use qpipe::{Cause, End};
use qpipe_node::local;

use self::{
    carry::{Carried, Over, Plug},
    file::{Fifo, Opening, Place},
    settling::Settling,
};
use crate::{
    WrongUsage,
    args::FifoArgs,
    ending::Label,
    exit::Exit,
    host::ThisHost,
    pump::Stopped,
    say, sentence,
    shared::{self, Ended, Handed, Opened, Told, Wishes},
    signals::Signals,
    target,
};

/// How long the next life waits after one that failed: at first, and at most.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Has a FIFO on disk, and carries what goes through it.
///
/// # Errors
/// There can be no FIFO at the path, or the pipe could not be opened when that was tried first.
pub(crate) async fn run(args: FifoArgs) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen()?;
    let this = ThisHost::load()?;
    let end = if args.write { End::Write } else { End::Read };
    let target = target::Place::parse(Some(&args.target), end, &this.config)?;
    let Some(through) = shared::named(&target) else {
        bail!(WrongUsage("`qpipe fifo` takes a pipe that has a name: HOST/NAME or NAME".into()));
    };
    let fifo = Fifo::at(&args.path, args.mode, args.keep)?;
    let (wishes, label, place) = ((&args).into(), target.label(), fifo.place());
    let (held, settling, was_opened) = (None, None, false);
    let mut lives =
        Lives { this: &this, wishes, through, label, place, end, held, settling, was_opened };
    let mut pause = PAUSE_FIRST;
    loop {
        let exit = match lives.live(&mut signals).await {
            Ok(Lived::Over(exit)) => exit,
            Ok(Lived::Stopped(exit)) => return Ok(exit),
            Err(error) if args.once || !lives.was_opened => return Err(error),
            Err(error) => {
                say::error(sentence(&error));
                Exit::Failure
            }
        };
        if args.once {
            return Ok(exit);
        }
        let rest = if exit == Exit::Failure { pause } else { Duration::ZERO };
        pause = if exit == Exit::Failure { PAUSE_MAX.min(pause * 2) } else { PAUSE_FIRST };
        tokio::select! {
            () = lives.settle(rest) => {}
            signal = signals.next() => return Ok(Exit::Signal(signal)),
        }
    }
}

/// One life of the pipe after the other.
struct Lives<'a> {
    this: &'a ThisHost,
    wishes: Wishes,
    through: local::Place,
    label: Label,
    place: &'a Place,
    /// The end that the FIFO's programs have.
    end: End,
    /// The FIFO, where a program has written for the next life already.
    held: Option<OwnedFd>,
    /// Those who read in the last life are to see its end first.
    settling: Option<Settling>,
    /// Whether the pipe ever was open.
    was_opened: bool,
}

/// What became of one life.
enum Lived {
    /// It is over.
    Over(Exit),
    /// There is to be none after it.
    Stopped(Exit),
}

/// What became of a pipe that was open.
type Outcome = anyhow::Result<Ended>;

impl Lives<'_> {
    /// # Errors
    /// The pipe could not be opened, or the node is lost while nobody is at its other end.
    async fn live(&mut self, signals: &mut Signals) -> anyhow::Result<Lived> {
        let label = self.label.clone();
        let (theirs, ours, plug) = kernel_pipe(self.end).context("no kernel pipe to be had")?;
        let handed = Handed::Descriptor(self.end, theirs);
        let through = self.through.clone();
        let opened =
            shared::open(None, self.this, self.wishes, handed, through, &label, signals).await?;
        let mut pipe = match opened {
            Opened::Carried(pipe) => pipe,
            Opened::Ended(ended) => {
                let is_last = !self.was_opened || is_by_signal(&ended);
                let exit = shared::tell(ended, &label, false);
                return Ok(if is_last { Lived::Stopped(exit) } else { Lived::Over(exit) });
            }
        };
        self.was_opened = true;
        let over_before = tokio::select! {
            joined = pipe.joined() => joined?,
            signal = signals.next() => return Ok(interrupted(pipe, signal).await),
        };
        let mut life = Life { pipe, outcome: over_before.map(Ok), label: &label };
        let fifo = match self.open(&mut life, signals).await {
            Began::With(fifo) => fifo,
            Began::Over => return Ok(life.conclude(None)),
            Began::Failed(error) => return Ok(life.fail(self.place, error).await),
            Began::Interrupted(signal) => return Ok(interrupted(life.pipe, signal).await),
        };
        let (from, to) = match self.end {
            End::Read => (ours, fifo),
            End::Duplex | End::Write => (fifo, ours),
        };
        if let Some(plug) = plug {
            plug.pull(&from).context("cannot read a kernel pipe")?;
        }
        self.carry(life, from, to, signals).await
    }

    /// Opens the FIFO when a program does, unless the pipe is over before.
    async fn open(&mut self, life: &mut Life<'_>, signals: &mut Signals) -> Began {
        if life.is_in_vain() {
            return Began::Over;
        }
        if let Some(fifo) = self.held.take() {
            return Began::With(fifo);
        }
        let mut opening = match Opening::start(self.place, self.end) {
            Ok(opening) => opening,
            Err(error) => return Began::Failed(error),
        };
        loop {
            tokio::select! {
                opened = opening.opened() => return match opened {
                    Ok(fifo) => Began::With(fifo),
                    Err(error) => Began::Failed(error),
                },
                told = life.pipe.next(), if life.outcome.is_none() => {
                    life.hear(told);
                    if life.is_in_vain() {
                        match opening.abandon().await {
                            Ok(held) => self.held = held,
                            Err(error) => return Began::Failed(error),
                        }
                        return Began::Over;
                    }
                }
                signal = signals.next() => return Began::Interrupted(signal),
            }
        }
    }

    /// Moves the bytes, until the pipe is over and the FIFO's programs are through.
    async fn carry(
        &mut self,
        mut life: Life<'_>,
        from: OwnedFd,
        to: OwnedFd,
        signals: &mut Signals,
    ) -> anyhow::Result<Lived> {
        let mut carrying = carry::start(from, to).context("no thread to be had")?;
        let mut over = None;
        while over.is_none() || life.outcome.is_none() {
            tokio::select! {
                carried = &mut carrying, if over.is_none() => {
                    let Carried { over: how, from, to } = carried.context("a thread is lost")?;
                    match how {
                        Ok(how) => self.close(how, from, to),
                        // The pipe is told before it could take the closing for the end.
                        Err(error) => return Ok(life.fail(self.place, error).await),
                    }
                    over = how.ok();
                }
                told = life.pipe.next(), if life.outcome.is_none() => match told {
                    // This process's own end to write is closed only where everything was carried.
                    Ok(Told::Eof) => life.pipe.confirm().await,
                    told => life.hear(told),
                },
                signal = signals.next() => return Ok(interrupted(life.pipe, signal).await),
            }
        }
        Ok(life.conclude(over))
    }

    /// Tells the programs at both sides by closing. The FIFO is closed first: who opens it from now
    /// on waits for the next life.
    fn close(&mut self, over: Over, from: OwnedFd, to: OwnedFd) {
        match (self.end, over) {
            (End::Read, Over::Eof) => self.settling = Settling::begin(self.place).ok(),
            (End::Write, Over::Eof) => {
                self.held = self.place.leave(from);
                return;
            }
            // Whoever has it open is to notice.
            (_, Over::Broken) | (End::Duplex, _) => {}
        }
        drop((from, to));
    }

    /// Waits for `rest`, and until those who read from the FIFO have had the chance to see the end.
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn settle(&mut self, rest: Duration) {
        if let Some(settling) = &mut self.settling {
            settling.settled().await;
        }
        self.settling = None;
        tokio::time::sleep(rest).await;
    }
}

/// How the FIFO's part of a life began.
enum Began {
    /// A program has opened it.
    With(OwnedFd),
    /// The pipe was over before.
    Over,
    Failed(io::Error),
    Interrupted(i32),
}

/// A pipe that is open.
struct Life<'a> {
    pipe: shared::Carried<'a>,
    /// How it ended, once it has.
    outcome: Option<Outcome>,
    label: &'a Label,
}

impl Life<'_> {
    fn hear(&mut self, told: anyhow::Result<Told>) {
        match told {
            Ok(Told::Eof) => {}
            Ok(Told::Ended(ended)) => self.outcome = Some(Ok(ended)),
            Err(error) => self.outcome = Some(Err(error)),
        }
    }

    /// Whether nobody need open the FIFO for it any more. What came up to its end is to be read.
    fn is_in_vain(&self) -> bool {
        match &self.outcome {
            None => false,
            Some(Ok(ended)) => !matches!(&ended.received, Some(Ok(_))),
            Some(Err(_)) => true,
        }
    }

    /// Says how it ended.
    fn conclude(self, over: Option<Over>) -> Lived {
        let is_read = matches!(&self.outcome, Some(Ok(Ended { received: Some(_), .. })));
        let exit = match self.outcome {
            Some(Ok(ended)) => shared::tell(ended, self.label, false),
            Some(Err(error)) => {
                say::error(sentence(&error));
                Exit::Failure
            }
            None => Exit::Failure,
        };
        Lived::Over(match (exit, over) {
            // All came, but some of it did not find its reader.
            (Exit::Success, Some(Over::Broken)) if is_read => Exit::broken_pipe(),
            (exit, _) => exit,
        })
    }

    /// The FIFO cannot be used.
    async fn fail(mut self, place: &Place, error: io::Error) -> Lived {
        if self.outcome.is_none() {
            self.pipe.abort(Cause::Io).await;
        }
        say::error(format_args!("cannot use {}: {error}", place.path().display()));
        Lived::Stopped(Exit::Failure)
    }
}

async fn interrupted(mut pipe: shared::Carried<'_>, signal: i32) -> Lived {
    pipe.abort(Cause::Interrupted).await;
    Lived::Stopped(Exit::Signal(signal))
}

/// The end of a kernel pipe that goes to the node, and the one that stays here. What comes out of a
/// pipe finds no room before a program reads: nothing counts as consumed that nobody asked for.
fn kernel_pipe(end: End) -> io::Result<(OwnedFd, OwnedFd, Option<Plug>)> {
    let (reader, writer) = io::pipe()?;
    Ok(match end {
        End::Read => {
            let plug = Plug::put(&writer)?;
            (writer.into(), reader.into(), Some(plug))
        }
        End::Duplex | End::Write => (reader.into(), writer.into(), None),
    })
}

fn is_by_signal(ended: &Ended) -> bool {
    [&ended.sent, &ended.received].iter().any(|it| matches!(it, Some(Err(Stopped::Signal(_)))))
}
