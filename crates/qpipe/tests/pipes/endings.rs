//! How pipes end, and what both programs are told.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use qpipe::{Cause, End, OpenOptions, OpenTarget, PipeError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::pair::{Everybody, Pair, named_node, pattern, peer};

#[tokio::test]
async fn finish_returns_only_when_the_reader_has_consumed_every_byte() {
    let pair = Pair::new().await;
    let (mut writer, mut reader) = pair.pipe().await;
    writer.write_all(&pattern(1, 0, 20_000)).await.unwrap();
    let is_consumed = Arc::new(AtomicBool::new(false));
    let seen = is_consumed.clone();
    let finishing = tokio::spawn(async move {
        writer.finish().await.unwrap();
        assert!(seen.load(Ordering::SeqCst), "not everything was consumed yet");
        assert_eq!(writer.consumed(), 20_000);
    });
    let mut got = 0;
    while let Some(chunk) = reader.read_chunk(6000).await.unwrap() {
        got += chunk.len();
    }
    assert_eq!(got, 20_000);
    reader.consume(19_999);
    // Whatever the reader's node has to tell goes before this, on the same streams.
    for _ in 0..3 {
        round_trip(&pair).await;
    }
    assert!(!finishing.is_finished());
    is_consumed.store(true, Ordering::SeqCst);
    reader.consume(1);
    finishing.await.unwrap();
}

/// A whole pipe, there and back.
async fn round_trip(pair: &Pair) {
    let (mut writer, mut reader) = pair.pipe().await;
    writer.write_all(b"ping").await.unwrap();
    writer.close();
    reader.read_to_end(&mut Vec::new()).await.unwrap();
    writer.finish().await.unwrap();
}

#[tokio::test]
async fn a_closed_writer_takes_nothing_more() {
    let pair = Pair::new().await;
    let (mut writer, mut reader) = pair.pipe().await;
    writer.write_all(b"all").await.unwrap();
    writer.close();
    assert!(writer.write(b"more").await.is_err());
    let mut got = Vec::new();
    reader.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"all");
    writer.finish().await.unwrap();
    assert!(writer.write(b"more").await.is_err());
    // Finishing again says the same.
    writer.finish().await.unwrap();
}

