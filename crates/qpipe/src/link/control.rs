//! The control stream: one task writes it, one reads it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use qpipe_proto::limits::CONTROL_MESSAGE_BYTES_MAX;
use qpipe_proto::wire::{ControlDecoder, ControlMessage, encode_control};
use quinn::{SendStream, WriteError};

use super::assembler::{Assembled, Assembler, ReadFailure};
use super::state::{ControlWriter, State};
use super::turns::{Turns, others_first};
use super::wire::Wire;
use super::{Link, codes};
use crate::clock;
use crate::session::SessionEnd;

/// What of a control stream may be out of order, in bytes.
const UNPLACED_BYTES_MAX: u64 = 16 * CONTROL_MESSAGE_BYTES_MAX as u64;

/// Messages are gathered up to so many bytes for one write.
const WRITE_BYTES: usize = 16 * 1024;

/// Answers that the peer does not read stop the reading of its questions for so long at most.
const UNREAD_MAX: Duration = Duration::from_secs(10);

/// Sends `first` and then what the session has to say, as long as the connection is adopted.
///
/// What waits for the stream is no queue: the session keeps a set of pipes with untold facts, and
/// a message is made of it only when the stream takes it.
pub(super) async fn write(link: Arc<Link>, wire: Arc<Wire>, mut stream: SendStream, first: Bytes) {
    // An error would say that the stream is over, which the first write says as well.
    let _ = stream.set_priority(i32::MAX);
    let mut bytes = Vec::from(first);
    loop {
        if bytes.is_empty() {
            let now = clock::now();
            match link.with(|state| state.is_adopted(&wire).then(|| gather(&link, state, now))) {
                Some(gathered) => bytes = gathered,
                None => break,
            }
            link.open_slots(&wire);
        }
        if !bytes.is_empty() {
            match stream.write_all(&bytes).await {
                Ok(()) => bytes.clear(),
                Err(WriteError::ConnectionLost(_)) => break,
                Err(_) => return link.fail("the control stream was stopped"),
            }
            continue;
        }
        let timeout = {
            let mut state = link.lock();
            if state.ended.is_some() || !state.is_adopted(&wire) {
                break;
            }
            let timeout = state.session.poll_timeout();
            state.control = ControlWriter::Asleep(timeout);
            timeout
        };
        // Asked for only now: one that is stuck in a write is not to take the wake-ups of another. What
        // happened since this looked has left a permit.
        let changed = link.control.notified();
        match timeout {
            Some(at) => drop(tokio::time::timeout_at(at.into(), changed).await),
            None => changed.await,
        }
        link.lock().control = ControlWriter::Awake;
        // What woke this may go on: an open is mostly followed by bytes, whose stream tells of it, an
        // answer by all that is to be said of a short pipe.
        others_first().await;
    }
    // This wake-up may have been meant for the writer of the connection that is adopted now.
    link.control.notify_one();
    // A stream that is dropped ends, and the end of the control stream is the end of the session.
    wire.conn.closed().await;
}

fn gather(link: &Link, state: &mut State, now: std::time::Instant) -> Vec<u8> {
    state.session.handle_timeout(now);
    let mut bytes = Vec::new();
    while bytes.len() < WRITE_BYTES
        && let Some(message) = state.session.poll_message()
    {
        bytes.extend(encode_control(&message));
    }
    if std::mem::take(&mut state.owes_addresses)
        && let Some(host) = link.host.upgrade()
    {
        bytes.extend(encode_control(&ControlMessage::Addresses(host.addresses())));
    }
    bytes
}

/// Hears what the peer says, until the connection is over.
pub(super) async fn read(
    link: Arc<Link>,
    wire: Arc<Wire>,
    mut stream: Assembler,
    mut decoder: ControlDecoder,
) {
    let mut turns = Turns::default();
    loop {
        if let Err(error) = hear(&link, &wire, &mut decoder, &mut turns).await {
            link.fail(&error.to_string());
            break;
        }
        match stream.read(UNPLACED_BYTES_MAX).await {
            Ok(Assembled::Bytes(pieces)) => pieces.iter().for_each(|piece| decoder.push(piece)),
            Ok(Assembled::Fin) => {
                link.fail("the control stream was ended");
                break;
            }
            Err(ReadFailure::Quic(quinn::ReadError::ConnectionLost(_))) => break,
            Err(_) => {
                link.fail("the control stream was cut");
                break;
            }
        }
    }
    wire.stream_read(false);
}

async fn hear(
    link: &Arc<Link>,
    wire: &Arc<Wire>,
    decoder: &mut ControlDecoder,
    turns: &mut Turns,
) -> Result<(), HearError> {
    while let Some(message) = decoder.next()? {
        turns.next().await;
        let relieved = async {
            while link.lock().is_congested_on(wire) {
                // Answers wait until the peer reads: so do its questions.
                tokio::time::sleep(wire.conn.rtt()).await;
            }
        };
        if tokio::time::timeout(UNREAD_MAX, relieved).await.is_err() {
            return Err(HearError::Unread);
        }
        link.with(|state| {
            if let ControlMessage::Addresses(addresses) = &message
                && state.is_adopted(wire)
            {
                state.told_addresses.clone_from(addresses);
            }
            state.session.handle(message, wire.epoch, clock::now())
        })?;
    }
    link.open_slots(wire);
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum HearError {
    #[error(transparent)]
    Malformed(#[from] qpipe_proto::wire::MalformedMessage),
    /// QUIC would buffer what is not read here, outside of the budget.
    #[error("answers to facts of forgotten pipes are not read")]
    Unread,
    #[error(transparent)]
    Session(#[from] qpipe_proto::session::SessionError),
}

impl State {
    /// Whether this is the connection to send on.
    pub(super) fn is_adopted(&self, wire: &Arc<Wire>) -> bool {
        self.wire.as_ref().is_some_and(|adopted| Arc::ptr_eq(adopted, wire))
    }

    /// Whether so many answers wait for a peer that reads none that no more is heard from it here.
    fn is_congested_on(&self, wire: &Arc<Wire>) -> bool {
        self.session.is_congested() && self.ended.is_none() && self.is_adopted(wire)
    }
}

impl Link {
    /// The peer broke the protocol: ends the session.
    pub(super) fn fail(self: &Arc<Self>, what: &str) {
        tracing::warn!(peer = %self.peer.host(), what, "the peer broke the protocol: session over");
        self.end_with(SessionEnd::Protocol(what.to_owned()), codes::PROTOCOL);
    }

    /// Lets the peer open as many streams as its pipes may need.
    pub(super) fn open_slots(&self, wire: &Wire) {
        let mut state = self.lock();
        state.rtt = wire.conn.rtt();
        wire.allow_streams(|undrained| state.session.stream_slots(undrained));
    }
}
