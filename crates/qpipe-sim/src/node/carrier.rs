//! One QUIC connection: what of it is not the session's.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use qpipe_proto::PipeId;
use qpipe_proto::fact::Attempt;
use qpipe_proto::hello::SessionId;
use qpipe_proto::wire::{ControlDecoder, ControlMessage, FrameReader, encode_control};
use quinn_proto::{Connection, Dir, ReadError, ReadableError, StreamId, VarInt, WriteError};

use super::assembler::Assembler;
use super::transport::Probe;
use crate::clock::{self, Time};

/// The number of a connection at its node; quinn-proto's handle.
pub(super) type CarrierId = usize;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its handshake runs, or the peer's Hello is waited for, at most until then.
    Greeting { until: Time },
    /// Hellos were exchanged.
    Bound,
    /// It is closed or lost.
    Over,
}

/// A connection.
pub(super) struct Carrier {
    pub(super) quic: Connection,
    pub(super) probe: Probe,
    /// The session that it was dialled for, or that its Hello named.
    pub(super) session: Option<SessionId>,
    pub(super) epoch: u64,
    pub(super) is_dialled: bool,
    pub(super) stage: Stage,
    /// When it is closed, a newer one having taken its place.
    pub(super) close_at: Option<Time>,
    control: Option<StreamId>,
    assembler: Assembler,
    decoder: ControlDecoder,
    /// Control bytes that QUIC has not taken.
    unsent: Vec<Bytes>,
    pub(super) inbound: BTreeMap<StreamId, Inbound>,
    /// Which pipe a stream that this side sends carries.
    pub(super) outbound: BTreeMap<StreamId, PipeId>,
    /// Streams for which the peer was told that it has room.
    slots: u64,
    /// What was heard of the peer when it was last asked.
    heard: u64,
    /// When it is looked at next whether a probe is to go out.
    pub(super) probe_at: Option<Time>,
    probed_acks: u64,
}

/// A pipe stream from the peer.
#[derive(Default)]
pub(super) struct Inbound {
    pub(super) assembler: Assembler,
    pub(super) frames: FrameReader,
    pub(super) pipe: Option<(PipeId, Attempt)>,
    /// The offset, in the pipe, of the content that comes next.
    pub(super) at: u64,
}

/// What reading a stream gave, beyond bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// More may come.
    Open,
    /// Its FIN came after all bytes.
    Fin,
    /// It was reset, or is closed.
    Cut,
}

/// While bytes wait, something probes at least this often.
const PROBE_EVERY: Duration = Duration::from_millis(200);

impl Carrier {
    pub(super) fn new(quic: Connection, probe: Probe, is_dialled: bool, until: Time) -> Carrier {
        Carrier {
            quic,
            probe,
            session: None,
            epoch: 0,
            is_dialled,
            stage: Stage::Greeting { until },
            close_at: None,
            control: None,
            assembler: Assembler::default(),
            decoder: ControlDecoder::default(),
            unsent: Vec::new(),
            inbound: BTreeMap::new(),
            outbound: BTreeMap::new(),
            slots: 0,
            heard: 0,
            probe_at: None,
            probed_acks: 0,
        }
    }

    /// Opens the control stream: the dialling side.
    pub(super) fn open_control(&mut self) {
        self.control = self.quic.streams().open(Dir::Bi);
    }

    /// Takes the control stream that the peer opened.
    pub(super) fn accept_control(&mut self) {
        if let Some(stream) = self.quic.streams().accept(Dir::Bi) {
            self.control.get_or_insert(stream);
        }
    }

    /// Whether `stream` is the control stream.
    pub(super) fn is_control(&self, stream: StreamId) -> bool {
        self.control == Some(stream)
    }

    /// Sends a control message.
    pub(super) fn say(&mut self, message: &ControlMessage) {
        self.unsent.push(encode_control(message));
        self.push_control();
    }

    /// Gives QUIC the control bytes that it has not taken.
    pub(super) fn push_control(&mut self) {
        let Some(stream) = self.control else { return };
        if !self.unsent.is_empty() {
            let _ = self.quic.send_stream(stream).set_priority(i32::MAX);
            write(&mut self.quic, stream, &mut self.unsent);
        }
    }

