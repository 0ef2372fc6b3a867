//! Pipe streams: what carries the bytes of pipes over a connection.

use std::time::Instant;

use bytes::Bytes;
use qpipe_proto::fact::{Attempt, Contradiction, End, EndKind};
use qpipe_proto::hello::SessionId;
use qpipe_proto::limits::{START_WINDOW_BYTES, STREAM_OVERHEAD_BYTES};
use qpipe_proto::session::StreamVerdict;
use qpipe_proto::wire::{Frame, StreamHeader, encode_chunk_header, encode_header, encode_trailer};
use qpipe_proto::{PipeId, WriteOutcome};
use quinn_proto::{Dir, StreamId, VarInt};

use super::carrier::{Carrier, CarrierId, Inbound, Reading, Stage, read, write};
use super::sides::{Outbound, Shared, WriterSide};
use super::{Node, codes};
use crate::clock::{self, Time};
use crate::planted::Planted;

/// The largest chunk that is written: small, so that runs of a few kilobytes have several.
const CHUNK_BYTES: usize = 4096;

/// Why a stream is read no further.
enum Stop {
    /// It was read to its trailer.
    Done,
    /// The peer is to stop it.
    Unwanted(StreamVerdict),
    /// The peer broke the rules of the session.
    Broken(&'static str),
}

impl Node {
    /// Takes the pipe streams that the peer opened.
    pub(super) fn accept_streams(&mut self, id: CarrierId, now: Time) {
        while let Some(carrier) = self.carriers.get_mut(&id)
            && let Some(stream) = carrier.quic.streams().accept(Dir::Uni)
        {
            carrier.inbound.insert(stream, Inbound::default());
            self.read_stream(id, stream, now);
        }
    }

    /// Reads what is there of a pipe stream.
    pub(super) fn read_stream(&mut self, id: CarrierId, stream: StreamId, now: Time) {
        let Some(carrier) = self.carriers.get_mut(&id) else { return };
        if carrier.is_control(stream) {
            return;
        }
        let Some(mut inbound) = carrier.inbound.remove(&stream) else { return };
        let epoch = carrier.epoch;
        let Some(SessionId(session)) = carrier.session else { return };
        let reading = read(&mut carrier.quic, stream, &mut inbound.assembler);
        let Some(shared) = self.sessions.get_mut(&session) else { return };
        let planted = self.plan.planted;
        let stop = take(shared, &mut inbound, epoch, reading, planted, now);
        shared.settle();
        let Some(carrier) = self.carriers.get_mut(&id) else { return };
        match stop {
            Ok(()) => drop(carrier.inbound.insert(stream, inbound)),
            Err(Stop::Done) => {}
            Err(Stop::Unwanted(verdict)) => stop_stream(carrier, stream, verdict),
            Err(Stop::Broken(what)) => self.fail_carrier(id, what, now),
        }
    }

    /// The peer stopped a stream: another is started when it asks for one, or the pipe is over.
    pub(super) fn is_stopped(&mut self, id: CarrierId, stream: StreamId, code: u32) {
        let Some(carrier) = self.carriers.get_mut(&id) else { return };
        let _ = carrier.quic.send_stream(stream).reset(VarInt::from_u32(code));
        let Some(pipe) = carrier.outbound.remove(&stream) else { return };
        let Some(SessionId(session)) = carrier.session else { return };
        let Some(shared) = self.sessions.get_mut(&session) else { return };
        if let Some(side) = shared.writers.get_mut(&pipe) {
            side.stream.take_if(|out| out.carrier == id && out.stream == Some(stream));
            shared.changed.insert(pipe);
        }
    }

    /// QUIC takes bytes or streams again.
    pub(super) fn may_write(&mut self, id: CarrierId) {
        let Some(SessionId(session)) = self.carriers.get(&id).and_then(|c| c.session) else {
            return;
        };
        if let Some(shared) = self.sessions.get_mut(&session) {
            shared.changed.extend(shared.writers.keys().copied());
        }
    }

    /// Sends what pipes have to send, and stops reading what nobody wants.
    pub(super) fn carry(&mut self, session: [u8; 16], now: Time) {
        let Some(shared) = self.sessions.get_mut(&session) else { return };
        let changed = std::mem::take(&mut shared.changed);
        if changed.is_empty() {
            return;
        }
        for carrier in self.carriers.values_mut() {
            if carrier.session == Some(shared.id) {
                drop_unwanted(shared, carrier, &changed);
            }
        }
        for pipe in changed {
            if self.plan.planted == Some(Planted::ConsumesEarly) {
                shared.consume_early(pipe, now);
            }
            carry_one(shared, &mut self.carriers, pipe, self.plan.planted, clock::instant(now));
        }
        shared.settle();
    }

