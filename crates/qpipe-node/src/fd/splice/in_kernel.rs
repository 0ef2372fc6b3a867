//! splice(2).

use std::{
    io,
    os::fd::AsFd,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{io::Errno, pipe::SpliceFlags};
use tokio::task::coop::consume_budget;

use super::{Sink, Source, Unspliced};
use crate::fd::{
    descriptor::{Descriptor, Way},
    pooled::restarted,
};
use crate::traffic::LargePipe;

/// What is moved at a time, and how large pipes are made.
const STEP_BYTES: usize = 1024 * 1024;

/// After a smaller step the processor is offered to others. Else every few kilobytes wake the writer
/// and the reader, who do as little at a time: with `head` before and `cat` behind it on two cores, a
/// bare loop of splice(2) took 0.6 to 0.8 s of all their processor time a GiB, with this 0.4 to 0.6.
const STEP_BYTES_MIN: usize = 256 * 1024;

/// EAGAIN so often although both ends are ready: it will not do.
const REFUSALS_MAX: u32 = 16;

/// Moves what it can inside the kernel. `Ok`: the rest, if any, has to be read and written.
///
/// # Cancel safety
/// As [`super::splice`].
pub(super) async fn splice(
    source: &mut Source,
    sink: &mut Sink,
    moved: &AtomicU64,
) -> Result<(), Unspliced> {
    let (input, output) = (&source.descriptor, &sink.descriptor);
    if !may_splice(input, output) {
        return Ok(());
    }
    // A file may keep a step waiting.
    let is_pooled = output.way() == Way::Pooled;
    let can_fill = output.is_pipe();
    let _large = [input, output].map(|end| LargePipe::enlarge(end.as_fd(), STEP_BYTES));
    let mut refusals = 0;
    while refusals < REFUSALS_MAX {
        consume_budget().await;
        // Asked before poll(2): a FIFO that had no writer when it was opened is at its end, and only
        // a step says so.
        let step = if is_pooled {
            pooled_step(source, sink).await.map_err(Unspliced::Output)?
        } else {
            restarted(&mut step_of(source, sink))
        };
        match step {
            Ok(0) => return Ok(()),
            Ok(bytes) => {
                moved.fetch_add(bytes as u64, Ordering::Relaxed);
                refusals = 0;
                if bytes < STEP_BYTES_MIN && !is_pooled {
                    std::thread::yield_now();
                }
            }
            Err(Errno::AGAIN) => {
                // A full sink hides that the source is at its end: it is asked again with room.
                if refusals > 0 || !can_fill {
                    wait_for(source, sink).await?;
                }
                refusals += 1;
                sink.descriptor.ready_unless_pooled().await.map_err(Unspliced::Output)?;
            }
            // O_APPEND, or a file system that cannot.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => return Ok(()),
            Err(error) => return Err(Unspliced::Output(error.into())),
        }
    }
    Ok(())
}

/// Sockets are not spliced: whether that blocks depends on O_NONBLOCK of a description that is not
/// ours, and from TCP it may move nothing without being at the end.
fn may_splice(input: &Descriptor, output: &Descriptor) -> bool {
    // What is spliced out of a file changes with the file until it is read.
    input.is_pipe() && (output.is_pipe() || matches!(output.way(), Way::Pooled | Way::Prompt))
}

/// Waits until there is something to read, or never will be.
async fn wait_for(source: &mut Source, sink: &Sink) -> Result<(), Unspliced> {
    tokio::select! {
        ready = source.descriptor.ready() => ready.map_err(Unspliced::Input),
        () = sink.broken() => Err(Unspliced::broken()),
    }
}

fn step_of(
    source: &Source,
    sink: &Sink,
) -> impl FnMut() -> Result<usize, Errno> + Send + 'static + use<> {
    let (input, output) = (source.descriptor.shared(), sink.descriptor.shared());
    move || {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        rustix::pipe::splice(input.as_fd(), None, output.as_fd(), None, STEP_BYTES, flags)
    }
}

/// A step in the blocking pool.
///
/// # Cancel safety
/// [`Source::settle`] picks the step up.
async fn pooled_step(source: &mut Source, sink: &Sink) -> io::Result<Result<usize, Errno>> {
    source.moving.start(step_of(source, sink));
    source.moving.finish().await.unwrap_or(Ok(Err(Errno::AGAIN)))
}
