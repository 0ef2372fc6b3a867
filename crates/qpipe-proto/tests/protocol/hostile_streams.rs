//! Pipe streams that are not what they should be.

use qpipe_proto::cause::Cause;
use qpipe_proto::fact::{Attempt, ClosedKind, End, EndKind, Facts, Held, Opener};
use qpipe_proto::limits::{FLOOR_BYTES, KEPT_BYTES_MAX};
use qpipe_proto::session::{StreamVerdict, Taken};
use qpipe_proto::wire::StreamHeader;
use qpipe_proto::{PipeId, ReadOutcome};

use crate::drawn::id;
use crate::lone::{EPOCH, FIRST, INITIAL, Lone, ended, opened};
use crate::world::{Config, RTT, World};

const START_WINDOW: u64 = 64 * 1024;

fn header(number: u64) -> StreamHeader {
    StreamHeader {
        id: id(number),
        attempt: 0,
        offset: 0,
        open: opened(number, Opener::Writer).open,
    }
}

fn end(kind: EndKind, length: u64) -> End {
    End { kind, length, checksum: 7 }
}

/// A pipe that the peer writes, accepted, whose stream has begun.
fn streaming() -> (Lone, PipeId) {
    let mut lone = Lone::new();
    let pipe = lone.theirs(0, Opener::Writer);
    assert_eq!(lone.session.stream_opened(&header(0), EPOCH, lone.now), Ok(StreamVerdict::Read));
    (lone, pipe)
}

#[test]
fn a_header_without_an_open_of_a_pipe_that_is_not_there_is_cut() {
    let mut lone = Lone::new();
    for number in [0, 1, 7] {
        let header = StreamHeader { open: None, ..header(number) };
        assert_eq!(lone.session.stream_opened(&header, EPOCH, lone.now), Ok(StreamVerdict::Cut));
    }
    lone.look();
    assert_eq!(lone.session.unsettled(), 0);
}

#[test]
fn a_header_of_a_forgotten_pipe_is_answered_with_settled_and_cut() {
    let (mut lone, pipe) = streaming();
    lone.hears(pipe, ended(EndKind::Aborted(Cause::Io), 0)).unwrap();
    lone.session.release(pipe);
    lone.hears_settled(pipe, pipe);
    assert!(lone.session.facts(pipe).is_none());
    assert_eq!(lone.session.stream_opened(&header(0), EPOCH, lone.now), Ok(StreamVerdict::Cut));
    assert_eq!(lone.session.received(pipe, FIRST, 1).verdict, StreamVerdict::Cut);
    assert_eq!(lone.session.trailer(pipe, FIRST, end(EndKind::Eof, 0)), StreamVerdict::Cut);
    lone.look();
    assert_eq!(lone.settled, [(pipe, pipe)]);
}

#[test]
fn a_header_that_begins_elsewhere_or_a_second_stream_ends_the_pipe() {
    let mut lone = Lone::new();
    let pipe = lone.theirs(0, Opener::Writer);
    let late = StreamHeader { offset: 1, ..header(0) };
    assert_eq!(lone.session.stream_opened(&late, EPOCH, lone.now), Ok(StreamVerdict::Cut));
    lone.look();
    lone.assert_broken(pipe);

    let (mut lone, pipe) = streaming();
    assert_eq!(lone.session.stream_opened(&header(0), EPOCH, lone.now), Ok(StreamVerdict::Cut));
    lone.look();
    lone.assert_broken(pipe);
}

#[test]
fn a_header_with_another_open_than_the_control_stream_told_ends_the_pipe() {
    let mut lone = Lone::new();
    let pipe = lone.theirs(0, Opener::Writer);
    let mut other = header(0);
    other.open.as_mut().unwrap().no_wait = true;
    assert_ne!(lone.session.stream_opened(&other, EPOCH, lone.now), Ok(StreamVerdict::Read));
    lone.look();
    lone.assert_broken(pipe);
}

