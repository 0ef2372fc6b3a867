//! What programs of a host do with its node: open pipes, answer opens, use ends.

use bytes::Bytes;
use qpipe_proto::fact::{Open, OpenTarget, Opener};
use qpipe_proto::session::{OpenError, OpenOptions};
use qpipe_proto::{Cause, PipeId, PipeName, ReadOutcome, WriteOutcome};

use super::Node;
use super::sides::Shared;
use crate::clock::{self, Time};

/// One end of a pipe, as a program holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    session: [u8; 16],
    id: PipeId,
}

/// Why a group of pipes is not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFailure {
    /// There is no memory.
    Busy,
    /// Not yet: there is no session, or the peer allows no more opens now.
    Later,
}

impl Node {
    /// Opens a group of pipes of the name `name`, one for each of `writes`, whether this node
    /// writes it.
    ///
    /// # Errors
    /// See [`OpenFailure`]; nothing is open then.
    pub fn open(
        &mut self,
        name: &str,
        writes: &[bool],
        now: Time,
    ) -> Result<Vec<End>, OpenFailure> {
        let open = |shared: &&mut Shared| !shared.is_over && !shared.session.is_closing();
        // Where both hosts dialled at once, the session that the host of the smaller key dialled.
        let shared = self.sessions.values_mut().filter(open).min_by_key(|s| (s.dialled_by, s.id.0));
        let Some(shared) = shared else {
            self.want_session(now);
            return Err(OpenFailure::Later);
        };
        let target = OpenTarget::Name(name.parse::<PipeName>().expect("the simulator's own name"));
        let openers: Vec<Opener> =
            writes.iter().map(|w| if *w { Opener::Writer } else { Opener::Reader }).collect();
        let ids = match shared.session.open(
            &target,
            OpenOptions::default(),
            &openers,
            clock::instant(now),
        ) {
            Ok(ids) => ids,
            Err(OpenError::Busy) => return Err(OpenFailure::Busy),
            Err(OpenError::NotYet | OpenError::Closing) => return Err(OpenFailure::Later),
        };
        for (id, writes) in ids.iter().zip(writes) {
            shared.add_side(*id, *writes);
        }
        let session = shared.id.0;
        Ok(ids.into_iter().map(|id| End { session, id }).collect())
    }

    /// The next group of opens of the peer that waits for an answer: its name, and of each member
    /// whether this node writes it.
    pub fn next_incoming(&mut self) -> Option<(String, Vec<(End, bool)>)> {
        let shared = self.sessions.values_mut().find(|shared| !shared.incoming.is_empty())?;
        let members: Vec<(PipeId, Open)> = shared.incoming.remove(0);
        let session = shared.id.0;
        let name = match &members.first()?.1.target {
            OpenTarget::Name(name) => name.to_string(),
            OpenTarget::Ticket(_) | OpenTarget::Unknown => String::new(),
        };
        let end = |(id, open): (PipeId, Open)| (End { session, id }, open.opener == Opener::Reader);
        Some((name, members.into_iter().map(end).collect()))
    }

    /// Accepts a group of opens; false if there is no memory, and it was refused.
    pub fn accept(&mut self, ends: &[End], now: Time) -> bool {
        let ids: Vec<PipeId> = ends.iter().map(|end| end.id).collect();
        let Some(shared) = ends.first().and_then(|end| self.sessions.get_mut(&end.session)) else {
            return false;
        };
        let accepted = shared.session.accept(&ids, clock::instant(now)).is_ok();
        shared.changed.extend(&ids);
        shared.settle();
        accepted
    }

    /// Refuses a group of opens.
    pub fn refuse(&mut self, ends: &[End]) {
        let ids: Vec<PipeId> = ends.iter().map(|end| end.id).collect();
        let Some(shared) = ends.first().and_then(|end| self.sessions.get_mut(&end.session)) else {
            return;
        };
        shared.session.refuse(&ids, Cause::NotAllowed);
        for id in ids {
            shared.release_writer(id);
            shared.readers.remove(&id);
        }
        shared.settle();
    }

    /// Writes what of `bytes` there is room for; returns how much that is.
    pub fn write(&mut self, end: End, bytes: &[u8], now: Time) -> usize {
        self.with(end, |shared| shared.write(end.id, bytes, now)).unwrap_or(0)
    }

    /// Closes a write end.
    pub fn finish(&mut self, end: End) {
        self.with(end, |shared| shared.finish(end.id));
    }

    /// Aborts a write end, or drops it unfinished.
    pub fn abort(&mut self, end: End, dropped: bool) {
        let cause = if dropped { Cause::WriterDropped } else { Cause::Interrupted };
        let planted = self.plan.planted;
        self.with(end, |shared| shared.abort(end.id, cause, planted));
    }

    /// Lets go of a write end that was closed or aborted.
    pub fn release_writer(&mut self, end: End) {
        self.with(end, |shared| shared.release_writer(end.id));
    }

    /// Reads at most `max` bytes, which are consumed by that.
    pub fn read(&mut self, end: End, max: usize, now: Time) -> Option<Bytes> {
        self.with(end, |shared| shared.read(end.id, max, now)).flatten()
    }

    /// Lets go of a read end; breaks the pipe if it is not over.
    pub fn release_reader(&mut self, end: End) {
        self.with(end, |shared| shared.release_reader(end.id, Cause::ReaderClosed));
    }

    /// What became of a write end, and how many bytes were consumed, as far as is known here.
    pub fn write_outcome(&self, end: End) -> (Option<WriteOutcome>, u64) {
        let shared = self.sessions.get(&end.session);
        shared.map_or((None, 0), |shared| shared.write_outcome(end.id))
    }

    /// What the reader is told, once it has all that came.
    pub fn read_outcome(&mut self, end: End, now: Time) -> Option<ReadOutcome> {
        self.with(end, |shared| shared.read_outcome(end.id, now)).flatten()
    }

    /// Whether the session of an end is alive at this node.
    pub fn shares(&self, end: End) -> bool {
        self.sessions.get(&end.session).is_some_and(|shared| !shared.is_over)
    }

    fn with<R>(&mut self, end: End, act: impl FnOnce(&mut Shared) -> R) -> Option<R> {
        let shared = self.sessions.get_mut(&end.session)?;
        let result = act(shared);
        shared.settle();
        Some(result)
    }
}
