//! A named pipe between any number of writers and readers.
//!
//! The contract holds end to end: to a writer only what a reader consumed is stated as consumed, EOF
//! and abort pass through with their cause, and the last reader that leaves breaks the writers. Bytes
//! are held once: a piece that came in on one leg goes out on another as it is.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use qpipe::{Cause, PipeError, PipeReader, PipeWriter, ReaderWatch, WriterWatch};
use tokio::sync::watch;

use super::exchange::{Exchange, Next, Number, QUEUE_BYTES_MAX, Verdict};
use super::local::last_words;
use super::{Client, input_failed, output_failed};
use crate::delivery::{broken, cause_of_output, fill_up};
use crate::fd::{Sink, Source};
use crate::local::{Outcome, Stop};

/// The books of one pipe, and word of their changes.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    exchange: Mutex<Exchange>,
    changed: watch::Sender<()>,
}

/// What is left of the pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// Writers that have not ended.
    pub(crate) writers: usize,
    pub(crate) readers: usize,
}

impl Hub {
    /// What may wait for a reader at a hub that is not told otherwise, in bytes.
    pub(crate) const CAPACITY_BYTES_DEFAULT: usize = QUEUE_BYTES_MAX;

    /// A hub at which so many bytes may wait for a reader before no more are taken from writers.
    pub(crate) fn with_capacity(bytes: usize) -> Hub {
        Hub { exchange: Mutex::new(Exchange::with_capacity(bytes)), ..Hub::default() }
    }

    pub(super) fn add_writer(&self) -> Number {
        self.change(Exchange::add_writer)
    }

    /// The writer comes from a splice: what is read of it already goes first.
    pub(super) fn go_on(&self, writer: Number) {
        self.change(|exchange| exchange.go_on(writer));
    }

    pub(super) fn add_reader(&self) -> Number {
        self.change(Exchange::add_reader)
    }

