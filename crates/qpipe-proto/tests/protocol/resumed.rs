//! Two sessions whose connections come and go: whatever is lost, late or said twice on the way,
//! each pipe carries every byte once and ends as if nothing had happened.
//!
//! `QPIPE_CASES` sets how many cases are drawn for each test.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use qpipe_proto::PipeId;
use qpipe_proto::cause::Cause;
use qpipe_proto::fact::{EndKind, Facts, Opener};

use crate::world::{Config, World};

/// How many cases are drawn where `QPIPE_CASES` does not say.
const CASES: u32 = 600;

const SMALL: Config = Config { opens: 4, initial_limit: 4096, memory: [1 << 20; 2] };
/// Node 1 has four floors, and for all that is beyond them what one open may send at once; node 0
/// has enough to send that on each of several pipes.
const STARVED: Config = Config { opens: 1, initial_limit: 16 * 1024, memory: [1 << 20, 32 * 1024] };

/// What happens, in the order of how often: a pipe's life, then faults of the network, then nodes
/// that say goodbye, then nodes that end.
const LIFE: u8 = 60;
const NETWORK: u8 = 90;
const GOODBYE: u8 = 92;
const NODES: u8 = 95;

/// Which operation, and two numbers that it makes use of.
type Step = (u8, u8, u16);

/// At most so many pipes, so that faults meet each of them more than once.
const PIPES: usize = 4;

fn step(world: &mut World, (what, which, amount): Step) {
    let node = usize::from(which & 1);
    let count = world.pipes.len();
    let link = world.links.len().saturating_sub(1 + usize::from(which >> 1) % 3);
    match what {
        0..4 if count < PIPES => {
            let opener = |bit: u16| {
                if amount >> bit & 1 == 0 { Opener::Writer } else { Opener::Reader }
            };
            let size = 1 + usize::from(amount >> 8) % 2;
            let _ = world.open(node, &[opener(0), opener(1)][..size]);
        }
        4..8 => world.answer(node, amount % 8 > 0),
        8..20 => {
            world.say(node);
        }
        20..34 => {
            for _ in 0..1 + amount % 4 {
                world.deliver_control_on(link, node);
            }
        }
        34 => world.pass(Duration::from_millis(u64::from(amount % 1024))),
        35 if amount % 8 == 0 => world.pass(Duration::from_millis(u64::from(amount))),
        36..LIFE => live(world, (what, which, amount)),
        LIFE..65 => world.lose_link(link),
        65..71 => world.notice(node),
        71..81 => {
            world.dial(node);
        }
        81..84 => world.close_older(),
        84..NETWORK => {
            let id = world.pipes.keys().nth(usize::from(which >> 1) % count.max(1)).copied();
            let kept = usize::from(amount % 3);
            let is_known = amount / 8 % 2 == 0;
            id.into_iter().for_each(|id| {
                apart(world, id, |world| match is_known {
                    true => world.drop_stream(id, kept),
                    false => world.cut(id, kept),
                });
            });
        }
        NETWORK..GOODBYE if amount / 64 % 8 == 0 => world.close(node),
        92 if amount / 64 % 8 == 0 => world.give_up(node),
        93 if amount / 64 % 8 == 0 => world.crash(node),
        94 if amount / 64 % 8 == 0 => world.lose(),
        _ => {}
    }
}

/// What the programs at a pipe's ends do, and what becomes of its bytes on their way.
fn live(world: &mut World, (what, which, amount): Step) {
    let count = world.pipes.len();
    let link = world.links.len().saturating_sub(1 + usize::from(amount) % 3);
    let Some(id) = world.pipes.keys().nth(usize::from(which >> 1) % count.max(1)).copied() else {
        return;
    };
    let bytes = u64::from(amount) >> (amount & 7);
    apart(world, id, |world| match what {
        36..41 => {
            world.write(id, bytes);
        }
        41..45 => world.carry(id),
        45..50 => {
            for _ in 0..3 {
                world.deliver_stream_on(link, id, usize::from(what % 2), bytes);
            }
        }
        50..52 => {
            for _ in 0..3 {
                world.deliver_stream(id, bytes);
            }
        }
        52..56 => world.consume(id, bytes),
        56 => world.end(id, EndKind::Eof),
        57 if amount % 4 == 0 => world.end(id, EndKind::Aborted(Cause::WriterDropped)),
        57 if amount % 4 == 1 => world.close_read(id),
        58 => world.release(id),
        59 if amount % 16 == 0 => {
            let pipe = world.pipes.get_mut(&id).unwrap();
            pipe.is_corrupt |= pipe.end.is_none();
        }
        _ => {}
    });
}

/// Does something to one pipe, and sees to it that nothing changes about the others (P7).
fn apart(world: &mut World, id: PipeId, act: impl FnOnce(&mut World)) {
    let others = |world: &World| -> Vec<Option<Facts>> {
        let ids = world.pipes.keys().filter(|other| **other != id);
        ids.flat_map(|id| world.nodes.each_ref().map(|node| node.session.facts(*id).cloned()))
            .collect()
    };
    let before = others(world);
    act(world);
    assert_eq!(before, others(world), "{id} is not alone");
}

/// A run: how rare faults are (one in a power of two), and whether what can be said and sent is so
/// at once; then what happens.
type Run = ((u32, bool), Vec<Step>);

fn run(config: Config, ((calm, is_eager), steps): &Run) {
    let mut world = World::new(config);
    for one in steps {
        let is_fault = !(0..LIFE).contains(&one.0);
        if is_fault && one.2.trailing_zeros() < *calm {
            continue;
        }
        step(&mut world, *one);
        if *is_eager {
            let ids: Vec<PipeId> = world.pipes.keys().copied().collect();
            ids.iter().for_each(|id| world.carry(*id));
            (0..2).for_each(|node| while world.say(node) {});
        }
    }
    world.finish();
}

fn runs(kinds: u8) -> impl Strategy<Value = Run> {
    ((0u32..5, any::<bool>()), vec((0..kinds, any::<u8>(), any::<u16>()), 0..400))
}

fn config() -> ProptestConfig {
    let asked = std::env::var("QPIPE_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(CASES),
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn connections_that_come_and_go_change_nothing(drawn in runs(NETWORK)) {
        run(SMALL, &drawn);
    }

    #[test]
    fn with_no_memory_for_what_comes_streams_are_stopped_and_asked_for_again(
        drawn in runs(NETWORK)
    ) {
        run(STARVED, &drawn);
    }

    #[test]
    fn goodbyes_over_several_connections_are_heard(drawn in runs(GOODBYE)) {
        run(SMALL, &drawn);
    }

    #[test]
    fn nodes_that_end_give_every_pipe_one_end_and_all_memory_back(drawn in runs(NODES)) {
        run(SMALL, &drawn);
    }
}
