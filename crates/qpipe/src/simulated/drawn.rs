//! Runs drawn from a seed.
//!
//! Two or three nodes, pipes both ways, faults for a while, then none: every pipe must end as its
//! programs meant it to.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::dice::{Dice, byte, bytes};
use super::network::{Net, Path};
use super::place::{Place, address, ms, pass, secs, simulate};
use crate::{
    Cause, IncomingOpen, OpenOptions, OpenTarget, PipeError, PipeReader, PipeWriter, Session,
};

/// Runs of `cargo test`, unless `QPIPE_SIMULATIONS` says how many; `QPIPE_SEED` runs one seed.
const RUNS: u64 = 300;

/// Once the faults are over, every pipe ends within this time.
const LIVENESS: Duration = secs(120);

/// A node's goodbye may be lost, and its host be out of reach: then it is given up.
const GIVEN_UP: Duration = secs(700);

/// What a pipe carries at most, in bytes.
const CONTENT_BYTES_MAX: u64 = 300_000;

#[test]
fn what_was_written_is_read_whatever_happens_meanwhile() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("QPIPE_SEED") {
        return run(seed);
    }
    for seed in 0..number("QPIPE_SIMULATIONS").unwrap_or(RUNS) {
        if std::panic::catch_unwind(|| run(seed)).is_err() {
            panic!("replay: QPIPE_SEED={seed} cargo test -p qpipe --lib simulated::drawn");
        }
    }
}

