//! The contract of a pipe, between two nodes over real QUIC.

use std::io::ErrorKind;
use std::time::Duration;

use crate::pair::{Pair, pattern};
use qpipe::{Cause, End, PipeError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn every_byte_then_eof_then_eof_again() {
    let pair = Pair::new().await;
    let (mut writer, mut reader) = pair.pipe().await;
    let content = pattern(1, 0, 3_000_000);
    let sent = content.clone();
    let task = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.finish().await.unwrap();
        assert_eq!(writer.consumed(), 3_000_000);
    });
    let mut got = Vec::new();
    reader.read_to_end(&mut got).await.unwrap();
    assert!(got == content);
    assert_eq!(reader.read(&mut [0; 10]).await.unwrap(), 0);
    task.await.unwrap();
}

#[tokio::test]
async fn a_pipe_opened_by_its_reader_carries_the_same() {
    let pair = Pair::new().await;
    let (mut writer, mut reader) = pair.pipe_from_reader().await;
    let task = tokio::spawn(async move {
        writer.write_all(&pattern(2, 0, 500_000)).await.unwrap();
        writer.finish().await
    });
    let mut got = Vec::new();
    reader.read_to_end(&mut got).await.unwrap();
    assert!(got == pattern(2, 0, 500_000));
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_empty_pipe_is_eof() {
    let pair = Pair::new().await;
    let (mut writer, mut reader) = pair.pipe().await;
    let finished = tokio::spawn(async move { writer.finish().await });
    assert!(reader.read_chunk(10).await.unwrap().is_none());
    finished.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_dropped_writer_is_no_eof() {
    let pair = Pair::new().await;
    let (mut writer, mut reader) = pair.pipe().await;
    writer.write_all(b"partial").await.unwrap();
    drop(writer);
    let mut got = Vec::new();
    let error = reader.read_to_end(&mut got).await.unwrap_err();
    assert_eq!(got, b"partial");
    let ending = PipeError::Aborted { cause: Cause::WriterDropped, delivered: 7 };
    assert_eq!(PipeError::of(&error), Some(&ending));
}

#[tokio::test]
async fn an_idle_writer_hears_that_its_reader_left() {
    let pair = Pair::new().await;
    let (mut writer, mut reader) = pair.pipe().await;
    writer.write_all(&[7; 100]).await.unwrap();
    reader.read_exact(&mut [0; 40]).await.unwrap();
    drop(reader);
    let ending = PipeError::Broken { cause: Cause::ReaderClosed, consumed: 40 };
    assert_eq!(writer.over().await, Err(ending));
    let error = writer.write(b"x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert_eq!(PipeError::of(&error), Some(&ending));
}

#[tokio::test]
async fn a_blocked_writer_hears_that_its_reader_left() {
    let pair = Pair::new().await;
    let (mut writer, reader) = pair.pipe().await;
    let task = tokio::spawn(async move { writer.write_all(&vec![1; 100_000_000]).await });
    tokio::task::yield_now().await;
    drop(reader);
    assert_eq!(task.await.unwrap().unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_writer_without_a_reader_that_reads_waits() {
    let pair = Pair::new().await;
    let (mut writer, mut reader) = pair.pipe().await;
    let mut written = 0;
    while let Ok(n) =
        tokio::time::timeout(Duration::from_millis(300), writer.write(&[3; 4096])).await
    {
        written += n.unwrap();
    }
    assert_eq!(written, 64 * 1024);
    reader.read_exact(&mut vec![0; 64 * 1024]).await.unwrap();
    writer.write_all(&[3; 4096]).await.unwrap();
}

#[tokio::test]
async fn a_duplex_group_half_closes() {
    let pair = Pair::new().await;
    let (writer, reader, mut ends) = pair.open(End::Duplex).await;
    let (mut writer, mut reader) = (writer.unwrap(), reader.unwrap());
    let mut request = ends.reader.take().unwrap();
    let mut reply = ends.writer.take().unwrap();
    let server = tokio::spawn(async move {
        let mut got = String::new();
        request.read_to_string(&mut got).await.unwrap();
        reply.write_all(got.to_uppercase().as_bytes()).await.unwrap();
        reply.finish().await.unwrap();
    });
    writer.write_all(b"request").await.unwrap();
    writer.finish().await.unwrap();
    let mut got = String::new();
    reader.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "REQUEST");
    server.await.unwrap();
}

#[tokio::test]
async fn a_session_that_is_lost_is_no_eof_and_what_came_is_kept() {
    let pair = Pair::new().await;
    let (mut writer, mut reader) = pair.pipe().await;
    writer.write_all(&[5; 1000]).await.unwrap();
    assert_eq!(reader.read_chunk(1).await.unwrap().unwrap().len(), 1);
    let Pair { dialler, .. } = pair;
    drop(dialler);
    let mut got = 1;
    let error = loop {
        match reader.read_chunk(100).await {
            Ok(chunk) => got += chunk.expect("no EOF").len(),
            Err(error) => break error,
        }
    };
    assert_eq!(got, 1000);
    assert_eq!(PipeError::of(&error).unwrap().cause(), Cause::Lost);
}

#[tokio::test]
async fn closing_waits_for_what_is_not_consumed_yet() {
    let pair = Pair::new().await;
    let (mut writer, mut reader) = pair.pipe().await;
    writer.write_all(&pattern(4, 0, 50_000)).await.unwrap();
    writer.close();
    let session = pair.session.clone();
    let closing = tokio::spawn(async move { session.close(Duration::from_secs(20)).await });
    let mut got = Vec::new();
    reader.read_to_end(&mut got).await.unwrap();
    assert!(got == pattern(4, 0, 50_000));
    writer.finish().await.unwrap();
    assert_eq!(closing.await.unwrap().cut, 0);
    assert_eq!(pair.session.closed().await, qpipe::SessionEnd::Bye);
}
