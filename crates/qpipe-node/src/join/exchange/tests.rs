use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const EOF: Next = Next::End(Ok(()));

fn bytes(exchange: &mut Exchange, reader: Number) -> Bytes {
    match exchange.next(reader) {
        Some(Next::Bytes(bytes)) => bytes,
        next => panic!("{next:?}"),
    }
}

/// One writer and one reader.
fn pair() -> (Exchange, Number, Number) {
    let mut exchange = Exchange::default();
    let (writer, reader) = (exchange.add_writer(), exchange.add_reader());
    (exchange, writer, reader)
}

#[test]
fn writer_is_complete_when_its_reader_consumed_everything_and_took_the_end() {
    let (mut exchange, writer, reader) = pair();
    assert!(exchange.put(writer, &"content".into(), true));
    exchange.end(writer, None);
    exchange.close();

    assert_eq!(bytes(&mut exchange, reader), "content");
    assert_eq!(exchange.next(reader), Some(EOF));
    exchange.consumed(reader, 7);
    assert_eq!(exchange.verdict(writer), None);
    exchange.finish(reader);

    assert_eq!(exchange.verdict(writer), Some(Verdict::Complete));
}

#[test]
fn writer_that_ends_before_others_is_complete_when_its_own_is_consumed() {
    let (mut exchange, writer, reader) = pair();
    let _other = exchange.add_writer();
    assert!(exchange.put(writer, &"a".into(), true));
    exchange.end(writer, None);
    bytes(&mut exchange, reader);
    assert_eq!(exchange.verdict(writer), None);

    exchange.consumed(reader, 1);

    assert_eq!(exchange.verdict(writer), Some(Verdict::Complete));
}

#[test]
fn what_a_reader_leaves_behind_goes_first_to_the_next() {
    let (mut exchange, writer, first) = pair();
    let second = exchange.add_reader();
    for piece in ["abc", "def", "ghi"] {
        assert!(exchange.put(writer, &piece.into(), true));
    }
    bytes(&mut exchange, first);
    bytes(&mut exchange, first);
    exchange.consumed(first, 2);

    exchange.leave(first, Cause::ReaderClosed);

    let rest = [(); 3].map(|()| bytes(&mut exchange, second));
    assert_eq!(rest, ["c", "def", "ghi"]);
    assert_eq!(exchange.verdict(writer), None);
}

#[test]
fn end_waits_for_what_another_reader_may_leave_behind() {
    let (mut exchange, writer, first) = pair();
    let second = exchange.add_reader();
    assert!(exchange.put(writer, &"abc".into(), true));
    exchange.end(writer, None);
    exchange.close();
    bytes(&mut exchange, first);
    assert_eq!(exchange.next(second), None);

    exchange.consumed(first, 3);

    assert_eq!(exchange.next(second), Some(EOF));
}

#[test]
fn what_a_lost_reader_had_is_not_sent_again_and_fails_its_writers_alone() {
    let (mut exchange, unlucky, lost) = pair();
    let lucky = exchange.add_writer();
    let reader = exchange.add_reader();
    assert!(exchange.put(unlucky, &"in doubt".into(), true));
    bytes(&mut exchange, lost);
    assert!(exchange.put(lucky, &"fine".into(), true));

    exchange.lose(lost, Cause::Lost);

    assert_eq!(exchange.verdict(unlucky), Some(Verdict::Failed(Cause::Lost)));
    assert_eq!(bytes(&mut exchange, reader), "fine");
    assert_eq!(exchange.verdict(lucky), None);
}

#[test]
fn last_reader_that_leaves_breaks_those_whose_bytes_it_did_not_consume() {
    let (mut exchange, writer, reader) = pair();
    assert!(exchange.put(writer, &"abc".into(), true));
    exchange.end(writer, None);
    bytes(&mut exchange, reader);
    exchange.leave(reader, Cause::ReaderClosed);

    exchange.break_off();

    assert_eq!(exchange.verdict(writer), Some(Verdict::Broken(Cause::ReaderClosed)));
}

#[test]
fn one_abort_is_the_end_of_all() {
    let (mut exchange, writer, reader) = pair();
    let other = exchange.add_writer();
    exchange.end(other, Some(Cause::Interrupted));
    exchange.end(writer, None);
    exchange.close();

    assert_eq!(exchange.next(reader), Some(Next::End(Err(Cause::Interrupted))));
}

