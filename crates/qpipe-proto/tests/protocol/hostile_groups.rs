//! Groups of opens that cannot be, or whose members break the protocol.

use std::time::Duration;

use qpipe_proto::cause::Cause;
use qpipe_proto::fact::{Answer, Group, Opener};
use qpipe_proto::limits::{GROUP_DEADLINE_MS, GROUP_PIPES_MAX};
use qpipe_proto::{PipeId, WriteOutcome};

use crate::drawn::id;
use crate::lone::{Lone, consumed, grouped, opened};

#[test]
fn groups_that_cannot_be_are_refused() {
    let group = |first, size| Group { first: id(first), size };
    let misfits = [
        (2, group(2, 0)),
        (2, group(2, GROUP_PIPES_MAX + 1)),
        (2, group(2, u32::MAX)),
        (2, group(1, 2)),
        (2, group(4, 2)),
        (4, group(0, 2)),
        (2, group(PipeId::MAX - 1, 2)),
    ];
    for (number, group) in misfits {
        let mut lone = Lone::new();
        lone.hears(id(number), grouped(Opener::Writer, group)).unwrap();
        assert_eq!(lone.said_of(id(number)).answer, Some(Answer::Refused(Cause::Protocol)));
        assert!(lone.offers.is_empty() && lone.contradictions == [id(number)]);
        lone.hears_settled(id(number), id(number));
        assert_eq!(lone.session.unsettled(), 0);
    }
}

#[test]
fn members_that_disagree_about_their_group_are_not_offered() {
    let mut lone = Lone::new();
    let group = |size| Group { first: id(0), size };
    lone.hears(id(0), grouped(Opener::Writer, group(2))).unwrap();
    lone.hears(id(2), grouped(Opener::Writer, group(3))).unwrap();
    lone.now += Duration::from_millis(GROUP_DEADLINE_MS);
    assert!(lone.session.poll_timeout().is_some_and(|at| at <= lone.now));
    lone.session.handle_timeout(lone.now);
    lone.look();
    assert_eq!(lone.said_of(id(0)).answer, Some(Answer::Refused(Cause::Incomplete)));
    assert_eq!(lone.said_of(id(2)).answer, Some(Answer::Refused(Cause::Protocol)));
    lone.hears_settled(id(0), id(2));
    assert!(lone.offers.is_empty() && lone.session.unsettled() == 0);
    assert_eq!(lone.session.poll_timeout(), None);
}

#[test]
fn a_group_is_answered_as_one_also_if_a_member_broke_the_protocol_before_it_was_complete() {
    let mut lone = Lone::new();
    let group = Group { first: id(0), size: 2 };
    lone.hears(id(0), grouped(Opener::Reader, group)).unwrap();
    lone.hears(id(0), consumed(5)).unwrap();
    lone.hears(id(2), grouped(Opener::Writer, group)).unwrap();
    assert!(lone.offers.is_empty());
    assert_eq!(lone.said_of(id(0)).answer, Some(Answer::Refused(Cause::Protocol)));
    assert_eq!(lone.said_of(id(2)).answer, Some(Answer::Refused(Cause::Incomplete)));
}

#[test]
fn an_offer_that_broke_the_protocol_before_it_was_accepted_has_an_end_that_says_so() {
    let mut lone = Lone::new();
    lone.hears(id(0), opened(0, Opener::Reader)).unwrap();
    lone.hears(id(0), consumed(5)).unwrap();
    lone.hears_settled(id(0), id(0));
    lone.session.accept(&[id(0)], lone.now).unwrap();
    let refused = Some(WriteOutcome::Refused(Cause::Protocol));
    assert_eq!(lone.session.write_outcome(id(0)), refused);
    lone.session.release(id(0));
    assert!(lone.session.facts(id(0)).is_none() && lone.budget.committed().0 == 0);
}
