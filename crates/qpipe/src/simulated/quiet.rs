//! Silence: wanted, and not.

use std::time::Duration;

use qpipe_proto::contact::Patience;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::place::{Place, ms, pass, pipe, pipe_back, secs, simulate};
use crate::{Cause, NoticeKind, PipeError};

const DAY: Duration = secs(24 * 3600);

/// What the tests of a whole day are made shorter by, unless they are asked for.
fn a_day() -> Duration {
    match std::env::var_os("QPIPE_LONG") {
        Some(_) => DAY,
        None => DAY / 12,
    }
}

fn patience(give_up: Duration) -> Patience {
    Patience { give_up, ..Patience::default() }
}

#[test]
fn a_byte_gets_through_each_way_after_a_day_of_silence() {
    simulate(1, |net| async move {
        let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
        let session = a.dial(&b).await;
        let mut ends = [pipe(&session, &b).await, pipe_back(&session, &b).await];
        pass(DAY).await;
        for (writer, reader) in &mut ends {
            let since = Instant::now();
            writer.write_all(b"!").await.unwrap();
            assert_eq!(reader.read_u8().await.unwrap(), b'!');
            assert!(since.elapsed() <= ms(60), "{:?}", since.elapsed());
            writer.close();
            assert_eq!(reader.read(&mut [0]).await.unwrap(), 0);
            writer.finish().await.unwrap();
        }
        drop((ends, session));
        a.leave().await;
        b.leave().await;
    });
}

#[test]
fn a_blackhole_of_a_day_is_survived_by_who_waits_longer() {
    simulate(2, |net| async move {
        let patience = patience(DAY + DAY / 4);
        let (a, b) = (Place::with(&net, 1, patience), Place::with(&net, 2, patience));
        let session = a.dial(&b).await;
        let (mut writer, mut reader) = pipe(&session, &b).await;
        pass(secs(1)).await;
        net.change_all(|path| path.is_down = true);
        writer.write_all(b"after a day").await.unwrap();
        pass(a_day()).await;
        net.change_all(|path| path.is_down = false);
        let back = Instant::now();
        writer.close();
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"after a day");
        println!("after {:?} of blackhole: {:?}", a_day(), back.elapsed());
        // The connection is long gone: what is dialled anew has QUIC's own timer.
        assert!(back.elapsed() <= secs(4), "{:?}", back.elapsed());
        writer.finish().await.unwrap();
        drop((writer, reader, session));
        a.leave().await;
        b.leave().await;
    });
}

#[test]
fn a_peer_that_stays_silent_is_given_up_on_time_with_the_cause() {
    simulate(3, |net| async move {
        let patience = patience(secs(60));
        let (a, b) = (Place::with(&net, 1, patience), Place::with(&net, 2, patience));
        let session = a.dial(&b).await;
        let (mut writer, mut reader) = pipe(&session, &b).await;
        writer.write_all(b"so far").await.unwrap();
        reader.read_exact(&mut [0; 6]).await.unwrap();
        pass(secs(1)).await;
        net.change_all(|path| path.is_down = true);
        let since = Instant::now();
        let error = reader.read_u8().await.unwrap_err();
        assert_eq!(PipeError::of(&error).unwrap().cause(), Cause::Unheard);
        let ending = writer.over().await.unwrap_err();
        assert_eq!(ending.cause(), Cause::Unheard);
        let after = since.elapsed();
        println!("given up after {after:?}, {:?}", session.closed().await);
        assert!(after >= secs(58) && after <= secs(62), "given up after {after:?}");
        drop((writer, reader, session));
        a.leave().await;
        b.leave().await;
    });
}

#[test]
fn the_user_hears_of_the_silence_on_time_and_of_its_end() {
    simulate(4, |net| async move {
        let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
        let session = a.dial(&b).await;
        let (mut writer, mut reader) = pipe(&session, &b).await;
        pass(secs(1)).await;
        net.change_all(|path| path.is_down = true);
        let since = Instant::now();
        let notice = a.node.next_notice().await.unwrap();
        let noticed = since.elapsed();
        assert!(noticed >= secs(14) && noticed <= secs(16), "told after {noticed:?}");
        assert_eq!((notice.host, notice.peer.as_deref()), (b.node.fingerprint(), Some("peer")));
        let NoticeKind::Silent { silent, left } = notice.kind else { panic!("{notice:?}") };
        assert!(silent >= secs(15) && silent + left == secs(600), "{silent:?} + {left:?}");
        pass(secs(5)).await;
        net.change_all(|path| path.is_down = false);
        let back = Instant::now();
        let notice = a.node.next_notice().await.unwrap();
        let NoticeKind::Back { after } = notice.kind else { panic!("{notice:?}") };
        assert!(back.elapsed() <= secs(3), "told after {:?}", back.elapsed());
        assert!(after >= secs(19) && after <= secs(25), "{after:?}");
        writer.close();
        assert_eq!(reader.read(&mut [0]).await.unwrap(), 0);
        writer.finish().await.unwrap();
        drop((writer, reader, session));
        a.leave().await;
        b.leave().await;
    });
}

#[test]
fn a_reader_that_leaves_during_a_blackhole_is_heard_of_when_it_is_over() {
    for outage in [5, 40] {
        simulate(5, |net| async move {
            let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
            let session = a.dial(&b).await;
            let (writer, reader) = pipe(&session, &b).await;
            pass(secs(1)).await;
            net.change_all(|path| path.is_down = true);
            drop(reader);
            pass(secs(outage)).await;
            net.change_all(|path| path.is_down = false);
            let back = Instant::now();
            assert_eq!(writer.over().await.unwrap_err().cause(), Cause::ReaderClosed);
            println!("blackhole of {outage} s: told {:?} after it", back.elapsed());
            assert!(back.elapsed() <= ms(1_050), "{:?}", back.elapsed());
            drop((writer, session));
            a.leave().await;
            b.leave().await;
        });
    }
}

#[test]
fn a_session_without_pipes_does_not_outlive_its_peer_for_long() {
    simulate(6, |net| async move {
        let (a, b) = (Place::new(&net, 1), Place::new(&net, 2));
        let session = a.dial(&b).await;
        pass(secs(1)).await;
        net.change_all(|path| path.is_down = true);
        pass(secs(70)).await;
        // Who dialled and serves names is the only one that may find the other again: it waits longer.
        assert_eq!((a.node.sessions().len(), b.node.sessions().len()), (1, 0));
        assert_eq!(b.node.budget().committed(), (0, 0));
        pass(secs(540)).await;
        assert_eq!(a.node.sessions().len(), 0);
        drop(session);
        a.leave().await;
        b.leave().await;
    });
}
