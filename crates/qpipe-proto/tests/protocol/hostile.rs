//! A peer that says what it may not: each is one pipe's end, or the session's, and nobody else's.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use qpipe_proto::cause::Cause;
use qpipe_proto::fact::{Answer, Attempt, ClosedKind, End, EndKind, Facts, Group, Opener};
use qpipe_proto::hello::{Instance, SessionId};
use qpipe_proto::limits::{FLOOR_BYTES, SETTLED_RANGES_MAX};
use qpipe_proto::session::SessionError;
use qpipe_proto::wire::{Bye, ControlMessage, FactsMessage, Hello, StreamHeader};
use qpipe_proto::{PipeId, ReadOutcome, WriteOutcome};

use crate::drawn::{self, id};
use crate::lone::{
    EPOCH, FIRST, INITIAL, LIMITS, Lone, OPENS, answer, closed, consumed, ended, held, limit,
    opened, returned,
};

const BROKEN: ClosedKind = ClosedKind::Broken(Cause::ReaderClosed);

/// Runs the hostile `act` on one pipe, and checks that another one still works.
fn beside_another(opener: Opener, act: impl FnOnce(&mut Lone, PipeId)) {
    let mut lone = Lone::new();
    let other = lone.ours(Opener::Writer);
    let id = lone.theirs(0, opener);
    act(&mut lone, id);
    assert_eq!(lone.session.room(other, 10), 10);
    lone.session.wrote(other, 10, lone.now);
    lone.session.finish(other, 1);
    lone.hears(other, closed(ClosedKind::Complete, 10)).unwrap();
    assert_eq!(lone.session.write_outcome(other), Some(WriteOutcome::Complete { length: 10 }));
}

#[test]
fn a_second_hello_ends_the_session() {
    let hello = Hello {
        versions: vec![1],
        session: SessionId([0; 16]),
        epoch: EPOCH,
        instance: Instance::default(),
        resumed: false,
        limits: LIMITS,
        ticket: None,
        enrolled: None,
        software: String::new(),
    };
    let mut lone = Lone::new();
    let heard = lone.session.handle(ControlMessage::Hello(hello), EPOCH, lone.now);
    assert_eq!(heard, Err(SessionError::Hello));
}

#[test]
fn an_open_beyond_the_allowance_ends_the_session_the_last_allowed_does_not() {
    let mut lone = Lone::new();
    let last = 2 * (OPENS - 1);
    lone.hears(id(last), opened(last, Opener::Writer)).unwrap();
    let next = last + 2;
    let heard = lone.hears(id(next), opened(next, Opener::Writer));
    assert_eq!(heard, Err(SessionError::Opens));
    let header = StreamHeader { id: id(next), attempt: 0, offset: 0, open: None };
    assert_eq!(lone.session.stream_opened(&header, EPOCH, lone.now), Err(SessionError::Opens));
}

#[test]
fn a_fact_of_a_pipe_that_we_never_opened_is_logged_and_costs_the_id_nothing() {
    let mut lone = Lone::new();
    for number in [1, 3, 2_001, PipeId::MAX] {
        lone.hears(id(number), answer(Answer::Accepted)).unwrap();
    }
    assert_eq!(lone.contradictions.len(), 4);
    assert!(lone.said.is_empty() && lone.settled.is_empty());
    let pipe = lone.ours(Opener::Writer);
    assert_eq!(pipe, id(1));
    assert_eq!(lone.session.facts(pipe).unwrap().answer, Some(Answer::Accepted));
}

#[test]
fn a_fact_of_a_pipe_that_they_never_opened_is_answered_with_settled() {
    let mut lone = Lone::new();
    lone.hears(id(4), ended(EndKind::Eof, 3)).unwrap();
    assert_eq!((&lone.settled, &lone.contradictions), (&vec![(id(4), id(4))], &vec![id(4)]));
    assert!(lone.session.facts(id(4)).is_none());
}

