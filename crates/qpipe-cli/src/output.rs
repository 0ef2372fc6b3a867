//! Standard output, written by a thread of its own.
//!
//! Bytes count as consumed when the write of them has succeeded, not before. While there is nothing
//! to write the thread watches whether anybody still reads, so that the far writer hears of a
//! closed reader even when it is idle. The descriptor is shared with other processes, so it is
//! never made non-blocking.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IsTerminal, PipeReader, PipeWriter, Read, Write, pipe},
    thread,
};

use anyhow::bail;
use bytes::{Buf, Bytes};
use qpipe_node::Traffic;
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{Mode, OFlags, open},
    io::Errno,
    stdio::{dup2_stdout, stdout},
};
use tokio::sync::mpsc;

use crate::startup;

/// Chunks that wait to be written: enough that the thread always has the next one, few enough that
/// a slow reader is noticed. Also the bound on `wake`, whose pipe must never fill.
const CHUNKS_WAITING_MAX: usize = 4;

/// Whether standard output is a terminal.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Makes sure that there is a standard output.
///
/// # Errors
/// The process was started without one.
pub(crate) fn must_be_open() -> anyhow::Result<()> {
    if startup::stdout_was_closed() {
        bail!("standard output is closed: write `> /dev/null` to throw the bytes away");
    }
    Ok(())
}

/// What goes to standard output. Dropping it leaves standard output open; see [`Self::close`].
pub(crate) struct Output {
    chunks: mpsc::Sender<Bytes>,
    /// One byte for each chunk; closed when no more come.
    wake: Option<PipeWriter>,
    events: mpsc::UnboundedReceiver<Event>,
    waiting_bytes: u64,
}

/// What became of what was to be written.
#[derive(Debug)]
pub(crate) enum Event {
    /// The next so many bytes were written.
    Written(u64),
    /// No more can be written. A broken pipe: nobody reads any more.
    Failed(io::Error),
}

impl Event {
    /// The failure, if it is one.
    pub(crate) fn error(self) -> Option<io::Error> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Written(_) => None,
        }
    }
}

impl Output {
    /// Begins to write and to watch.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(crate) fn start() -> io::Result<Self> {
        let (chunks, waiting) = mpsc::channel(CHUNKS_WAITING_MAX);
        let (sender, events) = mpsc::unbounded_channel();
        let (woken, wake) = pipe()?;
        thread::Builder::new().name("stdout".to_owned()).spawn(move || {
            if let Err(error) = write_all_of(waiting, woken, &sender) {
                let _ = sender.send(Event::Failed(error));
            }
        })?;
        Ok(Self { chunks, wake: Some(wake), events, waiting_bytes: 0 })
    }

    /// Whether another chunk can be taken now.
    pub(crate) fn has_room(&self) -> bool {
        self.chunks.capacity() > 0
    }

    /// How many bytes were taken and not yet reported as written.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    /// Takes a chunk to be written; waits for room. A failure is told by [`Self::event`].
    pub(crate) async fn write(&mut self, chunk: Bytes) {
        let bytes = chunk.len() as u64;
        let Some(wake) = &mut self.wake else { return };
        if self.chunks.send(chunk).await.is_ok() && wake.write_all(&[1]).is_ok() {
            self.waiting_bytes += bytes;
        }
    }

    /// What happened next.
    ///
    /// # Cancel safety
    /// No event is lost by dropping the future.
    pub(crate) async fn event(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => {
                if let Event::Written(bytes) = event {
                    self.waiting_bytes -= bytes;
                }
                event
            }
            None => Event::Failed(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Bytes that were written and are not told by [`Self::event`] yet: for a reader that stops now
    /// and must not call consumed bytes unconsumed.
    pub(crate) fn take_written(&mut self) -> u64 {
        let mut written = 0;
        while let Ok(Event::Written(bytes)) = self.events.try_recv() {
            self.waiting_bytes -= bytes;
            written += bytes;
        }
        written
    }

    /// Closes standard output after what waits was written, so that the program behind it sees EOF
    /// even while the process lives on.
    pub(crate) async fn close(mut self) {
        self.wake = None;
        while self.events.recv().await.is_some() {}
    }
}

/// Writes until no more chunks come, then closes standard output.
fn write_all_of(
    mut waiting: mpsc::Receiver<Bytes>,
    mut woken: PipeReader,
    events: &mpsc::UnboundedSender<Event>,
) -> io::Result<()> {
    let mut batch = Batch::default();
    let mut traffic = Traffic::default();
    loop {
        let chunks = wait_for_chunks(&mut woken)?;
        if chunks == 0 {
            break;
        }
        batch.chunks.extend((0..chunks).map_while(|_| waiting.blocking_recv()));
        while !batch.chunks.is_empty() {
            let written = batch.write()?;
            traffic.note(stdout(), written);
            let whole = batch.take_off(written);
            if whole > 0 {
                // Nobody listens any more: the process is about to end.
                let _ = events.send(Event::Written(whole));
            }
        }
    }
    // The end of the wake pipe also comes when the process gives up: only a close is one.
    if waiting.is_closed() { Ok(()) } else { close_stdout() }
}

/// How many chunks have come; 0 when no more will come.
///
/// # Errors
/// [`io::ErrorKind::BrokenPipe`] as soon as nobody reads standard output any more.
fn wait_for_chunks(woken: &mut PipeReader) -> io::Result<usize> {
    loop {
        let watched = stdout();
        let mut waits = [
            // Errors and hang-ups are reported unasked; a file or /dev/null never reports any.
            PollFd::new(&watched, PollFlags::empty()),
            PollFd::new(woken, PollFlags::IN),
        ];
        match poll(&mut waits, None) {
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(_) if !waits[0].revents().is_empty() => {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(_) => return woken.read(&mut [0; CHUNKS_WAITING_MAX]),
        }
    }
}

/// Chunks that are written together.
#[derive(Default)]
struct Batch {
    chunks: VecDeque<Bytes>,
    /// What of the first one was written before.
    begun: usize,
}

impl Batch {
    /// Writes some of it.
    fn write(&self) -> io::Result<usize> {
        let slices: Vec<_> = self.chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
        loop {
            match rustix::io::writev(stdout(), &slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => return Ok(written),
                Err(Errno::INTR) => {}
                // Some other process that shares the descriptor made it non-blocking.
                Err(Errno::AGAIN) => wait_for_room()?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes off what was written; returns how many bytes the chunks have that are done with it.
    fn take_off(&mut self, mut written: usize) -> u64 {
        let mut whole = 0;
        while let Some(first) = self.chunks.front_mut() {
            if first.len() > written {
                first.advance(written);
                self.begun += written;
                break;
            }
            written -= first.len();
            whole += std::mem::take(&mut self.begun) + first.len();
            self.chunks.pop_front();
        }
        whole as u64
    }
}

fn wait_for_room() -> io::Result<()> {
    match poll(&mut [PollFd::new(&stdout(), PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Puts /dev/null in the place of standard output: an empty place would be taken by whatever is
/// opened next.
pub(crate) fn close_stdout() -> io::Result<()> {
    let null = open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(dup2_stdout(null)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_counts_as_written_when_all_of_it_is() {
        let chunks = [&b"abc"[..], b"de", b"fghi"].map(Bytes::from_static);
        let mut batch = Batch { chunks: chunks.into(), begun: 0 };

        assert_eq!(batch.take_off(2), 0);
        assert_eq!(batch.take_off(4), 5);
        assert_eq!(batch.chunks, [&b"ghi"[..]]);
        assert_eq!(batch.take_off(3), 4);
        assert!(batch.chunks.is_empty());
    }
}