#[tokio::test]
async fn interrupted_ends_tell_the_other_side_why() {
    let pair = Pair::new().await;
    let (mut writer, reader) = pair.pipe().await;
    let blocked = tokio::spawn(async move { writer.write_all(&vec![1; 1 << 20]).await });
    reader.close(Cause::Interrupted);
    let error = blocked.await.unwrap().unwrap_err();
    assert_eq!(PipeError::of(&error).unwrap().cause(), Cause::Interrupted);
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);

    let (mut writer, mut reader) = pair.pipe().await;
    let blocked = tokio::spawn(async move {
        let mut got = Vec::new();
        (reader.read_to_end(&mut got).await.unwrap_err(), got)
    });
    writer.write_all(b"so far").await.unwrap();
    writer.abort(Cause::Interrupted);
    let (error, got) = blocked.await.unwrap();
    assert_eq!(got, b"so far");
    let ending = PipeError::Aborted { cause: Cause::Interrupted, delivered: 6 };
    assert_eq!(PipeError::of(&error), Some(&ending));
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn an_error_says_why_and_how_much_was_consumed() {
    let pair = Pair::new().await;
    let (mut writer, mut reader) = pair.pipe().await;
    writer.write_all(&[1; 5000]).await.unwrap();
    reader.read_exact(&mut [0; 1234]).await.unwrap();
    drop(reader);
    let error = writer.finish().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    let broken = PipeError::Broken { cause: Cause::ReaderClosed, consumed: 1234 };
    assert_eq!(PipeError::of(&error), Some(&broken));
    assert_eq!(error.to_string(), "broken pipe after 1234 bytes: the reader closed the pipe");
    let inner: &(dyn Error + 'static) = error.get_ref().unwrap();
    assert_eq!(inner.downcast_ref::<PipeError>(), Some(&broken));
}

#[tokio::test]
async fn a_refused_open_is_an_error_of_the_next_call_at_either_end() {
    let pair = Pair::new().await;
    let unknown = || OpenTarget::Ticket(qpipe::Secret::from_bytes([9; 16]));
    let writer = pair.session.open_writer(unknown(), OpenOptions::default()).await.unwrap();
    let refused = PipeError::Refused { cause: Cause::Ticket };
    assert_eq!(writer.accepted().await, Err(refused));
    let mut writer = writer;
    let error = writer.write(b"x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(PipeError::of(&error), Some(&refused));
    assert_eq!(PipeError::of(&writer.finish().await.unwrap_err()), Some(&refused));
    let mut reader = pair.session.open_reader(unknown(), OpenOptions::default()).await.unwrap();
    let error = reader.read(&mut [0; 10]).await.unwrap_err();
    assert_eq!(PipeError::of(&error), Some(&refused));
}

#[tokio::test]
async fn a_ticket_that_was_used_opens_nothing_more() {
    let pair = Pair::new().await;
    let mut offer = pair.acceptor.offer(End::Write, None).unwrap();
    let target = OpenTarget::Ticket(offer.secret().clone());
    let mut first = pair.session.open_writer(target.clone(), OpenOptions::default()).await.unwrap();
    let mut reader = offer.taken().await.unwrap().reader.unwrap();
    first.write_all(b"first").await.unwrap();
    first.close();
    let mut got = Vec::new();
    reader.read_to_end(&mut got).await.unwrap();
    first.finish().await.unwrap();
    let second = pair.session.open_writer(target, OpenOptions::default()).await.unwrap();
    assert_eq!(second.accepted().await, Err(PipeError::Refused { cause: Cause::Ticket }));
    assert_eq!(got, b"first");
    assert_eq!(reader.read(&mut [0; 10]).await.unwrap(), 0);
}

#[tokio::test]
async fn no_wait_is_told_to_the_other_node_which_refuses_at_once() {
    let (dialler, acceptor) = (named_node(Arc::new(Everybody)), named_node(Arc::new(Everybody)));
    let session = dialler.connect(&peer(&acceptor), None).await.unwrap();
    let target = OpenTarget::Name("inbox/x".parse().unwrap());
    let writer = session
        .open_writer(target, OpenOptions { no_wait: true, ..OpenOptions::default() })
        .await
        .unwrap();
    let open = acceptor.next_open().await.unwrap();
    assert!(open.no_wait());
    open.refuse(Cause::NoPartner);
    let refused = PipeError::Refused { cause: Cause::NoPartner };
    assert_eq!(writer.accepted().await, Err(refused));
    let error = std::io::Error::from(refused);
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn everything_written_arrives_when_the_node_is_told_to_stop_gracefully() {
    let pair = Pair::new().await;
    let (mut writer, mut reader) = pair.pipe().await;
    let Pair { dialler, acceptor, session } = pair;
    let writing = tokio::spawn(async move {
        writer.write_all(&pattern(31, 0, 1 << 20)).await.unwrap();
        writer.close();
        drop(writer);
        dialler.close(Duration::from_secs(60)).await
    });
    let mut got = Vec::new();
    reader.read_to_end(&mut got).await.unwrap();
    assert!(got == pattern(31, 0, 1 << 20));
    assert_eq!(writing.await.unwrap().cut, 0);
    assert_eq!(session.closed().await, qpipe::SessionEnd::Bye);
    drop(acceptor);
}

#[tokio::test]
async fn a_graceful_end_reports_what_it_had_to_cut_and_cuts_it_with_a_cause() {
    let pair = Pair::new().await;
    let (mut writer, mut reader) = pair.pipe().await;
    writer.write_all(b"unfinished").await.unwrap();
    let report = pair.dialler.close(Duration::from_millis(1)).await;
    assert_eq!(report.cut, 1);
    let mut got = Vec::new();
    let error = reader.read_to_end(&mut got).await.unwrap_err();
    assert_eq!(got, b"unfinished");
    assert_eq!(PipeError::of(&error).unwrap().cause(), Cause::Stopping);
    assert!(writer.write(b"x").await.is_err());
}

#[tokio::test]
async fn the_end_of_a_session_is_never_eof_wherever_it_strikes() {
    let mut cutting = JoinSet::new();
    for cut in [0, 1, 4096, 30_000, 65_536, 200_000, 900_000] {
        cutting.spawn(cut_after(cut));
    }
    assert_eq!(cutting.join_all().await.len(), 7);
}

/// Ends the session of a pipe of which `read` bytes were read.
async fn cut_after(read: usize) {
    let pair = Pair::new().await;
    let (mut writer, mut reader) = pair.pipe().await;
    let writing = tokio::spawn(async move {
        // Never finished, so that no EOF could be a true one.
        writer.write_all(&pattern(29, 0, 1_000_000)).await?;
        writer.over().await.map_err(std::io::Error::from)
    });
    let mut got = vec![0; read];
    reader.read_exact(&mut got).await.unwrap();
    drop(pair.dialler);
    let error = reader.read_to_end(&mut got).await.unwrap_err();
    // Should the goodbye be lost, the host says that nothing listens there any more.
    let cause = PipeError::of(&error).unwrap().cause();
    assert!([Cause::Lost, Cause::Gone].contains(&cause), "{cause}");
    assert!(got == pattern(29, 0, got.len()), "not a prefix of what was written");
    let error = writing.await.unwrap().unwrap_err();
    assert_eq!(PipeError::of(&error).unwrap().cause(), Cause::Lost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocking_wrappers_work_in_threads_of_their_own() {
    let pair = Pair::new().await;
    let (writer, reader) = pair.pipe().await;
    let (mut writer, mut reader) = (writer.into_blocking(), reader.into_blocking());
    let writing = tokio::task::spawn_blocking(move || {
        writer.write_all(&pattern(3, 0, 500_000)).unwrap();
        writer.write_chunk(pattern(3, 500_000, 500_000).into()).unwrap();
        writer.flush().unwrap();
        writer.finish()
    });
    let reading = tokio::task::spawn_blocking(move || {
        let mut got = vec![0; 100];
        reader.read_exact(&mut got).unwrap();
        while let Some(chunk) = reader.read_chunk(100_000).unwrap() {
            got.extend_from_slice(&chunk);
        }
        got
    });
    assert!(reading.await.unwrap() == pattern(3, 0, 1_000_000));
    writing.await.unwrap().unwrap();

    let (writer, reader) = pair.pipe().await;
    let (writer, mut reader) = (writer.into_blocking(), reader.into_blocking());
    drop(writer);
    let read = tokio::task::spawn_blocking(move || reader.read(&mut [0; 10]));
    assert_eq!(read.await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionAborted);
}
