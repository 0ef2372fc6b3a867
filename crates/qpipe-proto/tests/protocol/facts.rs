//! The merge of facts: commutative, associative and idempotent.

use proptest::prelude::*;
use qpipe_proto::cause::Cause;
use qpipe_proto::fact::{
    Answer, Closed, ClosedKind, Contradiction, End, EndKind, Facts, Kinds, Limit,
};

use crate::drawn;

const KINDS: [Kinds; 9] = [
    Kinds::OPEN,
    Kinds::ANSWER,
    Kinds::JOINED,
    Kinds::END,
    Kinds::LIMIT,
    Kinds::RETURNED,
    Kinds::CONSUMED,
    Kinds::CLOSED,
    Kinds::HELD,
];

fn merged<'a>(parts: impl IntoIterator<Item = &'a Facts>) -> Result<Facts, Contradiction> {
    let mut all = Facts::default();
    parts.into_iter().try_for_each(|part| all.merge(part))?;
    Ok(all)
}

fn permutations<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for at in 0..items.len() {
        let mut rest = items.to_vec();
        let first = rest.remove(at);
        for mut tail in permutations(&rest) {
            tail.insert(0, first.clone());
            all.push(tail);
        }
    }
    all
}

fn statement() -> impl Strategy<Value = Facts> {
    // Few values, so that most sets agree and many clash.
    let limit = (1u64..4, 0u64..3).prop_map(|(number, more)| Limit { number, offset: 10 + more });
    prop_oneof![
        Just(Facts { answer: Some(Answer::Accepted), ..Facts::default() }),
        Just(Facts { answer: Some(Answer::Refused(Cause::Busy)), ..Facts::default() }),
        Just(Facts { joined: true, ..Facts::default() }),
        (0u64..4).prop_map(|consumed| Facts { consumed, ..Facts::default() }),
        // One offset for each number: of an old Limit nobody remembers what it said.
        (1u64..5).prop_map(|number| Facts {
            limit: Some(Limit { number, offset: 7 * number }),
            ..Facts::default()
        }),
        limit.prop_map(|limit| Facts { returned: Some(limit), ..Facts::default() }),
        drawn::closed(0u64..4)
            .prop_map(|closed| Facts { closed: Some(closed), ..Facts::default() }),
        (0u64..4, any::<bool>()).prop_map(|(length, eof)| {
            let kind = if eof { EndKind::Eof } else { EndKind::Aborted(Cause::Io) };
            Facts { end: Some(End { kind, length, checksum: 1 }), ..Facts::default() }
        }),
    ]
}

proptest! {
    #[test]
    fn any_order_and_duplication_gives_the_same_set(
        parts in proptest::collection::vec(statement(), 0..7),
        again in proptest::collection::vec(any::<proptest::sample::Index>(), 0..5),
        seed in any::<u64>(),
    ) {
        let mut shuffled = parts.clone();
        if !parts.is_empty() {
            shuffled.extend(again.iter().map(|index| index.get(&parts).clone()));
        }
        let mut state = seed | 1;
        for at in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            shuffled.swap(at, (state >> 33) as usize % (at + 1));
        }
        // Which contradiction is found first may differ, but not whether there is one.
        prop_assert_eq!(merged(&parts).ok(), merged(&shuffled).ok());
    }

    #[test]
    fn merging_is_associative(
        a in statement(), b in statement(), c in statement(), d in statement()
    ) {
        let left = merged([&a, &b]).ok().zip(merged([&c, &d]).ok());
        let grouped = left.and_then(|(ab, cd)| merged([&ab, &cd]).ok());
        prop_assert_eq!(grouped, merged([&a, &b, &c, &d]).ok());
    }

    #[test]
    fn a_set_told_fact_by_fact_is_the_set(facts in drawn::facts()) {
        let parts: Vec<Facts> = KINDS.iter().map(|kind| kind.select(&facts)).collect();
        prop_assert_eq!(merged(&parts).ok(), merged([&facts]).ok());
    }

    #[test]
    fn of_a_contradiction_nothing_is_believed(a in drawn::facts(), b in drawn::facts()) {
        let mut known = Facts::default();
        if known.merge(&a).is_ok() {
            let before = known.clone();
            if known.merge(&b).is_err() {
                prop_assert_eq!(known, before);
            }
        }
    }
}

