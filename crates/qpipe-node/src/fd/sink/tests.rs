use std::{
    fs::OpenOptions,
    io::Read,
    os::unix::net::UnixStream,
    pin::pin,
    sync::{Mutex, mpsc},
    thread::{self, ThreadId},
};

use rustix::{fs::OFlags, io::dup};

use super::*;
use crate::fd::test_files::{
    Fifo, content, fill, is_blocking, pipe, polled, reading, terminal, waited_sink,
};

async fn write_all(sink: &mut Sink, bytes: Vec<u8>) {
    let mut bytes = Bytes::from(bytes);
    while !bytes.is_empty() {
        let before = bytes.len();
        let written = sink.write(&mut bytes).await.unwrap();
        assert!(written > 0 && bytes.len() == before - written);
    }
}

async fn broken_pipe(sink: &mut Sink) {
    let error = sink.write(&mut Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn slow_reader_gets_everything_and_then_eof() {
    let (reader, mut writer) = pipe();
    let shared = dup(&writer).unwrap();
    let filled = fill(&mut writer, &shared);
    let mut sink = Sink::take(writer.into()).unwrap();

    // Given a full pipe
    let mut bytes = Bytes::from_static(b"more");
    assert!(polled(pin!(sink.write(&mut bytes))).is_none());
    assert_eq!(bytes, "more");
    assert!(is_blocking(&shared));
    drop(shared);

    // When it is read
    let reader = reading(reader);
    write_all(&mut sink, content(1 << 20)).await;
    drop(sink);

    // Then nothing is missing
    let read = reader.join().unwrap();
    assert!(read.get(filled..).unwrap() == content(1 << 20));
}

#[tokio::test]
async fn idle_writer_hears_of_its_readers_end() {
    let (pipe_reader, pipe_writer) = pipe();
    let (other_reader, other_writer) = pipe();
    let (fifo_reader, fifo_writer) = Fifo::new().open();
    let (near, far) = UnixStream::pair().unwrap();
    let (terminal, far_terminal) = terminal();
    let cases: [(Sink, OwnedFd); 5] = [
        (Sink::take(pipe_writer.into()).unwrap(), pipe_reader.into()),
        (waited_sink(other_writer), other_reader.into()),
        (Sink::take(fifo_writer.into()).unwrap(), fifo_reader.into()),
        (Sink::take(near.into()).unwrap(), far.into()),
        (Sink::take(terminal.into()).unwrap(), far_terminal.into()),
    ];
    for (sink, reader) in cases {
        let mut broken = pin!(sink.broken());
        assert!(polled(broken.as_mut()).is_none());

        drop(reader);

        broken.await;
    }
}

#[tokio::test]
async fn write_after_waiting_for_the_readers_end() {
    let (mut reader, writer) = pipe();
    let mut sink = Sink::take(writer.into()).unwrap();
    // Uses up what epoll said of room.
    assert!(polled(pin!(sink.broken())).is_none());

    write_all(&mut sink, b"written".to_vec()).await;

    drop(sink);
    let mut read = String::new();
    reader.read_to_string(&mut read).unwrap();
    assert_eq!(read, "written");
}

#[tokio::test]
async fn reader_that_is_killed_breaks_a_full_pipe() {
    let (reader, mut writer) = pipe();
    let mut sleeper =
        std::process::Command::new("sleep").arg("1000").stdin(reader).spawn().unwrap();
    let shared = dup(&writer).unwrap();
    fill(&mut writer, &shared);
    let mut sink = Sink::take(writer.into()).unwrap();
    let mut bytes = Bytes::from_static(b"x");
    {
        let mut write = pin!(sink.write(&mut bytes));
        assert!(polled(write.as_mut()).is_none());

        sleeper.kill().unwrap();
        sleeper.wait().unwrap();

        assert_eq!(write.await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
    sink.broken().await;
}

#[tokio::test]
async fn nobody_reads_from_the_start() {
    let fifo = Fifo::new();
    let (reader, writer) = fifo.open();
    drop(reader);
    let error = Sink::take(writer.into()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);

    let (reader, writer) = pipe();
    drop(reader);
    let mut sink = Sink::take(writer.into()).unwrap();
    sink.broken().await;
    broken_pipe(&mut sink).await;

    let (near, far) = UnixStream::pair().unwrap();
    drop(far);
    let mut sink = Sink::take(near.into()).unwrap();
    sink.broken().await;
    broken_pipe(&mut sink).await;
}

#[tokio::test]
async fn fifo_that_is_open_for_both_is_never_broken() {
    let mut sink = Sink::take(Fifo::new().file(OFlags::RDWR).into()).unwrap();
    assert!(polled(pin!(sink.broken())).is_none());
    write_all(&mut sink, b"kept".to_vec()).await;
}

#[tokio::test]
async fn socket_that_is_full_is_waited_for_and_stays_blocking() {
    let (near, far) = UnixStream::pair().unwrap();
    let shared = dup(&near).unwrap();
    let mut sink = Sink::take(near.into()).unwrap();
    let mut bytes = Bytes::from(content(4 << 20));
    while polled(pin!(sink.write(&mut bytes))).is_some() {}
    let written = content(4 << 20).len() - bytes.len();

    let reader = reading(far);
    let left = bytes.len();
    write_all(&mut sink, bytes.to_vec()).await;

    assert!(is_blocking(&shared));
    drop((sink, shared));
    assert_eq!(reader.join().unwrap().len(), written + left);
}

#[tokio::test]
async fn files_are_appended_to_where_they_were_opened_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(&path, "before ").unwrap();
    let file = OpenOptions::new().append(true).open(&path).unwrap();
    let mut sink = Sink::take(file.into()).unwrap();
    assert!(polled(pin!(sink.broken())).is_none());

    // Also when a write is cancelled: it is picked up, and not made twice.
    let mut bytes = Bytes::from_static(b"after");
    if polled(pin!(sink.write(&mut bytes))).is_none() {
        assert_eq!(sink.write(&mut bytes).await.unwrap(), 5);
    }

    assert!(bytes.is_empty());
    assert_eq!(std::fs::read_to_string(path).unwrap(), "before after");
}

#[tokio::test]
async fn full_disk_is_told() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut sink = Sink::take(full.into()).unwrap();
    let error = sink.write(&mut Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

#[tokio::test]
async fn pipe_that_may_not_be_opened_again_is_written_a_little_at_a_time() {
    let (reader, mut writer) = pipe();
    let shared = dup(&writer).unwrap();
    let filled = fill(&mut writer, &shared);
    let mut sink = waited_sink(writer);

    let mut bytes = Bytes::from_static(b"x");
    assert!(polled(pin!(sink.write(&mut bytes))).is_none());
    assert!(!sink.writing.is_busy());

    let reader = reading(reader);
    write_all(&mut sink, content(300_000)).await;
    assert!(is_blocking(&shared));
    drop((sink, shared));
    assert!(reader.join().unwrap().get(filled..).unwrap() == content(300_000));
}

#[tokio::test]
async fn terminal_shows_what_is_written() {
    let (near, mut far) = terminal();
    let mut sink = Sink::take(near.into()).unwrap();

    write_all(&mut sink, b"shown".to_vec()).await;

    let mut shown = [0; 5];
    far.read_exact(&mut shown).unwrap();
    assert_eq!(&shown, b"shown");
}

fn output(dir: &tempfile::TempDir) -> Sink {
    let file = std::fs::File::create(dir.path().join("output")).unwrap();
    Sink::take(file.into()).unwrap()
}

#[tokio::test]
async fn file_that_turns_out_not_to_be_written_when_it_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = output(&dir);
    write_all(&mut sink, b"kept".to_vec()).await;
    sink.finish().await.unwrap();

    let mut sink = output(&dir);
    sink.descriptor.close_with(|_| Err(Errno::DQUOT));
    write_all(&mut sink, b"lost".to_vec()).await;

    let error = sink.finish().await.unwrap_err();

    assert_eq!(error.raw_os_error(), Some(Errno::DQUOT.raw_os_error()));
}

#[tokio::test]
async fn nobody_waits_for_a_file_that_is_closed() {
    static CLOSED: Mutex<Option<mpsc::Sender<ThreadId>>> = Mutex::new(None);
    let (sender, closed) = mpsc::channel();
    *CLOSED.lock().unwrap() = Some(sender);
    let dir = tempfile::tempdir().unwrap();
    let mut sink = output(&dir);
    sink.descriptor.close_with(|_| {
        let sender = CLOSED.lock().unwrap().take();
        sender.unwrap().send(thread::current().id()).unwrap();
        Ok(())
    });

    drop(sink);

    assert_ne!(closed.recv().unwrap(), thread::current().id());
}

#[tokio::test]
async fn pipe_is_closed_at_once() {
    let (mut reader, writer) = pipe();
    let sink = Sink::take(writer.into()).unwrap();

    // Also where the runtime has no time for it.
    drop(sink);

    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

/// As if much had passed already.
#[cfg(target_os = "linux")]
fn bulk_sink(writer: OwnedFd) -> Sink {
    let mut sink = Sink::take(writer).unwrap();
    sink.bounce = Bounce::new();
    assert!(sink.wants_bytes() > 0);
    sink
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn bulk_in_pieces_arrives_in_order_and_ends() {
    let (reader, writer) = pipe();
    let reader = reading(reader);
    let mut sink = bulk_sink(writer.into());
    let whole = Bytes::from(content(5 << 20));

    let mut at = 0;
    let mut pieces = VecDeque::new();
    for length in [1, 5_740, 64_575, 300_000].into_iter().cycle() {
        let end = whole.len().min(at + length);
        pieces.push_back(whole.slice(at..end));
        at = end;
        if pieces.len() == 20 || at == whole.len() {
            while !pieces.is_empty() {
                assert!(sink.write_pieces(&mut pieces).await.unwrap() > 0);
            }
        }
        if at == whole.len() {
            break;
        }
    }
    sink.finish().await.unwrap();

    assert!(reader.join().unwrap() == whole);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn after_settling_other_bytes_are_written_than_those_that_waited() {
    let (reader, writer) = pipe();
    let mut sink = bulk_sink(writer.into());
    let mut bytes = Bytes::from(vec![1; 1 << 20]);
    let mut written = 0;
    while let Some(some) = polled(pin!(sink.write(&mut bytes))) {
        written += some.unwrap();
    }
    assert_eq!(written + bytes.len(), 1 << 20);

    assert_eq!(sink.settle().await, 0);
    let reader = reading(reader);
    write_all(&mut sink, vec![2; 1 << 20]).await;
    sink.finish().await.unwrap();

    assert!(reader.join().unwrap() == [vec![1; written], vec![2; 1 << 20]].concat());
}