#[test]
fn only_the_other_end_may_state_it() {
    let of_readers = [
        limit(9, 9),
        consumed(1),
        closed(BROKEN, 0),
        held(EPOCH, 1, 0),
        answer(Answer::Accepted),
        opened(0, Opener::Reader),
    ];
    for facts in of_readers {
        beside_another(Opener::Writer, |lone, id| {
            lone.hears(id, facts).unwrap();
            lone.assert_broken(id);
        });
    }
    let of_writers = [
        ended(EndKind::Eof, 0),
        returned(1, 0),
        answer(Answer::Refused(Cause::Busy)),
        Facts { joined: true, ..Facts::default() },
    ];
    for facts in of_writers {
        beside_another(Opener::Reader, |lone, id| {
            lone.hears(id, facts).unwrap();
            lone.assert_broken(id);
        });
    }
}

#[test]
fn an_open_of_ours_that_the_peer_states_as_its_own_ends_the_pipe() {
    let mut lone = Lone::new();
    let pipe = lone.ours(Opener::Writer);
    lone.hears(pipe, opened(pipe.number(), Opener::Writer)).unwrap();
    lone.assert_broken(pipe);
}

#[test]
fn a_second_end_ends_the_pipe_and_is_no_eof() {
    for second in [ended(EndKind::Eof, 4), ended(EndKind::Aborted(Cause::Io), 3)] {
        beside_another(Opener::Writer, |lone, id| {
            lone.hears(id, ended(EndKind::Eof, 3)).unwrap();
            lone.hears(id, ended(EndKind::Eof, 3)).unwrap();
            assert!(lone.contradictions.is_empty());
            lone.hears(id, second).unwrap();
            lone.assert_broken(id);
            assert!(!lone.session.wants_checksum(id));
        });
    }
}

#[test]
fn a_second_limit_of_one_number_ends_the_pipe() {
    beside_another(Opener::Reader, |lone, id| {
        lone.hears(id, limit(3, 100)).unwrap();
        lone.hears(id, limit(2, 70)).unwrap();
        lone.hears(id, limit(3, 100)).unwrap();
        assert_eq!(lone.session.room(id, 1000), 100);
        lone.hears(id, limit(3, 101)).unwrap();
        lone.assert_broken(id);
        assert_eq!(lone.session.room(id, 1000), 0);
    });
}

#[test]
fn a_second_closed_is_answered_and_ignored() {
    beside_another(Opener::Reader, |lone, id| {
        lone.hears(id, closed(BROKEN, 0)).unwrap();
        let first = lone.session.write_outcome(id);
        lone.hears(id, closed(ClosedKind::Corrupt, 0)).unwrap();
        assert_eq!(lone.session.write_outcome(id), first);
        assert_eq!(lone.settled, vec![(id, id); 2]);
    });
}

#[test]
fn more_consumed_than_was_written_ends_the_pipe() {
    for facts in [consumed(11), closed(BROKEN, 11), closed(ClosedKind::Corrupt, 11)] {
        beside_another(Opener::Reader, |lone, id| {
            lone.hears(id, limit(1, 100)).unwrap();
            lone.session.wrote(id, 10, lone.now);
            lone.hears(id, consumed(10)).unwrap();
            assert!(lone.contradictions.is_empty());
            lone.hears(id, facts).unwrap();
            let cause = Cause::Protocol;
            let failed = WriteOutcome::Failed { cause, consumed: 10 };
            assert_eq!(lone.session.write_outcome(id), Some(failed), "and none of it is believed");
        });
    }
}

#[test]
fn more_held_than_was_written_or_one_stream_asked_for_twice_ends_the_pipe() {
    for facts in [held(EPOCH, 2, 11), held(EPOCH, 1, 9)] {
        beside_another(Opener::Reader, |lone, id| {
            lone.hears(id, limit(1, 100)).unwrap();
            lone.session.wrote(id, 10, lone.now);
            lone.hears(id, held(EPOCH, 1, 10)).unwrap();
            lone.hears(id, held(EPOCH, 1, 10)).unwrap();
            assert!(lone.contradictions.is_empty());
            lone.hears(id, facts).unwrap();
            lone.assert_broken(id);
        });
    }
}

