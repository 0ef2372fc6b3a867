use std::{
    io::Write, net::Shutdown, os::unix::net::UnixDatagram, os::unix::net::UnixStream, pin::pin,
};

use rustix::{fs::OFlags, io::dup};

use super::*;
use crate::fd::test_files::{
    Fifo, content, drained, file, is_blocking, pipe, polled, terminal, waited_source, writing,
};

#[tokio::test]
async fn pipe_is_read_to_its_end_which_stays() {
    let (reader, writer) = pipe();
    let mut source = Source::take(reader.into()).unwrap();
    assert_eq!(source.descriptor.way(), Way::Own);

    let writer = writing(writer, content(1 << 20));

    assert!(drained(&mut source).await == content(1 << 20));
    assert_eq!(source.next(1).await.unwrap(), None);
    writer.join().unwrap();
}

#[tokio::test]
async fn no_more_is_taken_than_is_asked_for() {
    let (reader, mut writer) = pipe();
    writer.write_all(b"abcdef").unwrap();
    let mut source = Source::take(reader.into()).unwrap();
    assert_eq!(source.ready_bytes(), 6);

    assert_eq!(source.next(4).await.unwrap().unwrap(), "abcd");

    assert_eq!(source.ready_bytes(), 2);
    assert_eq!(source.next(0).await.unwrap().unwrap(), "e");
}

#[tokio::test]
async fn description_that_others_share_stays_blocking() {
    let (near, _far) = UnixStream::pair().unwrap();
    let (pipe_reader, _writer) = pipe();
    let (fifo_reader, _fifo_writer) = Fifo::new().open();
    let (terminal, _far_terminal) = terminal();
    for fd in [pipe_reader.into(), near.into(), fifo_reader.into(), OwnedFd::from(terminal)] {
        let shared = dup(&fd).unwrap();
        let mut source = Source::take(fd).unwrap();

        assert!(polled(pin!(source.next(1))).is_none());

        assert!(is_blocking(&shared));
    }
}

#[tokio::test]
async fn taken_reader_is_the_last_one() {
    let (reader, mut writer) = pipe();
    let source = Source::take(reader.into()).unwrap();

    drop(source);

    assert_eq!(writer.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn fifo_that_everybody_left_is_at_its_end() {
    let (reader, mut writer) = Fifo::new().open();
    writer.write_all(b"last").unwrap();
    drop(writer);

    let mut source = Source::take(reader.into()).unwrap();

    assert_eq!(drained(&mut source).await, b"last");
    // Also who asks poll(2) does not wait for ever.
    source.descriptor.ready().await.unwrap();
}

#[tokio::test]
async fn fifo_that_is_opened_again_before_its_end_is_read_goes_on() {
    let fifo = Fifo::new();
    let (reader, first) = fifo.open();
    let mut source = Source::take(reader.into()).unwrap();
    assert!(polled(pin!(source.next(1))).is_none());

    // Given a hang-up that epoll told
    drop(first);
    let watch = source.descriptor.watch().unwrap();
    assert!(watch.readable().await.unwrap().ready().is_read_closed());

    // When somebody else writes
    let mut second = fifo.file(OFlags::WRONLY);
    assert!(polled(pin!(source.next(9))).is_none());
    second.write_all(b"second").unwrap();

    // Then it is read, and the old hang-up wakes nobody any more
    assert_eq!(source.next(9).await.unwrap().unwrap(), "second");
    let watch = source.descriptor.watch().unwrap();
    let seen = polled(pin!(watch.readable()));
    assert!(seen.is_none_or(|seen| !seen.unwrap().ready().is_read_closed()));
}

#[tokio::test]
async fn fifo_that_is_open_for_both_never_ends() {
    let file = Fifo::new().file(OFlags::RDWR);
    let mut source = Source::take(file.into()).unwrap();
    assert!(polled(pin!(source.next(1))).is_none());
}

#[tokio::test]
async fn socket_is_read_until_its_other_side_is_shut() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut source = Source::take(near.into()).unwrap();
    far.write_all(b"request").unwrap();
    far.shutdown(Shutdown::Write).unwrap();

    assert_eq!(drained(&mut source).await, b"request");
}

#[tokio::test]
async fn datagrams_are_refused() {
    let (near, _far) = UnixDatagram::pair().unwrap();
    let error = Source::take(near.into()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}

#[tokio::test]
async fn write_end_is_refused() {
    let (_reader, writer) = pipe();
    let error = Source::take(writer.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::BADF.raw_os_error()));
}

#[tokio::test]
async fn files_are_read_in_the_pool_and_nothing_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = content(PIECE_BYTES_MAX + 1);
    let mut source = Source::take(file(dir.path(), &bytes).into()).unwrap();
    assert_eq!(source.ready_bytes(), 0);
    assert!(drained(&mut source).await == bytes);

    let null = std::fs::File::open("/dev/null").unwrap();
    let mut source = Source::take(null.into()).unwrap();
    assert_eq!(source.descriptor.way(), Way::Prompt);
    assert_eq!(source.next(1).await.unwrap(), None);
}