#[test]
fn a_byte_beyond_the_limit_ends_the_pipe_the_last_one_allowed_does_not() {
    let (mut lone, pipe) = streaming();
    assert_eq!(lone.session.received(pipe, FIRST, START_WINDOW).verdict, StreamVerdict::Read);
    assert_eq!(lone.session.received(pipe, FIRST, START_WINDOW + 1).verdict, StreamVerdict::Cut);
    lone.look();
    lone.assert_broken(pipe);
}

#[test]
fn a_byte_beyond_the_initial_limit_ends_a_pipe_that_is_not_accepted() {
    let mut lone = Lone::new();
    assert_eq!(lone.session.stream_opened(&header(0), EPOCH, lone.now), Ok(StreamVerdict::Read));
    assert_eq!(lone.session.received(id(0), FIRST, INITIAL).verdict, StreamVerdict::Read);
    assert_eq!(lone.session.received(id(0), FIRST, INITIAL + 1).verdict, StreamVerdict::Cut);
    lone.session.accept(&[id(0)], lone.now).unwrap();
    lone.look();
    lone.assert_broken(id(0));
}

#[test]
fn bytes_beyond_the_end_end_the_pipe() {
    let (mut lone, pipe) = streaming();
    lone.hears(pipe, ended(EndKind::Eof, 5)).unwrap();
    assert_eq!(lone.session.received(pipe, FIRST, 6).verdict, StreamVerdict::Cut);
    lone.look();
    lone.assert_broken(pipe);
}

#[test]
fn an_end_before_bytes_that_came_ends_the_pipe() {
    let (mut lone, pipe) = streaming();
    lone.session.received(pipe, FIRST, 6);
    lone.hears(pipe, ended(EndKind::Eof, 5)).unwrap();
    lone.assert_broken(pipe);
}

#[test]
fn a_trailer_that_counts_bytes_which_did_not_come_is_corrupt_not_eof() {
    let (mut lone, pipe) = streaming();
    lone.session.received(pipe, FIRST, 6);
    assert_eq!(lone.session.trailer(pipe, FIRST, end(EndKind::Eof, 7)), StreamVerdict::Cut);
    lone.look();
    assert_eq!(lone.session.read_outcome(pipe), Some(ReadOutcome::Corrupt));
    assert_eq!(lone.said_of(pipe).closed.unwrap().kind, ClosedKind::Corrupt);

    let (mut lone, pipe) = streaming();
    lone.session.received(pipe, FIRST, 6);
    lone.session.trailer(pipe, FIRST, end(EndKind::Aborted(Cause::Io), 7));
    lone.look();
    lone.assert_broken(pipe);
}

#[test]
fn a_trailer_other_than_the_end_that_control_told_ends_the_pipe() {
    let (mut lone, pipe) = streaming();
    lone.hears(pipe, ended(EndKind::Eof, 5)).unwrap();
    lone.session.received(pipe, FIRST, 5);
    let other = End { checksum: 8, ..end(EndKind::Eof, 5) };
    assert_eq!(lone.session.trailer(pipe, FIRST, other), StreamVerdict::Cut);
    lone.look();
    lone.assert_broken(pipe);
}

#[test]
fn a_wrong_checksum_is_corrupt_and_a_right_one_eof_before_and_after_it_is_consumed() {
    for (sum, outcome) in [(7, ReadOutcome::Eof), (8, ReadOutcome::Corrupt)] {
        for consumed in [0, 5] {
            let (mut lone, pipe) = streaming();
            lone.session.received(pipe, FIRST, 5);
            lone.session.consume(pipe, consumed, lone.now, RTT);
            lone.session.trailer(pipe, FIRST, end(EndKind::Eof, 5));
            assert_eq!(lone.session.read_outcome(pipe), None, "not before the checksum");
            assert!(lone.session.wants_checksum(pipe));
            lone.session.verify(pipe, sum);
            assert_eq!(lone.session.read_outcome(pipe), Some(outcome));
            lone.session.consume(pipe, 5, lone.now, RTT);
            lone.look();
            let expected = if sum == 7 { ClosedKind::Complete } else { ClosedKind::Corrupt };
            assert_eq!(lone.said_of(pipe).closed.unwrap().kind, expected);
            assert_eq!(lone.session.read_outcome(pipe), Some(outcome), "and it stays so");
        }
    }
}

