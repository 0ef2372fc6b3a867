//! Pipe streams: a task for each that is open.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use qpipe_proto::PipeId;
use qpipe_proto::cause::Cause;
use qpipe_proto::fact::{Contradiction, End};
use qpipe_proto::limits::{START_WINDOW_BYTES, STREAM_OVERHEAD_BYTES};
use qpipe_proto::session::StreamVerdict;
use qpipe_proto::wire::{
    Frame, FrameReader, StreamHeader, encode_chunk_header, encode_header, encode_trailer,
};
use quinn::{RecvStream, SendStream, WriteError};

use super::assembler::{Assembled, Assembler, ReadFailure};
use super::state::Outgoing;
use super::{Link, codes};
use crate::clock;

/// Accepts pipe streams until the connection is over.
pub(super) async fn accept(link: Arc<Link>) {
    while let Ok(stream) = link.conn.accept_uni().await {
        link.lock().streams_in += 1;
        let link = link.clone();
        tokio::spawn(async move {
            let has_begun = Incoming::new(link.clone(), stream).carry().await;
            {
                let mut state = link.lock();
                state.streams_in -= 1;
                state.streams_begun -= usize::from(has_begun);
            }
            link.drained.notify_one();
        });
    }
}

/// Carries a write end's bytes to the peer: started with its first byte, ends with its trailer, or
/// when nobody wants them any more.
pub(crate) async fn carry_out(link: Arc<Link>, id: PipeId) {
    let opened = tokio::select! {
        biased;
        () = unwanted(&link, id) => None,
        opened = link.conn.open_uni() => opened.ok(),
    };
    if let Some(stream) = opened {
        carry_on(&link, id, stream).await;
    }
    link.with(|state| state.carried(id));
}

async fn carry_on(link: &Arc<Link>, id: PipeId, mut stream: SendStream) {
    let stopped = stream.stopped();
    let sent = tokio::select! {
        biased;
        sent = send(link, id, &mut stream) => sent,
        // An idle writer's stream may be stopped as well.
        Ok(Some(code)) = stopped => Err(WriteError::Stopped(code)),
        () = unwanted(link, id) => Err(WriteError::Stopped(codes::STOP_BROKEN)),
    };
    match sent {
        Ok(()) => {}
        Err(WriteError::Stopped(codes::STOP_BROKEN)) => {
            let _ = stream.reset(codes::STOP_BROKEN);
            // Closed follows on the control stream and says why.
            unwanted(link, id).await;
        }
        Err(WriteError::Stopped(_)) => {
            link.with(|state| state.session.stream_stopped(id, Cause::Cut));
            let _ = stream.reset(codes::STOP_CUT);
        }
        // The session ends with its connection.
        Err(_) => {}
    }
}

/// Waits until nothing more of a pipe is wanted.
async fn unwanted(link: &Arc<Link>, id: PipeId) {
    poll_fn(|cx| match link.lock().is_over_for_carrier(id, cx) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await
}

async fn send(link: &Arc<Link>, id: PipeId, stream: &mut SendStream) -> Result<(), WriteError> {
    let open = link.lock().session.own_open(id);
    let mut pieces = vec![encode_header(&StreamHeader { id, offset: 0, open })];
    loop {
        match next_outgoing(link, id).await {
            Outgoing::Chunk(chunk) => {
                let length = chunk.iter().map(|piece| piece.len() as u64).sum();
                pieces.push(encode_chunk_header(length));
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

async fn next_outgoing(link: &Arc<Link>, id: PipeId) -> Outgoing {
    poll_fn(|cx| match link.lock().next_outgoing(id, cx) {
        Some(outgoing) => Poll::Ready(outgoing),
        None => Poll::Pending,
    })
    .await
}

/// A pipe stream from the peer.
struct Incoming {
    link: Arc<Link>,
    stream: Assembler,
    frames: FrameReader,
    id: Option<PipeId>,
}

/// Why a stream is read no further.
enum Stop {
    /// It was read to its trailer, or the connection is gone.
    Done,
    /// The peer is to stop it.
    Unwanted(StreamVerdict),
}

impl Incoming {
    fn new(link: Arc<Link>, stream: RecvStream) -> Incoming {
        let stream = Assembler::new(stream);
        Incoming { link, stream, frames: FrameReader::default(), id: None }
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
            Stop::Unwanted(_) => self.stream.stop(codes::STOP_CUT),
        }
        self.id.is_some()
    }

    async fn step(&mut self) -> Result<(), Stop> {
        match self.read().await {
            None => Err(Stop::Unwanted(StreamVerdict::Broken)),
            Some(Ok(Assembled::Bytes(pieces))) => self.take(pieces),
            Some(Ok(Assembled::Fin)) => Err(self.ended()),
            Some(Err(ReadFailure::Overrun)) => {
                self.contradict("more bytes out of order than the Limit allows");
                Err(Stop::Unwanted(StreamVerdict::Cut))
            }
            Some(Err(ReadFailure::Quic(quinn::ReadError::ConnectionLost(_)))) => Err(Stop::Done),
            Some(Err(ReadFailure::Quic(_))) => Err(self.ended()),
        }
    }

    /// The next bytes; `None` once nobody wants them.
    async fn read(&mut self) -> Option<Result<Assembled, ReadFailure>> {
        let held_max = match self.id {
            Some(id) => self.link.lock().unplaced_max(id),
            // No Limit is above this before the first byte is here.
            None => STREAM_OVERHEAD_BYTES + 2 * START_WINDOW_BYTES,
        };
        poll_fn(|cx| {
            if let Poll::Ready(read) = self.stream.poll_read(cx, held_max) {
                return Poll::Ready(Some(read));
            }
            match self.id {
                Some(id) if self.link.lock().is_unwanted(id, cx) => Poll::Ready(None),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// Takes bytes of the stream apart, and hands content and trailer on.
    fn take(&mut self, pieces: Vec<Bytes>) -> Result<(), Stop> {
        let mut content = Vec::with_capacity(pieces.len());
        let mut trailer = None;
        for mut piece in pieces {
            loop {
                match self.frames.next(&mut piece) {
                    Ok(None) => break,
                    Ok(Some(Frame::Content(length))) => content.push(piece.split_to(length)),
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
        let verdict = self.link.with(|state| {
            let verdict = state.session.stream_opened(header, clock::now());
            if verdict == Ok(StreamVerdict::Read) {
                state.expect_side(header.id);
                state.streams_begun += 1;
            }
            verdict
        });
        match verdict {
            Ok(StreamVerdict::Read) => {
                self.id = Some(header.id);
                Ok(())
            }
            Ok(verdict) => Err(Stop::Unwanted(verdict)),
            Err(error) => {
                self.link.fail(&error.to_string());
                Err(Stop::Done)
            }
        }
    }

    fn hand_on(&mut self, content: Vec<Bytes>, trailer: Option<End>) -> Result<(), Stop> {
        let Some(id) = self.id else { return Ok(()) };
        let verdict = self.link.with(|state| {
            let mut verdict = StreamVerdict::Read;
            if !content.is_empty() {
                verdict = state.deliver(id, content);
            }
            if let (StreamVerdict::Read, Some(end)) = (verdict, trailer) {
                verdict = state.session.trailer(id, end);
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
        if let Some(id) = self.id
            && !self.frames.is_done()
        {
            self.link.with(|state| state.session.stream_cut(id));
        }
        Stop::Done
    }

    fn contradict(&mut self, what: &'static str) {
        if let Some(id) = self.id {
            self.link.with(|state| state.session.contradict(id, Contradiction(what)));
        }
    }
}
