//! Many pipes that share one connection: whose bytes go first.

use std::time::Duration;

use qpipe_proto::fact::Priority;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::place::{Flow, Place, ms, pass, pipe, secs, simulate};
use crate::{OpenOptions, OpenTarget, PipeReader, PipeWriter, Session};

/// So long is looked at.
const LOOK: Duration = secs(5);

/// Of a pipe with this priority, what arrives beside the others.
async fn flow(session: &Session, to: &Place, priority: Priority) -> Flow {
    let (writer, reader) = pipe(session, to).await;
    writer.set_priority(priority);
    Flow::start((writer, reader))
}

/// Bytes that arrived between two moments.
fn arrived(flow: &Flow, since: Instant, until: Instant) -> u64 {
    flow.total_at(until) - flow.total_at(since)
}

/// How long `count` messages of 64 bytes take, one every 10 ms, in order.
async fn messages(writer: PipeWriter, reader: PipeReader, count: usize) -> Vec<Duration> {
    let (mut writer, mut reader) = (writer, reader);
    let (sent, mut times) = tokio::sync::mpsc::channel(count);
    let reading = tokio::spawn(async move {
        let mut took = Vec::new();
        while let Some(written) = times.recv().await {
            reader.read_exact(&mut [0; 64]).await.unwrap();
            took.push(Instant::now() - written);
        }
        assert_eq!(reader.read(&mut [0]).await.unwrap(), 0);
        took
    });
    for _ in 0..count {
        sent.send(Instant::now()).await.unwrap();
        writer.write_all(&[7; 64]).await.unwrap();
        pass(ms(10)).await;
    }
    drop(sent);
    writer.finish().await.unwrap();
    let mut took = reading.await.unwrap();
    took.sort();
    took
}

#[test]
fn a_message_does_not_wait_for_every_busy_pipe_to_have_its_turn() {
    let medians = [1, 100].map(|busy| {
        simulate(1, |net| async move {
            let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
            let session = a.dial(&b).await;
            let mut flows = Vec::new();
            for _ in 0..busy {
                flows.push(flow(&session, &b, Priority::Normal).await);
            }
            let (writer, reader) = pipe(&session, &b).await;
            pass(secs(3)).await;
            let took = messages(writer, reader, 200).await;
            println!("beside {busy} busy pipes: {:?} to {:?}", took[100], took[199]);
            for flow in flows {
                flow.stop().await;
            }
            drop(session);
            a.leave().await;
            b.leave().await;
            took[100]
        })
    });
    // A turn of 100 packets takes 48 ms.
    assert!(medians[1] < medians[0] + ms(20), "{medians:?}");
}

#[test]
fn each_of_many_busy_pipes_gets_at_least_half_of_its_share() {
    simulate(2, |net| async move {
        let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
        let session = a.dial(&b).await;
        let mut flows = Vec::new();
        for _ in 0..20 {
            flows.push(flow(&session, &b, Priority::Normal).await);
        }
        pass(secs(3)).await;
        let since = Instant::now();
        pass(LOOK).await;
        let until = Instant::now();
        let parts: Vec<u64> = flows.iter().map(|flow| arrived(flow, since, until)).collect();
        let least = parts.iter().min().unwrap();
        assert!(least * 2 * 20 >= parts.iter().sum::<u64>(), "{parts:?}");
        for flow in flows {
            flow.stop().await;
        }
        drop(session);
        a.leave().await;
        b.leave().await;
    });
}

#[test]
fn pipes_go_before_others_in_the_order_of_their_priorities() {
    simulate(3, |net| async move {
        let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
        let session = a.dial(&b).await;
        let low = flow(&session, &b, Priority::Low).await;
        let normal = flow(&session, &b, Priority::Normal).await;
        pass(secs(3)).await;
        let begin = Instant::now();
        pass(LOOK).await;
        let high = flow(&session, &b, Priority::High).await;
        pass(secs(2)).await;
        let since = Instant::now();
        pass(LOOK).await;
        let until = Instant::now();
        assert!(arrived(&low, begin, since) * 10 < arrived(&normal, begin, since));
        assert!(arrived(&normal, since, until) * 10 < arrived(&high, since, until));
        for flow in [high, normal, low] {
            flow.stop().await;
        }
        drop(session);
        a.leave().await;
        b.leave().await;
    });
}

#[test]
fn the_reader_that_opens_says_how_its_writer_is_to_send() {
    simulate(4, |net| async move {
        let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
        let session = b.dial(&a).await;
        let target = || OpenTarget::Name("simulated/pipe".parse().unwrap());
        let mut flows = Vec::new();
        for priority in [Priority::Low, Priority::High] {
            let options = OpenOptions { priority, ..OpenOptions::default() };
            let reader = session.open_reader(target(), options).await.unwrap();
            let writer = a.node.next_open().await.unwrap().accept().unwrap().writer.unwrap();
            flows.push(Flow::start((writer, reader)));
        }
        pass(secs(3)).await;
        let since = Instant::now();
        pass(LOOK).await;
        let until = Instant::now();
        assert!(arrived(&flows[0], since, until) * 10 < arrived(&flows[1], since, until));
        for flow in flows.into_iter().rev() {
            flow.stop().await;
        }
        drop(session);
        a.leave().await;
        b.leave().await;
    });
}

#[test]
fn a_pipe_holds_no_more_than_the_capacity_that_either_side_says() {
    let capacity = 100_000;
    for is_writers in [true, false] {
        simulate(5, |net| async move {
            let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
            let session = a.dial(&b).await;
            let (mut writer, mut reader) = pipe(&session, &b).await;
            if is_writers {
                writer.set_capacity(capacity);
            } else {
                reader.set_capacity(capacity);
            }
            let taken = |mut writer: PipeWriter| async move {
                while tokio::time::timeout(secs(5), writer.write_all(&[1; 500])).await.is_ok() {}
                writer
            };
            // It has been read from fast enough for the window to grow, had it been allowed to.
            let content = vec![1; 50 * capacity as usize];
            let mut read = vec![0; content.len()];
            let (wrote, read) =
                tokio::join!(writer.write_all(&content), reader.read_exact(&mut read));
            assert!(wrote.is_ok() && read.is_ok());
            pass(secs(1)).await;
            let before = writer.written();
            writer = taken(writer).await;
            let held = writer.written() - before;
            // A Limit is not raised for less than a quarter of the window.
            assert!((capacity * 3 / 4..=capacity).contains(&held), "{held}, {is_writers}");
            drop((writer, reader, session));
            a.leave().await;
            b.leave().await;
        });
    }
}