#[tokio::test]
async fn cancelled_read_of_a_file_is_picked_up() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = content(1 << 20);
    let mut source = Source::take(file(dir.path(), &bytes).into()).unwrap();

    let mut read = Vec::new();
    loop {
        let early = polled(pin!(source.next(10_000)));
        if let Some(chunk) = early {
            read.extend_from_slice(&chunk.unwrap().unwrap_or_default());
        }
        match source.next(7_000).await.unwrap() {
            Some(chunk) => read.extend_from_slice(&chunk),
            None => break,
        }
    }

    assert!(read == bytes);
}

#[tokio::test]
async fn terminal_is_read_and_not_made_ours() {
    let (near, mut far) = terminal();
    let mut source = Source::take(near.into()).unwrap();
    assert_eq!(source.descriptor.way(), Way::Own);
    assert!(polled(pin!(source.next(1))).is_none());

    far.write_all(b"typed").unwrap();
    assert_eq!(source.next(9).await.unwrap().unwrap(), "typed");

    drop(far);
    assert_eq!(source.next(9).await.unwrap(), None);
}

#[tokio::test]
async fn other_side_of_a_terminal_is_not_opened_again() {
    let (mut near, far) = terminal();
    let mut source = Source::take(far.into()).unwrap();
    assert_eq!(source.descriptor.way(), Way::Waited);

    near.write_all(b"shown").unwrap();
    assert_eq!(source.next(9).await.unwrap().unwrap(), "shown");
}

#[tokio::test]
async fn pipe_that_may_not_be_opened_again_is_read_to_its_end() {
    let (reader, writer) = pipe();
    let shared = dup(&reader).unwrap();
    let mut source = waited_source(reader);
    assert!(polled(pin!(source.next(1))).is_none());
    assert!(!source.reading.is_busy());

    let writer = writing(writer, content(1 << 20));

    assert!(drained(&mut source).await == content(1 << 20));
    assert!(is_blocking(&shared));
    writer.join().unwrap();
}

#[test]
fn short_read_does_not_keep_a_large_buffer_alive() {
    let mut buffer = Vec::with_capacity(PIECE_BYTES_MAX);
    buffer.extend_from_slice(b"short");
    let chunk = snug(buffer);
    assert_eq!(chunk, "short");
    assert!(chunk.try_into_mut().unwrap().capacity() < READ_BYTES_MIN);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn bulk_comes_in_order_and_ends() {
    let (reader, writer) = pipe();
    let writer = writing(writer, content(9 << 20));
    let mut source = Source::take(reader.into()).unwrap();
    source.bounce = Bounce::new();
    assert!(source.bounce.is_some());

    assert!(drained(&mut source).await == content(9 << 20));

    writer.join().unwrap();
    assert_eq!(source.next(1).await.unwrap(), None);
}
