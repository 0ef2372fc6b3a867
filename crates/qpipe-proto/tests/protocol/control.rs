//! The control stream's messages.

use proptest::collection::vec;
use proptest::prelude::*;
use qpipe_proto::PipeId;
use qpipe_proto::cause::Cause;
use qpipe_proto::fact::{
    Answer, Attempt, Closed, ClosedKind, End, EndKind, Facts, Group, Held, Limit, Open, OpenTarget,
    Opener, Priority,
};
use qpipe_proto::limits::{
    CONTROL_MESSAGE_BYTES_MAX, FACTS_PER_MESSAGE_MAX, GROUP_PIPES_MAX, SETTLED_RANGES_MAX,
};
use qpipe_proto::wire::{
    Bye, ControlDecoder, ControlMessage, FactsMessage, MalformedMessage, encode_control,
};

use crate::drawn::{self, id};

fn decode(pieces: &[&[u8]]) -> Result<Vec<ControlMessage>, MalformedMessage> {
    let mut decoder = ControlDecoder::default();
    let mut messages = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        while let Some(message) = decoder.next()? {
            messages.push(message);
        }
    }
    Ok(messages)
}

proptest! {
    #[test]
    fn a_message_survives_the_wire_cut_at_every_byte(message in drawn::control_message()) {
        let bytes = encode_control(&message);
        for at in 0..=bytes.len() {
            let messages = decode(&[&bytes[..at], &bytes[at..]]).unwrap();
            prop_assert_eq!(&messages, std::slice::from_ref(&message));
        }
        prop_assert_eq!(decode(&[&bytes[..bytes.len() - 1]]), Ok(vec![]));
    }

    #[test]
    fn messages_in_any_pieces_are_the_same_messages(
        messages in vec(drawn::control_message(), 0..4), size in 1usize..50
    ) {
        let bytes: Vec<u8> = messages.iter().flat_map(encode_control).collect();
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        prop_assert_eq!(decode(&pieces).unwrap(), messages);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300), size in 1usize..50) {
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        let _ = decode(&pieces);
    }

    #[test]
    fn a_damaged_message_never_panics(
        message in drawn::control_message(),
        at in any::<proptest::sample::Index>(),
        to in any::<u8>(),
    ) {
        let mut bytes = encode_control(&message).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _ = decode(&[&bytes]);
    }
}

#[test]
fn a_length_over_the_bound_is_refused_before_a_byte_of_it_is_there() {
    let over = (CONTROL_MESSAGE_BYTES_MAX as u32 + 1) | 0x8000_0000;
    assert!(decode(&[&over.to_be_bytes()]).is_err());
    assert!(decode(&[&u64::MAX.to_be_bytes()]).is_err());
    assert!(decode(&[&[0]]).is_err());
}

#[test]
fn the_largest_message_that_a_session_says_stays_under_the_bound() {
    let first = id(PipeId::MAX - 1);
    let name = vec!["n"; 255].concat();
    let open = Open {
        opener: Opener::Reader,
        target: OpenTarget::Name(name.parse().unwrap()),
        no_wait: true,
        priority: Priority::High,
        group: Group { first, size: GROUP_PIPES_MAX },
    };
    let limit = Some(Limit { number: u64::MAX, offset: u64::MAX });
    // What one side can state of one pipe at once: as its reader, who opened it.
    let kind = ClosedKind::Broken(Cause::Other(u32::MAX));
    let facts = Facts {
        open: Some(open),
        limit,
        consumed: u64::MAX,
        held: Some(Held {
            attempt: Attempt { epoch: u64::MAX, number: u64::MAX },
            offset: u64::MAX,
        }),
        closed: Some(Closed { kind, consumed: u64::MAX }),
        ..Facts::default()
    };
    let message = FactsMessage {
        pipes: vec![(first, facts); FACTS_PER_MESSAGE_MAX],
        opens_allowed: Some(u64::MAX),
        settled: vec![(first, first); SETTLED_RANGES_MAX / 2],
    };
    let bytes = encode_control(&ControlMessage::Facts(message));
    assert!(bytes.len() <= CONTROL_MESSAGE_BYTES_MAX, "{} bytes", bytes.len());
}

#[test]
fn what_no_session_may_say_is_malformed() {
    let pipe = (id(0), Facts { joined: true, ..Facts::default() });
    let many =
        FactsMessage { pipes: vec![pipe; FACTS_PER_MESSAGE_MAX + 1], ..FactsMessage::default() };
    let backwards = FactsMessage { settled: vec![(id(4), id(2))], ..FactsMessage::default() };
    let mixed = FactsMessage { settled: vec![(id(2), id(5))], ..FactsMessage::default() };
    for message in [many, backwards, mixed] {
        assert!(decode(&[&encode_control(&ControlMessage::Facts(message))]).is_err());
    }
}

#[test]
fn a_message_after_another_is_not_touched_by_it() {
    let end = End { kind: EndKind::Eof, length: 5, checksum: 6 };
    let facts = Facts { end: Some(end), answer: Some(Answer::Accepted), ..Facts::default() };
    let first = ControlMessage::Facts(FactsMessage {
        pipes: vec![(id(3), facts)],
        ..FactsMessage::default()
    });
    let second = ControlMessage::Bye(Bye { opens_seen: 0 });
    let bytes = [encode_control(&first), encode_control(&second)].concat();
    assert_eq!(decode(&[&bytes]), Ok(vec![first, second]));
}
