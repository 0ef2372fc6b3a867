//! The ends of a pipe.

mod fd;
mod reader;
mod watch;
mod writer;

pub use fd::Pumping;
pub use reader::PipeReader;
pub use watch::{ReaderWatch, WriterWatch};
pub use writer::{PipeWriter, WHOLE_BYTES_MAX};

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use qpipe_proto::PipeId;
use qpipe_proto::fact::{Answer, Facts};

use crate::error::PipeError;
use crate::link::{Link, State};

/// What an open waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opened {
    Accepted,
    Joined,
}

impl Opened {
    fn is_reached(self, facts: &Facts) -> bool {
        match self {
            Opened::Accepted => facts.answer == Some(Answer::Accepted),
            // A ticket is answered by the very end that it opens, which is there then.
            Opened::Joined => facts.joined,
        }
    }
}

/// How an end of a pipe ended, if it has.
fn ending(state: &State, id: PipeId, writes: bool) -> Option<Result<(), PipeError>> {
    if writes {
        state.session.write_outcome(id).map(|outcome| PipeError::of_write(outcome).map(drop))
    } else {
        let delivered = state.session.facts(id).map_or(0, |facts| facts.consumed);
        state.session.read_outcome(id).map(|outcome| PipeError::of_read(outcome, delivered))
    }
}

/// Waits until an open is answered, or the pipe is over.
async fn opened(link: &Arc<Link>, id: PipeId, writes: bool, what: Opened) -> Result<(), PipeError> {
    until(link, id, writes, |facts| what.is_reached(facts)).await
}

/// Waits until the pipe is over at this end.
async fn over(link: &Arc<Link>, id: PipeId, writes: bool) -> Result<(), PipeError> {
    until(link, id, writes, |_| false).await
}

/// Waits until the pipe's facts are as wanted, or the pipe is over.
async fn until(
    link: &Arc<Link>,
    id: PipeId,
    writes: bool,
    is_wanted: impl Fn(&Facts) -> bool,
) -> Result<(), PipeError> {
    poll_fn(|cx| {
        let mut state = link.lock();
        let Some(facts) = state.session.facts(id) else {
            // Let go of, settled and forgotten while a watch still looked.
            return Poll::Ready(Ok(()));
        };
        if is_wanted(facts) {
            return Poll::Ready(Ok(()));
        }
        if let Some(ending) = ending(&state, id, writes) {
            return Poll::Ready(ending);
        }
        wait(&mut state, id, cx);
        Poll::Pending
    })
    .await
}

/// Wakes the task behind `cx` at the pipe's next change.
fn wait(state: &mut State, id: PipeId, cx: &std::task::Context<'_>) {
    if let Some(side) = state.writers.get_mut(&id) {
        side.wait(cx);
    }
    if let Some(side) = state.readers.get_mut(&id) {
        side.waiting.register(cx);
    }
}