#[test]
fn over_before_its_end_is_a_contradiction() {
    for kind in [ClosedKind::Complete, ClosedKind::Aborted, ClosedKind::Corrupt] {
        beside_another(Opener::Reader, |lone, id| {
            lone.hears(id, closed(kind, 0)).unwrap();
            assert!(lone.contradictions.contains(&id));
            let (cause, consumed) = (Cause::Protocol, 0);
            let failed = Some(WriteOutcome::Failed { cause, consumed });
            assert_eq!(lone.session.write_outcome(id), failed);
        });
    }
}

#[test]
fn credit_that_was_not_given_cannot_be_given_back() {
    for back in [returned(2, 9000), returned(u64::MAX, 0), returned(1, 99)] {
        beside_another(Opener::Writer, |lone, id| {
            let header =
                StreamHeader { id, attempt: 0, offset: 0, open: opened(0, Opener::Writer).open };
            lone.session.stream_opened(&header, EPOCH, lone.now).unwrap();
            lone.session.received(id, FIRST, 100);
            lone.hears(id, returned(1, 5000)).unwrap();
            assert!(lone.contradictions.is_empty());
            lone.hears(id, back).unwrap();
            lone.assert_broken(id);
        });
    }
}

#[test]
fn settled_of_a_live_pipe_ends_it_is_not_answered_and_frees_no_second_open() {
    for opener in [Opener::Reader, Opener::Writer] {
        let mut lone = Lone::new();
        let other = lone.ours(Opener::Reader);
        for index in 0..OPENS {
            lone.hears(id(2 * index), opened(2 * index, opener)).unwrap();
            if index % 2 == 0 {
                lone.session.accept(&[id(2 * index)], lone.now).unwrap();
            }
            lone.hears_settled(id(2 * index), id(2 * index));
            lone.session.accept(&[id(2 * index)], lone.now).unwrap();
            lone.session.release(id(2 * index));
        }
        assert!(lone.settled.is_empty() && lone.contradictions.len() as u64 == OPENS);
        assert_eq!((lone.session.unsettled(), lone.budget.committed().0), (1, FLOOR_BYTES));
        assert!(lone.session.read_outcome(other).is_none());
        // Eight are over: exactly eight more are allowed.
        let last = 2 * (2 * OPENS - 1);
        lone.hears(id(last), opened(last, opener)).unwrap();
        let heard = lone.hears(id(last + 2), opened(last + 2, opener));
        assert_eq!(heard, Err(SessionError::Opens));
    }
}

#[test]
fn forgotten_pipes_stay_forgotten() {
    let mut lone = Lone::new();
    let pipe = lone.theirs(0, Opener::Writer);
    lone.session.close_read(pipe, Cause::ReaderClosed);
    lone.session.release(pipe);
    lone.look();
    lone.hears_settled(pipe, pipe);
    assert!(lone.session.facts(pipe).is_none() && lone.settled.is_empty());
    let (offers, said) = (lone.offers.len(), lone.said.len());
    // Whatever is said of it: Settled is the answer, to each statement but to no Settled.
    for facts in [opened(0, Opener::Writer), ended(EndKind::Eof, 3), limit(1, 2), Facts::default()]
    {
        lone.settled.clear();
        lone.hears(pipe, facts).unwrap();
        assert_eq!(lone.settled, [(pipe, pipe)]);
    }
    lone.settled.clear();
    lone.hears_settled(id(0), id(PipeId::MAX - 1));
    lone.hears_settled(id(1), id(PipeId::MAX));
    assert!(lone.settled.is_empty() && lone.session.facts(pipe).is_none());
    assert_eq!((lone.offers.len(), lone.said.len()), (offers, said));
    // Settled of ids that were not opened yet did not take them away.
    lone.theirs(1, Opener::Writer);
    lone.ours(Opener::Writer);
    assert_eq!(lone.session.unsettled(), 2);
}

#[test]
fn answers_that_nobody_reads_are_bounded() {
    let mut lone = Lone::new();
    let count = 4 * SETTLED_RANGES_MAX as u64;
    for index in 0..count {
        let pipe = lone.theirs(index, Opener::Reader);
        lone.hears(pipe, closed(BROKEN, 0)).unwrap();
        lone.session.release(pipe);
    }
    // Now no message is taken, while every second forgotten pipe is spoken of.
    for index in (0..count).step_by(2) {
        let pipes = vec![(id(2 * index), consumed(1))];
        let message = FactsMessage { pipes, ..FactsMessage::default() };
        lone.session.handle(ControlMessage::Facts(message), EPOCH, lone.now).unwrap();
    }
    assert!(lone.session.is_congested());
    lone.settled.clear();
    lone.look();
    assert_eq!(lone.settled.len(), SETTLED_RANGES_MAX);
    assert!(!lone.session.is_congested());
}

