use bytes::Bytes;
use qpipe_proto::fact::{Attempt, Group, Priority};
use qpipe_proto::hello::Limits;
use qpipe_proto::limits::GROUP_DEADLINE_MS;
use qpipe_proto::session::StreamVerdict;
use qpipe_proto::wire::StreamHeader;
use qpipe_proto::{Budget, Secret, Side};

use super::*;
use crate::link::incoming::Content;

#[test]
fn content_of_a_group_that_is_never_complete_is_dropped_with_it() {
    // Given: half of a group, whose stream came with content.
    let now = crate::clock::now();
    let mut state = state();
    let id = PipeId::new(0).unwrap();
    let open = Open {
        opener: Opener::Writer,
        target: OpenTarget::Ticket(Secret::from_bytes([1; 16])),
        no_wait: false,
        priority: Priority::Normal,
        group: Group { first: id, size: 2 },
    };
    let header = StreamHeader { id, attempt: 0, offset: 0, open: Some(open) };
    let epoch = Contact::FIRST_EPOCH;
    let attempt = Attempt { epoch, number: 0 };
    assert_eq!(state.session.stream_opened(&header, epoch, now), Ok(StreamVerdict::Read));
    state.expect_side(id);
    let mut content = Content::default();
    content.push(Bytes::from(vec![7; 9_000]), true);
    assert_eq!(state.deliver(id, attempt, 0, content), StreamVerdict::Read);
    assert!(state.settle().incoming.is_empty());
    assert_eq!(state.readers.len(), 1);

    // When: nothing more comes in time.
    state.session.handle_timeout(now + Duration::from_millis(GROUP_DEADLINE_MS));
    state.settle();

    // Then: nothing of it is kept.
    assert!(state.readers.is_empty());
}

fn state() -> State {
    let epoch = Contact::FIRST_EPOCH;
    let limits = Limits { initial_limit: 16 * 1024, opens_allowed: 4 };
    let account = Budget::new(1 << 20).account();
    let reserve = account.reserve(64 * 1024).unwrap();
    let session = Session::new(Side::Acceptor, epoch, limits, limits, account, reserve);
    let now = crate::clock::now();
    let patience = qpipe_proto::contact::Patience::default();
    let contact = Contact::new(Side::Acceptor, patience, epoch, Duration::ZERO, now);
    State::new(session, contact, None)
}