    /// The next control message, if one is complete.
    ///
    /// # Errors
    /// The control stream is cut, ended or malformed.
    pub(super) fn hear(&mut self) -> Result<Option<ControlMessage>, &'static str> {
        let Some(stream) = self.control else { return Ok(None) };
        match self.decoder.next() {
            Ok(None) => {}
            Ok(message) => return Ok(message),
            Err(_) => return Err("a malformed control message"),
        }
        let reading = read(&mut self.quic, stream, &mut self.assembler);
        while let Some(bytes) = self.assembler.pop() {
            self.decoder.push(&bytes);
        }
        match self.decoder.next() {
            Ok(None) if reading != Reading::Open => Err("the control stream is over"),
            Ok(message) => Ok(message),
            Err(_) => Err("a malformed control message"),
        }
    }

    /// Whether anything of the peer has arrived since this was last asked.
    pub(super) fn has_heard(&mut self) -> bool {
        let frames = self.quic.stats().frame_rx;
        let heard = frames.acks + frames.ping + frames.stream + frames.crypto;
        std::mem::replace(&mut self.heard, heard) < heard
    }

    /// Lets the peer open `slots` streams at once, if that is news.
    pub(super) fn open_slots(&mut self, slots: u64) {
        let slots = slots + slots / 7 + 1;
        if slots > self.slots {
            self.slots = slots;
            let count = VarInt::from_u64(slots).unwrap_or(VarInt::MAX);
            self.quic.set_max_concurrent_streams(Dir::Uni, count);
        }
    }

    /// Probes a peer that acknowledges nothing while bytes wait for it.
    pub(super) fn probe(&mut self, now: Time) {
        if self.stage != Stage::Bound || !self.is_waiting() {
            self.probe_at = None;
            return;
        }
        let Some(at) = self.probe_at else {
            self.probe_at = Some(now + PROBE_EVERY);
            return;
        };
        if at > now {
            return;
        }
        let acks = self.quic.stats().frame_rx.acks;
        if std::mem::replace(&mut self.probed_acks, acks) == acks {
            self.probe.allow();
            self.quic.ping();
        }
        self.probe_at = Some(now + PROBE_EVERY);
    }

    /// Closes it.
    pub(super) fn close(&mut self, code: u32, now: Time) {
        if self.stage != Stage::Over {
            self.stage = Stage::Over;
            self.quic.close(clock::instant(now), VarInt::from_u32(code), Bytes::new());
        }
    }

    fn is_waiting(&mut self) -> bool {
        // The control stream is always open and counts as one that may have unacknowledged bytes.
        self.quic.streams().send_streams() > 1 || self.quic.has_pending_retransmits()
    }
}

/// Gives QUIC what it takes of `pieces`; false once the stream takes no more for good.
pub(super) fn write(quic: &mut Connection, stream: StreamId, pieces: &mut Vec<Bytes>) -> bool {
    while !pieces.is_empty() {
        match quic.send_stream(stream).write_chunks(pieces) {
            Ok(written) => drop(pieces.drain(..written.chunks)),
            Err(WriteError::Blocked) => return true,
            Err(_) => return false,
        }
    }
    true
}

/// Takes what is there of a stream.
pub(super) fn read(quic: &mut Connection, stream: StreamId, into: &mut Assembler) -> Reading {
    let mut stream = quic.recv_stream(stream);
    let mut chunks = match stream.read(false) {
        Ok(chunks) => chunks,
        Err(ReadableError::ClosedStream | ReadableError::IllegalOrderedRead) => {
            return Reading::Cut;
        }
    };
    let reading = loop {
        match chunks.next(usize::MAX) {
            Ok(Some(chunk)) => into.push(chunk.offset, chunk.bytes),
            Ok(None) => break Reading::Fin,
            Err(ReadError::Blocked) => break Reading::Open,
            Err(ReadError::Reset(_)) => break Reading::Cut,
        }
    };
    // The driver of the connection asks for packets after everything anyway.
    let _ = chunks.finalize();
    reading
}
