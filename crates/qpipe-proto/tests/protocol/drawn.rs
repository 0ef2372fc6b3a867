//! Values that proptest draws.

use std::net::{IpAddr, SocketAddr};

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use qpipe_proto::cause::Cause;
use qpipe_proto::fact::{
    Answer, Attempt, Closed, ClosedKind, End, EndKind, Facts, Group, Held, Limit, Open, OpenTarget,
    Opener, Priority,
};
use qpipe_proto::hello::{Enrolled, Instance, Limits, SessionId};
use qpipe_proto::wire::{Bye, ControlMessage, FactsMessage, Hello};
use qpipe_proto::{PipeId, Secret};

pub(crate) fn id(number: u64) -> PipeId {
    PipeId::new(number).unwrap()
}

pub(crate) fn cause() -> impl Strategy<Value = Cause> {
    prop_oneof![proptest::sample::select(Cause::ALL), (100u32..).prop_map(Cause::Other)]
}

pub(crate) fn end(bytes: impl Strategy<Value = u64>) -> impl Strategy<Value = End> {
    let kind = prop_oneof![Just(EndKind::Eof), cause().prop_map(EndKind::Aborted)];
    (kind, bytes, any::<u64>()).prop_map(|(kind, length, checksum)| End { kind, length, checksum })
}

pub(crate) fn closed(bytes: impl Strategy<Value = u64>) -> impl Strategy<Value = Closed> {
    let kind = prop_oneof![
        Just(ClosedKind::Aborted),
        Just(ClosedKind::Complete),
        Just(ClosedKind::Corrupt),
        cause().prop_map(ClosedKind::Broken),
    ];
    (kind, bytes).prop_map(|(kind, consumed)| Closed { kind, consumed })
}

pub(crate) fn held() -> impl Strategy<Value = Held> {
    (any::<u64>(), any::<u64>(), any::<u64>())
        .prop_map(|(epoch, number, offset)| Held { attempt: Attempt { epoch, number }, offset })
}

pub(crate) fn open() -> impl Strategy<Value = Open> {
    let target = prop_oneof![
        any::<[u8; 16]>().prop_map(|bytes| OpenTarget::Ticket(Secret::from_bytes(bytes))),
        "[a-z0-9]{1,20}(/[a-z0-9]{1,20}){0,3}"
            .prop_map(|name| OpenTarget::Name(name.parse().unwrap())),
    ];
    let opener = prop_oneof![Just(Opener::Reader), Just(Opener::Writer)];
    let priority = prop_oneof![Just(Priority::Low), Just(Priority::Normal), Just(Priority::High)];
    (opener, target, any::<bool>(), priority, 0..=PipeId::MAX, any::<u32>()).prop_map(
        |(opener, target, no_wait, priority, first, size)| Open {
            opener,
            target,
            no_wait,
            priority,
            group: Group { first: id(first), size },
        },
    )
}

pub(crate) fn facts() -> impl Strategy<Value = Facts> {
    let answer = prop_oneof![Just(Answer::Accepted), cause().prop_map(Answer::Refused)];
    let limit =
        || of((any::<u64>(), any::<u64>()).prop_map(|(number, offset)| Limit { number, offset }));
    let ends = (of(end(any::<u64>())), of(closed(any::<u64>())), of(held()));
    (of(open()), of(answer), any::<bool>(), ends, limit(), limit(), any::<u64>()).prop_map(
        |(open, answer, joined, (end, closed, held), limit, returned, consumed)| Facts {
            open,
            answer,
            joined,
            end,
            limit,
            returned,
            consumed,
            held,
            closed,
        },
    )
}

pub(crate) fn control_message() -> impl Strategy<Value = ControlMessage> {
    let range = (0..=PipeId::MAX / 4, 0..=PipeId::MAX / 4)
        .prop_map(|(first, more)| (id(first), id(first + 2 * more)));
    let pipe = (0..=PipeId::MAX, facts()).prop_map(|(number, facts)| (id(number), facts));
    let facts = (vec(pipe, 0..5), of(1u64..), vec(range, 0..5))
        .prop_map(|(pipes, opens_allowed, settled)| FactsMessage { pipes, opens_allowed, settled });
    let limits = (any::<u64>(), any::<u64>())
        .prop_map(|(initial_limit, opens_allowed)| Limits { initial_limit, opens_allowed });
    let patterns = || vec("\\PC{0,20}", 0..3);
    let enrolled = ("\\PC{0,20}", patterns(), patterns(), patterns())
        .prop_map(|(name, send, recv, list)| Enrolled { name, send, recv, list });
    let instance = (any::<u64>(), any::<u64>());
    let hello = (
        vec(any::<u32>(), 0..4),
        (any::<[u8; 16]>(), 1..=PipeId::MAX, instance, any::<bool>()),
        limits,
        of(any::<[u8; 16]>()),
        of(enrolled),
    );
    let hello = hello.prop_map(
        |(versions, (session, epoch, (start, random), resumed), limits, ticket, enrolled)| Hello {
            versions,
            session: SessionId(session),
            epoch,
            instance: Instance { start, random },
            resumed,
            limits,
            ticket: ticket.map(Secret::from_bytes),
            enrolled,
            software: "test".to_owned(),
        },
    );
    let addresses = vec((any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from), 0..4);
    prop_oneof![
        addresses.prop_map(ControlMessage::Addresses),
        any::<u64>().prop_map(|opens_seen| ControlMessage::Bye(Bye { opens_seen })),
        facts.prop_map(ControlMessage::Facts),
        hello.prop_map(ControlMessage::Hello),
    ]
}
