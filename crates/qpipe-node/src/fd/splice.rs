//! Both ends on one host: bytes go from descriptor to descriptor.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Buf;

use super::{sink::Sink, source::Source};

/// The largest chunk where bytes have to be copied.
const COPY_BYTES_MAX: usize = 256 * 1024;

/// Why splicing stopped early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unspliced {
    /// Reading failed.
    #[error("reading failed: {0}")]
    Input(#[source] io::Error),
    /// Writing failed; a broken pipe: nobody reads any more.
    #[error("writing failed: {0}")]
    Output(#[source] io::Error),
}

impl Unspliced {
    fn broken() -> Self {
        Self::Output(io::ErrorKind::BrokenPipe.into())
    }
}

/// Moves everything from `source` to `sink` until EOF: inside the kernel where the source is
/// a pipe and the sink a pipe or a file, else, and where the kernel refuses, by reading and
/// writing. `moved` grows by the bytes that were written.
///
/// A file as the source is read: as with sendfile(2), what the kernel would move into a pipe is the
/// file's pages, and who changes the file before the pipe is read would change what is read.
///
/// # Errors
/// [`Unspliced`], with [`io::ErrorKind::BrokenPipe`] as soon as nobody reads the sink any more, also
/// while there is nothing to move.
///
/// # Cancel safety
/// No byte is lost or moved twice if this is called again with the same two. Before they go
/// different ways, [`settle`] has to be called.
pub(crate) async fn splice(
    source: &mut Source,
    sink: &mut Sink,
    moved: &AtomicU64,
) -> Result<(), Unspliced> {
    settle(source, sink, moved).await?;
    // What is on this side of the kernel goes first.
    while source.is_midway() {
        if !copy_some(source, sink, moved).await? {
            return Ok(());
        }
    }
    #[cfg(target_os = "linux")]
    in_kernel::splice(source, sink, moved).await?;
    // EOF is what a read says: splice(2) may move nothing for other reasons.
    while copy_some(source, sink, moved).await? {}
    Ok(())
}

/// Ends what a cancelled [`splice`] had begun, a step in the blocking pool at the most: afterwards
/// the source says what comes next, and the sink takes anything.
///
/// # Errors
/// [`Unspliced::Output`] where that was a write, and it failed.
///
/// # Cancel safety
/// As [`splice`].
pub(crate) async fn settle(
    source: &mut Source,
    sink: &mut Sink,
    moved: &AtomicU64,
) -> Result<(), Unspliced> {
    source.settle().await;
    sink.forget_bounced();
    moved.fetch_add(std::mem::take(&mut source.moved), Ordering::Relaxed);
    match sink.writing.finish().await {
        None => return Ok(()),
        Some(Err(error)) => return Err(Unspliced::Output(error)),
        Some(Ok(Err(rustix::io::Errno::AGAIN))) => {}
        Some(Ok(Err(error))) => return Err(Unspliced::Output(error.into())),
        Some(Ok(Ok(written))) => {
            source.held.advance(written.min(source.held.len()));
            moved.fetch_add(written as u64, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Reads a chunk, or takes the one that is held, and writes some of it. False at EOF.
async fn copy_some(
    source: &mut Source,
    sink: &mut Sink,
    moved: &AtomicU64,
) -> Result<bool, Unspliced> {
    if source.held.is_empty() {
        let chunk = tokio::select! {
            chunk = source.next(COPY_BYTES_MAX) => chunk.map_err(Unspliced::Input)?,
            () = sink.broken() => return Err(Unspliced::broken()),
        };
        let Some(chunk) = chunk else { return Ok(false) };
        // Whatever is not written stays with the source.
        source.held = chunk;
    }
    let written = sink.write(&mut source.held).await.map_err(Unspliced::Output)?;
    moved.fetch_add(written as u64, Ordering::Relaxed);
    Ok(true)
}

#[cfg(target_os = "linux")]
mod in_kernel;

#[cfg(test)]
mod tests;