/// What a run's programs have done with one pipe.
#[derive(Debug, Default)]
struct Ledger {
    accepted: u64,
    delivered: u64,
    writer: Option<WriterEnd>,
    reader: Option<ReaderEnd>,
    result: Option<Result<(), PipeError>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriterEnd {
    Aborted,
    Closed,
    Failed(PipeError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReaderEnd {
    Eof,
    Failed(PipeError),
    Left,
}

type Book = Arc<Mutex<Ledger>>;

/// One run.
fn run(seed: u64) {
    simulate(seed, |net| async move {
        let mut dice = Dice::new(seed);
        let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
        draw_paths(&net, &mut dice);
        let is_translated = dice.one_in(3);
        if is_translated {
            net.translate(address(1), secs(if dice.one_in(2) { 30 } else { 1 << 32 }));
        }
        let session = a.dial(&b).await;
        // Half of the runs have two sessions, as when both sides dial.
        let other = if !is_translated && dice.one_in(2) { Some(b.dial(&a).await) } else { None };
        let (a, b) = (Arc::new(a), Arc::new(b));
        let books: Vec<Book> = (0..1 + dice.below(6)).map(|_| Book::default()).collect();
        let mut tasks = JoinSet::new();
        for place in [&a, &b] {
            tasks.spawn(serve(place.clone(), books.clone(), dice.fork()));
        }
        let mut programs = JoinSet::new();
        for pipe in 0..books.len() as u64 {
            let session = match &other {
                Some(other) if dice.one_in(2) => other.clone(),
                _ => session.clone(),
            };
            programs.spawn(open(session, pipe, books.clone(), dice.fork()));
        }
        let faults = dice.fork();
        let is_dropped = dice.one_in(12);
        trouble(&net, &a, &b, is_translated, faults).await;
        calm(&net);
        if is_dropped {
            drop((session, other));
            return ends_after_drop(net, (a, b), tasks, programs, books, dice).await;
        }
        let done = async { while programs.join_next().await.transpose().unwrap().is_some() {} };
        let done = tokio::time::timeout(LIVENESS, done).await;
        assert!(done.is_ok(), "still at it: {books:?}");
        let settled = async {
            let is_settled = || a.node.unsettled() + b.node.unsettled() == 0;
            while books.iter().any(|book| !is_over(book)) || !is_settled() {
                pass(ms(100)).await;
            }
        };
        let settled = tokio::time::timeout(LIVENESS, settled).await;
        assert!(settled.is_ok(), "still at it: {books:?}");
        books.iter().for_each(|book| judge(&book.lock().unwrap(), false));
        tasks.shutdown().await;
        drop((session, other));
        for place in [a, b] {
            Arc::into_inner(place).unwrap().leave().await;
        }
    });
}

fn is_over(book: &Book) -> bool {
    let book = book.lock().unwrap();
    book.reader.is_some() && book.writer.is_some() && book.result.is_some()
}

/// One node is dropped: what is not over then ends, and never with a false EOF.
async fn ends_after_drop(
    net: Net,
    (a, b): (Arc<Place>, Arc<Place>),
    mut tasks: JoinSet<()>,
    mut programs: JoinSet<()>,
    books: Vec<Book>,
    mut dice: Dice,
) {
    net.change_all(|path| path.loss = 0);
    tasks.shutdown().await;
    let (gone, left) = if dice.one_in(2) { (a, b) } else { (b, a) };
    pass(dice.millis(2_000)).await;
    drop(Arc::into_inner(gone).unwrap());
    let since = Instant::now();
    let done = async { while programs.join_next().await.transpose().unwrap().is_some() {} };
    let done = tokio::time::timeout(GIVEN_UP, done).await;
    assert!(done.is_ok(), "{:?} after the drop, still at it: {books:?}", since.elapsed());
    // Programs that were given an end by `serve` have ended with that task.
    books.iter().for_each(|book| judge(&book.lock().unwrap(), true));
    let left = Arc::into_inner(left).unwrap();
    left.node.close(secs(30)).await;
    // What nobody has taken keeps its session.
    while let Some(Some(open)) = at_most_polled(1, left.node.next_open()).await {
        drop(open);
    }
    assert_eq!(left.node.budget().committed(), (0, 0), "memory is not given back");
}

fn draw_paths(net: &Net, dice: &mut Dice) {
    let draw = Path {
        delay: dice.millis(200),
        jitter: if dice.one_in(3) { dice.millis(20) } else { Duration::ZERO },
        rate: [64_000, 250_000, 2_500_000, 12_500_000][dice.below(4) as usize],
        loss: if dice.one_in(2) { dice.below(100) } else { 0 },
        burst: 1 + dice.below(4),
        twice: if dice.one_in(4) { dice.below(200) } else { 0 },
        ..Path::default()
    };
    net.change_all(|path| *path = draw);
}

/// Everything goes wrong that may, for a while.
async fn trouble(net: &Net, a: &Place, b: &Place, is_translated: bool, mut dice: Dice) {
    for _ in 0..dice.below(8) {
        pass(dice.millis(3_000)).await;
        match dice.below(8) {
            0 | 1 => {
                net.change_all(|path| path.is_down = true);
                pass(dice.millis(20_000)).await;
                net.change_all(|path| path.is_down = false);
            }
            2 => {
                let one = address(1 + dice.below(2) as u8);
                net.change(one, |path| path.is_down = true);
                pass(dice.millis(15_000)).await;
                net.change(one, |path| path.is_down = false);
            }
            3 if is_translated => net.translate(address(1), secs(1 << 32)),
            4 => drop(if dice.one_in(2) { a } else { b }.node.cut_connections()),
            5 => if dice.one_in(2) { a } else { b }.node.network_changed(),
            6 => {
                let loss = 100 + dice.below(300);
                net.change_all(|path| path.loss = loss);
                pass(dice.millis(5_000)).await;
            }
            _ => draw_paths(net, &mut dice),
        }
    }
}

fn calm(net: &Net) {
    net.change_all(|path| {
        *path = Path { delay: path.delay.min(ms(100)), rate: 2_500_000, ..Path::default() };
    });
}

/// Takes the opens of a node's peers.
async fn serve(place: Arc<Place>, books: Vec<Book>, mut dice: Dice) {
    let mut programs = JoinSet::new();
    while let Some(open) = place.node.next_open().await {
        programs.spawn(take(open, books.clone(), dice.fork()));
        while let Some(done) = programs.try_join_next() {
            done.unwrap();
        }
    }
}

async fn take(open: IncomingOpen, books: Vec<Book>, dice: Dice) {
    let OpenTarget::Name(name) = open.target().clone() else { panic!("no name") };
    let pipe: u64 = name.as_str().trim_start_matches("pipe/").parse().unwrap();
    let ends = open.accept().unwrap();
    let book = books[pipe as usize].clone();
    match (ends.reader, ends.writer) {
        (Some(reader), _) => read(reader, pipe, book, dice).await,
        (_, Some(writer)) => write(writer, pipe, book, dice).await,
        (None, None) => panic!("no end"),
    }
}

/// Opens a pipe. Where no node is dropped, one that could not be opened is missed in the end.
async fn open(session: Session, pipe: u64, books: Vec<Book>, mut dice: Dice) {
    pass(dice.millis(2_000)).await;
    let target = OpenTarget::Name(format!("pipe/{pipe}").parse().unwrap());
    let (book, options) = (books[pipe as usize].clone(), OpenOptions::default());
    if dice.one_in(2) {
        let Ok(writer) = session.open_writer(target, options).await else { return };
        write(writer, pipe, book, dice).await;
    } else {
        let Ok(reader) = session.open_reader(target, options).await else { return };
        read(reader, pipe, book, dice).await;
    }
}

/// What `future` gives, unless it is dropped after its `polls`-th poll.
async fn at_most_polled<F: Future>(polls: u64, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut count = 0;
    poll_fn(|cx| {
        count += 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if count >= polls => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn write(mut writer: PipeWriter, pipe: u64, book: Book, mut dice: Dice) {
    let bound = 1 + dice.below(CONTENT_BYTES_MAX);
    let length = dice.below(bound);
    let is_abort = dice.one_in(8);
    let end = loop {
        let left = length - writer.written();
        if left == 0 {
            break if is_abort { WriterEnd::Aborted } else { WriterEnd::Closed };
        }
        let most = [1, 100, 4_096, 70_000][dice.below(4) as usize];
        let content = bytes(pipe, writer.written(), (1 + dice.below(most)).min(left) as usize);
        let polls = if dice.one_in(4) { 1 + dice.below(3) } else { u64::MAX };
        let wrote = at_most_polled(polls, writer.write(&content)).await;
        book.lock().unwrap().accepted = writer.written();
        match wrote {
            Some(Err(error)) => break WriterEnd::Failed(*PipeError::of(&error).unwrap()),
            Some(Ok(_)) => {}
            // Dropped: a moment later there may be room.
            None => pass(ms(1 + dice.below(50))).await,
        }
        if dice.one_in(20) {
            pass(dice.millis(1_000)).await;
        }
    };
    book.lock().unwrap().writer = Some(end);
    if end == WriterEnd::Aborted {
        writer.abort(Cause::Io);
        let aborted = PipeError::Failed { cause: Cause::Io, consumed: 0 };
        book.lock().unwrap().result = Some(Err(aborted));
        return;
    }
    if end == WriterEnd::Closed {
        writer.close();
    }
    let polls = 1 + dice.below(3);
    let finished = match at_most_polled(polls, writer.finish()).await {
        Some(finished) => finished,
        None => writer.finish().await,
    };
    let result = finished.map_err(|error| *PipeError::of(&error).unwrap());
    let mut book = book.lock().unwrap();
    if result.is_ok() {
        assert_eq!(end, WriterEnd::Closed);
        assert_eq!(book.delivered, book.accepted, "complete, but not read");
    }
    book.result = Some(result);
}

async fn read(mut reader: PipeReader, pipe: u64, book: Book, mut dice: Dice) {
    let leaves_at = if dice.one_in(6) { dice.below(CONTENT_BYTES_MAX / 2) } else { u64::MAX };
    let end = loop {
        let offset = book.lock().unwrap().delivered;
        if offset >= leaves_at {
            break ReaderEnd::Left;
        }
        let most = [1, 1_000, 65_536][dice.below(3) as usize].max(1);
        let mut buffer = vec![0; 1 + dice.below(most) as usize];
        let polls = if dice.one_in(4) { 1 + dice.below(3) } else { u64::MAX };
        match at_most_polled(polls, reader.read(&mut buffer)).await {
            None => pass(ms(1 + dice.below(50))).await,
            Some(Ok(0)) => break ReaderEnd::Eof,
            Some(Ok(got)) => {
                for (i, found) in buffer[..got].iter().enumerate() {
                    assert_eq!(
                        *found,
                        byte(pipe, offset + i as u64),
                        "pipe {pipe}, {offset} + {i}"
                    );
                }
                let mut book = book.lock().unwrap();
                book.delivered += got as u64;
                assert!(book.delivered <= book.accepted, "read before it was written");
            }
            Some(Err(error)) => break ReaderEnd::Failed(*PipeError::of(&error).unwrap()),
        }
        if dice.one_in(30) {
            pass(dice.millis(1_000)).await;
        }
    };
    if end == ReaderEnd::Eof {
        assert_eq!(reader.read(&mut [0; 9]).await.unwrap(), 0, "EOF does not last");
        let book = book.lock().unwrap();
        assert_eq!(book.writer, Some(WriterEnd::Closed), "a false EOF");
        assert_eq!(book.delivered, book.accepted, "a false EOF");
    }
    book.lock().unwrap().reader = Some(end);
}

/// Whether both ends ended as their programs meant them to.
fn judge(book: &Ledger, is_node_dropped: bool) {
    assert!(book.delivered <= book.accepted);
    if is_node_dropped {
        return;
    }
    let (Some(writer), Some(reader), Some(result)) = (book.writer, book.reader, book.result) else {
        panic!("not over: {book:?}")
    };
    match (writer, reader) {
        (WriterEnd::Closed, ReaderEnd::Eof) => assert_eq!(result, Ok(()), "{book:?}"),
        (WriterEnd::Aborted, ReaderEnd::Failed(PipeError::Aborted { cause, delivered })) => {
            assert_eq!((cause, delivered), (Cause::Io, book.accepted), "{book:?}");
            assert_eq!(book.delivered, book.accepted);
        }
        (_, ReaderEnd::Left) => {
            let is_broken = |error| {
                let left = Cause::ReaderClosed;
                matches!(error, PipeError::Broken { cause, .. } if cause == left)
            };
            match (writer, result) {
                (WriterEnd::Failed(error), _) => assert!(is_broken(error), "{book:?}"),
                (WriterEnd::Closed, Ok(())) => assert_eq!(book.delivered, book.accepted),
                (WriterEnd::Closed, Err(error)) => assert!(is_broken(error), "{book:?}"),
                (WriterEnd::Aborted, _) => {}
            }
        }
        _ => panic!("{book:?}"),
    }
}
