//! A session: what two nodes share over one connection after the other.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use qpipe_proto::cause::Cause;
use qpipe_proto::fact::{Open, OpenTarget, Opener};
use qpipe_proto::hello::Enrolled;
use qpipe_proto::session::OpenOptions;
use qpipe_proto::ticket::End;
use qpipe_proto::{PipeId, session};

use crate::clock;
use crate::identity::PeerIdentity;
use crate::link::Link;
use crate::node::{CloseReport, Ends};
use crate::pipe::{PipeReader, PipeWriter};

/// The address of a peer that nobody has seen.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A session with a peer. Clones are the same session; it lives until it is closed or lost.
#[derive(Clone)]
pub struct Session {
    link: Arc<Link>,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionEnd {
    /// Both sides said Bye.
    #[error("closed by both sides")]
    Bye,
    /// The connection was lost, or closed without a Bye.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    /// It had no pipes, and was not needed any more.
    #[error("no longer needed")]
    Idle,
    /// The peer's host says that nothing listens there any more: its process is gone.
    #[error("the peer's process is gone: nothing listens there any more")]
    Refused,
    /// The peer was started anew, and has forgotten the session.
    #[error("the other node was restarted")]
    Restarted,
    /// Nothing was heard from the peer for as long as it was to be waited for.
    #[error("nothing was heard from the peer for {} s", .silent.as_secs())]
    Silent {
        /// So long.
        silent: Duration,
    },
}

impl SessionEnd {
    /// What the peer is told of it.
    pub(crate) fn words(&self) -> String {
        match self {
            SessionEnd::Lost(words) | SessionEnd::Protocol(words) => words.clone(),
            end => end.to_string(),
        }
    }

    /// The cause that its unfinished pipes end with.
    pub(crate) fn cause(&self) -> Cause {
        match self {
            SessionEnd::Refused => Cause::Gone,
            SessionEnd::Restarted => Cause::Restarted,
            SessionEnd::Silent { .. } => Cause::Unheard,
            _ => Cause::Lost,
        }
    }
}

/// Why a pipe could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// This node has no memory left for another pipe.
    #[error("no memory left for another pipe: raise --memory or close pipes")]
    Busy,
    /// The session is closing or over.
    #[error("the session is over")]
    Closed,
}

/// A group of opens by a peer, to be answered. Dropped unanswered, it is refused.
pub struct IncomingOpen {
    link: Arc<Link>,
    members: Vec<(PipeId, Open)>,
    is_answered: bool,
}

impl Session {
    pub(crate) fn new(link: Arc<Link>) -> Session {
        Session { link }
    }

    /// Who the peer is.
    pub fn peer(&self) -> PeerIdentity {
        self.link.peer
    }

    /// Where the peer is now, or was when it was last heard.
    pub fn remote_address(&self) -> SocketAddr {
        self.link.remote_address().unwrap_or(UNKNOWN)
    }

    /// The smoothed round trip of its connection, or of the last one.
    pub fn rtt(&self) -> Duration {
        self.link.rtt()
    }

    /// The name of the cipher suite, known to the side that dialled.
    pub fn suite(&self) -> Option<&'static str> {
        self.link.suite
    }

    /// What an invitation granted this side, if the session began with one.
    pub fn enrolled(&self) -> Option<&Enrolled> {
        self.link.enrolled.as_ref()
    }

    /// Opens a pipe to write. Does not wait for an answer: bytes may be written at once, and a
    /// refusal is an error of a later write. Waits only while the peer allows no more opens.
    ///
    /// # Errors
    /// See [`OpenError`].
    ///
    /// # Cancel safety
    /// Cancel safe: the pipe is either open or not.
    pub async fn open_writer(
        &self,
        target: OpenTarget,
        options: OpenOptions,
    ) -> Result<PipeWriter, OpenError> {
        let ids = self.open(&target, options, &[Opener::Writer]).await?;
        Ok(PipeWriter::new(self.link.clone(), ids[0]))
    }

    /// Opens a pipe to read; as [`Session::open_writer`].
    ///
    /// # Errors
    /// See [`OpenError`].
    ///
    /// # Cancel safety
    /// Cancel safe: the pipe is either open or not.
    pub async fn open_reader(
        &self,
        target: OpenTarget,
        options: OpenOptions,
    ) -> Result<PipeReader, OpenError> {
        let ids = self.open(&target, options, &[Opener::Reader]).await?;
        Ok(PipeReader::new(self.link.clone(), ids[0]))
    }

    /// Opens a group of two pipes, one to write and one to read, which are answered together; as
    /// [`Session::open_writer`].
    ///
    /// # Errors
    /// See [`OpenError`].
    ///
    /// # Cancel safety
    /// Cancel safe: the pipes are either open or not.
    pub async fn open_duplex(
        &self,
        target: OpenTarget,
        options: OpenOptions,
    ) -> Result<(PipeWriter, PipeReader), OpenError> {
        let ids = self.open(&target, options, &[Opener::Writer, Opener::Reader]).await?;
        let writer = PipeWriter::new(self.link.clone(), ids[0]);
        Ok((writer, PipeReader::new(self.link.clone(), ids[1])))
    }

    /// Opens what `end` says: an end to write, one to read, or both; as [`Session::open_writer`].
    ///
    /// # Errors
    /// See [`OpenError`].
    ///
    /// # Cancel safety
    /// Cancel safe: the pipes are either open or not.
    pub async fn open_ends(
        &self,
        end: End,
        target: OpenTarget,
        options: OpenOptions,
    ) -> Result<Ends, OpenError> {
        let (writer, reader) = match end {
            End::Duplex => {
                let (writer, reader) = self.open_duplex(target, options).await?;
                (Some(writer), Some(reader))
            }
            End::Read => (None, Some(self.open_reader(target, options).await?)),
            End::Write => (Some(self.open_writer(target, options).await?), None),
        };
        Ok(Ends { session: self.clone(), writer, reader })
    }

    /// Ends the session gracefully: no new pipes; waits until those that are open have ended and
    /// both sides know, at most `within`; then closes the connection. Whatever is not settled then
    /// is cut.
    ///
    /// # Cancel safety
    /// Cancel safe: the session closes all the same once its pipes have ended.
    pub async fn close(&self, within: Duration) -> CloseReport {
        CloseReport { cut: self.link.close(within, false).await }
    }

    /// Waits for the session's end.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn closed(&self) -> SessionEnd {
        self.link.ended().await
    }

    async fn open(
        &self,
        target: &OpenTarget,
        options: OpenOptions,
        openers: &[Opener],
    ) -> Result<Vec<PipeId>, OpenError> {
        self.link.open(target, options, openers).await.map_err(|error| match error {
            session::OpenError::Busy => OpenError::Busy,
            session::OpenError::Closing | session::OpenError::NotYet => OpenError::Closed,
        })
    }
}

