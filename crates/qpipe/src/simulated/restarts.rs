//! Nodes that end, start anew, or dial at once.

use std::time::Duration;

use qpipe_proto::contact::Patience;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::place::{Flow, Place, address, ms, pass, pipe, pipe_back, secs, simulate};
use crate::identity::Continuity;
use crate::{Cause, PipeError, SessionEnd};

#[test]
fn a_node_that_is_dropped_says_so_at_once() {
    for is_dialler_dropped in [true, false] {
        simulate(1, |net| async move {
            let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
            let session = a.dial(&b).await;
            let (mut writer, mut reader) = match is_dialler_dropped {
                true => pipe(&session, &b).await,
                false => pipe_back(&session, &b).await,
            };
            let writing = tokio::spawn(async move {
                let error = writer.write_all(&vec![7; 64 << 20]).await.unwrap_err();
                PipeError::of(&error).unwrap().cause()
            });
            reader.read_exact(&mut vec![0; 1 << 20]).await.unwrap();
            let since = Instant::now();
            let left = if is_dialler_dropped {
                drop(a);
                b
            } else {
                drop(b);
                a
            };
            let error = reader.read_to_end(&mut Vec::new()).await.unwrap_err();
            let after = since.elapsed();
            assert_eq!(PipeError::of(&error).unwrap().cause(), Cause::Lost);
            assert!(after <= ms(150), "heard after {after:?}");
            assert_eq!(writing.await.unwrap(), Cause::Lost);
            drop((reader, session));
            left.leave().await;
        });
    }
}

#[test]
fn a_process_that_is_killed_is_noticed_by_its_host_s_word() {
    simulate(2, |net| async move {
        let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
        let session = a.dial(&b).await;
        let (mut writer, mut reader) = pipe(&session, &b).await;
        writer.write_all(b"so far").await.unwrap();
        reader.read_exact(&mut [0; 6]).await.unwrap();
        pass(secs(1)).await;
        // Nothing of what it still says leaves the host.
        net.change(address(2), |path| path.is_down = true);
        drop((reader, b));
        pass(ms(100)).await;
        net.change(address(2), |path| path.is_down = false);
        let since = Instant::now();
        let ending = writer.over().await.unwrap_err();
        println!("killed: {ending:?} after {:?}, {:?}", since.elapsed(), session.closed().await);
        assert_eq!(ending.cause(), Cause::Gone);
        let noticed = since.elapsed();
        assert!(noticed >= secs(3) && noticed <= secs(10), "after {noticed:?}");
        drop((writer, session));
        a.leave().await;
    });
}

#[test]
fn a_peer_that_was_restarted_ends_its_pipes_with_a_cause_that_says_so() {
    for is_greeting in [true, false] {
        for is_idle in [true, false] {
            restarted(is_greeting, is_idle);
        }
    }
}

fn restarted(is_greeting: bool, is_idle: bool) {
    simulate(3, |net| async move {
        let dir = tempfile::tempdir().unwrap();
        let count = || Some(Continuity::load_and_count(dir.path()).unwrap());
        let patience = Patience::default();
        let a = Place::new(&net, 1);
        let b = Place::new(&net, 3);
        let key = b.key.node();
        let _ = key;
        let b = Place::start(&net, address(2), b.key, patience, count());
        let session = a.dial(&b).await;
        let (mut writer, mut reader) = pipe(&session, &b).await;
        writer.write_all(b"so far").await.unwrap();
        reader.read_exact(&mut [0; 6]).await.unwrap();
        pass(secs(1)).await;
        let met = b.node.peers();
        assert_eq!(met.len(), 1);
        net.change(address(2), |path| path.is_down = true);
        let Place { node, key, .. } = b;
        drop((reader, node));
        pass(ms(500)).await;
        net.change(address(2), |path| path.is_down = false);
        let b = Place::start(&net, address(2), key, patience, count());
        let since = Instant::now();
        if is_greeting {
            b.node.greet(met);
        }
        if !is_idle {
            writer.write_all(b"to nobody").await.unwrap();
        }
        let ending = writer.over().await.unwrap_err();
        let after = since.elapsed();
        println!("restarted, greets: {is_greeting}, idle: {is_idle}: {ending:?} after {after:?}");
        assert_eq!(ending.cause(), Cause::Restarted);
        assert_eq!(session.closed().await, SessionEnd::Restarted);
        let most = if is_greeting { ms(300) } else { secs(4) };
        assert!(after <= most, "after {after:?}");
        drop((writer, session));
        // And it is there for new pipes.
        let session = a.dial(&b).await;
        let flow = Flow::start(pipe(&session, &b).await);
        pass(secs(1)).await;
        flow.stop().await;
        drop(session);
        a.leave().await;
        b.leave().await;
    });
}

