//! `qpipe duplex`: two pipes at once, which end each for itself.

use qpipe::{Cause, End, PipeError, PipeReader, PipeWriter};

use crate::{
    args::PipeArgs,
    ending,
    exit::Exit,
    input, output,
    pipes::{self, await_partner, cause_of, tell_waiting},
    progress::Progress,
    pump::{self, Stopped},
    rate::Throttle,
    shared::{Attempt, Special, attempt},
    signals::Signals,
};

/// Sends standard input and writes what comes back to standard output; over when both are.
///
/// # Errors
/// The pipes could not be opened.
pub(crate) async fn run(args: PipeArgs) -> anyhow::Result<Exit> {
    input::must_be_open()?;
    output::must_be_open()?;
    let mut signals = Signals::listen()?;
    let (this, place) = match attempt(&args, End::Duplex, Special::default(), &mut signals).await? {
        Attempt::Done(exit) => return Ok(exit),
        Attempt::Own(own) => *own,
    };
    let mut opened = tokio::select! {
        opened = pipes::open(&args, End::Duplex, &this, place) => opened?,
        signal = signals.next() => return Ok(Exit::Signal(signal)),
    };
    let (mut writer, mut reader) = (Some(opened.take_writer()?), opened.take_reader()?);
    let watch = reader.watch();
    tell_waiting(async move { watch.joined().await }, &opened.label);
    let (sent, received) = tokio::select! {
        both = exchange(&mut writer, &mut reader, &args) => both,
        signal = signals.next() => (Err(Stopped::Signal(signal)), Err(Stopped::Signal(signal))),
    };
    if let (Some(writer), Err(stopped)) = (writer.take(), &sent) {
        writer.abort(cause_of(stopped));
    }
    if let Err(stopped) = &received {
        reader.close(cause_of(stopped));
    }
    let sent = ending::of_send(&opened.label, sent).tell();
    let received = ending::of_recv(&opened.label, received, false).tell();
    let exit = sent.and(received);
    opened.farewell(exit, &mut signals).await;
    Ok(exit)
}

type Outcome = Result<u64, Stopped>;

async fn exchange(
    writer: &mut Option<PipeWriter>,
    reader: &mut PipeReader,
    args: &PipeArgs,
) -> (Outcome, Outcome) {
    let partner = await_partner(reader.accepted(), reader.joined(), args).await;
    if let Err(stopped) = partner {
        reader.stop(cause_of(&stopped));
        return (Err(stopped), Ok(0));
    }
    tokio::join!(send(writer, args), receive(reader, args))
}

/// Sends standard input. What goes wrong here ends this direction at once, and not the other.
async fn send(end: &mut Option<PipeWriter>, args: &PipeArgs) -> Outcome {
    let Some(writer) = end else { return Ok(0) };
    let mut throttle = Throttle::new(args.rate, args.burst);
    let mut input = input::take().map_err(Stopped::Input)?;
    let outcome = pump::send_all(&mut input, writer, &mut throttle, &Progress::none()).await;
    let written = writer.written();
    match outcome {
        Ok(()) => Ok(written),
        // The far program is done and took everything we had: nothing was lost. The kernel would
        // not tell before the next write either, which never comes.
        Err(Stopped::Pipe(PipeError::Broken { cause: Cause::ReaderClosed, consumed }))
            if consumed == written && input.is_drained() =>
        {
            Ok(consumed)
        }
        Err(stopped) => {
            if let Some(writer) = end.take() {
                writer.abort(cause_of(&stopped));
            }
            Err(stopped)
        }
    }
}

/// Writes what comes back; its end is told to standard output's reader at once.
async fn receive(reader: &mut PipeReader, args: &PipeArgs) -> Outcome {
    let output = output::take().map_err(Stopped::Output)?;
    let mut throttle = Throttle::new(args.rate, args.burst);
    let outcome = pump::receive_all(reader, output, &mut throttle, &Progress::none()).await;
    if let Err(stopped) = &outcome {
        reader.stop(cause_of(stopped));
    }
    outcome.map(|()| reader.delivered())
}