#[test]
fn end_and_closed_cross_in_every_permutation() {
    let end = |kind, length| End { kind, length, checksum: 9 };
    let aborted = EndKind::Aborted(Cause::WriterDropped);
    let broken = ClosedKind::Broken(Cause::ReaderClosed);
    // Whether these two can both be true of a pipe of which 5 bytes are known to be consumed.
    let table = [
        (end(EndKind::Eof, 9), broken, 5, true),
        (end(EndKind::Eof, 9), broken, 9, true),
        (end(EndKind::Eof, 9), broken, 10, false),
        (end(EndKind::Eof, 9), broken, 4, false),
        (end(EndKind::Eof, 9), ClosedKind::Complete, 9, true),
        (end(EndKind::Eof, 9), ClosedKind::Complete, 8, false),
        (end(EndKind::Eof, 9), ClosedKind::Corrupt, 5, true),
        (end(EndKind::Eof, 9), ClosedKind::Aborted, 9, false),
        (end(EndKind::Eof, 4), broken, 4, false),
        (end(aborted, 9), broken, 5, true),
        (end(aborted, 9), ClosedKind::Aborted, 9, true),
        (end(aborted, 9), ClosedKind::Complete, 9, false),
    ];
    for (end, kind, consumed, is_consistent) in table {
        let closed = Closed { kind, consumed };
        let set = Facts {
            answer: Some(Answer::Accepted),
            end: Some(end),
            limit: Some(Limit { number: 1, offset: 64 }),
            consumed: 5,
            closed: Some(closed),
            ..Facts::default()
        };
        let kinds = [Kinds::ANSWER, Kinds::END, Kinds::LIMIT, Kinds::CONSUMED, Kinds::CLOSED];
        let parts = kinds.map(|kind| kind.select(&set));
        for order in permutations(&parts) {
            let twice: Vec<Facts> = order.iter().chain(&order).cloned().collect();
            let expected = is_consistent.then(|| set.clone());
            assert_eq!(merged(&twice).ok(), expected, "{end:?} {closed:?} {order:?}");
        }
    }
}

#[test]
fn refused_and_closed_cross_in_every_permutation() {
    let broken = ClosedKind::Broken(Cause::ReaderClosed);
    let set = Facts {
        answer: Some(Answer::Refused(Cause::NotAllowed)),
        limit: Some(Limit { number: 1, offset: 64 }),
        closed: Some(Closed { kind: broken, consumed: 0 }),
        ..Facts::default()
    };
    let parts = [Kinds::ANSWER, Kinds::LIMIT, Kinds::CLOSED].map(|kind| kind.select(&set));
    for order in permutations(&parts) {
        assert_eq!(merged(&order).as_ref(), Ok(&set));
        let accepted = Facts { answer: Some(Answer::Accepted), ..Facts::default() };
        assert!(merged(order.iter().chain([&accepted])).is_err());
    }
}

#[test]
fn a_limit_is_capped_by_what_was_returned_of_it_and_freed_by_the_next() {
    let limit = |number, offset| Some(Limit { number, offset });
    let first = Facts { limit: limit(1, 100), ..Facts::default() };
    let back = Facts { returned: limit(1, 60), ..Facts::default() };
    let second = Facts { limit: limit(2, 90), ..Facts::default() };
    assert_eq!(merged([&first]).unwrap().effective_limit(), Some(100));
    for order in permutations(&[&first, &back]) {
        assert_eq!(merged(order).unwrap().effective_limit(), Some(60));
    }
    for order in permutations(&[&first, &back, &second]) {
        assert_eq!(merged(order).unwrap().effective_limit(), Some(90));
    }
}