impl IncomingOpen {
    pub(crate) fn new(link: Arc<Link>, members: Vec<(PipeId, Open)>) -> IncomingOpen {
        IncomingOpen { link, members, is_answered: false }
    }

    /// Who opens.
    pub fn peer(&self) -> PeerIdentity {
        self.link.peer
    }

    /// From where.
    pub fn remote_address(&self) -> SocketAddr {
        self.link.remote_address().unwrap_or(UNKNOWN)
    }

    /// What the open asks for.
    pub fn target(&self) -> &OpenTarget {
        &self.members[0].1.target
    }

    /// Whether the opener would rather be refused than wait for a partner.
    pub fn no_wait(&self) -> bool {
        self.members[0].1.no_wait
    }

    /// How many of the group's pipes the opener writes and reads.
    pub fn shape(&self) -> (usize, usize) {
        let writers = self.members.iter().filter(|(_, open)| open.opener == Opener::Writer).count();
        (writers, self.members.len() - writers)
    }

    /// Accepts the group: a pipe that the opener writes is read here, and the other way round. Of a
    /// group with several pipes of one direction only the first is given, the others are closed.
    ///
    /// # Errors
    /// [`Cause::Busy`]: no memory is left, and the group was refused.
    pub fn accept(mut self) -> Result<Ends, Cause> {
        let ids: Vec<PipeId> = self.members.iter().map(|(id, _)| *id).collect();
        let accepted = self.link.with(|state| {
            for (id, open) in &self.members {
                state.add_side(*id, open.opener == Opener::Reader);
            }
            state.session.accept(&ids, clock::now())
        });
        if let Err(cause) = accepted {
            self.answer_no(cause);
            return Err(cause);
        }
        self.is_answered = true;
        self.link.used.notify_one();
        let mut ends =
            Ends { session: Session::new(self.link.clone()), writer: None, reader: None };
        for (id, open) in &self.members {
            match open.opener {
                Opener::Reader => {
                    let writer = PipeWriter::new(self.link.clone(), *id);
                    ends.writer.get_or_insert(writer);
                }
                Opener::Writer => {
                    let reader = PipeReader::new(self.link.clone(), *id);
                    ends.reader.get_or_insert(reader);
                }
            }
        }
        Ok(ends)
    }

    /// Refuses the group.
    pub fn refuse(mut self, cause: Cause) {
        self.answer_no(cause);
    }

    fn answer_no(&mut self, cause: Cause) {
        self.is_answered = true;
        let ids: Vec<PipeId> = self.members.iter().map(|(id, _)| *id).collect();
        self.link.with(|state| {
            state.session.refuse(&ids, cause);
            for id in ids {
                state.release_reader(id);
                state.release_writer(id);
            }
        });
    }
}

impl Drop for IncomingOpen {
    fn drop(&mut self) {
        if !self.is_answered {
            self.answer_no(Cause::Stopping);
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.link.peer)
            .field("id", &self.link.session_id)
            .finish()
    }
}

impl fmt::Debug for IncomingOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingOpen").field("members", &self.members).finish_non_exhaustive()
    }
}