#[test]
fn a_pipe_that_is_not_accepted_is_not_complete() {
    let mut lone = Lone::new();
    lone.session.stream_opened(&header(0), EPOCH, lone.now).unwrap();
    lone.session.trailer(id(0), FIRST, end(EndKind::Eof, 0));
    lone.session.verify(id(0), 7);
    lone.look();
    assert_eq!(lone.said_of(id(0)), Facts::default());
    lone.session.accept(&[id(0)], lone.now).unwrap();
    assert!(lone.session.wants_checksum(id(0)));
}

#[test]
fn what_is_over_is_not_read_on() {
    let (mut lone, pipe) = streaming();
    lone.session.close_read(pipe, Cause::ReaderClosed);
    assert_eq!(lone.session.received(pipe, FIRST, 5).verdict, StreamVerdict::Broken);
    // Nothing follows a trailer, so there is nothing to stop.
    assert_eq!(lone.session.trailer(pipe, FIRST, end(EndKind::Eof, 5)), StreamVerdict::Read);
    lone.session.consume(pipe, 5, lone.now, RTT);
    assert_eq!(lone.session.facts(pipe).unwrap().consumed, 0);
    assert_eq!(lone.session.read_outcome(pipe), Some(ReadOutcome::Closed(Cause::ReaderClosed)));
}

#[test]
fn what_is_buffered_beyond_the_floor_draws_on_the_reservation_and_then_waits_for_room() {
    // The reservation takes the whole pool, so each pipe has its floor and the initial limit of 16 KiB; the
    // reservation covers what one of them has beyond its floor, and as much as a floor of the other.
    let config = Config { opens: 1, initial_limit: 16 * 1024, memory: [32 * 1024; 2] };
    let mut world = World::new(config);
    let mut open = || {
        let pipe = world.open(0, &[Opener::Writer]).unwrap()[0];
        world.say(0);
        world.deliver_control(0);
        world.answer(1, true);
        world.say(1);
        world.deliver_control(1);
        pipe
    };
    let (one, other) = (open(), open());
    let now = world.now;
    let session = &mut world.nodes[1].session;
    for id in [one, other] {
        let header = StreamHeader {
            id,
            attempt: 0,
            offset: 0,
            open: session.facts(id).unwrap().open.clone(),
        };
        assert_eq!(session.stream_opened(&header, EPOCH, now), Ok(StreamVerdict::Read));
    }
    let read = |received| Taken { received, verdict: StreamVerdict::Read };
    assert_eq!(session.received(one, FIRST, 16 * 1024), read(16 * 1024));
    let full = 2 * FLOOR_BYTES;
    assert_eq!(session.received(other, FIRST, full), read(full));
    // What is consumed makes room.
    session.consume(one, 1, now, RTT);
    assert_eq!(session.received(other, FIRST, full + 1), read(full + 1));
    let stopped = Taken { received: full + 1, verdict: StreamVerdict::Cut };
    assert_eq!(session.received(other, FIRST, full + 2), stopped);
    assert_eq!((session.read_outcome(other), session.read_outcome(one)), (None, None));
    assert_eq!(session.facts(other).unwrap().held, None);
    // Another stream is asked for when the reader has consumed all that it does not keep back, and not before.
    session.consume(other, full - KEPT_BYTES_MAX, now, RTT);
    assert_eq!(session.facts(other).unwrap().held, None);
    session.consume(other, full, now, RTT);
    let attempt = Attempt { number: 1, ..FIRST };
    let held = Held { attempt, offset: full + 1 };
    assert_eq!(session.facts(other).unwrap().held, Some(held));
    assert_eq!(session.facts(one).unwrap().held, None);
}
