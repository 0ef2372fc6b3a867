//! The join of a named pipe's two legs.
//!
//! The contract holds end to end: to the writer the relay states as consumed only what the reader's
//! node stated as consumed, EOF and abort pass through with their cause, and a reader that leaves
//! breaks the writer's leg. Bytes are held once: a piece that came in on one leg goes out on the
//! other as it is.

use qpipe::{Cause, PipeError, PipeReader, PipeWriter, ReaderWatch, WriterWatch};

use super::of_pipe;

/// What is passed on at once, in bytes.
const PIECE_BYTES_MAX: usize = 256 * 1024;

/// Carries the content of `from`, the writer's leg, to `to`, the reader's leg, until the pipe is
/// over on both.
pub(crate) async fn relay(mut from: PipeReader, mut to: PipeWriter) {
    from.hold_eof();
    let (source, sink) = (from.watch(), to.watch());
    let consumption = mirror(&source, &sink);
    let ending = {
        let forward = forward(&mut from, &mut to);
        tokio::pin!(forward, consumption);
        // Whichever ends first has ended the pipe: what the other still held of it is void.
        tokio::select! {
            biased;
            ending = &mut consumption => Over::Reader(ending),
            ending = &mut forward => match ending {
                Forwarded::Eof => Over::Reader(consumption.await),
                Forwarded::Aborted(cause) => Over::Writer(cause),
                // The reader's leg is over, and says why.
                Forwarded::Broken => Over::Reader(consumption.await),
            },
        }
    };
    match ending {
        Over::Reader(ending) => {
            source.consume_to(sink.consumed());
            match ending {
                Ok(()) => source.take_eof(),
                Err(error) => source.stop(error.cause()),
            }
        }
        Over::Writer(cause) => {
            sink.abort(cause);
            // The reader takes what came through before; its node says when it has.
            let _ = sink.over().await;
            source.consume_to(sink.consumed());
        }
    }
}

enum Over {
    /// The reader's leg is over, with this ending.
    Reader(Result<(), PipeError>),
    /// The writer's leg ended without EOF.
    Writer(Cause),
}

enum Forwarded {
    Aborted(Cause),
    Broken,
    Eof,
}

async fn forward(from: &mut PipeReader, to: &mut PipeWriter) -> Forwarded {
    loop {
        match from.read_chunk(PIECE_BYTES_MAX).await {
            Ok(Some(piece)) => {
                if to.write_chunk(piece).await.is_err() {
                    return Forwarded::Broken;
                }
            }
            Ok(None) => {
                to.close();
                return Forwarded::Eof;
            }
            Err(error) => return Forwarded::Aborted(of_pipe(&error).cause()),
        }
    }
}

/// States on the writer's leg what the reader's leg consumed, until that is over.
async fn mirror(source: &ReaderWatch, sink: &WriterWatch) -> Result<(), PipeError> {
    let mut consumed = 0;
    loop {
        match sink.consumed_beyond(consumed).await {
            Ok(more) => consumed = more,
            Err(ending) => return ending,
        }
        source.consume_to(consumed);
        // The reader may be further away than this node, whose own round trip to the writer says
        // nothing of it: the writer's window is to hold what is under way on both legs.
        source.widen(sink.window().saturating_mul(2));
    }
}
