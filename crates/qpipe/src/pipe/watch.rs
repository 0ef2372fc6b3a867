//! Handles that look at an end of a pipe while somebody else uses it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use qpipe_proto::fact::{End, EndKind};
use qpipe_proto::{Cause, PipeId};

use super::{Opened, ending, opened, over, wait};
use crate::clock;
use crate::error::PipeError;
use crate::link::Link;

/// Looks at a write end. It does not keep the pipe open.
#[derive(Clone, Debug)]
pub struct WriterWatch {
    link: Arc<Link>,
    id: PipeId,
}

/// Looks at a read end, and consumes on behalf of whoever the bytes were handed to. It does not keep
/// the pipe open.
#[derive(Clone, Debug)]
pub struct ReaderWatch {
    link: Arc<Link>,
    id: PipeId,
}

impl WriterWatch {
    pub(super) fn new(link: Arc<Link>, id: PipeId) -> WriterWatch {
        WriterWatch { link, id }
    }

    /// Waits until a reader is at the other end.
    ///
    /// # Errors
    /// As [`super::PipeWriter::joined`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn joined(&self) -> Result<(), PipeError> {
        opened(&self.link, self.id, true, Opened::Joined).await
    }

    /// Waits until the pipe is over. One that was let go of and is settled is over without error.
    ///
    /// # Errors
    /// As [`super::PipeWriter::over`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn over(&self) -> Result<(), PipeError> {
        over(&self.link, self.id, true).await
    }

    /// Whether the pipe is over.
    pub fn is_over(&self) -> bool {
        let state = self.link.lock();
        state.session.facts(self.id).is_none() || ending(&state, self.id, true).is_some()
    }

    /// Bytes that the reader consumed, as far as this node has heard.
    pub fn consumed(&self) -> u64 {
        self.link.lock().session.facts(self.id).map_or(0, |facts| facts.consumed_at_least())
    }

    /// Waits until [`WriterWatch::consumed`] is more than `than`, and returns it.
    ///
    /// # Errors
    /// The pipe is over, in whatever way, or was aborted here, with nothing more consumed.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn consumed_beyond(&self, than: u64) -> Result<u64, Result<(), PipeError>> {
        poll_fn(|cx| {
            let mut state = self.link.lock();
            let consumed =
                state.session.facts(self.id).map_or(0, |facts| facts.consumed_at_least());
            if consumed > than {
                return Poll::Ready(Ok(consumed));
            }
            if let Some(ending) = ending(&state, self.id, true) {
                return Poll::Ready(Err(ending));
            }
            let Some(facts) = state.session.facts(self.id) else {
                return Poll::Ready(Err(Ok(())));
            };
            if let Some(End { kind: EndKind::Aborted(cause), .. }) = facts.end {
                return Poll::Ready(Err(Err(PipeError::Failed { cause, consumed })));
            }
            wait(&mut state, self.id, cx);
            Poll::Pending
        })
        .await
    }

    /// How far beyond what was consumed the reader's node lets the writer go, in bytes.
    pub fn window(&self) -> u64 {
        self.link.lock().session.write_window(self.id)
    }

    /// Aborts the pipe, as [`super::PipeWriter::abort`].
    pub fn abort(&self, cause: Cause) {
        self.link.with(|state| state.session.abort(self.id, cause));
    }
}

impl ReaderWatch {
    pub(super) fn new(link: Arc<Link>, id: PipeId) -> ReaderWatch {
        ReaderWatch { link, id }
    }

    /// Waits until a writer is at the other end.
    ///
    /// # Errors
    /// As [`super::PipeReader::joined`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn joined(&self) -> Result<(), PipeError> {
        opened(&self.link, self.id, false, Opened::Joined).await
    }

    /// Waits until the pipe is over. One that was let go of and is settled is over without error.
    ///
    /// # Errors
    /// As [`super::PipeReader::over`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn over(&self) -> Result<(), PipeError> {
        over(&self.link, self.id, false).await
    }

    /// Whether the pipe is over.
    pub fn is_over(&self) -> bool {
        let state = self.link.lock();
        state.session.facts(self.id).is_none() || ending(&state, self.id, false).is_some()
    }

    /// Waits until the end was let go of, or its session is over.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn gone(&self) {
        poll_fn(|cx| {
            let mut state = self.link.lock();
            if state.ended.is_some() || !state.readers.contains_key(&self.id) {
                return Poll::Ready(());
            }
            wait(&mut state, self.id, cx);
            Poll::Pending
        })
        .await
    }

    /// Says that EOF is taken, on behalf of whoever it was handed to: see
    /// [`super::PipeReader::hold_eof`].
    pub fn take_eof(&self) {
        self.link.with(|state| state.session.take_eof(self.id));
    }

    /// Whether the writer has ended the pipe, or its node is lost: bytes may still wait to be read.
    pub fn is_ended(&self) -> bool {
        let state = self.link.lock();
        state.session.facts(self.id).is_none_or(|facts| facts.end.is_some())
            || ending(&state, self.id, false).is_some()
    }

    /// Says that bytes 0..`offset` are consumed.
    pub fn consume_to(&self, offset: u64) {
        self.link.with(|state| {
            let rtt = state.rtt;
            state.session.consume(self.id, offset, clock::now(), rtt);
        });
    }

    /// Asks for a window of at least `bytes`: how far beyond what was consumed the writer may go. A
    /// relay does, whose readers are further away than this node.
    pub fn widen(&self, bytes: u64) {
        self.link.with(|state| state.session.widen(self.id, bytes));
    }

    /// Breaks the pipe, as [`super::PipeReader::stop`].
    pub fn stop(&self, cause: Cause) {
        self.link.with(|state| state.session.close_read(self.id, cause));
    }
}
