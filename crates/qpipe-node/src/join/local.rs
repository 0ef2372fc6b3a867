//! Carrying bytes between descriptors of this host's programs and the ends of pipes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use qpipe::{Cause, PipeError, PipeReader, PipeWriter};
use rustix::pipe::PIPE_BUF;

use super::{Client, Ending, input_failed, output_failed};
use crate::delivery::{Delivery, PIECE_BYTES_MAX, Undelivered, cause_of_output};
use crate::fd::{self, Sink, Source, Unspliced};
use crate::local::{Outcome, Stop};

/// Sends what a program writes to a peer, until the pipe is over.
///
/// # Errors
/// What the program is to be told, unless the reader consumed everything.
pub(super) async fn feed(
    mut source: Source,
    client: &Client,
    mut writer: PipeWriter,
) -> Result<(), Stop> {
    loop {
        source.fit(writer.watch().window());
        let piece = tokio::select! {
            biased;
            over = writer.over() => return match over {
                Err(PipeError::Broken { cause: Cause::ReaderClosed, consumed })
                    if client.lost_nothing(consumed, &source) => Ok(()),
                over => over.map_err(Stop::from),
            },
            cause = client.left() => {
                let piece = last_words(&mut source).await;
                return Err(abort(writer, cause, piece).await);
            }
            piece = source.next(piece_max(&source, &writer)) => piece,
        };
        match piece {
            Ok(Some(piece)) => {
                let bytes = piece.len() as u64;
                tokio::select! {
                    biased;
                    cause = client.left() => return Err(abort(writer, cause, None).await),
                    written = writer.write_chunk(piece) => {
                        written.map_err(|error| Stop::from(PipeError::or_lost(&error)))?;
                    }
                }
                client.count_sent(bytes);
            }
            Ok(None) => break,
            Err(error) => {
                writer.abort(Cause::Io);
                return Err(input_failed(&error));
            }
        }
    }
    drop(source);
    tokio::select! {
        biased;
        over = writer.over() => return over.map_err(Stop::from),
        meant = client.means_eof() => if let Err(cause) = meant {
            return Err(abort(writer, cause, None).await);
        },
    }
    writer.close();
    // From here on it does not matter to the pipe whether the program lives.
    writer.over().await.map_err(Stop::from)
}

/// How much to take at once: lines that are kept whole are to fit what is always free of the window
/// once everything is consumed, which is half of it.
fn piece_max(source: &Source, writer: &PipeWriter) -> usize {
    match source.keeps_lines() {
        true => {
            usize::try_from(writer.watch().window() / 2).unwrap_or(PIECE_BYTES_MAX).max(PIPE_BUF)
        }
        false => PIECE_BYTES_MAX,
    }
}

/// What a program that is gone had written before: one look into the kernel's pipe, since others may
/// hold the write end as well and go on.
pub(super) async fn last_words(source: &mut Source) -> Option<Bytes> {
    let bytes = usize::try_from(source.ready_bytes()).unwrap_or(0).min(PIECE_BYTES_MAX);
    if bytes == 0 {
        return None;
    }
    // What was there a moment ago is read without waiting, unless somebody else has taken it.
    let read = tokio::time::timeout(Duration::ZERO, source.next(bytes)).await;
    read.ok()?.ok()?
}

/// Aborts the pipe, after what there still was to say if the peer takes it now.
async fn abort(mut writer: PipeWriter, cause: Cause, piece: Option<Bytes>) -> Stop {
    if let Some(piece) = piece {
        let _ = tokio::time::timeout(Duration::ZERO, writer.write_chunk(piece)).await;
    }
    let consumed = writer.consumed();
    writer.abort(cause);
    Stop::from(PipeError::Failed { cause, consumed })
}

/// Gives a program what comes from a peer, until the pipe is over.
///
/// # Errors
/// What the program is to be told, unless everything came and was written.
pub(super) async fn drain(mut reader: PipeReader, sink: Sink, client: &Client) -> Result<(), Stop> {
    let count = |bytes| client.count_received(bytes);
    let delivered = tokio::select! {
        biased;
        cause = client.left() => return Err(stop(reader, cause)),
        delivered = Delivery::to(sink).deliver(&mut reader, None, async |_| {}, count) => delivered,
    };
    match delivered {
        Ok(()) => Ok(()),
        Err(Undelivered::Pipe(error)) => Err(Stop::from(error)),
        Err(Undelivered::Output(error)) => {
            reader.close(cause_of_output(&error));
            Err(output_failed(&error))
        }
    }
}

