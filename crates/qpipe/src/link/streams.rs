//! Pipe streams: a task for each that is open.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use qpipe_proto::PipeId;
use qpipe_proto::fact::{Attempt, Contradiction, End};
use qpipe_proto::limits::{START_WINDOW_BYTES, STREAM_OVERHEAD_BYTES};
use qpipe_proto::session::{StreamStart, StreamVerdict};
use qpipe_proto::wire::{
    Frame, FrameReader, StreamHeader, encode_chunk_header, encode_header, encode_trailer,
};
use quinn::{RecvStream, SendStream, WriteError};

use super::assembler::{Assembled, Assembler, ReadFailure};
use super::incoming::Content;
use super::outgoing::Outgoing;
use super::precedence::Habit;
use super::turns::Turns;
use super::{Link, Wire, codes};
use crate::clock;

/// Accepts pipe streams until the connection is over.
pub(super) async fn accept(link: Arc<Link>, wire: Arc<Wire>) {
    let mut turns = Turns::default();
    while let Ok(stream) = wire.conn.accept_uni().await {
        wire.stream_came();
        let (link, wire) = (link.clone(), wire.clone());
        tokio::spawn(async move {
            let has_begun = Incoming::new(link, wire.clone(), stream).carry().await;
            wire.stream_read(has_begun);
        });
        turns.next().await;
    }
    wire.stream_read(false);
}

/// Carries a write end's bytes to the peer, on one stream after the other: the first begins with the
/// pipe's first byte, another one when the reader's node asks for it. Ends when there is nothing to
/// carry now.
pub(crate) async fn carry_out(link: Arc<Link>, id: PipeId) {
    while let Some((wire, start)) = link.with(|state| state.next_stream(id)) {
        let opened = tokio::select! {
            biased;
            () = unwanted(&link, id, start.attempt) => None,
            opened = wire.conn.open_uni() => opened.ok(),
        };
        if let Some(stream) = opened {
            carry_on(&link, &wire, id, start, stream).await;
        }
    }
}

async fn carry_on(
    link: &Arc<Link>,
    wire: &Wire,
    id: PipeId,
    start: StreamStart,
    mut stream: SendStream,
) {
    let attempt = start.attempt;
    let stopped = stream.stopped();
    let sent = tokio::select! {
        biased;
        sent = send(link, wire, id, start, &mut stream) => sent,
        // An idle writer's stream may be stopped as well.
        Ok(Some(code)) = stopped => Err(WriteError::Stopped(code)),
        () = unwanted(link, id, attempt) => Err(WriteError::Stopped(codes::STOP_BROKEN)),
    };
    match sent {
        Ok(()) => {}
        Err(WriteError::Stopped(codes::STOP_BROKEN)) => {
            let _ = stream.reset(codes::STOP_BROKEN);
            // Closed follows on the control stream and says why.
            unwanted(link, id, attempt).await;
        }
        // The reader's node does not know whose stream it was.
        Err(WriteError::Stopped(codes::STOP_UNREAD)) => {
            let _ = stream.reset(codes::STOP_CUT);
            link.with(|state| state.session.stream_lost(id, attempt));
        }
        // The reader's node asks for another stream when it wants one.
        Err(WriteError::Stopped(_)) => drop(stream.reset(codes::STOP_CUT)),
        // So it does on the next connection.
        Err(WriteError::ConnectionLost(_)) => {}
        Err(_) => link.with(|state| state.session.stream_lost(id, attempt)),
    }
}