    /// Cuts one of the pipe streams that this side sends, as a crash in its driver would: by a FIN
    /// without a trailer, or by a reset. Returns whether there was one.
    pub fn cut_stream(&mut self, by_fin: bool) -> bool {
        let carrying = self.carriers.values_mut().filter(|carrier| carrier.stage == Stage::Bound);
        for carrier in carrying {
            let cut = carrier.outbound.pop_first();
            let Some((stream, pipe)) = cut else { continue };
            let mut quic = carrier.quic.send_stream(stream);
            let _ = if by_fin {
                quic.finish().is_ok()
            } else {
                quic.reset(VarInt::from_u32(0)).is_ok()
            };
            let shared = carrier.session.and_then(|SessionId(id)| self.sessions.get_mut(&id));
            if let Some(shared) = shared
                && let Some(out) = shared.writers.get_mut(&pipe).and_then(|side| side.stream.take())
            {
                shared.session.stream_lost(pipe, out.attempt);
                shared.changed.insert(pipe);
            }
            return true;
        }
        false
    }
}

fn stop_stream(carrier: &mut Carrier, stream: StreamId, verdict: StreamVerdict) {
    let code = match verdict {
        StreamVerdict::Broken => codes::STOP_BROKEN,
        StreamVerdict::Cut | StreamVerdict::Read => codes::STOP_CUT,
    };
    let _ = carrier.quic.recv_stream(stream).stop(VarInt::from_u32(code));
}

/// Stops the streams of `changed` pipes that nobody reads on.
fn drop_unwanted(
    shared: &Shared,
    carrier: &mut Carrier,
    changed: &std::collections::BTreeSet<PipeId>,
) {
    let unwanted: Vec<StreamId> = carrier
        .inbound
        .iter()
        .filter(|(_, inbound)| {
            inbound.pipe.is_some_and(|(pipe, attempt)| {
                changed.contains(&pipe) && shared.is_unwanted(pipe, attempt)
            })
        })
        .map(|(stream, _)| *stream)
        .collect();
    for stream in unwanted {
        let is_stale = carrier.inbound.remove(&stream).and_then(|inbound| inbound.pipe);
        let is_stale =
            is_stale.is_some_and(|(pipe, attempt)| shared.session.is_stale(pipe, attempt));
        let verdict = if is_stale { StreamVerdict::Cut } else { StreamVerdict::Broken };
        stop_stream(carrier, stream, verdict);
    }
}

/// Takes bytes of a stream apart, and hands content and trailer on.
fn take(
    shared: &mut Shared,
    inbound: &mut Inbound,
    epoch: u64,
    reading: Reading,
    planted: Option<Planted>,
    now: Time,
) -> Result<(), Stop> {
    while let Some(mut piece) = inbound.assembler.pop() {
        loop {
            match inbound.frames.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(Frame::Header(header))) => begin(shared, inbound, &header, epoch, now)?,
                Ok(Some(Frame::Content(length))) => {
                    content(shared, inbound, piece.split_to(length), planted)?;
                }
                Ok(Some(Frame::Trailer(end))) => trailer(shared, inbound, end)?,
                Err(_) => {
                    contradict(shared, inbound, "a malformed pipe stream");
                    return Err(Stop::Unwanted(StreamVerdict::Cut));
                }
            }
        }
    }
    if inbound.frames.is_done() {
        return Err(Stop::Done);
    }
    let held_max = match inbound.pipe {
        Some((pipe, _)) => shared.unplaced_max(pipe, inbound.at),
        None => STREAM_OVERHEAD_BYTES + 2 * START_WINDOW_BYTES,
    };
    if inbound.assembler.held() > held_max {
        contradict(shared, inbound, "more bytes out of order than the Limit allows");
        return Err(Stop::Unwanted(StreamVerdict::Cut));
    }
    if inbound.assembler.charged() > held_max {
        // Another stream brings the same bytes, in fewer pieces.
        if let Some((pipe, attempt)) = inbound.pipe {
            shared.session.stream_cut(pipe, attempt);
        }
        return Err(Stop::Unwanted(StreamVerdict::Cut));
    }
    if reading == Reading::Open {
        return Ok(());
    }
    if let Some((pipe, attempt)) = inbound.pipe {
        if planted == Some(Planted::FinIsEof) && reading == Reading::Fin {
            shared.believe_eof(pipe, Some(attempt));
        }
        shared.session.stream_cut(pipe, attempt);
    }
    Err(Stop::Done)
}

fn begin(
    shared: &mut Shared,
    inbound: &mut Inbound,
    header: &StreamHeader,
    epoch: u64,
    now: Time,
) -> Result<(), Stop> {
    match shared.session.stream_opened(header, epoch, clock::instant(now)) {
        Ok(StreamVerdict::Read) => {
            shared.readers.entry(header.id).or_default();
            shared.changed.insert(header.id);
            inbound.pipe = Some((header.id, Attempt { epoch, number: header.attempt }));
            inbound.at = header.offset;
            Ok(())
        }
        Ok(verdict) => Err(Stop::Unwanted(verdict)),
        Err(_) => Err(Stop::Broken("a stream broke the session's rules")),
    }
}

