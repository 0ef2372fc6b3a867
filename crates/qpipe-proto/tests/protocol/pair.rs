//! Two sessions and whatever may happen between them.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use qpipe_proto::cause::Cause;
use qpipe_proto::fact::{EndKind, Opener};
use qpipe_proto::limits::{CONSUMED_DELAY_MS, FLOOR_BYTES, IN_BAND_DELAY_MS, PIPE_BUF};
use qpipe_proto::wire::ControlMessage;
use qpipe_proto::{PipeId, ReadOutcome, WriteOutcome};

use crate::world::{Config, RTT, World};

const SMALL: Config = Config { opens: 4, initial_limit: 4096, memory: [1 << 20; 2] };
const TIGHT: Config = Config { opens: 2, initial_limit: 6000, memory: [48 * 1024; 2] };
const LARGE: Config = Config { opens: 256, initial_limit: 16 * 1024, memory: [64 << 20; 2] };

/// Which operation, and two numbers that it makes use of.
type Step = (u8, u8, u16);

/// Faults of the network and the nodes, beyond delay and reordering.
const FAULTS: u8 = 60;

/// How many operations there are.
const ALL: u8 = 71;

fn step(world: &mut World, (what, which, amount): Step) {
    let node = usize::from(which & 1);
    let count = world.pipes.len();
    let recent = usize::from(which >> 1) % count.clamp(1, 6);
    let link = world.links.len().saturating_sub(1 + usize::from(amount % 3));
    let id: Option<PipeId> = world.pipes.keys().rev().nth(recent).copied();
    let opener = |bit: u16| if amount >> bit & 1 == 0 { Opener::Writer } else { Opener::Reader };
    match (what, id) {
        (0..4, _) => {
            let size = 1 + usize::from(amount >> 8) % 2;
            let _ = world.open(node, &[opener(0), opener(1)][..size]);
        }
        (4..9, _) => world.answer(node, amount % 4 > 0),
        (9..22, _) => {
            world.say(node);
        }
        (22..28, _) => {
            world.deliver_control(node);
        }
        (28..34, _) => {
            world.deliver_control_on(link, node);
        }
        (34..37, _) => world.pass(Duration::from_millis(u64::from(amount % 1024))),
        (37..43, Some(id)) => {
            world.write(id, 4 * u64::from(amount));
        }
        (43..45, Some(id)) => world.end(id, EndKind::Eof),
        (45, Some(id)) => world.end(id, EndKind::Aborted(Cause::WriterDropped)),
        (46..49, Some(id)) => world.carry(id),
        (49..52, Some(id)) => {
            world.deliver_stream(id, 4 * u64::from(amount));
        }
        (52..54, Some(id)) => {
            world.deliver_stream_on(link, id, usize::from(which % 2), 4 * u64::from(amount));
        }
        (54..57, Some(id)) => world.consume(id, 4 * u64::from(amount)),
        (57, Some(id)) => world.close_read(id),
        (58..60, Some(id)) => world.release(id),
        (FAULTS, Some(id)) => {
            let pipe = world.pipes.get_mut(&id).unwrap();
            pipe.is_corrupt |= pipe.end.is_none();
        }
        (61, Some(id)) => world.cut(id, usize::from(amount % 3)),
        (62, _) if amount % 2 == 0 => world.lose_link(link),
        (63..65, _) => world.notice(node),
        (65..68, _) => {
            world.dial(node);
        }
        (68, _) => world.close_older(),
        (69, _) if amount % 64 == 0 => world.close(node),
        (70, _) if amount % 64 == 0 => world.lose(),
        (70, _) if amount % 64 == 1 => world.give_up(node),
        (70, _) if amount % 64 == 2 => world.crash(node),
        _ => {}
    }
}

fn run(config: Config, steps: &[Step]) {
    let mut world = World::new(config);
    for one in steps {
        step(&mut world, *one);
    }
    world.finish();
}

