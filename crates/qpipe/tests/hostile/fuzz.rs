//! Mutations of what is valid, thousands of them, by a fixed seed: the same in every run.

use bytes::Bytes;
use qpipe::{Cause, IncomingOpen};
use qpipe_proto::PipeId;
use qpipe_proto::fact::{
    Answer, Closed, ClosedKind, End, EndKind, Facts, Group, Limit, Open, Opener, Priority,
};
use qpipe_proto::wire::{Bye, ControlMessage, FactsMessage, encode_control};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::peer::{Peer, chunk, header, hello, id, trailer};
use crate::raw::{Dice, message};
use crate::rig::{Rig, at_once, name, pattern};

/// Control messages sent, each changed by the dice.
const MESSAGES: usize = 5_000;

/// Pipe streams sent, each changed by the dice.
const STREAMS: usize = 2_000;

/// After so many, the node must have answered all of them.
const BATCH: usize = 20;

/// Numbers near which mistakes are made.
const NUMBERS: [u64; 12] =
    [0, 1, 2, 100, 1_000, 4_096, 16_384, 65_536, 1 << 32, (1 << 62) - 1, 1 << 63, u64::MAX];

#[tokio::test]
async fn control_messages_in_wrong_states_and_wrong_bytes() {
    let mut rig = Rig::new().await;
    let mut dice = Dice::new(2026);
    let mut peer = fresh(&rig).await;
    let mut served = JoinSet::new();
    let mut lost = 0;
    for round in 0..MESSAGES {
        // Most of what is said is to be looked at: an open beyond the allowance ends the session.
        let opens = peer.opens_allowed as usize - 2;
        let bytes = encode_control(&some_message(&mut dice, opens));
        let bytes = if dice.below(12) == 0 { mutated_message(&mut dice, &bytes) } else { bytes };
        peer.say_raw(&bytes).await;
        if round % BATCH == BATCH - 1 {
            let is_alive = answers(&mut peer).await;
            serve(&rig, &mut dice, &mut served).await;
            if !is_alive {
                peer.leave().await;
                peer = fresh(&rig).await;
                lost += 1;
            }
            if round % (10 * BATCH) == BATCH - 1 {
                rig.beat().await;
            }
        }
    }
    assert!(10 * lost < 9 * MESSAGES / BATCH, "{lost} sessions lost: too little was looked at");
    peer.leave().await;
    finish(rig, dice, served).await;
}

#[tokio::test]
async fn pipe_streams_with_wrong_bytes() {
    let mut rig = Rig::new().await;
    let mut dice = Dice::new(7473);
    let mut served = JoinSet::new();
    let mut peer = fresh(&rig).await;
    let mut streams = Vec::new();
    for round in 0..STREAMS {
        let pipe = peer.next_id();
        let bytes = some_stream(&mut dice, pipe);
        let bytes = if dice.below(4) > 0 { mutated(&mut dice, bytes) } else { bytes };
        if let Some(Ok(mut stream)) = at_once(peer.conn.open_uni()).await {
            let _ = stream.write_all(&bytes).await;
            match dice.below(4) {
                0 => drop(stream.reset(3u32.into())),
                1 => streams.push(stream),
                _ => drop(stream.finish()),
            }
        }
        if round % BATCH == BATCH - 1 {
            answers(&mut peer).await;
            serve(&rig, &mut dice, &mut served).await;
            peer.leave().await;
            streams.clear();
            peer = fresh(&rig).await;
        }
        if round % (10 * BATCH) == 0 {
            rig.beat().await;
        }
    }
    peer.leave().await;
    finish(rig, dice, served).await;
}

/// A peer whose pipe 0 is forgotten: a fact of it is always answered.
async fn fresh(rig: &Rig) -> Peer {
    let mut peer = Peer::of(rig).await;
    peer.sync().await;
    peer
}

/// Whether the session is alive when everything said before was heard.
async fn answers(peer: &mut Peer) -> bool {
    peer.settled.clear();
    peer.state(id(0), Facts::default()).await;
    while !peer.settled.contains(&0) {
        if peer.hear().await.is_err() {
            return false;
        }
    }
    true
}

/// The node's program does one thing or another with every open.
async fn serve(rig: &Rig, dice: &mut Dice, served: &mut JoinSet<()>) {
    while let Some(Some(open)) = at_once(rig.victim.next_open()).await {
        match dice.below(8) {
            0 => drop(open),
            1 => open.refuse(Cause::NotAllowed),
            _ => drop(served.spawn(use_ends(open))),
        }
    }
}

async fn use_ends(open: IncomingOpen) {
    let Ok(mut ends) = open.accept() else { return };
    if let Some(writer) = &mut ends.writer {
        let _ = writer.write_all(&pattern(0, 3_000)).await;
        let _ = writer.finish().await;
    }
    if let Some(reader) = &mut ends.reader {
        let mut got = Vec::new();
        if tokio::io::AsyncReadExt::read_to_end(reader, &mut got).await.is_ok() {
            assert!(got == pattern(0, got.len()) && got.len() % 50 == 0, "a false EOF");
        }
    }
}

