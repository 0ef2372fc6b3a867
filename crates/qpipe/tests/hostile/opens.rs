//! Opens without end, without an answer, without the rest of their group; and a peer that reads none
//! of the answers.

use qpipe::Cause;
use qpipe_proto::fact::{ClosedKind, Facts, Group, Limit, Open, Opener};
use qpipe_proto::wire::{ControlMessage, FactsMessage};
use quinn::{TransportConfig, VarInt};
use tokio::io::AsyncWriteExt;

use crate::peer::{Peer, broken, chunk, dial, header, hello, id, open, trailer};
use crate::rig::{Rig, at_once, bounded, read_all};

/// More rounds than there are opens that may be unanswered.
const ROUNDS: usize = 1_500;

#[tokio::test]
async fn an_open_beyond_the_allowance_ends_the_session() {
    let rig = Rig::new().await;
    for beyond in [0, 1, 1 << 40] {
        let mut peer = Peer::of(&rig).await;
        let pipe = id(2 * (peer.opens_allowed + beyond));
        peer.state(pipe, opened(pipe, 1)).await;
        assert_eq!(peer.refusal().await, (1, "more opens than were allowed".to_owned()));
    }
    rig.end().await;
}

#[tokio::test]
async fn opens_that_nobody_answers_stay_within_the_allowance() {
    let mut rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let allowed = peer.opens_allowed;
    for _ in 0..allowed {
        peer.open(Opener::Writer).await;
    }
    rig.beat().await;
    assert_eq!(peer.opens_allowed, allowed);
    // Whatever is refused and not settled counts as well.
    for _ in 0..allowed {
        rig.open().await.refuse(Cause::NotAllowed);
    }
    for pipe in 0..allowed {
        peer.until(|peer| peer.facts.contains_key(&id(2 * pipe))).await;
    }
    assert_eq!(peer.opens_allowed, allowed);
    // Settled, there is room for as many again.
    peer.settle(id(0), id(2 * (allowed - 1))).await;
    peer.until(|peer| peer.opens_allowed == 2 * allowed).await;
    peer.is_served(&rig).await;
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn groups_that_are_never_complete_are_refused_in_time() {
    let mut rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let committed = rig.victim.budget().committed();
    let mut pipes = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..20 {
        let pipe = peer.next_id();
        let missing = peer.next_id();
        peer.state(pipe, opened(pipe, 2)).await;
        streams
            .push(peer.stream(&[&header_of_group(pipe)[..], &chunk(&[1; 9_000])].concat()).await);
        pipes.push((pipe, missing));
    }
    rig.beat().await;
    for (pipe, _) in &pipes {
        assert_eq!(peer.terminal(*pipe).await, ClosedKind::Broken(Cause::Incomplete));
    }
    // The rest of a group comes too late.
    let (_, late) = pipes[0];
    let facts = Facts { open: Some(member(late, pipes[0].0, 2)), ..Facts::default() };
    peer.state(late, facts).await;
    peer.sync().await;
    assert!(at_once(rig.victim.next_open()).await.is_none(), "half a group was offered");
    assert_eq!(rig.victim.budget().committed(), committed);
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn groups_that_cannot_be() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let group = |first, size| Group { first: id(first), size };
    for group in [
        group(1, 2),
        group(1 << 40, 8),
        group(0, 0),
        group(0, u32::MAX),
        group((1 << 62) - 1, 8),
        group(0, 9),
    ] {
        let pipe = peer.next_id();
        let open = Open { group, ..open(pipe, Opener::Writer) };
        peer.state(pipe, Facts { open: Some(open), ..Facts::default() }).await;
        assert_eq!(peer.terminal(pipe).await, ClosedKind::Broken(Cause::Protocol), "{group:?}");
    }
    assert!(at_once(rig.victim.next_open()).await.is_none());
    peer.is_served(&rig).await;
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn opened_and_closed_in_a_rapid_loop() {
    let mut rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    peer.is_served(&rig).await;
    let committed = rig.victim.budget().committed();
    for round in 0..ROUNDS {
        let pipe = peer.next_id();
        peer.until(|peer| pipe.number() / 2 < peer.opens_allowed).await;
        let mut facts = opened(pipe, 1);
        facts.closed = Some(broken(0));
        facts.open = Some(open(pipe, Opener::Reader));
        peer.state(pipe, facts).await;
        // The node's program is quick: it has an answer for each.
        match rig.open().await {
            open if round % 2 == 0 => open.refuse(Cause::NotAllowed),
            open => drop(open.accept().unwrap()),
        }
        if round % 500 == 0 {
            rig.beat().await;
        }
    }
    peer.sync().await;
    assert_eq!(rig.victim.budget().committed(), committed);
    peer.is_served(&rig).await;
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn whole_pipes_in_a_rapid_loop_give_everything_back() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    peer.is_served(&rig).await;
    peer.sync().await;
    let committed = rig.victim.budget().committed();
    for _ in 0..ROUNDS / 3 {
        let pipe = peer.next_id();
        let mut stream =
            peer.stream(&[&header(pipe)[..], &chunk(b"x"), &trailer(b"x")].concat()).await;
        let _ = stream.finish();
        assert_eq!(read_all(&mut rig.reader().await).await, (b"x".to_vec(), Ok(())));
        assert_eq!(peer.terminal(pipe).await, ClosedKind::Complete);
    }
    peer.sync().await;
    assert_eq!(rig.victim.budget().committed(), committed);
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn a_peer_that_reads_no_answers() {
    let mut rig = Rig::new().await;
    // Given: a peer whose control stream is shut after its first bytes.
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(200));
    let (_endpoint, conn) = dial(&rig, transport).await;
    let (send, recv) = conn.open_bi().await.unwrap();
    let mut peer = Peer::with_streams(conn, send, recv);
    peer.say(&ControlMessage::Hello(hello(None))).await;
    peer.greeted().await;
    // When: it asks for answers without end, about pipes that leave gaps between them.
    for round in 0..ROUNDS as u64 {
        let pipes = (0..100).map(|i| (id(4 * ((round * 7 + i) % 60)), Facts::default())).collect();
        let message = FactsMessage { pipes, ..FactsMessage::default() };
        peer.say(&ControlMessage::Facts(message)).await;
        if round % 300 == 0 {
            rig.beat().await;
        }
    }
    // Then: opens are answered no more than the allowance, and the node carries on.
    assert!(at_once(rig.victim.next_open()).await.is_none());
    rig.welcomes().await;
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn a_peer_that_consumes_nothing_holds_no_more_than_its_share() {
    let mut rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let mut writers = Vec::new();
    for _ in 0..8 {
        let pipe = peer.open(Opener::Reader).await;
        let limit = Some(Limit { number: 1, offset: 1 << 50 });
        peer.state(pipe, Facts { limit, ..Facts::default() }).await;
        writers.push(rig.writer().await);
    }
    peer.sync().await;
    for writer in &mut writers {
        let mut written = 0;
        while let Some(taken) = at_once(writer.write(&[7; 65_536])).await {
            written += taken.unwrap();
        }
        assert!(written <= 32 << 20, "{written} bytes for a peer that takes none");
        rig.beat().await;
    }
    let (floors, growth) = rig.victim.budget().committed();
    assert!(floors + growth <= 64 << 20, "{floors} + {growth}");
    rig.welcomes().await;
    drop(writers);
    peer.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn a_peer_that_vanishes_leaves_nothing() {
    let rig = Rig::new().await;
    let mut peer = Peer::of(&rig).await;
    let mut ends = Vec::new();
    for _ in 0..50 {
        let pipe = peer.next_id();
        let stream = peer.stream(&[&header(pipe)[..], &chunk(&[1; 5_000])].concat()).await;
        ends.push((rig.reader().await, stream));
    }
    peer.leave().await;
    for (mut reader, _) in ends {
        let (got, end) = bounded(read_all(&mut reader)).await;
        assert!(got.len() <= 5_000 && end == Err(Cause::Lost), "{end:?}");
    }
    rig.end().await;
}

/// An open for writing, first of a group of `size`.
fn opened(pipe: qpipe_proto::PipeId, size: u32) -> Facts {
    Facts { open: Some(member(pipe, pipe, size)), ..Facts::default() }
}

fn member(pipe: qpipe_proto::PipeId, first: qpipe_proto::PipeId, size: u32) -> Open {
    Open { group: Group { first, size }, ..open(pipe, Opener::Writer) }
}

fn header_of_group(pipe: qpipe_proto::PipeId) -> bytes::Bytes {
    let open = Some(member(pipe, pipe, 2));
    qpipe_proto::wire::encode_header(&qpipe_proto::wire::StreamHeader {
        id: pipe,
        attempt: 0,
        offset: 0,
        open,
    })
}

#[tokio::test]
async fn opens_closed_before_they_are_answered_still_count() {
    // Whole opens, and halves of groups: until the node's program or a deadline has answered them,
    // the node holds them.
    for size in [1, 2] {
        let rig = Rig::new().await;
        let mut peer = Peer::of(&rig).await;
        let allowed = peer.opens_allowed;
        let mut opens = 0;
        let mut next = 0;
        while opens < 20 * allowed && next + 1 < peer.opens_allowed {
            while next + 1 < peer.opens_allowed {
                let pipe = id(2 * next);
                let open = Open { opener: Opener::Reader, ..member(pipe, pipe, size) };
                let closed = Some(broken(0));
                peer.state(pipe, Facts { open: Some(open), closed, ..Facts::default() }).await;
                next += u64::from(size);
                opens += 1;
            }
            peer.settled.clear();
            peer.state(id(0), Facts::default()).await;
            peer.until(|peer| peer.settled.contains(&0)).await;
        }
        assert!(
            opens <= allowed,
            "{opens} unanswered opens in groups of {size}, {allowed} allowed"
        );
        peer.leave().await;
        rig.end().await;
    }
}
