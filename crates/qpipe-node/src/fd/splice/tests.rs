use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::PathBuf,
    pin::pin,
    sync::atomic::AtomicU64,
};

use rustix::{fs::OFlags, pipe::fcntl_setpipe_size};

use crate::fd::test_files::{
    Fifo, content, file, fill, pipe, polled, reading, waited_sink, waited_source, writing,
};
use crate::fd::{Sink, Source, Unspliced, settle, splice};

const MANY: usize = 64 << 20;

fn source(fd: impl Into<std::os::fd::OwnedFd>) -> Source {
    Source::take(fd.into()).unwrap()
}

fn sink(fd: impl Into<std::os::fd::OwnedFd>) -> Sink {
    Sink::take(fd.into()).unwrap()
}

/// All of it; how many bytes were moved.
async fn spliced(mut source: Source, mut sink: Sink) -> u64 {
    let moved = AtomicU64::new(0);
    splice(&mut source, &mut sink, &moved).await.unwrap();
    moved.into_inner()
}

fn output(dir: &tempfile::TempDir, options: &OpenOptions) -> (File, PathBuf) {
    let path = dir.path().join("output");
    (options.clone().create(true).open(&path).unwrap(), path)
}

#[tokio::test]
async fn pipe_to_pipe() {
    let ((input, writer), (reader, out)) = (pipe(), pipe());
    let writer = writing(writer, content(MANY));
    let reader = reading(reader);

    assert_eq!(spliced(source(input), sink(out)).await, MANY as u64);

    writer.join().unwrap();
    assert!(reader.join().unwrap() == content(MANY));
}

#[tokio::test]
async fn pipes_that_may_not_be_opened_again() {
    let ((input, writer), (reader, out)) = (pipe(), pipe());
    let writer = writing(writer, content(MANY));
    let reader = reading(reader);

    assert_eq!(spliced(waited_source(input), waited_sink(out)).await, MANY as u64);

    writer.join().unwrap();
    assert!(reader.join().unwrap() == content(MANY));
}

#[tokio::test]
async fn file_to_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, out) = pipe();
    let reader = reading(reader);

    let moved = spliced(source(file(dir.path(), &content(MANY))), sink(out)).await;

    assert_eq!(moved, MANY as u64);
    assert!(reader.join().unwrap() == content(MANY));
}

#[tokio::test]
async fn pipe_to_file() {
    let dir = tempfile::tempdir().unwrap();
    let (input, writer) = pipe();
    let writer = writing(writer, content(MANY));
    let (out, path) = output(&dir, OpenOptions::new().write(true));

    assert_eq!(spliced(source(input), sink(out)).await, MANY as u64);

    writer.join().unwrap();
    assert!(std::fs::read(path).unwrap() == content(MANY));
}

#[tokio::test]
async fn pipe_to_file_that_is_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let (input, writer) = pipe();
    let (mut out, path) = output(&dir, OpenOptions::new().append(true));
    out.write_all(b"before").unwrap();
    let writer = writing(writer, content(1 << 20));

    assert_eq!(spliced(source(input), sink(out)).await, 1 << 20);

    writer.join().unwrap();
    assert!(std::fs::read(path).unwrap().get(6..).unwrap() == content(1 << 20));
}

#[tokio::test]
async fn fifo_that_nobody_writes_any_more_to_file() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = Fifo::new();
    let (left, mut writer) = fifo.open();
    writer.write_all(b"last").unwrap();
    drop(writer);
    let unwritten = fifo.file(OFlags::RDONLY | OFlags::NONBLOCK);

    for (input, bytes) in [(left, &b"last"[..]), (unwritten, b"")] {
        let (out, path) = output(&dir, OpenOptions::new().write(true).truncate(true));
        assert_eq!(spliced(source(input), sink(out)).await, bytes.len() as u64);
        assert_eq!(std::fs::read(path).unwrap(), bytes);
    }
}

#[tokio::test]
async fn full_pipe_hides_no_end() {
    let input = Fifo::new().file(OFlags::RDONLY | OFlags::NONBLOCK);
    let (mut reader, mut out) = pipe();
    // So large that it is not made larger.
    fcntl_setpipe_size(&out, 1 << 20).unwrap();
    let room = fill(&mut out, &reader);
    let (mut source, mut sink, moved) = (source(input), sink(out), AtomicU64::new(0));
    let mut splicing = pin!(splice(&mut source, &mut sink, &moved));
    assert!(polled(splicing.as_mut()).is_none());

    reader.read_exact(&mut vec![0; room]).unwrap();

    splicing.await.unwrap();
}

#[tokio::test]
async fn file_to_file_and_to_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (out, path) = output(&dir, OpenOptions::new().write(true));
    let bytes = content(1_000_000);
    assert_eq!(spliced(source(file(dir.path(), &bytes)), sink(out)).await, 1_000_000);
    assert!(std::fs::read(path).unwrap() == bytes);

    let null = OpenOptions::new().write(true).open("/dev/null").unwrap();
    let (input, writer) = pipe();
    let writer = writing(writer, bytes);
    assert_eq!(spliced(source(input), sink(null)).await, 1_000_000);
    writer.join().unwrap();
}

