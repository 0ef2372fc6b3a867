//! `qpipe duplex`: two pipes at once, which end each for itself.

use qpipe::{Cause, End, PipeError, PipeReader, PipeWriter};

use crate::{
    args::PipeArgs,
    ending,
    exit::Exit,
    input::{self, Input},
    output::{self, Output},
    pipes::{self, await_partner, cause_of},
    progress::Progress,
    pump::{self, Stopped},
    rate::Throttle,
    signals::Signals,
};

/// Sends standard input and writes what comes back to standard output; over when both are.
///
/// # Errors
/// The pipes could not be opened.
pub async fn run(args: PipeArgs) -> anyhow::Result<Exit> {
    input::must_be_open()?;
    output::must_be_open()?;
    let mut signals = Signals::listen()?;
    let mut opened = tokio::select! {
        opened = pipes::open(&args, End::Duplex) => opened?,
        signal = signals.next() => return Ok(Exit::Signal(signal)),
    };
    let (mut writer, mut reader) = (opened.take_writer()?, opened.take_reader()?);
    let both = async {
        await_partner(writer.joined(), args.timeout).await?;
        Ok(tokio::join!(send(&mut writer, &args), receive(&mut reader, &args)))
    };
    let (sent, received) = tokio::select! {
        both = both => both.unwrap_or_else(|stopped| (Err(stopped), Ok(0))),
        signal = signals.next() => (Err(Stopped::Signal(signal)), Err(Stopped::Signal(signal))),
    };
    // Without effect on an end that is over.
    let cause = sent.as_ref().err().map_or(Cause::WriterDropped, cause_of);
    writer.abort(cause);
    reader.close(cause);
    let sent = ending::of_send(&opened.label, sent).tell();
    let received = ending::of_recv(&opened.label, received, false).tell();
    let exit = sent.and(received);
    opened.farewell(exit, &mut signals).await;
    Ok(exit)
}

/// Sends standard input. What goes wrong here ends this direction at once, and not the other.
async fn send(writer: &mut PipeWriter, args: &PipeArgs) -> Result<u64, Stopped> {
    let mut input = Input::start().map_err(Stopped::Input)?;
    let mut throttle = Throttle::new(args.rate, args.burst);
    let outcome = pump::send_all(&mut input, writer, &mut throttle, &Progress::none()).await;
    match outcome {
        // The far program is done and took everything we had: nothing was lost. The kernel would
        // not tell before the next write either, which never comes.
        Err(Stopped::Pipe(PipeError::Broken { cause: Cause::ReaderClosed, consumed }))
            if consumed == writer.written() && input.is_drained() =>
        {
            Ok(consumed)
        }
        outcome => outcome.map(|()| writer.written()),
    }
}

/// Writes what comes back; its end is told to standard output's reader at once.
async fn receive(reader: &mut PipeReader, args: &PipeArgs) -> Result<u64, Stopped> {
    let mut output = Output::start().map_err(Stopped::Output)?;
    let mut throttle = Throttle::new(args.rate, args.burst);
    let outcome = pump::receive_all(reader, &mut output, &mut throttle, &Progress::none()).await;
    if let Err(stopped) = &outcome {
        reader.stop(cause_of(stopped));
    }
    output.close().await;
    outcome.map(|()| reader.delivered())
}
