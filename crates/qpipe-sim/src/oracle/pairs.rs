//! Which ends may be, and which pairs of them: the table of docs/protocol.md, "Pairs of endings".

use super::{Checked, Pipe, ReaderEnd, WriterEnd, broken};

/// Whether the write end may be over as it says.
pub(super) fn writer(number: usize, pipe: &Pipe) -> Checked {
    let Some(end) = pipe.writer else { return Ok(()) };
    let wrong = match end {
        WriterEnd::Broken if pipe.left.is_none() => "the reader is there",
        WriterEnd::Complete if !pipe.is_closed => "the writer has not closed it",
        WriterEnd::Complete if pipe.delivered != pipe.accepted => "bytes are missing",
        WriterEnd::Failed if !pipe.is_aborted && !pipe.is_excused => "nobody ended it",
        WriterEnd::Refused if !pipe.is_refused && pipe.left.is_none() => "nobody refused it",
        _ => return Ok(()),
    };
    // A false "complete" loses bytes; the others are ends out of nothing.
    let promise = if end == WriterEnd::Complete { "P4" } else { "P6" };
    broken(promise, format!("pipe {number}: the writer was told {end:?}, and {wrong}"))
}

/// Whether the read end may be over as it says.
pub(super) fn reader(number: usize, pipe: &Pipe) -> Checked {
    let Some(end) = pipe.reader else { return Ok(()) };
    let (accepted, delivered) = (pipe.accepted, pipe.delivered);
    let (promise, wrong) = match end {
        ReaderEnd::Eof if !pipe.is_closed => ("P3", "the writer has not closed it"),
        ReaderEnd::Eof if delivered != accepted => ("P3", "bytes are missing"),
        ReaderEnd::Corrupt => ("P2", "nothing was to be corrupt"),
        ReaderEnd::Closed if pipe.left.is_none() => ("P6", "the reader is there"),
        ReaderEnd::Refused if !pipe.is_refused => ("P6", "nobody refused it"),
        ReaderEnd::Aborted if pipe.is_excused => return Ok(()),
        ReaderEnd::Aborted if !pipe.is_aborted => ("P6", "nobody aborted it"),
        ReaderEnd::Aborted if delivered != accepted => ("P4", "bytes are missing"),
        _ => return Ok(()),
    };
    let counts = format!("{delivered} of {accepted} bytes");
    broken(
        promise,
        format!("pipe {number}: the reader was told {end:?} after {counts}, and {wrong}"),
    )
}

/// Whether the two ends of one pipe may be over in these two ways.
pub(super) fn both(number: usize, pipe: &Pipe) -> Checked {
    let (Some(writer), Some(reader)) = (pipe.writer, pipe.reader) else { return Ok(()) };
    let is_pair = match (writer, reader) {
        (_, ReaderEnd::Closed) if pipe.is_aborted => true,
        (WriterEnd::Complete, ReaderEnd::Eof | ReaderEnd::Closed) => true,
        (WriterEnd::Broken, ReaderEnd::Closed | ReaderEnd::Eof) => true,
        (WriterEnd::Broken, ReaderEnd::Aborted) => pipe.is_aborted,
        (WriterEnd::Failed, ReaderEnd::Aborted) => true,
        // The session was lost before the writer heard.
        (WriterEnd::Failed, ReaderEnd::Closed | ReaderEnd::Eof | ReaderEnd::Refused) => {
            pipe.is_excused
        }
        (WriterEnd::Refused, ReaderEnd::Refused | ReaderEnd::Closed) => true,
        (WriterEnd::Refused, ReaderEnd::Aborted) => pipe.is_excused,
        // The reader has all that it was told of, and the session is lost before it hears the End.
        (WriterEnd::Complete, ReaderEnd::Aborted) => pipe.is_excused,
        _ => false,
    };
    if !is_pair {
        return broken("P6", format!("pipe {number}: {writer:?} and {reader:?} are no pair"));
    }
    Ok(())
}