#[test]
fn a_goodbye_while_pipes_live_ends_only_what_it_says_was_not_seen() {
    let mut lone = Lone::new();
    let (seen, unseen) = (lone.ours(Opener::Writer), lone.ours(Opener::Reader));
    lone.session.handle(ControlMessage::Bye(Bye { opens_seen: 1 }), EPOCH, lone.now).unwrap();
    lone.look();
    assert_eq!(lone.session.read_outcome(unseen), Some(ReadOutcome::Aborted(Cause::Stopping)));
    assert_eq!(lone.session.room(seen, 5), 5);
}

proptest! {
    #[test]
    fn whatever_is_said_nothing_panics_and_all_memory_comes_back(
        messages in vec((0u64..24, drawn::facts(), 0u8..14, 0u64..9000), 0..80)
    ) {
        let mut lone = Lone::new();
        let mut ends = vec![lone.ours(Opener::Writer), lone.ours(Opener::Reader)];
        for (number, mut facts, what, bytes) in messages {
            // Most of it close to what makes sense, or all would be refused at once.
            if let Some(open) = &mut facts.open {
                open.group = Group { first: id(number), size: 1 };
            }
            facts.consumed %= 5000;
            let attempt = Attempt { number: bytes % 3, ..FIRST };
            let pipe = id(number);
            let open = opened(number, if what % 2 == 0 { Opener::Reader } else { Opener::Writer });
            let _ = match what {
                0..4 => lone.hears(pipe, facts),
                4..6 => lone.hears(pipe, open),
                6 => lone.hears(pipe, Facts { answer: facts.answer, ..open }),
                7 => lone.hears(pipe, Facts { closed: facts.closed, ..Facts::default() }),
                8 => {
                    let header = StreamHeader { id: pipe, attempt: bytes % 3, offset: bytes % 2, open: open.open };
                    lone.session.stream_opened(&header, EPOCH, lone.now).map(|_| ())
                }
                9 => {
                    lone.session.received(pipe, attempt, bytes);
                    let rtt = Duration::from_millis(bytes % 3);
                    lone.session.consume(pipe, bytes / 2, lone.now, rtt);
                    Ok(())
                }
                10 => {
                    lone.hears_settled(id(number), id(number | 6));
                    Ok(())
                }
                11 => {
                    lone.session.stream_cut(pipe, attempt);
                    lone.session.next_stream(pipe);
                    Ok(())
                }
                12 => {
                    lone.session.disconnected();
                    lone.session.connected(lone.session.epoch() + 1, LIMITS, lone.now);
                    lone.session.next_stream(pipe);
                    Ok(())
                }
                _ => {
                    let end = End { kind: EndKind::Eof, length: bytes, checksum: 7 };
                    lone.session.trailer(pipe, attempt, end);
                    lone.session.verify(pipe, 7);
                    Ok(())
                }
            };
            lone.look();
            for offer in std::mem::take(&mut lone.offers) {
                if bytes % 3 == 0 {
                    lone.session.refuse(&offer, Cause::NotAllowed);
                } else {
                    lone.session.accept(&offer, lone.now).unwrap();
                    ends.extend(offer);
                }
            }
        }
        lone.session.lose(Cause::Lost);
        for pipe in ends {
            let outcomes = (lone.session.write_outcome(pipe), lone.session.read_outcome(pipe));
            prop_assert!(matches!(outcomes, (Some(_), None) | (None, Some(_))), "{outcomes:?}");
            lone.session.release(pipe);
            prop_assert!(lone.session.facts(pipe).is_none());
        }
        prop_assert_eq!(lone.session.unsettled(), 0);
        prop_assert_eq!(lone.budget.committed(), (0, OPENS * INITIAL));
        prop_assert_eq!(lone.session.stream_slots(0), OPENS);
    }
}