#[test]
fn nobody_comes_between_two_parts_of_one_write() {
    let (mut exchange, writer, _reader) = pair();
    let other = exchange.add_writer();

    assert!(exchange.put(writer, &"half".into(), false));
    assert!(exchange.wants(other).is_none() && exchange.wants(writer).is_some());
    assert!(!exchange.put(other, &"between".into(), true));
    assert!(exchange.put(writer, &"rest".into(), true));
    assert!(exchange.wants(other).is_some());

    assert!(exchange.put(writer, &"half".into(), false));
    exchange.end(writer, Some(Cause::Lost));
    assert!(exchange.wants(other).is_some());
}

#[test]
fn capacity_stops_writers_and_cuts_no_write_of_theirs() {
    let mut exchange = Exchange::with_capacity(4096);
    let (writer, reader) = (exchange.add_writer(), exchange.add_reader());
    assert_eq!(exchange.wants(writer), Some(SMALL_PIECE_BYTES_MAX));

    assert!(exchange.put(writer, &vec![0; 4095].into(), true));
    assert!(exchange.wants(writer).is_some());
    assert!(exchange.put(writer, &"x".into(), true));
    assert_eq!(exchange.wants(writer), None);

    bytes(&mut exchange, reader);
    assert!(exchange.wants(writer).is_some());
    assert_eq!(Exchange::with_capacity(1 << 30).capacity.0, 1 << 30);
}

proptest! {
    /// Whatever readers do, as long as none is lost: every byte is consumed once.
    #[test]
    fn every_byte_is_consumed_once_and_in_order(
        steps in proptest::collection::vec((0u8..6, any::<prop::sample::Index>(), 1u64..2_000), 1..200)
    ) {
        let mut exchange = Exchange::default();
        let writers = [(); 3].map(|()| exchange.add_writer());
        let mut written = [0u64; 3];
        let mut consumed: HashMap<(usize, u64), u32> = HashMap::new();
        // Readers with what they got and did not consume: writer and offset of each byte.
        let mut readers: Vec<(Number, VecDeque<(usize, u64)>)> = Vec::new();
        let take = |exchange: &mut Exchange, reader: &mut (Number, VecDeque<(usize, u64)>)| {
            let next = exchange.next(reader.0);
            if let Some(Next::Bytes(bytes)) = &next {
                let content: Vec<_> = bytes.chunks_exact(16).map(|unit| {
                    let number = |range: std::ops::Range<usize>| {
                        u64::from_be_bytes(unit[range].try_into().unwrap())
                    };
                    (number(0..8) as usize, number(8..16))
                }).collect();
                reader.1.extend(content);
            }
            next
        };
        let mut eat = |exchange: &mut Exchange, reader: &mut (Number, VecDeque<(usize, u64)>), n: usize| {
            let n = n.min(reader.1.len());
            exchange.consumed(reader.0, 16 * n as u64);
            for unit in reader.1.drain(..n) {
                *consumed.entry(unit).or_default() += 1;
            }
        };
        for (what, which, n) in steps {
            match what {
                0 | 1 => {
                    let writer = which.index(3);
                    let units = n % 50 + 1;
                    let unit = |offset: u64| [(writer as u64).to_be_bytes(), offset.to_be_bytes()].concat();
                    let piece: Vec<u8> = (written[writer]..written[writer] + units).flat_map(unit).collect();
                    written[writer] += units;
                    assert!(exchange.put(writers[writer], &piece.into(), true));
                }
                2 => readers.push((exchange.add_reader(), VecDeque::new())),
                _ if readers.is_empty() => {}
                3 => {
                    let reader = which.index(readers.len());
                    take(&mut exchange, &mut readers[reader]);
                }
                4 => {
                    let reader = which.index(readers.len());
                    eat(&mut exchange, &mut readers[reader], n as usize);
                }
                _ => {
                    let (reader, _) = readers.remove(which.index(readers.len()));
                    exchange.leave(reader, Cause::ReaderClosed);
                }
            }
        }
        for writer in writers {
            exchange.end(writer, None);
        }
        exchange.close();
        let mut last = (exchange.add_reader(), VecDeque::new());
        for reader in &mut readers {
            eat(&mut exchange, reader, usize::MAX);
        }
        while let Some(Next::Bytes(_)) = take(&mut exchange, &mut last) {}
        eat(&mut exchange, &mut last, usize::MAX);
        prop_assert_eq!(exchange.next(last.0), Some(EOF));
        exchange.finish(last.0);
        for (writer, number) in writers.into_iter().enumerate() {
            prop_assert_eq!(exchange.verdict(number), Some(Verdict::Complete));
            prop_assert_eq!(exchange.consumed_of(number), 16 * written[writer]);
            prop_assert!((0..written[writer]).all(|offset| consumed.get(&(writer, offset)) == Some(&1)));
        }
        prop_assert_eq!(consumed.len() as u64, written.iter().sum::<u64>());
    }
}
