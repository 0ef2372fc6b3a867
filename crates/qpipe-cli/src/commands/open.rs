//! `qpipe open`: a program that has an end of a pipe as a file descriptor.
//!
//! ```text
//! CMD --descriptor N--> [kernel pipe] --handed over--> this host's node     with --write
//! CMD <--descriptor N-- [kernel pipe] <--handed over-- this host's node     with --read
//! ```
//!
//! This process keeps neither end. It stands for the pipe at the node, and decides whether the end of
//! the input is meant as one: only if the program has ended with success.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::{self, ExitStatus, Stdio},
};

use anyhow::{Context, bail};
use command_fds::{CommandFdExt, FdMapping};
use qpipe::{Cause, End, PipeError};
use rustix::{
    io::fcntl_dupfd_cloexec,
    process::{Pid, Signal, kill_process},
};
use tokio::process::Child;

use crate::{
    WrongUsage,
    args::OpenArgs,
    ending::Label,
    exit::Exit,
    host::ThisHost,
    input, output,
    pump::Stopped,
    say, sentence,
    shared::{self, Carried, Ended, Handed, Opened, Told},
    signals::Signals,
    target::Place,
};

/// Opens a pipe, runs a program with its end, and waits for both to end.
///
/// # Errors
/// The pipe could not be opened, or the node is lost while the program succeeds.
pub(crate) async fn run(args: OpenArgs) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen()?;
    let this = ThisHost::load()?;
    let end = if args.write { End::Write } else { End::Read };
    let place = Place::parse(Some(&args.target), end, &this.config)?;
    let label = place.label();
    let Some(through) = shared::named(&place) else {
        bail!(WrongUsage("`qpipe open` takes a pipe that has a name: HOST/NAME or NAME".into()));
    };
    let (theirs, ours) = kernel_pipe(end).context("no kernel pipe to be had")?;
    let descriptor = Descriptor::place(ours, args.fd)?;
    let handed = Handed::Descriptor(end, theirs);
    let opened = shared::open(None, &this, (&args).into(), handed, through, &label, &mut signals);
    let mut pipe = match opened.await? {
        Opened::Carried(pipe) => pipe,
        Opened::Ended(ended) => return Ok(shared::tell(ended, &label, false)),
    };
    let name = args.command.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    let child = match start(&args, descriptor) {
        Ok(child) => child,
        Err(error) => {
            pipe.abort(Cause::Io).await;
            say::error(format_args!("cannot run `{name}`: {error}"));
            return Ok(not_run(&error));
        }
    };
    Attending { pipe, child, end, status: None, is_eof: false }.finish(&label, &mut signals).await
}

/// The end of a kernel pipe that goes to the node, and the program's.
fn kernel_pipe(end: End) -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    Ok(match end {
        End::Read => (writer.into(), reader.into()),
        End::Duplex | End::Write => (reader.into(), writer.into()),
    })
}

/// An end of a kernel pipe, and its number in the program.
struct Descriptor {
    end: OwnedFd,
    number: i32,
}

impl Descriptor {
    /// Takes the number in this process, too, unless it is in use here. Else the standard library
    /// might get it for the pipe by which a child tells that it cannot be started: what the child
    /// gets as this number would close that, and the failure be told into the pipe.
    fn place(end: OwnedFd, number: i32) -> anyhow::Result<Self> {
        let is_standard = number <= 2;
        let end = match is_standard {
            true => end,
            false => fcntl_dupfd_cloexec(&end, number)
                .with_context(|| format!("--fd {number}: there can be no such descriptor"))?,
        };
        Ok(Self { end, number })
    }

    fn give_to(self, command: &mut process::Command) -> io::Result<()> {
        match self.number {
            0 => drop(command.stdin(self.end)),
            1 => drop(command.stdout(self.end)),
            2 => drop(command.stderr(self.end)),
            number => {
                let mapping = FdMapping { parent_fd: self.end, child_fd: number };
                command.fd_mappings(vec![mapping]).map_err(io::Error::other)?;
            }
        }
        Ok(())
    }
}

/// Starts the program. Afterwards this process has no copy of the descriptor, and none of standard
/// input and output, which are the program's alone to close.
fn start(args: &OpenArgs, descriptor: Descriptor) -> io::Result<Child> {
    let (name, rest) = args.command.split_first().ok_or(io::ErrorKind::NotFound)?;
    let mut command = process::Command::new(name);
    command.args(rest).stdin(Stdio::inherit());
    descriptor.give_to(&mut command)?;
    let mut command = tokio::process::Command::from(command);
    let child = command.spawn()?;
    drop(command);
    // Without a descriptor for that they stay open until this process ends.
    let _ = input::close_stdin().and_then(|()| output::close_stdout());
    Ok(child)
}