    /// Waits until somebody has ended or left, beyond what is known.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn other_than(&self, known: Left) -> Left {
        self.until(|exchange| Some(left(exchange)).filter(|left| *left != known)).await
    }

    pub(crate) fn left(&self) -> Left {
        left(&self.lock())
    }

    /// No writer comes any more: once everything is read, readers are told the end.
    pub(crate) fn close(&self) {
        self.change(Exchange::close);
    }

    /// No reader comes any more, and none is left: writers are told.
    pub(crate) fn break_off(&self) {
        self.change(Exchange::break_off);
    }

    /// Takes what a peer writes, until that has had its end, and states what readers consumed of it.
    pub(super) async fn write_from_peer(&self, number: Number, mut from: PipeReader) {
        from.hold_eof();
        let source = from.watch();
        let taking = async {
            let aborted = loop {
                let (max, is_shared) = self.wanted(number).await;
                // Where nobody else writes there is no need to wait for all of a chunk.
                match from.read_part(max, is_shared).await {
                    Ok(Some((piece, is_whole))) => self.put(number, piece, is_whole).await,
                    Ok(None) => break None,
                    Err(error) => break Some(PipeError::or_lost(&error).cause()),
                }
            };
            self.change(|exchange| exchange.end(number, aborted));
            std::future::pending::<Verdict>().await
        };
        let verdict = tokio::select! {
            biased;
            verdict = self.mirror(number, &source) => verdict,
            verdict = taking => verdict,
        };
        match verdict {
            Verdict::Complete => source.take_eof(),
            Verdict::Broken(cause) | Verdict::Failed(cause) => source.stop(cause),
        }
        self.change(|exchange| exchange.forget(number));
    }

    /// Takes what a program of this host writes, until that has had its end.
    pub(super) async fn write_from_program(
        &self,
        number: Number,
        mut source: Source,
        client: &Client,
    ) -> Outcome {
        let taking = self.take(number, &mut source, client);
        let ended = tokio::select! {
            biased;
            verdict = self.verdict(number) => Err(self.stopped(number, verdict)),
            ended = taking => ended,
        };
        // The program is not to wait for somebody who reads no more.
        drop(source);
        let stopped = match ended {
            Ok(()) => self.confirmed(number, client).await.err(),
            Err(stop) => Some(stop),
        };
        self.change(|exchange| exchange.forget(number));
        Outcome { bytes: client.sent(), stopped }
    }

    /// Gives a peer what it is to read, until it has had its end.
    pub(super) async fn read_to_peer(&self, number: Number, mut to: PipeWriter) {
        let sink = to.watch();
        let is_cut = AtomicBool::new(false);
        let giving = async {
            loop {
                match self.next(number).await {
                    // How it ended is seen beside this.
                    Next::Bytes(piece) => {
                        if to.write_chunk(piece).await.is_err() {
                            break;
                        }
                    }
                    Next::End(Ok(())) => {
                        to.close();
                        break;
                    }
                    Next::End(Err(cause)) => {
                        is_cut.store(true, Ordering::Relaxed);
                        sink.abort(cause);
                        break;
                    }
                }
            }
            std::future::pending().await
        };
        let mut consumed = 0;
        let ending = tokio::select! {
            biased;
            ending = self.follow(number, &sink, &mut consumed) => ending,
            ending = giving => ending,
        };
        if is_cut.load(Ordering::Relaxed) {
            // It takes what came through before; its node says when it has.
            let _ = sink.over().await;
            let more = sink.consumed().saturating_sub(consumed);
            self.change(|exchange| exchange.consumed(number, more));
        }
        self.change(|exchange| match ending {
            Ok(()) => exchange.finish(number),
            Err(PipeError::Broken { cause, .. }) => exchange.leave(number, cause),
            Err(error) => exchange.lose(number, error.cause()),
        });
    }

    /// Gives a program of this host what it is to read, until that has had its end.
    pub(super) async fn read_to_program(
        &self,
        number: Number,
        mut sink: Sink,
        client: &Client,
    ) -> Outcome {
        let ended = self.give(number, &mut sink, client).await;
        // The program behind it sees the end before the writers hear that it did.
        let mut finished = Ok(());
        match ended {
            Given::All => {
                finished = tokio::select! {
                    biased;
                    _ = client.left() => Ok(()),
                    finished = sink.finish() => finished,
                }
            }
            Given::Aborted(_) => drop(sink),
            Given::Left(cause, _) => {
                // What was written after all is not to be given to another reader.
                let late = sink.settle().await as u64;
                client.count_received(late);
                self.change(|exchange| {
                    exchange.consumed(number, late);
                    exchange.leave(number, cause);
                });
            }
        }
        let bytes = client.received();
        let stopped = match ended {
            Given::All => finished.err().map(|error| {
                self.change(|exchange| exchange.spoil(number, cause_of_output(&error)));
                output_failed(&error)
            }),
            Given::Aborted(cause) => {
                Some(Stop::from(PipeError::Aborted { cause, delivered: bytes }))
            }
            Given::Left(_, stop) => Some(stop),
        };
        self.change(|exchange| exchange.finish(number));
        Outcome { bytes, stopped }
    }

    /// Takes everything that the program writes, and has it confirmed that this was all.
    async fn take(&self, number: Number, source: &mut Source, client: &Client) -> Result<(), Stop> {
        loop {
            let piece = tokio::select! {
                biased;
                cause = client.left() => {
                    if let Some(piece) = last_words(source).await {
                        client.count_sent(piece.len() as u64);
                        self.change(|exchange| exchange.put(number, &piece, true));
                    }
                    return Err(self.abort(number, cause));
                }
                piece = async {
                    let (max, _) = self.wanted(number).await;
                    source.next(max).await
                } => piece,
            };
            match piece {
                Ok(Some(piece)) => {
                    client.count_sent(piece.len() as u64);
                    let is_whole = !source.goes_on();
                    tokio::select! {
                        biased;
                        cause = client.left() => return Err(self.abort(number, cause)),
                        () = self.put(number, piece, is_whole) => {}
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.abort(number, Cause::Io);
                    return Err(input_failed(&error));
                }
            }
        }
    }

    /// Has the program confirm that it wrote everything, and waits until all of it is consumed.
    async fn confirmed(&self, number: Number, client: &Client) -> Result<(), Stop> {
        let meant = tokio::select! {
            biased;
            verdict = self.verdict(number) => return Err(self.stopped(number, verdict)),
            meant = client.means_eof() => meant,
        };
        if let Err(cause) = meant {
            return Err(self.abort(number, cause));
        }
        // From here on it does not matter to the pipe whether the program lives.
        self.change(|exchange| exchange.end(number, None));
        match self.verdict(number).await {
            Verdict::Complete => Ok(()),
            verdict => Err(self.stopped(number, verdict)),
        }
    }

    fn abort(&self, number: Number, cause: Cause) -> Stop {
        self.change(|exchange| exchange.end(number, Some(cause)));
        let consumed = self.lock().consumed_of(number);
        Stop::from(PipeError::Failed { cause, consumed })
    }

    /// What a writer is told that ended otherwise than by having everything consumed.
    fn stopped(&self, number: Number, verdict: Verdict) -> Stop {
        let consumed = self.lock().consumed_of(number);
        Stop::from(match verdict {
            Verdict::Broken(cause) => PipeError::Broken { cause, consumed },
            Verdict::Failed(cause) => PipeError::Failed { cause, consumed },
            Verdict::Complete => PipeError::Failed { cause: Cause::Lost, consumed },
        })
    }

    async fn give(&self, number: Number, sink: &mut Sink, client: &Client) -> Given {
        let left_by_reader = || Given::Left(Cause::ReaderClosed, output_failed(&broken()));
        let left = |cause| {
            let delivered = client.received();
            Given::Left(cause, Stop::from(PipeError::Aborted { cause, delivered }))
        };
        loop {
            let next = tokio::select! {
                biased;
                cause = client.left() => return left(cause),
                () = sink.broken() => return left_by_reader(),
                next = self.next(number) => next,
            };
            let mut pieces = match next {
                Next::Bytes(piece) => VecDeque::from([piece]),
                Next::End(Ok(())) => return Given::All,
                Next::End(Err(cause)) => return Given::Aborted(cause),
            };
            while !pieces.is_empty() {
                self.top_up(number, &mut pieces, sink.wants_bytes());
                let written = tokio::select! {
                    biased;
                    cause = client.left() => return left(cause),
                    written = sink.write_pieces(&mut pieces) => written,
                };
                match written {
                    Ok(bytes) => {
                        client.count_received(bytes as u64);
                        self.change(|exchange| exchange.consumed(number, bytes as u64));
                    }
                    Err(error) => {
                        return Given::Left(cause_of_output(&error), output_failed(&error));
                    }
                }
            }
        }
    }

    /// States on a writer's leg what readers consumed, until it is known what became of everything.
    async fn mirror(&self, number: Number, source: &ReaderWatch) -> Verdict {
        let mut known = (0, 0);
        loop {
            let news = self
                .until(|exchange| {
                    let now = (exchange.consumed_of(number), exchange.window_of(number));
                    let verdict = exchange.verdict(number);
                    (now != known || verdict.is_some()).then_some((now, verdict))
                })
                .await;
            known = news.0;
            source.consume_to(known.0);
            // The reader may be further away than this node, whose own round trip to the writer says
            // nothing of it.
            source.widen(known.1);
            if let Some(verdict) = news.1 {
                return verdict;
            }
        }
    }

    /// Enters what a reader's node states as consumed, until its leg is over.
    async fn follow(
        &self,
        number: Number,
        sink: &WriterWatch,
        consumed: &mut u64,
    ) -> Result<(), PipeError> {
        loop {
            let more = match sink.consumed_beyond(*consumed).await {
                Ok(more) => more,
                Err(ending) => return ending,
            };
            let window = sink.window();
            self.change(|exchange| {
                exchange.consumed(number, more - *consumed);
                exchange.widen(window);
            });
            *consumed = more;
        }
    }

    /// Waits until more is to be taken from a writer, and says how much at once, in bytes, and whether
    /// others write.
    async fn wanted(&self, writer: Number) -> (usize, bool) {
        self.until(|exchange| Some((exchange.wants(writer)?, exchange.open_writers() > 1))).await
    }

    /// Takes a piece from a writer as soon as no other is amid a write.
    async fn put(&self, writer: Number, piece: Bytes, is_whole: bool) {
        self.until(|exchange| exchange.put(writer, &piece, is_whole).then_some(())).await;
        self.changed.send_replace(());
    }

    async fn next(&self, reader: Number) -> Next {
        let next = self.until(|exchange| exchange.next(reader)).await;
        // There is room for more.
        self.changed.send_replace(());
        next
    }

    /// Adds what else a reader can have now, up to `bytes` in all and what the pipe may hold; where there
    /// are others each gets a piece at a time.
    fn top_up(&self, reader: Number, pieces: &mut VecDeque<Bytes>, bytes: usize) {
        let mut exchange = self.lock();
        if exchange.readers() > 1 {
            return;
        }
        let before = pieces.len();
        let bytes = bytes.min(exchange.capacity_bytes());
        fill_up(pieces, bytes, || exchange.next_piece(reader));
        drop(exchange);
        if pieces.len() > before {
            self.changed.send_replace(());
        }
    }

    async fn verdict(&self, writer: Number) -> Verdict {
        self.until(|exchange| exchange.verdict(writer)).await
    }

    async fn until<T>(&self, mut look: impl FnMut(&mut Exchange) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(found) = look(&mut self.lock()) {
                return found;
            }
            // The sender is here: the channel is not closed.
            let _ = changed.changed().await;
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Exchange) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.send_replace(());
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries the content of `from`, the writer's leg, to `to`, the reader's leg, until the pipe is over on
/// both.
pub(super) async fn relay(from: PipeReader, to: PipeWriter) {
    let hub = Hub::default();
    let (writer, reader) = (hub.add_writer(), hub.add_reader());
    let rules = async {
        loop {
            let left = hub.left();
            if left.readers == 0 {
                return hub.break_off();
            }
            if left.writers == 0 {
                hub.close();
            }
            hub.other_than(left).await;
        }
    };
    tokio::join!(hub.write_from_peer(writer, from), hub.read_to_peer(reader, to), rules);
}

enum Given {
    All,
    Aborted(Cause),
    /// The reader left; what its program is told.
    Left(Cause, Stop),
}

fn left(exchange: &Exchange) -> Left {
    Left { writers: exchange.open_writers(), readers: exchange.readers() }
}

#[cfg(test)]
mod tests;