fn content(
    shared: &mut Shared,
    inbound: &mut Inbound,
    bytes: Bytes,
    planted: Option<Planted>,
) -> Result<(), Stop> {
    let Some((pipe, attempt)) = inbound.pipe else { return Ok(()) };
    let at = inbound.at;
    inbound.at += bytes.len() as u64;
    match shared.deliver(pipe, attempt, at, bytes, planted) {
        StreamVerdict::Read => Ok(()),
        verdict => Err(Stop::Unwanted(verdict)),
    }
}

fn trailer(shared: &mut Shared, inbound: &Inbound, end: End) -> Result<(), Stop> {
    let Some((pipe, attempt)) = inbound.pipe else { return Ok(()) };
    match shared.session.trailer(pipe, attempt, end) {
        StreamVerdict::Read => Ok(()),
        verdict => Err(Stop::Unwanted(verdict)),
    }
}

fn contradict(shared: &mut Shared, inbound: &Inbound, what: &'static str) {
    if let Some((pipe, _)) = inbound.pipe {
        shared.session.contradict(pipe, Contradiction(what));
    }
}

/// Sends what one pipe has to send.
fn carry_one(
    shared: &mut Shared,
    carriers: &mut std::collections::BTreeMap<CarrierId, Carrier>,
    pipe: PipeId,
    planted: Option<Planted>,
    now: Instant,
) {
    let Some(side) = shared.writers.get_mut(&pipe) else { return };
    let outcome = shared.session.write_outcome(pipe);
    let is_over = shared.session.facts(pipe).is_none()
        || outcome.is_some_and(|outcome| !matches!(outcome, WriteOutcome::Complete { .. }));
    let is_superseded =
        side.stream.as_ref().is_some_and(|out| shared.session.is_superseded(pipe, out.attempt));
    if is_over || is_superseded {
        let code = if is_over { codes::STOP_BROKEN } else { codes::STOP_CUT };
        if let Some(out) = side.stream.take() {
            reset(carriers, &out, code);
        }
    }
    if is_over {
        return shared.look_again(pipe);
    }
    let adopted = shared.adopted;
    if let Some(carrier) = adopted
        && shared.session.wants_stream(pipe)
        && let Some(start) = shared.session.next_stream(pipe)
    {
        let header = StreamHeader {
            id: pipe,
            attempt: start.attempt.number,
            offset: start.offset,
            open: start.open,
        };
        let late = planted == Some(Planted::ResumesLate) && start.offset > 0;
        side.stream = Some(Outbound {
            carrier,
            stream: None,
            attempt: start.attempt,
            next: start.offset + u64::from(late),
            pieces: vec![encode_header(&header)],
            is_finished: false,
        });
    }
    let end = shared.session.facts(pipe).and_then(|facts| facts.end);
    if let Some(carrier) = side.stream.as_ref().and_then(|out| carriers.get_mut(&out.carrier)) {
        send(carrier, pipe, side, end, planted);
        shared.session.goes_in_band(pipe, now);
    }
    shared.look_again(pipe);
}

fn send(
    carrier: &mut Carrier,
    pipe: PipeId,
    side: &mut WriterSide,
    end: Option<End>,
    planted: Option<Planted>,
) {
    let Some(mut out) = side.stream.take() else { return };
    let stream = match out.stream {
        Some(stream) => stream,
        None => match carrier.quic.streams().open(Dir::Uni) {
            Some(stream) => {
                carrier.outbound.insert(stream, pipe);
                *out.stream.insert(stream)
            }
            None => {
                side.stream = Some(out);
                return;
            }
        },
    };
    while !out.is_finished {
        if !write(&mut carrier.quic, stream, &mut out.pieces) {
            break;
        }
        if !out.pieces.is_empty() {
            break;
        }
        let chunk = side.copy(out.next, CHUNK_BYTES);
        if !chunk.is_empty() {
            out.next += chunk.len() as u64;
            out.pieces = vec![encode_chunk_header(chunk.len() as u64), chunk];
            if planted == Some(Planted::TrimsEarly) {
                side.trim(out.next);
            }
        } else if let Some(end) = end.filter(|_| out.next >= side.written) {
            let reset = planted == Some(Planted::ResetsOnAbort) && end.kind != EndKind::Eof;
            let mut pieces = vec![encode_trailer(&end)];
            if reset {
                let _ = carrier.quic.send_stream(stream).reset(VarInt::from_u32(0));
            } else if write(&mut carrier.quic, stream, &mut pieces) {
                let _ = carrier.quic.send_stream(stream).finish();
            }
            out.is_finished = true;
        } else {
            break;
        }
    }
    if out.is_finished {
        carrier.outbound.remove(&stream);
    } else {
        side.stream = Some(out);
    }
}

fn reset(carriers: &mut std::collections::BTreeMap<CarrierId, Carrier>, out: &Outbound, code: u32) {
    if let Some(carrier) = carriers.get_mut(&out.carrier)
        && let Some(stream) = out.stream
        && carrier.outbound.remove(&stream).is_some()
    {
        let _ = carrier.quic.send_stream(stream).reset(VarInt::from_u32(code));
    }
}
