//! Links that are down for a while, under load.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::dice::bytes;
use super::network::{Net, Path, Sent};
use super::place::{Flow, Place, address, ms, pass, pipe, pipe_back, secs, simulate};

/// The default path's.
const ROUND_TRIP: Duration = ms(50);

/// Runs of each outage.
const RUNS: u64 = 10;

/// After the link's return the first new byte is to come within a round trip and this.
const RECOVERY: Duration = ms(250);

/// Where on the clock a link comes back must not matter: steps of this, prime to all periods.
const STEP: Duration = ms(37);

/// What happens to the link.
#[derive(Clone, Copy, Debug)]
enum Down {
    Both,
    FromReader,
    FromWriter,
}

/// Takes the link down for `outage` under load; how long after its return the first new byte came.
fn recovery(seed: u64, outage: Duration, down: Down, is_reader_dialler: bool) -> Duration {
    simulate(seed, |net| async move {
        let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
        let session = a.dial(&b).await;
        let ends = match is_reader_dialler {
            false => pipe(&session, &b).await,
            true => pipe_back(&session, &b).await,
        };
        let (writer, reader) = if is_reader_dialler { (2, 1) } else { (1, 2) };
        let flow = Flow::start(ends);
        pass(secs(2)).await;
        let set = |is_down: bool| {
            let change = |path: &mut Path| path.is_down = is_down;
            match down {
                Down::Both => net.change_all(change),
                Down::FromReader => net.change(address(reader), change),
                Down::FromWriter => net.change(address(writer), change),
            }
        };
        set(true);
        pass(outage).await;
        set(false);
        let back = Instant::now();
        pass(secs(5)).await;
        let first = flow.first_after(back).expect("nothing came in 5 s");
        flow.stop().await;
        drop(session);
        a.leave().await;
        b.leave().await;
        first
    })
}

fn recovers(down: Down, is_reader_dialler: bool) {
    for outage in [1, 12, 45, 120] {
        let mut times: Vec<Duration> = (0..RUNS)
            .map(|i| recovery(i, secs(outage) + STEP * i as u32, down, is_reader_dialler))
            .collect();
        println!("outage of {outage} s, {down:?}, reader dialled: {is_reader_dialler}: {times:?}");
        times.sort();
        let worst = times[times.len() - 1];
        assert!(worst <= ROUND_TRIP + RECOVERY, "{worst:?} after an outage of {outage} s");
    }
}

#[test]
fn a_link_that_was_down_both_ways_carries_bytes_at_once_when_it_is_back() {
    recovers(Down::Both, false);
    recovers(Down::Both, true);
}

#[test]
fn a_link_that_was_down_towards_the_reader_carries_bytes_at_once_when_it_is_back() {
    recovers(Down::FromWriter, false);
    recovers(Down::FromWriter, true);
}

#[test]
fn a_link_that_was_down_towards_the_writer_carries_bytes_at_once_when_it_is_back() {
    recovers(Down::FromReader, false);
    recovers(Down::FromReader, true);
}

/// Datagrams that the first host sends within a minute, of which the link is down from its second on.
async fn sent_in_a_blackhole(net: &Net, is_waiting: bool) -> Vec<Sent> {
    let (a, b) = (Place::new(net, 1), Place::new(net, 2));
    let session = a.dial(&b).await;
    let (mut writer, mut reader) = pipe(&session, &b).await;
    writer.write_all(b"before").await.unwrap();
    reader.read_exact(&mut [0; 6]).await.unwrap();
    pass(secs(1)).await;
    net.change_all(|path| path.is_down = true);
    if is_waiting {
        writer.write_all(&bytes(1, 0, 3_000)).await.unwrap();
    }
    pass(secs(3)).await;
    net.start_log();
    pass(secs(60)).await;
    let sent = net.take_log();
    net.change_all(|path| path.is_down = false);
    writer.close();
    let mut got = Vec::new();
    reader.read_to_end(&mut got).await.unwrap();
    writer.finish().await.unwrap();
    drop((writer, reader, session));
    a.leave().await;
    b.leave().await;
    sent.into_iter().filter(|sent| sent.from == address(1)).collect()
}

/// The most in one second, and the longest time without.
fn pace(sent: &[Sent]) -> (usize, Duration) {
    let within = |first: &Sent| {
        sent.iter().filter(|sent| sent.at >= first.at && sent.at < first.at + secs(1)).count()
    };
    let most = sent.iter().map(within).max().unwrap_or(0);
    let gap = sent.windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap_or(secs(60));
    (most, gap)
}

/// What was sent on the connection, without the dials of others beside it.
fn probes(sent: &[Sent]) -> Vec<Sent> {
    sent.iter().filter(|sent| !sent.is_handshake).copied().collect()
}

#[test]
fn while_bytes_wait_something_is_sent_every_200_ms_and_at_most_ten_times_a_second() {
    let sent = simulate(1, |net| async move { sent_in_a_blackhole(&net, true).await });
    let (most, gap) = pace(&sent);
    println!("bytes wait: {} in 60 s, at most {most} in one, gaps up to {gap:?}", sent.len());
    assert!(gap <= ms(200), "nothing for {gap:?}");
    let (most, _) = pace(&probes(&sent));
    assert!(most <= 10, "{most} probes in a second");
}

#[test]
fn where_nothing_waits_about_one_datagram_a_second_is_sent() {
    let sent = simulate(1, |net| async move { sent_in_a_blackhole(&net, false).await });
    let (most, gap) = pace(&sent);
    println!("nothing waits: {} in 60 s, at most {most} in one, gaps up to {gap:?}", sent.len());
    let probes = probes(&sent);
    println!("of these {} on the connection", probes.len());
    assert!((30..=130).contains(&probes.len()), "{} probes in a minute", probes.len());
    assert!(gap <= secs(2), "nothing for {gap:?}");
}

#[test]
fn a_connection_that_is_closed_again_and_again_under_load_loses_no_byte() {
    simulate(3, |net| async move {
        let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
        let session = a.dial(&b).await;
        let there = Flow::start(pipe(&session, &b).await);
        let back = Flow::start(pipe_back(&session, &b).await);
        let mut worst = Duration::ZERO;
        for round in 0..20 {
            pass(ms(1_300) + STEP * round).await;
            let side = if round % 2 == 0 { &a } else { &b };
            assert_eq!(side.node.cut_connections(), 1);
            let cut = Instant::now();
            pass(secs(2)).await;
            let first = |flow: &Flow| {
                // What was on its way when it was cut is not new.
                flow.longest_gap(cut)
            };
            worst = worst.max(first(&there)).max(first(&back));
        }
        println!("20 connections closed: at most {worst:?} without a byte");
        assert!(worst <= secs(1), "{worst:?} without a byte");
        let (there, back) = (there.stop().await, back.stop().await);
        assert!(there > 1 << 20 && back > 1 << 20, "{there} and {back} bytes");
        drop(session);
        a.leave().await;
        b.leave().await;
    });
}
