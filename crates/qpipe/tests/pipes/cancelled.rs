//! Futures that are dropped at any of their polls lose nothing and double nothing.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use qpipe::{PipeReader, PipeWriter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::pair::{Pair, pattern};

/// Polls a future up to `polls` times, and drops it if it is not ready then.
async fn at_most<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|cx| {
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// How one attempt is made: its size, and its polls.
type Attempt = (usize, usize);

fn attempts() -> impl Strategy<Value = Vec<Attempt>> {
    proptest::collection::vec((1usize..70_000, 1usize..4), 1..20)
}

async fn write(mut writer: PipeWriter, content: Vec<u8>, attempts: Vec<Attempt>) {
    let mut done = 0;
    for (size, polls) in attempts.into_iter().cycle() {
        if done == content.len() {
            break;
        }
        let piece = &content[done..content.len().min(done + size)];
        if size % 3 == 0 {
            // Not cancel safe, but it tells how far it came.
            let _ = at_most(polls, writer.write_chunk(piece.to_vec().into())).await;
            done = writer.written() as usize;
        } else if let Some(written) = at_most(polls, writer.write(piece)).await {
            done += written.unwrap();
        }
        assert_eq!(writer.written(), done as u64);
        tokio::task::yield_now().await;
    }
    while at_most(1, writer.finish()).await.is_none() {
        tokio::task::yield_now().await;
    }
}

async fn read(mut reader: PipeReader, attempts: Vec<Attempt>) -> Vec<u8> {
    let (mut got, mut buffer) = (Vec::new(), vec![0; 70_000]);
    for (size, polls) in attempts.into_iter().cycle() {
        if size % 2 == 0 {
            match at_most(polls, reader.read_chunk(size)).await {
                Some(Ok(Some(chunk))) => {
                    reader.consume(chunk.len() as u64);
                    got.extend_from_slice(&chunk);
                }
                Some(end) => {
                    assert!(end.unwrap().is_none());
                    break;
                }
                None => {}
            }
        } else if let Some(n) = at_most(polls, reader.read(&mut buffer[..size])).await {
            match n.unwrap() {
                0 => break,
                n => got.extend_from_slice(&buffer[..n]),
            }
        }
        tokio::task::yield_now().await;
    }
    got
}

#[test]
fn futures_dropped_at_random_polls_lose_and_double_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pair = runtime.block_on(Pair::new());
    let config = Config { failure_persistence: None, ..Config::with_cases(60) };
    let drawn = (0usize..300_000, attempts(), attempts(), any::<bool>());
    TestRunner::new(config)
        .run(&drawn, |(length, writes, reads, is_opened_by_writer)| {
            let content = pattern(length as u64, 0, length);
            let expected = content.clone();
            let got = runtime.block_on(async {
                let (writer, reader) = match is_opened_by_writer {
                    true => pair.pipe().await,
                    false => pair.pipe_from_reader().await,
                };
                let writing = tokio::spawn(write(writer, content, writes));
                let got = read(reader, reads).await;
                writing.await.unwrap();
                got
            });
            prop_assert!(got == expected, "{} of {length} bytes", got.len());
            Ok(())
        })
        .unwrap();
}