fn stop(reader: PipeReader, cause: Cause) -> Stop {
    let delivered = reader.delivered();
    reader.close(cause);
    Stop::from(PipeError::Aborted { cause, delivered })
}

/// How splicing ended.
pub(crate) enum Spliced {
    Ended(Ending),
    /// Somebody else has come: what comes next, and where what came before went.
    Third(Box<(Source, Sink)>),
}

/// Moves bytes from one program of this host to another inside the kernel, until `third`.
pub(crate) async fn splice(
    mut source: Source,
    writer: &Client,
    mut sink: Sink,
    reader: &Client,
    third: impl Future<Output = ()>,
) -> Spliced {
    let moved = &*writer.sent;
    reader.receive_with(writer);
    let over = tokio::select! {
        biased;
        cause = reader.left() => Over::Reader(cause, Stop::from(PipeError::Aborted {
            cause,
            delivered: moved.load(Ordering::Relaxed),
        })),
        cause = writer.left() => Over::Writer(cause, None),
        () = third => Over::Third,
        spliced = fd::splice(&mut source, &mut sink, moved) => match spliced {
            Ok(()) => Over::Eof,
            Err(Unspliced::Input(error)) => Over::Writer(Cause::Io, Some(input_failed(&error))),
            Err(Unspliced::Output(error)) => {
                Over::Reader(cause_of_output(&error), output_failed(&error))
            }
        },
    };
    if let Over::Third = over {
        // An error comes again.
        let _ = fd::settle(&mut source, &mut sink, moved).await;
        // Of what moved so far a write's beginning may be the last.
        source.gather().await;
        reader.receive_apart();
        return Spliced::Third(Box::new((source, sink)));
    }
    Spliced::Ended(ended(source, writer, sink, reader, over).await)
}

async fn ended(
    mut source: Source,
    writer: &Client,
    mut sink: Sink,
    reader: &Client,
    over: Over,
) -> Ending {
    let moved = &*writer.sent;
    // What was taken and not yet given goes first.
    let settled =
        tokio::time::timeout(Duration::ZERO, fd::settle(&mut source, &mut sink, moved)).await;
    if let (Over::Writer(..), Ok(Ok(()))) = (&over, settled)
        && let Some(mut piece) = last_words(&mut source).await
    {
        let last = tokio::time::timeout(Duration::ZERO, sink.write(&mut piece)).await;
        let last = last.ok().and_then(Result::ok).unwrap_or(0);
        writer.count_sent(last as u64);
    }
    let is_lossless = writer.lost_nothing(moved.load(Ordering::Relaxed), &source);
    drop(source);
    let over = match over {
        Over::Eof => match writer.means_eof().await {
            Ok(()) => tokio::select! {
                biased;
                _ = reader.left() => Over::Eof,
                finished = sink.finish() => match finished {
                    Ok(()) => Over::Eof,
                    Err(error) => Over::Reader(cause_of_output(&error), output_failed(&error)),
                },
            },
            Err(cause) => Over::Writer(cause, None),
        },
        over => {
            drop(sink);
            over
        }
    };
    reader.receive_apart();
    let bytes = moved.load(Ordering::Relaxed);
    let outcome = |stopped| Outcome { bytes, stopped };
    match over {
        Over::Eof | Over::Third => Ending { written: outcome(None), read: outcome(None) },
        Over::Reader(cause, stop) => {
            let broken = Stop::from(PipeError::Broken { cause, consumed: bytes });
            let is_fine = is_lossless && cause == Cause::ReaderClosed;
            Ending { written: outcome((!is_fine).then_some(broken)), read: outcome(Some(stop)) }
        }
        Over::Writer(cause, stop) => {
            let failed = Stop::from(PipeError::Failed { cause, consumed: bytes });
            let aborted = Stop::from(PipeError::Aborted { cause, delivered: bytes });
            Ending { written: outcome(Some(stop.unwrap_or(failed))), read: outcome(Some(aborted)) }
        }
    }
}

enum Over {
    Eof,
    /// Not at all: somebody else has come.
    Third,
    /// The reader's side ended it; what its program is told.
    Reader(Cause, Stop),
    /// The writer's side ended it; what its program is told, if not that.
    Writer(Cause, Option<Stop>),
}