/// What shells exit with where a program cannot be run.
fn not_run(error: &io::Error) -> Exit {
    match error.kind() {
        io::ErrorKind::NotFound => Exit::Status(127),
        _ => Exit::Status(126),
    }
}

/// A program that runs and its pipe.
struct Attending<'a> {
    pipe: Carried<'a>,
    child: Child,
    end: End,
    /// How the program ended, once it has.
    status: Option<ExitStatus>,
    /// Whether everybody has closed the end to write.
    is_eof: bool,
}

/// What came of a pipe that was open: nothing is known if the node did not say in time.
type Outcome = anyhow::Result<Option<Ended>>;

impl Attending<'_> {
    /// Waits for the end of both.
    async fn finish(mut self, label: &Label, signals: &mut Signals) -> anyhow::Result<Exit> {
        let mut outcome: Option<Outcome> = None;
        loop {
            match (self.status, outcome.take()) {
                (Some(status), Some(outcome)) => return conclude(status, outcome, label),
                (_, kept) => outcome = kept,
            }
            tokio::select! {
                exited = self.child.wait(), if self.status.is_none() => {
                    let status = exited.context("cannot wait for the program")?;
                    self.status = Some(status);
                    if status.success() {
                        self.confirm().await;
                    } else if self.end == End::Write && outcome.is_none() {
                        // Whatever its children may still write: it is not all.
                        outcome = Some(Ok(self.pipe.abort(cause_of(status)).await));
                    }
                }
                told = self.pipe.next(), if outcome.is_none() => match told {
                    Ok(Told::Eof) => {
                        self.is_eof = true;
                        self.confirm().await;
                    }
                    Ok(Told::Ended(ended)) => outcome = Some(Ok(Some(ended))),
                    Err(error) => outcome = Some(Err(error)),
                },
                signal = signals.next() => if self.status.is_none() {
                    self.pass_on(signal);
                } else {
                    self.pipe.abort(Cause::Interrupted).await;
                    return Ok(Exit::Signal(signal));
                },
            }
        }
    }

    /// An end of the input is one only if the program that made it says so by its status.
    async fn confirm(&mut self) {
        if self.is_eof && self.status.is_some_and(|status| status.success()) {
            self.pipe.confirm().await;
        }
    }

    fn pass_on(&self, signal: i32) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(signal)) {
            // It may have ended just now.
            let _ = kill_process(pid, signal);
        }
    }
}

/// Says how it ended: the program's failure counts more than the pipe's.
fn conclude(status: ExitStatus, outcome: Outcome, label: &Label) -> anyhow::Result<Exit> {
    if status.success() {
        return match outcome? {
            Some(ended) if has_left(&ended) => Ok(Exit::Success),
            Some(ended) => Ok(shared::tell(ended, label, false)),
            None => bail!("this host's node does not say how {label} ended"),
        };
    }
    match outcome {
        Ok(Some(ended)) if has_left(&ended) => {}
        Ok(Some(ended)) if !is_cut_off(&ended) => drop(shared::tell(ended, label, false)),
        Ok(_) => say::error(format_args!(
            "the program {}: the reader of {label} was told that it is cut off",
            how_failed(status)
        )),
        Err(error) => say::error(sentence(&error)),
    }
    Ok(Exit::Status(shell_status(status)))
}

/// Whether the program read no more, which is its own decision.
fn has_left(ended: &Ended) -> bool {
    matches!(&ended.received, Some(Err(Stopped::Output(error)))
        if error.kind() == io::ErrorKind::BrokenPipe)
}

/// Whether this end has cut off what it wrote.
fn is_cut_off(ended: &Ended) -> bool {
    matches!(&ended.sent, Some(Err(stopped))
        if !matches!(stopped, Stopped::Pipe(PipeError::Broken { .. })))
}

fn cause_of(status: ExitStatus) -> Cause {
    if status.signal().is_some() { Cause::Interrupted } else { Cause::Io }
}

fn how_failed(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("was ended by signal {signal}"),
        None => format!("ended with status {}", shell_status(status)),
    }
}

/// As a shell shows it.
fn shell_status(status: ExitStatus) -> u8 {
    let number = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    number.and_then(|number| u8::try_from(number).ok()).unwrap_or(u8::MAX)
}
