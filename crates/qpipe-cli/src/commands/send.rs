//! `qpipe send`.

use qpipe::{End, PipeWriter};
use qpipe_node::local;

use crate::{
    args::{PipeArgs, Records, SendArgs},
    ending,
    exit::Exit,
    input,
    pipes::{self, await_partner, cause_of, tell_waiting},
    progress::Progress,
    pump::{self, Stopped},
    rate::Throttle,
    shared::{Attempt, Special, attempt},
    signals::Signals,
};

/// Sends standard input into a pipe.
///
/// # Errors
/// The pipe could not be opened.
pub(crate) async fn run(args: SendArgs) -> anyhow::Result<Exit> {
    let SendArgs { pipe: args, records, asked } = args;
    input::must_be_open()?;
    let mut signals = Signals::listen()?;
    let kept = records.map(|Records::Line| local::Records::Line);
    let special = Special { records: kept, asked, ..Special::default() };
    let (this, place) = match attempt(&args, End::Write, special, &mut signals).await? {
        Attempt::Done(exit) => return Ok(exit),
        Attempt::Own(own) => *own,
    };
    let mut opened = tokio::select! {
        opened = pipes::open(&args, End::Write, &this, place) => opened?,
        signal = signals.next() => return Ok(Exit::Signal(signal)),
    };
    let mut writer = opened.take_writer()?;
    let watch = writer.watch();
    tell_waiting(async move { watch.joined().await }, &opened.label);
    let outcome = tokio::select! {
        outcome = send(&mut writer, &args, records) => outcome,
        signal = signals.next() => Err(Stopped::Signal(signal)),
    };
    let written = writer.written();
    if let Err(stopped) = &outcome {
        // Without effect once the end of file was stated: then a signal is of local interest only.
        writer.abort(cause_of(stopped));
    }
    let exit = ending::of_send(&opened.label, outcome.map(|()| written)).tell();
    opened.farewell(exit, &mut signals).await;
    Ok(exit)
}

async fn send(
    writer: &mut PipeWriter,
    args: &PipeArgs,
    records: Option<Records>,
) -> Result<(), Stopped> {
    await_partner(writer.accepted(), writer.joined(), args).await?;
    let progress = Progress::start(input::is_terminal());
    let mut input = input::take().map_err(Stopped::Input)?;
    if let Some(Records::Line) = records {
        input.keep_lines();
    }
    let mut throttle = Throttle::new(args.rate, args.burst);
    let outcome = pump::send_all(&mut input, writer, &mut throttle, &progress).await;
    progress.stop();
    outcome
}