/// Waits until nothing more of a pipe is wanted on this stream.
async fn unwanted(link: &Arc<Link>, id: PipeId, attempt: Attempt) {
    poll_fn(|cx| match link.lock().is_over_for_carrier(id, attempt, cx) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await
}

async fn send(
    link: &Arc<Link>,
    wire: &Wire,
    id: PipeId,
    start: StreamStart,
    stream: &mut SendStream,
) -> Result<(), WriteError> {
    let StreamStart { attempt, offset, open } = start;
    // A pipe of one chunk is mostly four pieces.
    let mut pieces = Vec::with_capacity(4);
    pieces.push(encode_header(&StreamHeader { id, attempt: attempt.number, offset, open }));
    let (mut habit, mut ranked) = (Habit::default(), None);
    loop {
        match next_outgoing(link, id, attempt).await {
            Outgoing::Chunk { pieces: chunk, sent, priority } => {
                let rank = wire.rank(priority, &mut habit, sent);
                if ranked.replace(rank) != Some(rank) {
                    // An error would say that the stream is over, which the write says as well.
                    let _ = stream.set_priority(rank);
                }
                pieces.push(encode_chunk_header(sent.bytes));
                pieces.extend(chunk);
                stream.write_all_chunks(&mut pieces).await?;
                pieces.clear();
            }
            Outgoing::End(end) => {
                pieces.push(encode_trailer(&end));
                stream.write_all_chunks(&mut pieces).await?;
                // Stopped meanwhile: the reader's Closed says all there is to say.
                let _ = stream.finish();
                return Ok(());
            }
            Outgoing::Over => {
                let _ = stream.reset(codes::STOP_BROKEN);
                return Ok(());
            }
        }
    }
}

async fn next_outgoing(link: &Arc<Link>, id: PipeId, attempt: Attempt) -> Outgoing {
    poll_fn(|cx| match link.lock().next_outgoing(id, attempt, cx) {
        Some(outgoing) => Poll::Ready(outgoing),
        None => Poll::Pending,
    })
    .await
}

/// A pipe stream from the peer.
struct Incoming {
    link: Arc<Link>,
    wire: Arc<Wire>,
    stream: Assembler,
    frames: FrameReader,
    pipe: Option<Carried>,
    /// Its header was read, and the stream is not wanted.
    is_refused: bool,
}

/// What a stream carries.
#[derive(Clone, Copy)]
struct Carried {
    id: PipeId,
    attempt: Attempt,
    /// Of the next byte, in the pipe.
    position: u64,
}

/// Why a stream is read no further.
enum Stop {
    /// It was read to its trailer, or the connection is gone.
    Done,
    /// The peer is to stop it.
    Unwanted(StreamVerdict),
}

impl Incoming {
    fn new(link: Arc<Link>, wire: Arc<Wire>, stream: RecvStream) -> Incoming {
        let stream = Assembler::new(stream);
        Incoming {
            link,
            wire,
            stream,
            frames: FrameReader::default(),
            pipe: None,
            is_refused: false,
        }
    }

    /// Reads the stream as long as it is wanted; returns whether it said which pipe it carries.
    async fn carry(mut self) -> bool {
        let stop = loop {
            if let Err(stop) = self.step().await {
                break stop;
            }
        };
        match stop {
            Stop::Done => {}
            Stop::Unwanted(StreamVerdict::Broken) => self.stream.stop(codes::STOP_BROKEN),
            // The peer alone knows whose it was.
            Stop::Unwanted(_) if self.pipe.is_none() && !self.is_refused => {
                self.stream.stop(codes::STOP_UNREAD);
            }
            Stop::Unwanted(_) => self.stream.stop(codes::STOP_CUT),
        }
        self.pipe.is_some()
    }

    async fn step(&mut self) -> Result<(), Stop> {
        match self.read().await {
            None => Err(Stop::Unwanted(self.why_unwanted())),
            Some(Ok(Assembled::Bytes(pieces))) => self.take(pieces),
            Some(Ok(Assembled::Fin)) => Err(self.ended()),
            Some(Err(ReadFailure::Overrun)) => {
                self.contradict("more bytes out of order than the Limit allows");
                Err(Stop::Unwanted(StreamVerdict::Cut))
            }
            Some(Err(ReadFailure::Crowded)) => {
                // Another stream brings the same bytes, in fewer pieces.
                let _ = self.ended();
                Err(Stop::Unwanted(StreamVerdict::Cut))
            }
            Some(Err(ReadFailure::Quic(quinn::ReadError::ConnectionLost(_)))) => Err(Stop::Done),
            Some(Err(ReadFailure::Quic(_))) => Err(self.ended()),
        }
    }

    /// Nobody wants the pipe any more, or only not this stream.
    fn why_unwanted(&self) -> StreamVerdict {
        match self.pipe {
            Some(pipe) if self.link.lock().session.is_stale(pipe.id, pipe.attempt) => {
                StreamVerdict::Cut
            }
            _ => StreamVerdict::Broken,
        }
    }

    /// The next bytes; `None` once nobody wants them.
    async fn read(&mut self) -> Option<Result<Assembled, ReadFailure>> {
        let (link, pipe) = (&self.link, self.pipe);
        let held_max = || match pipe {
            Some(pipe) => link.lock().unplaced_max(pipe.id, pipe.position),
            // No Limit is above this before the first byte is here.
            None => STREAM_OVERHEAD_BYTES + 2 * START_WINDOW_BYTES,
        };
        poll_fn(|cx| {
            if let Poll::Ready(read) = self.stream.poll_read(cx, held_max) {
                return Poll::Ready(Some(read));
            }
            match pipe {
                Some(pipe) if link.lock().is_unwanted(pipe.id, pipe.attempt, cx) => {
                    Poll::Ready(None)
                }
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// Takes bytes of the stream apart, and hands content and trailer on.
    fn take(&mut self, pieces: Vec<Bytes>) -> Result<(), Stop> {
        let mut content = Content::with_capacity(pieces.len());
        let mut trailer = None;
        for mut piece in pieces {
            loop {
                match self.frames.next(&mut piece) {
                    Ok(None) => break,
                    Ok(Some(Frame::Content(length))) => {
                        content.push(piece.split_to(length), self.frames.is_between_chunks());
                    }
                    Ok(Some(Frame::Header(header))) => self.begin(&header)?,
                    Ok(Some(Frame::Trailer(end))) => trailer = Some(end),
                    Err(error) => {
                        tracing::debug!(%error, "a malformed pipe stream");
                        self.contradict("a malformed pipe stream");
                        return Err(Stop::Unwanted(StreamVerdict::Cut));
                    }
                }
            }
        }
        self.hand_on(content, trailer)
    }

    fn begin(&mut self, header: &StreamHeader) -> Result<(), Stop> {
        let mut older = None;
        let verdict = self.link.with(|state| {
            let verdict = state.session.stream_opened(header, self.wire.epoch, clock::now());
            if verdict == Ok(StreamVerdict::Read) {
                state.expect_side(header.id);
                older = state.stream_began(header.id);
            }
            verdict
        });
        older.into_iter().for_each(Waker::wake);
        match verdict {
            Ok(StreamVerdict::Read) => {
                self.wire.stream_begun();
                let attempt = Attempt { epoch: self.wire.epoch, number: header.attempt };
                self.pipe = Some(Carried { id: header.id, attempt, position: header.offset });
                Ok(())
            }
            Ok(verdict) => {
                self.is_refused = true;
                Err(Stop::Unwanted(verdict))
            }
            Err(error) => {
                self.link.fail(&error.to_string());
                Err(Stop::Done)
            }
        }
    }

    fn hand_on(&mut self, content: Content, trailer: Option<End>) -> Result<(), Stop> {
        let Some(Carried { id, attempt, position }) = self.pipe else { return Ok(()) };
        self.pipe = Some(Carried { id, attempt, position: position + content.bytes });
        let verdict = self.link.with(|state| {
            let mut verdict = StreamVerdict::Read;
            if content.bytes > 0 {
                verdict = state.deliver(id, attempt, position, content);
            }
            if let (StreamVerdict::Read, Some(end)) = (verdict, trailer) {
                verdict = state.session.trailer(id, attempt, end);
            }
            verdict
        });
        match verdict {
            // What follows a trailer is of no interest. Waiting for the FIN, which mostly came with
            // it, would let a peer that sends none keep the stream.
            StreamVerdict::Read if self.frames.is_done() => Err(Stop::Done),
            StreamVerdict::Read => Ok(()),
            verdict => Err(Stop::Unwanted(verdict)),
        }
    }

    /// The stream is over, for QUIC: without a trailer it was cut.
    fn ended(&mut self) -> Stop {
        if let Some(Carried { id, attempt, .. }) = self.pipe
            && !self.frames.is_done()
        {
            self.link.with(|state| state.session.stream_cut(id, attempt));
        }
        Stop::Done
    }

    fn contradict(&mut self, what: &'static str) {
        if let Some(pipe) = self.pipe {
            self.link.with(|state| state.session.contradict(pipe.id, Contradiction(what)));
        }
    }
}
