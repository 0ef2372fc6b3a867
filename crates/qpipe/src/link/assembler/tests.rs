use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const NO_BOUND: fn() -> u64 = || u64::MAX;

/// A stream, and the pieces of it in the order in which they come.
fn pieces() -> impl Strategy<Value = (Bytes, Vec<(u64, Bytes)>)> {
    let piece = prop_oneof![40 => 1..300usize, 1 => COPY_BYTES_MAX..2 * COPY_BYTES_MAX];
    let lengths = proptest::collection::vec((piece, any::<Index>()), 1..40);
    lengths.prop_map(|lengths| {
        let total = lengths.iter().map(|(length, _)| length).sum();
        let stream: Bytes = (0..total).map(|i: usize| (i * i / 7 + i) as u8).collect();
        let (mut pieces, mut offset) = (Vec::new(), 0);
        for (length, place) in lengths {
            let piece = (offset as u64, stream.slice(offset..offset + length));
            pieces.insert(place.index(pieces.len() + 1), piece);
            offset += length;
        }
        (stream, pieces)
    })
}

/// Of pieces that came: how many bytes are in order, and what the others are charged.
fn sorted(mut came: Vec<(u64, Bytes)>) -> (u64, u64) {
    came.sort_by_key(|(offset, _)| *offset);
    came.iter().fold((0, 0), |(whole, held), (offset, bytes)| match *offset == whole {
        true => (whole + bytes.len() as u64, held),
        false => (whole, held + bytes.len() as u64 + PIECE_OVERHEAD_BYTES),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_in_any_order_make_the_stream((stream, arriving) in pieces()) {
        let (mut pieces, mut made) = (Pieces::default(), Vec::new());
        for (i, (offset, bytes)) in arriving.iter().enumerate() {
            let mut out = Vec::new();
            prop_assert_eq!(pieces.place(*offset, bytes.clone(), NO_BOUND, &mut out), Ok(()));
            out.iter().for_each(|piece| made.extend_from_slice(piece));
            // All that is there without a gap was given; the rest is held.
            let (whole, held) = sorted(arriving[..=i].to_vec());
            prop_assert!(made == stream[..whole as usize]);
            prop_assert_eq!((pieces.next, pieces.charged()), (whole, held));
        }
        prop_assert!(made == stream);
        prop_assert_eq!((pieces.charged(), pieces.out_of_order.len()), (0, 0));
    }

    #[test]
    fn no_more_is_held_than_there_may_be((_, arriving) in pieces(), bound in 0..20_000u64) {
        let mut pieces = Pieces::default();
        for (i, (offset, bytes)) in arriving.iter().enumerate() {
            let is_in_order = *offset == pieces.next;
            let placed = pieces.place(*offset, bytes.clone(), || bound, &mut Vec::new());
            let (_, held) = sorted(arriving[..=i].to_vec());
            prop_assert_eq!(placed.is_err(), held > bound);
            if placed.is_err() {
                prop_assert!(!is_in_order);
                break;
            }
        }
    }
}

#[test]
fn small_pieces_do_not_pin_the_datagrams_they_came_in() {
    // Given: two datagrams, and a piece of each that comes too early.
    let (small, large) = (Bytes::from(vec![1; 65_536]), Bytes::from(vec![2; 65_536]));
    let mut pieces = Pieces::default();

    for (offset, bytes) in [(10, small.slice(..100)), (1_000, large.slice(..COPY_BYTES_MAX))] {
        pieces.place(offset, bytes, NO_BOUND, &mut Vec::new()).unwrap();
    }

    // Then: of the first a copy is held, of the second the datagram.
    assert!(small.is_unique());
    assert!(!large.is_unique());
}

#[test]
fn many_tiny_pieces_are_told_from_too_many_bytes() {
    let mut pieces = Pieces::default();
    let mut place = |offset, bytes: usize| {
        pieces.place(offset, Bytes::from(vec![7; bytes]), || 1000, &mut Vec::new())
    };
    for i in 0..15 {
        assert_eq!(place(10 + 2 * i, 1), Ok(()));
    }
    assert_eq!(place(100, 1), Err(Excess::Pieces));
    assert_eq!(place(200, 1000), Err(Excess::Bytes));
}