#[test]
fn both_sides_that_dial_at_once_have_two_sessions_that_work() {
    simulate(4, |net| async move {
        let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
        let (there, back) = tokio::join!(a.dial(&b), b.dial(&a));
        let flows = [Flow::start(pipe(&there, &b).await), Flow::start(pipe(&back, &a).await)];
        pass(secs(1)).await;
        for flow in flows {
            assert!(flow.stop().await > 0);
        }
        drop((there, back));
        a.leave().await;
        b.leave().await;
    });
}

#[test]
fn both_sides_that_dial_another_connection_at_once_agree_on_one() {
    for seed in 0..10u64 {
        simulate(seed, |net| async move {
            let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
            let session = a.dial(&b).await;
            let there = Flow::start(pipe(&session, &b).await);
            let back = Flow::start(pipe_back(&session, &b).await);
            pass(secs(4)).await;
            for _ in 0..5 {
                a.node.network_changed();
                pass(ms(7) * seed as u32).await;
                b.node.network_changed();
                a.node.cut_connections();
                b.node.cut_connections();
                pass(secs(5)).await;
            }
            let since = Instant::now() - secs(1);
            assert!(there.longest_gap(since) < secs(1) && back.longest_gap(since) < secs(1));
            there.stop().await;
            back.stop().await;
            drop(session);
            a.leave().await;
            b.leave().await;
        });
    }
}

#[test]
fn a_dial_gets_through_a_third_of_loss_in_bursts() {
    let mut times: Vec<Duration> = (0..50)
        .map(|seed| {
            simulate(seed, |net| async move {
                let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
                net.change_all(|path| (path.loss, path.burst) = (150, 3));
                let since = Instant::now();
                let dialled = a.node.connect(&b.peer(), None).await;
                let after = since.elapsed();
                assert!(dialled.is_ok(), "seed {seed}: {:?} after {after:?}", dialled.err());
                net.change_all(|path| path.loss = 0);
                drop(dialled);
                a.leave().await;
                b.leave().await;
                after
            })
        })
        .collect();
    times.sort();
    println!("dials at 30 % loss: median {:?}, worst {:?}", times[25], times[49]);
    assert!(times[49] <= secs(10));
}

#[test]
fn all_who_dial_a_peer_at_the_same_time_share_one_session() {
    simulate(1, |net| async move {
        let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));

        // When: several want a session before there is one, and the first to ask gives up.
        let given_up = tokio::time::timeout(ms(30), a.dial(&b));
        let (given_up, one, two, three) =
            tokio::join!(given_up, a.dial(&b), a.dial(&b), a.dial(&b));

        // Then: there is one session for them.
        assert!(given_up.is_err());
        assert_eq!((a.node.sessions().len(), b.node.sessions().len()), (1, 1));
        let status = &a.node.sessions()[0];
        assert_eq!((status.peer, status.is_dialler, status.resumed), (one.peer(), true, 0));
        assert!(status.connection.is_some_and(|connection| connection.rtt >= ms(50)));
        drop((one, two, three));
        a.leave().await;
        b.leave().await;
    });
}