fn steps(kinds: u8) -> impl Strategy<Value = Vec<Step>> {
    vec((0..kinds, any::<u8>(), any::<u16>()), 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn without_faults_every_pipe_ends_as_it_should(steps in steps(FAULTS)) {
        run(SMALL, &steps);
    }

    #[test]
    fn with_faults_no_end_is_wrong_and_everything_settles(steps in steps(ALL)) {
        run(SMALL, &steps);
    }

    #[test]
    fn with_hardly_any_memory_everything_settles(steps in steps(ALL)) {
        run(TIGHT, &steps);
    }

    #[test]
    fn with_ample_memory_everything_settles(steps in steps(ALL)) {
        run(LARGE, &steps);
    }
}

/// A pipe from node 0 to node 1, accepted.
fn accepted(config: Config, opener: Opener) -> (World, PipeId) {
    let mut world = World::new(config);
    let from = if opener == Opener::Writer { 0 } else { 1 };
    let id = world.open(from, &[opener]).unwrap()[0];
    talk(&mut world);
    world.answer(1 - from, true);
    talk(&mut world);
    (world, id)
}

/// Everything said is heard.
fn talk(world: &mut World) {
    while (0..2).fold(false, |any, node| any | world.say(node) | world.deliver_control(node)) {}
}

fn flow(world: &mut World, id: PipeId) {
    world.carry(id);
    while world.deliver_stream(id, u64::MAX) {}
}

#[test]
fn a_writer_at_the_floor_always_gets_room_for_an_atomic_write() {
    // One floor each, and nothing left in the pool to grow from.
    let (mut world, id) = accepted(
        Config { opens: 1, initial_limit: 4096, memory: [2 * FLOOR_BYTES; 2] },
        Opener::Writer,
    );
    for size in [600, 700, 1, 4096, 500, 3000, 4096, 4095, 4096] {
        assert_eq!(world.write(id, size), size, "room for {size}");
        flow(&mut world, id);
        world.consume(id, u64::MAX);
        talk(&mut world);
        world.pass(Duration::from_millis(60));
        talk(&mut world);
    }
    world.finish();
}

#[test]
fn a_fast_reader_gets_a_wider_window_and_an_idle_writer_gives_it_back() {
    let (mut world, id) = accepted(LARGE, Opener::Writer);
    for _ in 0..40 {
        world.write(id, u64::MAX >> 8);
        flow(&mut world, id);
        world.pass(Duration::from_millis(20));
        world.consume(id, u64::MAX);
        talk(&mut world);
    }
    let wide = world.nodes[0].session.write_window(id);
    assert!(wide > 1 << 20, "{wide} bytes");
    let before = world.nodes[1].budget.committed();
    world.pass(Duration::from_secs(3));
    talk(&mut world);
    let narrow = world.nodes[0].session.write_window(id);
    assert!(narrow <= 64 * 1024, "{narrow} bytes");
    assert!(world.nodes[1].budget.committed().1 < before.1);
    assert!(world.write(id, 5000) == 5000);
    world.finish();
}

#[test]
fn a_limit_that_crosses_what_was_returned_makes_it_void() {
    let (mut world, id) = accepted(LARGE, Opener::Writer);
    for _ in 0..10 {
        world.write(id, u64::MAX >> 8);
        flow(&mut world, id);
        world.consume(id, u64::MAX);
        talk(&mut world);
    }
    // The writer gives back while the reader's next Limit is on its way.
    let half = world.nodes[0].session.write_window(id) / 2;
    world.write(id, half);
    flow(&mut world, id);
    world.pass(Duration::from_secs(3));
    world.say(0);
    world.consume(id, u64::MAX);
    world.say(1);
    assert!(world.has_control(0) && world.has_control(1), "they cross");
    world.deliver_control(1);
    world.deliver_control(0);
    assert!(world.nodes[0].session.write_window(id) > half);
    assert_eq!(world.write(id, half + 1), half + 1);
    world.finish();
    assert_eq!(world.pipes[&id].read_outcome, Some(ReadOutcome::Eof));
}

#[test]
fn what_is_corrupted_is_an_error_at_both_ends() {
    let (mut world, id) = accepted(SMALL, Opener::Writer);
    world.write(id, 100);
    world.pipes.get_mut(&id).unwrap().is_corrupt = true;
    world.finish();
    let pipe = &world.pipes[&id];
    assert_eq!(pipe.read_outcome, Some(ReadOutcome::Corrupt));
    assert!(matches!(
        pipe.write_outcome,
        Some(WriteOutcome::Failed { cause: Cause::Corrupt, consumed: 0 | 100 })
    ));
}

#[test]
fn a_stream_cut_before_its_trailer_is_no_eof_and_is_asked_for_again() {
    for kept in 0..3 {
        let (mut world, id) = accepted(SMALL, Opener::Writer);
        world.write(id, 100);
        world.carry(id);
        world.deliver_stream(id, 100);
        world.deliver_stream(id, 60);
        world.end(id, EndKind::Eof);
        world.carry(id);
        world.cut(id, kept);
        talk(&mut world);
        while world.deliver_stream(id, u64::MAX) {}
        world.consume(id, u64::MAX);
        let is_lost = kept < 2;
        assert_eq!(world.pipes[&id].read_outcome.is_none(), is_lost, "the trailer");
        // The reader's node asks for another stream, and so hears of the end.
        talk(&mut world);
        let pipe = &world.pipes[&id];
        assert_eq!(pipe.received, if kept == 0 { 60 } else { 100 });
        let is_whole = pipe.received == 100;
        assert_eq!(pipe.read_outcome, is_whole.then_some(ReadOutcome::Eof));
        world.finish();
        let pipe = &world.pipes[&id];
        assert_eq!(pipe.read_outcome, Some(ReadOutcome::Eof));
        assert_eq!(pipe.write_outcome, Some(WriteOutcome::Complete { length: 100 }));
    }
}

/// A pipe that was opened, written and closed, of which nothing was sent yet.
fn short() -> (World, PipeId) {
    let mut world = World::new(SMALL);
    talk(&mut world);
    let id = world.open(0, &[Opener::Writer]).unwrap()[0];
    world.write(id, 10);
    world.end(id, EndKind::Eof);
    (world, id)
}

/// Says everything that is to be said on the control stream by now; returns how many pipes it was
/// about, by side.
fn says(world: &mut World) -> [usize; 2] {
    std::array::from_fn(|node| {
        let said = std::iter::from_fn(|| world.nodes[node].session.poll_message());
        said.map(|message| match message {
            ControlMessage::Facts(facts) => facts.pipes.len(),
            _ => 0,
        })
        .sum()
    })
}

#[test]
fn what_a_stream_tells_is_told_on_the_control_stream_only_if_it_is_not_heard_of() {
    // Given: a pipe whose open and end are on its stream.
    let (mut world, id) = short();
    world.carry(id);

    // Then: nothing of it waits for the control stream, until it has been too long.
    assert_eq!(says(&mut world), [0, 0]);
    world.pass(Duration::from_millis(IN_BAND_DELAY_MS));
    assert_eq!(says(&mut world), [1, 0]);
    world.pass(Duration::from_secs(1));
    assert_eq!(says(&mut world), [0, 0]);
}

#[test]
fn an_end_in_band_is_not_told_of_a_pipe_before_its_open() {
    // Given: an open on a stream that does not arrive, and an end that is on none.
    let mut world = World::new(SMALL);
    let id = world.open(0, &[Opener::Writer]).unwrap()[0];
    world.write(id, 10);
    world.carry(id);
    world.end(id, EndKind::Eof);

    // When: the end is told on the control stream.
    talk(&mut world);

    // Then: the open was told with it.
    assert!(world.nodes[1].session.facts(id).is_some_and(|facts| facts.end.is_some()));
    world.answer(1, true);
    world.finish();
    assert_eq!(world.pipes[&id].write_outcome, Some(WriteOutcome::Complete { length: 10 }));
}

#[test]
fn of_what_was_answered_nothing_is_told_again() {
    let (mut world, id) = short();
    flow(&mut world, id);
    world.answer(1, true);
    world.consume(id, u64::MAX);

    // Both sides are through with it after what the reader's node says, and one Settled.
    assert!(world.say(1) && world.deliver_control(1));
    assert_eq!(world.pipes[&id].write_outcome, Some(WriteOutcome::Complete { length: 10 }));
    world.pass(Duration::from_millis(2 * IN_BAND_DELAY_MS));
    assert_eq!(says(&mut world), [0, 0]);
}

#[test]
fn a_stream_cut_before_the_open_is_answered_ends_nothing() {
    for is_accepted in [false, true] {
        let mut world = World::new(SMALL);
        let id = world.open(0, &[Opener::Writer]).unwrap()[0];
        world.write(id, 10);
        world.carry(id);
        world.deliver_stream(id, 1);
        world.cut(id, 0);
        world.deliver_stream(id, 1);
        world.end(id, EndKind::Eof);
        talk(&mut world);
        assert_eq!(world.pipes[&id].write_outcome, None);
        world.answer(1, is_accepted);
        world.finish();
        let refused = WriteOutcome::Refused(Cause::NotAllowed);
        let complete = WriteOutcome::Complete { length: 10 };
        let expected = if is_accepted { complete } else { refused };
        assert_eq!(world.pipes[&id].write_outcome, Some(expected));
    }
}

#[test]
fn a_session_lost_after_all_bytes_and_the_end_are_there_is_still_eof() {
    let (mut world, id) = accepted(SMALL, Opener::Writer);
    world.write(id, 100);
    world.end(id, EndKind::Eof);
    flow(&mut world, id);
    world.lose();
    world.finish();
    let pipe = &world.pipes[&id];
    assert_eq!(pipe.read_outcome, Some(ReadOutcome::Eof));
    assert!(matches!(
        pipe.write_outcome,
        Some(WriteOutcome::Failed { cause: Cause::Lost, consumed: 0 })
    ));
}

#[test]
fn a_session_lost_before_the_end_is_never_eof() {
    for opener in [Opener::Writer, Opener::Reader] {
        let (mut world, id) = accepted(SMALL, opener);
        world.write(id, 100);
        flow(&mut world, id);
        world.lose();
        world.finish();
        assert_eq!(world.pipes[&id].read_outcome, Some(ReadOutcome::Aborted(Cause::Lost)));
    }
}

#[test]
fn opens_offered_before_the_session_was_lost_have_ends_that_say_so() {
    let mut world = World::new(SMALL);
    let ids = world.open(0, &[Opener::Reader, Opener::Writer]).unwrap();
    talk(&mut world);
    world.lose();
    world.answer(1, true);
    let session = &world.nodes[1].session;
    let (cause, consumed) = (Cause::Lost, 0);
    assert_eq!(session.write_outcome(ids[0]), Some(WriteOutcome::Failed { cause, consumed }));
    assert_eq!(session.read_outcome(ids[1]), Some(ReadOutcome::Aborted(cause)));
    assert_eq!(world.nodes[1].budget.committed().0, 2 * FLOOR_BYTES);
}

#[test]
fn both_say_goodbye_and_only_then_is_it_finished() {
    let (mut world, id) = accepted(SMALL, Opener::Writer);
    world.write(id, 10);
    world.close(0);
    talk(&mut world);
    assert!(!world.nodes[0].is_finished, "a pipe is alive");
    world.finish();
    assert!(world.nodes[0].is_finished && !world.nodes[1].is_finished);
    assert_eq!(world.pipes[&id].read_outcome, Some(ReadOutcome::Eof));
    assert!(world.open(1, &[Opener::Writer]).is_err());
}

#[test]
fn an_open_that_crosses_a_goodbye_fails_and_settles() {
    let mut world = World::new(SMALL);
    world.close(0);
    world.say(0);
    let id = world.open(1, &[Opener::Writer]).unwrap()[0];
    world.say(1);
    talk(&mut world);
    let (cause, consumed) = (Cause::Stopping, 0);
    assert_eq!(world.pipes[&id].write_outcome, Some(WriteOutcome::Failed { cause, consumed }));
    world.finish();
    assert!(world.nodes[0].is_finished);
}

#[test]
fn a_writer_that_may_wait_for_its_own_capacity_hears_soon_of_what_is_consumed() {
    let told_after = |bytes: u64| {
        let (mut world, id) = accepted(SMALL, Opener::Writer);
        world.write(id, bytes);
        flow(&mut world, id);
        world.consume(id, u64::MAX);
        world.nodes[1].session.poll_timeout().unwrap() - world.now
    };

    assert_eq!(told_after(PIPE_BUF), RTT / 4);
    // A trickle is worth no message of its own.
    assert_eq!(told_after(PIPE_BUF - 1), Duration::from_millis(CONSUMED_DELAY_MS));
}
