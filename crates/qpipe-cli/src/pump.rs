//! Carries bytes between the standard descriptors and the ends of pipes.

use std::io;

use bytes::Bytes;
use qpipe::{PipeError, PipeReader, PipeWriter};
use qpipe_node::{Delivery, PIECE_BYTES_MAX, Source, Undelivered};

use crate::{progress::Progress, rate::Throttle};

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
    input: &mut Source,
    writer: &mut PipeWriter,
    throttle: &mut Throttle,
    progress: &Progress,
) -> Result<(), Stopped> {
    loop {
        // Nothing is lost here: what was read is kept for the next call.
        let chunk = tokio::select! {
            biased;
            ended = writer.over() => return ended.map_err(Stopped::Pipe),
            chunk = input.next(PIECE_BYTES_MAX) => chunk.map_err(Stopped::Input)?,
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
            let written = writer.write_chunk(piece).await;
            written.map_err(|error| Stopped::Pipe(PipeError::or_lost(&error)))?;
            progress.add(bytes as u64);
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
    output: Delivery,
    throttle: &mut Throttle,
    progress: &Progress,
) -> Result<(), Stopped> {
    let (max, count) = (throttle.piece_bytes_max(), |bytes| progress.add(bytes));
    let pay = async |bytes| throttle.pay(bytes).await;
    output.deliver(reader, max, pay, count).await.map_err(|undelivered| match undelivered {
        Undelivered::Output(error) => Stopped::Output(error),
        Undelivered::Pipe(error) => Stopped::Pipe(error),
    })
}

fn next_piece(chunk: &mut Bytes, throttle: &Throttle) -> Bytes {
    match throttle.piece_bytes_max() {
        Some(bytes_max) if bytes_max < chunk.len() => chunk.split_to(bytes_max),
        _ => std::mem::take(chunk),
    }
}
