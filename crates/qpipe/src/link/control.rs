//! The control stream: one task writes it, one reads it.

use std::sync::Arc;

use qpipe_proto::limits::CONTROL_MESSAGE_BYTES_MAX;
use qpipe_proto::wire::{ControlDecoder, encode_control};
use quinn::{SendStream, VarInt, WriteError};

use super::assembler::{Assembled, Assembler, ReadFailure};
use super::state::ControlWriter;
use super::transport::SILENCE_MAX;
use super::{Link, codes};
use crate::clock;
use crate::session::SessionEnd;

/// What of a control stream may be out of order, in bytes.
const UNPLACED_BYTES_MAX: u64 = 16 * CONTROL_MESSAGE_BYTES_MAX as u64;

/// Messages are gathered up to so many bytes for one write.
const WRITE_BYTES: usize = 16 * 1024;

/// Sends what the session has to say, until the connection is over.
///
/// What waits for the stream is no queue: the session keeps a set of pipes with untold facts, and
/// a message is made of it only when the stream takes it.
pub(super) async fn write(link: Arc<Link>, mut stream: SendStream) {
    // An error would say that the stream is over, which the first write says as well.
    let _ = stream.set_priority(i32::MAX);
    loop {
        let changed = link.control.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let now = clock::now();
        let bytes = link.with(|state| {
            state.session.handle_timeout(now);
            let mut bytes = Vec::new();
            while bytes.len() < WRITE_BYTES
                && let Some(message) = state.session.poll_message()
            {
                bytes.extend(encode_control(&message));
            }
            bytes
        });
        link.open_slots();
        if !bytes.is_empty() {
            match stream.write_all(&bytes).await {
                Ok(()) => {}
                Err(WriteError::ConnectionLost(_)) => return,
                Err(_) => return link.fail("the control stream was stopped"),
            }
            continue;
        }
        let timeout = {
            let mut state = link.lock();
            if state.ended.is_some() {
                return;
            }
            let timeout = state.session.poll_timeout();
            state.control = ControlWriter::Asleep(timeout);
            timeout
        };
        match timeout {
            Some(at) => drop(tokio::time::timeout_at(at.into(), changed).await),
            None => changed.await,
        }
        link.lock().control = ControlWriter::Awake;
    }
}

/// Hears what the peer says, until the connection is over.
pub(super) async fn read(link: Arc<Link>, mut stream: Assembler, mut decoder: ControlDecoder) {
    loop {
        if let Err(error) = hear(&link, &mut decoder).await {
            return link.fail(&error.to_string());
        }
        match stream.read(UNPLACED_BYTES_MAX).await {
            Ok(Assembled::Bytes(pieces)) => pieces.iter().for_each(|piece| decoder.push(piece)),
            Ok(Assembled::Fin) => return link.fail("the control stream was ended"),
            Err(ReadFailure::Quic(quinn::ReadError::ConnectionLost(_))) => return,
            Err(_) => return link.fail("the control stream was cut"),
        }
    }
}

async fn hear(link: &Arc<Link>, decoder: &mut ControlDecoder) -> Result<(), HearError> {
    while let Some(message) = decoder.next()? {
        let relieved = async {
            while link.lock().session.is_congested() && link.lock().ended.is_none() {
                // Answers wait until the peer reads: so do its questions.
                tokio::time::sleep(link.conn.rtt()).await;
            }
        };
        if tokio::time::timeout(SILENCE_MAX, relieved).await.is_err() {
            return Err(HearError::Unread);
        }
        link.with(|state| state.session.handle(message, clock::now()))?;
    }
    link.open_slots();
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

impl Link {
    /// The peer broke the protocol: ends the session.
    pub(super) fn fail(&self, what: &str) {
        tracing::warn!(peer = %self.peer.host(), what, "the peer broke the protocol: session over");
        self.lock().ended.get_or_insert_with(|| SessionEnd::Protocol(what.to_owned()));
        self.conn.close(codes::PROTOCOL, what.as_bytes());
    }

    /// Lets the peer open as many streams as its pipes may need.
    pub(super) fn open_slots(&self) {
        let mut state = self.lock();
        state.rtt = self.conn.rtt();
        // A stream that does not say which pipe it carries makes no room for another.
        let undrained = state.streams_begun as u64;
        let slots = state.session.stream_slots(undrained);
        // quinn keeps an increase of up to an eighth of the whole to itself, to save frames: with
        // so much more, what it has told is enough.
        let slots = slots + slots / 7 + 1;
        if slots > state.slots {
            state.slots = slots;
            if let Ok(slots) = VarInt::from_u64(slots) {
                self.conn.set_max_concurrent_uni_streams(slots);
            }
        }
    }
}
