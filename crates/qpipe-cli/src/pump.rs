//! Carries bytes between the standard descriptors and the ends of pipes.

use std::{io, pin::pin};

use bytes::Bytes;
use qpipe::{PipeError, PipeReader, PipeWriter};

use crate::{
    input::{Input, READ_BYTES_MAX},
    output::{Event, Output},
    progress::Progress,
    rate::Throttle,
};

/// Why bytes stopped moving before they had all arrived.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// Standard input cannot be read.
    Input(io::Error),
    /// Standard output cannot be written; a broken pipe if nobody reads it any more.
    Output(io::Error),
    /// The pipe is over.
    Pipe(PipeError),
    /// Nobody came to the other end in the time that the user gave.
    NoPartner,
    /// A signal came.
    Signal(i32),
}

/// Sends standard input to its end. Done when the reader has consumed everything.
///
/// # Errors
/// Whatever ends the pipe earlier, also while nothing arrives at standard input. A writer that is
/// not closed then is the caller's to abort.
pub(crate) async fn send_all(
    input: &mut Input,
    writer: &mut PipeWriter,
    throttle: &mut Throttle,
    progress: &Progress,
) -> Result<(), Stopped> {
    loop {
        // Nothing is copied here: the thread that reads keeps what it has read.
        let chunk = tokio::select! {
            biased;
            ended = writer.over() => return ended.map_err(Stopped::Pipe),
            chunk = input.next() => chunk.map_err(Stopped::Input)?,
        };
        let Some(mut chunk) = chunk else { break };
        while !chunk.is_empty() {
            let piece = next_piece(&mut chunk, throttle);
            let bytes = piece.len();
            tokio::select! {
                biased;
                ended = writer.over() => return ended.map_err(Stopped::Pipe),
                () = throttle.pay(bytes) => {}
            }
            writer.write_chunk(piece).await.map_err(of_pipe)?;
            progress.add(bytes);
        }
    }
    writer.close();
    writer.over().await.map_err(Stopped::Pipe)
}

/// Writes what comes out of the pipe to standard output. Done when everything has come and was
/// written.
///
/// # Errors
/// Whatever ends the pipe or standard output earlier; what came through was written, as far as it
/// can be. A reader that is not over then is the caller's to stop.
pub(crate) async fn receive_all(
    reader: &mut PipeReader,
    output: &mut Output,
    throttle: &mut Throttle,
    progress: &Progress,
) -> Result<(), Stopped> {
    let bytes_max = throttle.piece_bytes_max().unwrap_or(READ_BYTES_MAX).min(READ_BYTES_MAX);
    let mut end = None;
    while end.is_none() || output.waiting_bytes() > 0 {
        tokio::select! {
            biased;
            event = output.event() => note(event, reader)?,
            chunk = reader.read_chunk(bytes_max), if end.is_none() && output.has_room() => {
                match chunk {
                    Ok(Some(chunk)) => {
                        pass(chunk, reader, output, throttle, progress).await?;
                    }
                    Ok(None) => end = Some(Ok(())),
                    Err(error) => end = Some(Err(of_pipe(error))),
                }
            }
        }
    }
    match end {
        // How much was consumed is known only now that everything is written.
        Some(Err(stopped)) => match reader.over().await {
            Err(error) => Err(Stopped::Pipe(error)),
            Ok(()) => Err(stopped),
        },
        _ => Ok(()),
    }
}

/// Hands a chunk to standard output when the rate allows it.
async fn pass(
    chunk: Bytes,
    reader: &mut PipeReader,
    output: &mut Output,
    throttle: &mut Throttle,
    progress: &Progress,
) -> Result<(), Stopped> {
    let bytes = chunk.len();
    let mut paid = pin!(throttle.pay(bytes));
    loop {
        tokio::select! {
            biased;
            event = output.event() => note(event, reader)?,
            () = &mut paid => break,
        }
    }
    output.write(chunk).await;
    progress.add(bytes);
    Ok(())
}

fn note(event: Event, reader: &mut PipeReader) -> Result<(), Stopped> {
    match event {
        Event::Written(bytes) => {
            reader.consume(bytes);
            Ok(())
        }
        Event::Failed(error) => Err(Stopped::Output(error)),
    }
}

fn next_piece(chunk: &mut Bytes, throttle: &Throttle) -> Bytes {
    match throttle.piece_bytes_max() {
        Some(bytes_max) if bytes_max < chunk.len() => chunk.split_to(bytes_max),
        _ => std::mem::take(chunk),
    }
}

/// What the ends of pipes give is always one of their own errors; another one would be a defect,
/// and is told as a lost connection.
fn of_pipe(error: io::Error) -> Stopped {
    let lost = PipeError::Failed { cause: qpipe::Cause::Lost, consumed: 0 };
    Stopped::Pipe(PipeError::of(&error).copied().unwrap_or(lost))
}
