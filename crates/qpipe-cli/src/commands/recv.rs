//! `qpipe recv`.

use std::io;

use anyhow::Context;
use qpipe::{End, PipeReader};
use qpipe_node::Delivery;

use crate::{
    args::{PipeArgs, RecvArgs},
    ending,
    exit::Exit,
    output,
    pipes::{self, await_partner, cause_of, tell_waiting},
    progress::Progress,
    pump::{self, Stopped},
    rate::Throttle,
    shared::{Attempt, Special, attempt},
    signals::Signals,
};

/// Writes what comes out of a pipe to standard output.
///
/// # Errors
/// The pipe could not be opened.
pub(crate) async fn run(args: RecvArgs) -> anyhow::Result<Exit> {
    let RecvArgs { pipe: args, abort_as_eof, asked } = args;
    output::must_be_open()?;
    let mut signals = Signals::listen()?;
    let special = Special { abort_as_eof, asked, ..Special::default() };
    let (this, place) = match attempt(&args, End::Read, special, &mut signals).await? {
        Attempt::Done(exit) => return Ok(exit),
        Attempt::Own(own) => *own,
    };
    let is_terminal = output::is_terminal();
    let output = output::take().context("cannot write to standard output")?;
    let mut opened = tokio::select! {
        opened = pipes::open(&args, End::Read, &this, place) => opened?,
        signal = signals.next() => return Ok(Exit::Signal(signal)),
        // Nobody reads what would come: `recv | head` may not wait for a writer for ever.
        () = output.broken() => return Ok(Exit::broken_pipe()),
    };
    let mut reader = opened.take_reader()?;
    let watch = reader.watch();
    tell_waiting(async move { watch.joined().await }, &opened.label);
    let outcome = tokio::select! {
        outcome = receive(&mut reader, output, is_terminal, &args) => outcome,
        signal = signals.next() => Err(Stopped::Signal(signal)),
    };
    let delivered = reader.delivered();
    if let Err(stopped) = &outcome {
        reader.close(cause_of(stopped));
    }
    let exit = ending::of_recv(&opened.label, outcome.map(|()| delivered), abort_as_eof).tell();
    opened.farewell(exit, &mut signals).await;
    Ok(exit)
}

async fn receive(
    reader: &mut PipeReader,
    output: Delivery,
    is_terminal: bool,
    args: &PipeArgs,
) -> Result<(), Stopped> {
    tokio::select! {
        partner = await_partner(reader.accepted(), reader.joined(), args) => partner?,
        () = output.broken() => return Err(Stopped::Output(io::ErrorKind::BrokenPipe.into())),
    }
    let mut throttle = Throttle::new(args.rate, args.burst);
    let progress = Progress::start(is_terminal);
    let outcome = pump::receive_all(reader, output, &mut throttle, &progress).await;
    progress.stop();
    outcome
}
