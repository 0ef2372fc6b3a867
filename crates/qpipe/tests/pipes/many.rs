//! Thousands of pipes in one session.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use qpipe::{End, OpenOptions, OpenTarget, PipeReader, PipeWriter};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::pair::{Pair, pattern};

/// `count` pipes, opened all at once.
async fn pipes(pair: &Pair, count: usize) -> Vec<(PipeWriter, PipeReader)> {
    let mut opening = JoinSet::new();
    for i in 0..count {
        let mut offer = pair.acceptor.offer(End::Write, None).unwrap();
        let session = pair.session.clone();
        opening.spawn(async move {
            let target = OpenTarget::Ticket(offer.secret().clone());
            let writer = session.open_writer(target, OpenOptions::default()).await.unwrap();
            let reader = offer.taken().await.unwrap().reader.unwrap();
            (i, writer, reader)
        });
    }
    let mut pipes = opening.join_all().await;
    pipes.sort_by_key(|(i, _, _)| *i);
    pipes.into_iter().map(|(_, writer, reader)| (writer, reader)).collect()
}

/// How long the content of a pipe is: of no regularity, and now and then nothing.
fn length(i: usize) -> usize {
    let drawn = (i as u64).wrapping_mul(0xd134_2543_de82_ef95) >> 40;
    if drawn.is_multiple_of(17) { 0 } else { drawn as usize % 9000 }
}

async fn write(i: usize, mut writer: PipeWriter, length: usize) {
    writer.write_all(&pattern(i as u64, 0, length)).await.unwrap();
    writer.finish().await.unwrap();
}

async fn read(i: usize, mut reader: PipeReader, length: usize) {
    let mut got = Vec::new();
    reader.read_to_end(&mut got).await.unwrap();
    assert!(got == pattern(i as u64, 0, length), "pipe {i}");
}

#[tokio::test]
async fn three_thousand_pipes_at_once_arrive_whole() {
    let pair = Pair::new().await;
    let mut tasks = JoinSet::new();
    for (i, (writer, reader)) in pipes(&pair, 3000).await.into_iter().enumerate() {
        tasks.spawn(write(i, writer, length(i)));
        tasks.spawn(read(i, reader, length(i)));
    }
    assert_eq!(tasks.join_all().await.len(), 6000);
}

#[tokio::test]
async fn a_stalled_pipe_holds_up_none_of_a_thousand() {
    let pair = Pair::new().await;
    let mut pipes = pipes(&pair, 1000).await;
    let (writer, stalled) = pipes.pop().unwrap();
    let stuck = tokio::spawn(write(999, writer, 1 << 20));
    let mut tasks = JoinSet::new();
    for (i, (writer, reader)) in pipes.into_iter().enumerate() {
        tasks.spawn(write(i, writer, 20_000));
        tasks.spawn(read(i, reader, 20_000));
    }
    assert_eq!(tasks.join_all().await.len(), 2 * 999);
    assert!(!stuck.is_finished());
    read(999, stalled, 1 << 20).await;
    stuck.await.unwrap();
}

#[tokio::test]
async fn a_thousand_finished_and_unread_pipes_leave_room_for_another() {
    let pair = Pair::new().await;
    let mut finished = Vec::new();
    for (i, (mut writer, reader)) in pipes(&pair, 999).await.into_iter().enumerate() {
        writer.write_all(&pattern(i as u64, 0, 500)).await.unwrap();
        writer.close();
        finished.push((writer, reader));
    }
    let (writer, reader) = pair.pipe().await;
    tokio::join!(write(7, writer, 100_000), read(7, reader, 100_000));
    for (i, (mut writer, reader)) in finished.into_iter().enumerate() {
        read(i, reader, 500).await;
        writer.finish().await.unwrap();
    }
}

/// Polls once.
fn poll_now<F: Future + Unpin>(mut future: F) -> Poll<F::Output> {
    Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Writes as much as goes in without waiting.
fn push(writer: &mut PipeWriter, piece: &[u8]) -> usize {
    let mut cx = Context::from_waker(Waker::noop());
    let mut pushed = 0;
    while let Poll::Ready(n) = Pin::new(&mut *writer).poll_write(&mut cx, piece) {
        pushed += n.unwrap();
    }
    pushed
}

#[tokio::test]
async fn two_thousand_stalled_readers_stay_inside_the_memory_budget() {
    const MEMORY: u64 = 32 << 20;
    const PIPES: usize = 2000;
    let pair = Pair::with_memory(MEMORY).await;
    let mut pipes = pipes(&pair, PIPES).await;
    let committed = |node: &qpipe::Node| {
        let (floors, pool) = node.budget().committed();
        floors + pool
    };
    let mut accepted = vec![0; PIPES];
    loop {
        let mut pushed = 0;
        for ((writer, _), accepted) in pipes.iter_mut().zip(&mut accepted) {
            let n = push(writer, &[3; 4096]);
            *accepted += n;
            pushed += n;
            assert!(committed(&pair.dialler) <= MEMORY && committed(&pair.acceptor) <= MEMORY);
        }
        // What is on its way arrives before a whole pipe does.
        round(&pair).await;
        if pushed == 0 {
            break;
        }
    }
    assert!(accepted.iter().all(|bytes| (4096..=64 * 1024).contains(bytes)));
    assert!(accepted.iter().sum::<usize>() as u64 <= MEMORY);
    // Nothing is stuck: every pipe is read to its end, in the order that is worst for fairness.
    while let Some((mut writer, mut reader)) = pipes.pop() {
        let length = accepted[pipes.len()];
        assert!(poll_now(pin!(writer.finish())).is_pending(), "not read yet");
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.unwrap();
        assert!(got == vec![3; length]);
        writer.finish().await.unwrap();
    }
    // All but what the session itself holds came back.
    round(&pair).await;
    for node in [&pair.dialler, &pair.acceptor] {
        assert!(node.budget().committed().0 <= 8 * 4096, "{:?}", node.budget().committed());
    }
}

async fn round(pair: &Pair) {
    let (writer, reader) = pair.pipe().await;
    tokio::join!(write(1, writer, 10), read(1, reader, 10));
}