async fn finish(rig: Rig, mut dice: Dice, mut served: JoinSet<()>) {
    serve(&rig, &mut dice, &mut served).await;
    while let Some(done) = crate::rig::bounded(served.join_next()).await {
        done.unwrap();
    }
    rig.end().await;
}

fn some_message(dice: &mut Dice, opens: usize) -> ControlMessage {
    match dice.below(400) {
        0 => ControlMessage::Hello(hello(None)),
        1 => ControlMessage::Bye(Bye { opens_seen: dice.pick(&NUMBERS) }),
        _ => {
            let count = 1 + dice.below(4);
            let pipes =
                (0..count).map(|_| (some_id(dice, opens), some_facts(dice, opens))).collect();
            let opens_allowed = (dice.below(20) == 0).then(|| dice.pick(&NUMBERS).max(1));
            let settled = if dice.below(6) == 0 { some_range(dice, opens) } else { vec![] };
            ControlMessage::Facts(FactsMessage { pipes, opens_allowed, settled })
        }
    }
}

/// Mostly ids of the peer's own opens, which are even; 0 is forgotten.
fn some_id(dice: &mut Dice, opens: usize) -> PipeId {
    match dice.below(10) {
        0 => id(1 + 2 * dice.below(4) as u64),
        _ => id(2 * (1 + dice.below(opens) as u64)),
    }
}

fn some_range(dice: &mut Dice, opens: usize) -> Vec<(PipeId, PipeId)> {
    let first = some_id(dice, opens).number();
    vec![(id(first), id(first + 2 * dice.below(8) as u64))]
}

fn some_facts(dice: &mut Dice, opens: usize) -> Facts {
    let mut facts = Facts::default();
    let cause = dice.pick(&[Cause::Busy, Cause::Io, Cause::Other(77)]);
    let number = dice.pick(&NUMBERS);
    let limit = Limit { number: dice.pick(&NUMBERS), offset: number };
    if dice.below(2) == 0 {
        facts.open = Some(some_open(dice, opens));
    }
    match dice.below(12) {
        0 => facts.answer = Some(Answer::Accepted),
        1 => facts.answer = Some(Answer::Refused(cause)),
        2 => facts.joined = true,
        3 => facts.end = Some(End { kind: EndKind::Eof, length: number, checksum: number }),
        4 => {
            facts.end = Some(End { kind: EndKind::Aborted(cause), length: number, checksum: 0 });
        }
        5 | 6 => facts.limit = Some(limit),
        7 => facts.returned = Some(limit),
        8 => facts.consumed = number,
        9 => facts.closed = Some(Closed { kind: ClosedKind::Broken(cause), consumed: number }),
        10 => facts.closed = Some(Closed { kind: ClosedKind::Complete, consumed: number }),
        _ => {}
    }
    facts
}

fn some_open(dice: &mut Dice, opens: usize) -> Open {
    let opener = dice.pick(&[Opener::Reader, Opener::Writer]);
    let first = some_id(dice, opens);
    let size = dice.pick(&[1, 1, 1, 2, 2, 5, 8, 9, u32::MAX]);
    let no_wait = dice.below(2) == 0;
    let priority = [Priority::Low, Priority::Normal, Priority::High][dice.below(3)];
    Open { opener, target: name("fuzz"), no_wait, priority, group: Group { first, size } }
}

/// A whole pipe, of pieces of 50 bytes.
fn some_stream(dice: &mut Dice, pipe: PipeId) -> Vec<u8> {
    let mut bytes = header(pipe).to_vec();
    let pieces = dice.below(30);
    for piece in 0..pieces {
        bytes.extend(chunk(&pattern(50 * piece as u64, 50)));
    }
    bytes.extend(trailer(&pattern(0, 50 * pieces)));
    bytes
}

/// The message with other bytes in it, and its true length before it.
fn mutated_message(dice: &mut Dice, bytes: &Bytes) -> Bytes {
    let prefix = 1usize << (bytes[0] >> 6);
    message(&mutated(dice, bytes[prefix..].to_vec())).into()
}

fn mutated(dice: &mut Dice, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..1 + dice.below(3) {
        let at = dice.below(bytes.len().max(1));
        match dice.below(6) {
            _ if bytes.is_empty() => bytes.push(dice.roll() as u8),
            0 => bytes.truncate(at),
            1 => bytes.insert(at, dice.roll() as u8),
            2 => drop(bytes.remove(at)),
            3 => {
                let end = at + dice.below(bytes.len() - at);
                bytes.extend_from_within(at..end);
            }
            4 => bytes[at] = dice.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            _ => bytes[at] ^= 1 << dice.below(8),
        }
    }
    bytes
}