#[tokio::test]
async fn socket_to_socket_and_to_pipe() {
    let ((input, writer), (out, reader)) =
        (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    let writer = writing(writer, content(MANY));
    let reader = reading(reader);
    assert_eq!(spliced(source(input), sink(out)).await, MANY as u64);
    writer.join().unwrap();
    assert!(reader.join().unwrap() == content(MANY));

    let ((input, writer), (reader, out)) = (UnixStream::pair().unwrap(), pipe());
    writer.shutdown(Shutdown::Read).unwrap();
    let writer = writing(writer, content(1 << 20));
    let reader = reading(reader);
    assert_eq!(spliced(source(input), sink(out)).await, 1 << 20);
    writer.join().unwrap();
    assert!(reader.join().unwrap() == content(1 << 20));
}

#[tokio::test]
async fn fifo_to_fifo() {
    let ((input, writer), (reader, out)) = (Fifo::new().open(), Fifo::new().open());
    let writer = writing(writer, content(1 << 20));
    let reader = reading(reader);

    assert_eq!(spliced(source(input), sink(out)).await, 1 << 20);

    writer.join().unwrap();
    assert!(reader.join().unwrap() == content(1 << 20));
}

#[tokio::test]
async fn reader_that_leaves_is_noticed_while_nothing_moves() {
    let ((input, writer), (reader, out)) = (pipe(), pipe());
    let (mut source, mut sink, moved) = (source(input), sink(out), AtomicU64::new(0));
    {
        let mut splicing = pin!(splice(&mut source, &mut sink, &moved));
        assert!(polled(splicing.as_mut()).is_none());

        drop(reader);

        let Err(Unspliced::Output(error)) = splicing.await else { panic!("not broken") };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
    drop((source, writer));
}

#[tokio::test]
async fn reader_that_leaves_is_noticed_while_the_pipe_is_full() {
    let ((input, writer), (mut reader, out)) = (pipe(), pipe());
    let writer = std::thread::spawn(move || {
        let mut writer = writer;
        while writer.write_all(&[7; 4096]).is_ok() {}
    });
    let task = tokio::spawn(async move {
        let (mut source, mut sink, moved) = (source(input), sink(out), AtomicU64::new(0));
        let ended = splice(&mut source, &mut sink, &moved).await;
        (ended, moved.into_inner())
    });
    let reader = std::thread::spawn(move || reader.read_exact(&mut [0; 1000]).unwrap());

    let (Err(Unspliced::Output(error)), moved) = task.await.unwrap() else { panic!("not broken") };

    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert!(moved >= 1000);
    reader.join().unwrap();
    writer.join().unwrap();
}

/// Cancels after every poll, and goes on.
async fn spliced_in_pieces(mut source: Source, mut sink: Sink) -> u64 {
    let moved = AtomicU64::new(0);
    loop {
        if let Some(ended) = polled(pin!(splice(&mut source, &mut sink, &moved))) {
            ended.unwrap();
            break;
        }
        settle(&mut source, &mut sink, &moved).await.unwrap();
        tokio::task::yield_now().await;
    }
    moved.into_inner()
}

#[tokio::test]
async fn cancelled_calls_lose_nothing() {
    let bytes = 3_000_000;
    let dir = tempfile::tempdir().unwrap();

    let ((input, writer), (reader, out)) = (pipe(), pipe());
    let (writer, reader) = (writing(writer, content(bytes)), reading(reader));
    assert_eq!(spliced_in_pieces(source(input), sink(out)).await, bytes as u64);
    writer.join().unwrap();
    assert!(reader.join().unwrap() == content(bytes));

    let (reader, out) = pipe();
    let reader = reading(reader);
    let input = source(file(dir.path(), &content(bytes)));
    assert_eq!(spliced_in_pieces(input, sink(out)).await, bytes as u64);
    assert!(reader.join().unwrap() == content(bytes));

    for options in [OpenOptions::new().write(true), OpenOptions::new().append(true)] {
        let (input, writer) = pipe();
        let writer = writing(writer, content(bytes));
        let (out, path) = output(&dir, options);
        assert_eq!(spliced_in_pieces(source(input), sink(out)).await, bytes as u64);
        writer.join().unwrap();
        assert!(std::fs::read(&path).unwrap() == content(bytes));
        std::fs::remove_file(path).unwrap();
    }
}

#[tokio::test]
async fn after_a_cancelled_splice_the_source_says_what_comes_next() {
    let dir = tempfile::tempdir().unwrap();
    let (mut reader, out) = pipe();
    let bytes = content(1 << 20);
    let mut source = source(file(dir.path(), &bytes));
    let mut sink = sink(out);
    let moved = AtomicU64::new(0);
    // Nobody reads: no more than the pipe holds is moved.
    assert!(polled(pin!(splice(&mut source, &mut sink, &moved))).is_none());
    settle(&mut source, &mut sink, &moved).await.unwrap();

    let mut rest = crate::fd::test_files::drained(&mut source).await;

    let mut read = vec![0; moved.into_inner() as usize];
    reader.read_exact(&mut read).unwrap();
    read.append(&mut rest);
    assert!(read == bytes);
}
