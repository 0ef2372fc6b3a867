//! Addresses that change, and translators that forget.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::network::Net;
use super::place::{Flow, Place, address, ms, pass, pipe, pipe_back, secs, simulate};

/// The default path's.
const ROUND_TRIP: Duration = ms(50);

/// Longer than any mapping has to live.
const FOR_EVER: Duration = secs(1 << 32);

/// The longest time without a byte when the dialling side's mapping changes under load.
fn gap_after_rebinding(seed: u64, is_dialler_writing: bool) -> Vec<Duration> {
    simulate(seed, |net| async move {
        let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
        net.translate(address(1), FOR_EVER);
        let session = a.dial(&b).await;
        let flow = Flow::start(match is_dialler_writing {
            true => pipe(&session, &b).await,
            false => pipe_back(&session, &b).await,
        });
        let mut gaps = Vec::new();
        for round in 0..12 {
            pass(secs(5) + ms(37) * round).await;
            net.translate(address(1), FOR_EVER);
            let since = Instant::now();
            pass(secs(3)).await;
            gaps.push(flow.longest_gap(since));
        }
        flow.stop().await;
        drop(session);
        a.leave().await;
        b.leave().await;
        gaps.sort();
        gaps
    })
}

#[test]
fn a_writer_whose_mapping_changes_is_not_held_up() {
    let gaps = gap_after_rebinding(1, true);
    println!("rebinding, dialler writes: {gaps:?}");
    assert!(gaps[gaps.len() / 2] <= ROUND_TRIP + ms(150), "{gaps:?}");
}

#[test]
fn a_reader_whose_mapping_changes_is_found_again() {
    let gaps = gap_after_rebinding(2, false);
    println!("rebinding, dialler reads: {gaps:?}");
    assert!(gaps[gaps.len() / 2] <= ROUND_TRIP + ms(150), "{gaps:?}");
}

#[test]
fn on_an_idle_session_whose_mapping_changed_the_dialler_s_byte_arrives_at_once() {
    idle_after_rebinding(|| ROUND_TRIP + ms(150), true);
}

#[test]
fn on_an_idle_session_whose_mapping_changed_the_other_s_byte_arrives_within_the_heartbeat() {
    idle_after_rebinding(|| secs(3), false);
}

fn idle_after_rebinding(most: impl Fn() -> Duration, is_dialler_writing: bool) {
    let mut times = Vec::new();
    for i in 0..8 {
        times.push(simulate(i, |net| async move {
            let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
            net.translate(address(1), FOR_EVER);
            let session = a.dial(&b).await;
            let (mut writer, mut reader) = match is_dialler_writing {
                true => pipe(&session, &b).await,
                false => pipe_back(&session, &b).await,
            };
            pass(secs(20) + ms(137) * i as u32).await;
            net.translate(address(1), FOR_EVER);
            let since = Instant::now();
            writer.write_all(b"!").await.unwrap();
            assert_eq!(reader.read_u8().await.unwrap(), b'!');
            let after = since.elapsed();
            finish(writer, reader).await;
            drop(session);
            a.leave().await;
            b.leave().await;
            after
        }));
    }
    times.sort();
    println!("idle, dialler writes: {is_dialler_writing}: {times:?}");
    assert!(*times.last().unwrap() <= most(), "{times:?}");
}

async fn finish(mut writer: crate::PipeWriter, mut reader: crate::PipeReader) {
    writer.close();
    assert_eq!(reader.read(&mut [0]).await.unwrap(), 0);
    writer.finish().await.unwrap();
}

#[test]
fn a_translator_that_forgets_after_30_s_forgets_no_session() {
    simulate(5, |net| async move {
        let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
        net.translate(address(1), secs(30));
        let session = a.dial(&b).await;
        let mut ends = [pipe(&session, &b).await, pipe_back(&session, &b).await];
        for _ in 0..5 {
            pass(secs(120)).await;
            for (writer, reader) in &mut ends {
                let since = Instant::now();
                writer.write_all(b"!").await.unwrap();
                assert_eq!(reader.read_u8().await.unwrap(), b'!');
                assert!(since.elapsed() <= ms(60), "{:?}", since.elapsed());
            }
        }
        for (writer, reader) in ends {
            finish(writer, reader).await;
        }
        drop(session);
        a.leave().await;
        b.leave().await;
    });
}

/// Moves the host from one address to another.
fn move_host(net: &Net, place: &Place, to: u8) {
    net.remove(place.address);
    place.node.rebind_to(net.socket(address(to)));
    place.node.network_changed();
}

#[test]
fn a_dialler_that_moves_to_another_address_goes_on_at_once() {
    for is_dialler_writing in [true, false] {
        let gap = simulate(6, |net| async move {
            let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
            let session = a.dial(&b).await;
            let flow = Flow::start(match is_dialler_writing {
                true => pipe(&session, &b).await,
                false => pipe_back(&session, &b).await,
            });
            pass(secs(5)).await;
            move_host(&net, &a, 11);
            let since = Instant::now();
            pass(secs(5)).await;
            let gap = flow.longest_gap(since);
            flow.stop().await;
            drop(session);
            a.leave().await;
            b.leave().await;
            gap
        });
        println!("dialler moved, it writes: {is_dialler_writing}: {gap:?}");
        assert!(gap <= ROUND_TRIP + ms(150), "{gap:?}");
    }
}

#[test]
fn an_acceptor_that_moves_to_another_address_dials_from_there() {
    for is_dialler_writing in [true, false] {
        let gap = simulate(7, |net| async move {
            let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
            let session = a.dial(&b).await;
            let flow = Flow::start(match is_dialler_writing {
                true => pipe(&session, &b).await,
                false => pipe_back(&session, &b).await,
            });
            pass(secs(5)).await;
            move_host(&net, &b, 12);
            let since = Instant::now();
            pass(secs(5)).await;
            let gap = flow.longest_gap(since);
            assert_eq!(session.remote_address(), address(12));
            flow.stop().await;
            drop(session);
            a.leave().await;
            b.leave().await;
            gap
        });
        println!("acceptor moved, the dialler writes: {is_dialler_writing}: {gap:?}");
        assert!(gap <= secs(1), "{gap:?}");
    }
}

#[test]
fn a_dialler_that_moved_finds_the_acceptor_where_that_went_before() {
    // The acceptor moves, tells where it is now, and then the dialler's connection is lost as well:
    // what it was told is all that it has.
    simulate(8, |net| async move {
        let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
        let session = a.dial(&b).await;
        let flow = Flow::start(pipe(&session, &b).await);
        pass(secs(5)).await;
        move_host(&net, &b, 12);
        pass(secs(5)).await;
        move_host(&net, &a, 11);
        a.node.cut_connections();
        pass(secs(5)).await;
        flow.stop().await;
        drop(session);
        a.leave().await;
        b.leave().await;
    });
}
