//! Standard input, read by a thread of its own.
//!
//! The descriptor is shared with other processes, so it is never made non-blocking: the thread
//! blocks instead, and works alike for pipes, files, terminals, sockets and /dev/null. It may be
//! blocked when the process ends, which does not hold the process up.

use std::{
    io::{self, IsTerminal, PipeReader, PipeWriter, pipe},
    thread,
};

use anyhow::bail;
use bytes::Bytes;
use qpipe_node::{LINE_BYTES_MAX, Lines, Traffic};
use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, poll},
    fs::{Mode, OFlags, open},
    io::Errno,
    stdio::{dup2_stdin, stdin},
};
use tokio::sync::mpsc;

use crate::startup;

/// The largest read. A chunk of a quarter of a mebibyte costs no more per byte than larger ones.
pub(crate) const READ_BYTES_MAX: usize = 256 * 1024;

/// The first read: what a kernel pipe holds.
const READ_BYTES_FIRST: usize = 64 * 1024;

/// Chunks that were read and not yet asked for: one, so that reading and sending overlap, and
/// hardly more is taken from the producer than was sent.
const CHUNKS_AHEAD: usize = 1;

/// Whether standard input is a terminal.
pub(crate) fn is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Makes sure that there is a standard input.
///
/// # Errors
/// The process was started without one.
pub(crate) fn must_be_open() -> anyhow::Result<()> {
    if startup::stdin_was_closed() {
        bail!("standard input is closed: write `< /dev/null` to send nothing");
    }
    Ok(())
}

/// What arrives at standard input. Dropping it closes standard input, so that the producer gets
/// SIGPIPE even while the process lives on.
pub(crate) struct Input {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    /// Keeps lines whole, where that is wanted.
    lines: Option<Lines>,
    /// The thread waits for the other end's hang-up beside its input.
    _stop: PipeWriter,
}

impl Input {
    /// Begins to read.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(crate) fn start() -> io::Result<Self> {
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let (stopped, stop) = pipe()?;
        thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            read_all(&sender, &stopped);
            // Without a descriptor for that it stays open until the process ends.
            let _ = close_stdin();
        })?;
        Ok(Self { chunks, lines: None, _stop: stop })
    }

    /// The next bytes, never none at all; `None` at the end.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Cancel safety
    /// No byte is lost by dropping the future.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(lines) = self.lines.as_mut().and_then(|lines| lines.next(LINE_BYTES_MAX)) {
                return Ok(Some(lines));
            }
            let chunk = self.chunks.recv().await.transpose()?;
            let Some(lines) = &mut self.lines else { return Ok(chunk) };
            match chunk {
                Some(chunk) => lines.push(&chunk),
                None => return Ok(lines.rest()),
            }
        }
    }

    /// From now on whole lines are given out, of up to [`LINE_BYTES_MAX`].
    pub(crate) fn keep_lines(&mut self) {
        self.lines.get_or_insert_default();
    }

    /// Whether nothing that was read waits to be asked for.
    pub(crate) fn is_drained(&self) -> bool {
        self.chunks.is_empty() && self.lines.as_ref().is_none_or(Lines::is_empty)
    }
}

fn read_all(chunks: &mpsc::Sender<io::Result<Bytes>>, stopped: &PipeReader) {
    let mut buffer = Vec::with_capacity(READ_BYTES_FIRST);
    let mut traffic = Traffic::default();
    loop {
        let chunk = match read_some(&mut buffer, stopped) {
            Ok(0) => return,
            Ok(bytes) => {
                traffic.note(stdin(), bytes);
                Ok(take(&mut buffer))
            }
            Err(error) => Err(error),
        };
        let failed = chunk.is_err();
        if chunks.blocking_send(chunk).is_err() || failed {
            return;
        }
    }
}

/// Reads once something can be read; 0 also when nobody wants it any more.
fn read_some(buffer: &mut Vec<u8>, stopped: &PipeReader) -> io::Result<usize> {
    loop {
        let watched = stdin();
        let mut waits = [PollFd::new(&watched, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        match poll(&mut waits, None) {
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(_) if !waits[1].revents().is_empty() => return Ok(0),
            Ok(_) => {}
        }
        match rustix::io::read(stdin(), spare_capacity(buffer)) {
            // EAGAIN: some other process that shares the descriptor made it non-blocking.
            Err(Errno::INTR | Errno::AGAIN) => {}
            result => return Ok(result?),
        }
    }
}

/// Puts /dev/null in the place of standard input: an empty place would be taken by whatever is
/// opened next.
pub(crate) fn close_stdin() -> io::Result<()> {
    let null = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(dup2_stdin(null)?)
}

/// Hands on what was read. A chunk lives until the peer has consumed it, so a short one is copied
/// rather than letting it keep a large buffer alive.
fn take(buffer: &mut Vec<u8>) -> Bytes {
    if buffer.len() < buffer.capacity() / 2 {
        let chunk = Bytes::copy_from_slice(buffer);
        buffer.clear();
        return chunk;
    }
    let next_bytes = (buffer.len() * 2).clamp(READ_BYTES_FIRST, READ_BYTES_MAX);
    std::mem::replace(buffer, Vec::with_capacity(next_bytes)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(bytes: usize, capacity: usize) -> Vec<u8> {
        let mut buffer = Vec::with_capacity(capacity);
        buffer.resize(bytes, 7);
        buffer
    }

    #[test]
    fn a_short_read_does_not_keep_a_large_buffer_alive() {
        let mut buffer = filled(10, READ_BYTES_MAX);

        assert_eq!(take(&mut buffer), [7; 10].as_slice());

        assert!(buffer.is_empty());
        assert_eq!(buffer.capacity(), READ_BYTES_MAX);
    }

    #[test]
    fn reads_grow_while_they_fill_the_buffer_and_no_further_than_the_largest() {
        let mut buffer = filled(READ_BYTES_FIRST, READ_BYTES_FIRST);

        assert_eq!(take(&mut buffer).len(), READ_BYTES_FIRST);
        assert_eq!(buffer.capacity(), 2 * READ_BYTES_FIRST);

        let mut buffer = filled(READ_BYTES_MAX, READ_BYTES_MAX);
        take(&mut buffer);
        assert_eq!(buffer.capacity(), READ_BYTES_MAX);
    }
}
