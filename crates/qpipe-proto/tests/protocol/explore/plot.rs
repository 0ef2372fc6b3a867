//! What may happen in a search, and how often.

use qpipe_proto::PipeId;
use qpipe_proto::cause::Cause;
use qpipe_proto::fact::{EndKind, Opener};

use crate::world::{Config, World};

const CONFIG: Config = Config { opens: 2, initial_limit: 1, memory: [1 << 20; 2] };

/// How often what is not in the nature of things may still happen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// A connection is lost.
    pub(super) losses: u8,
    /// Another is dialled, whether the older one lives or not.
    pub(super) dials: u8,
    /// A stream is cut on a connection that lives.
    pub(super) cuts: u8,
    /// A message is heard twice.
    pub(super) echoes: u8,
    /// A node gives up, or is no more.
    pub(super) ends: u8,
    /// A node says goodbye.
    pub(super) goodbyes: u8,
}

/// What a search is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plot {
    /// The pipes of a group, by which end node 0, which opens them, holds.
    openers: &'static [Opener],
    /// How many the writer has at most, each written alone: the second one of a writer that opens
    /// waits for a Limit.
    bytes: u64,
    is_corrupt: bool,
    faults: Faults,
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Answer(usize, bool),
    CloseRead(usize),
    Consume(usize),
    Crash(usize),
    Cut(usize, bool),
    Deliver(usize, usize),
    Dial(usize),
    Echo(usize, usize),
    End(usize, EndKind),
    GiveUp(usize),
    Goodbye(usize),
    HearGone(usize),
    Lose(usize),
    Stream(usize, PipeId, usize),
    Write(usize),
}

/// A run of a plot.
pub(super) struct Story {
    pub(super) world: World,
    pub(super) ids: Vec<PipeId>,
    pub(super) left: Faults,
    bytes: u64,
}

const WRITER: &[Opener] = &[Opener::Writer];
const READER: &[Opener] = &[Opener::Reader];

impl Plot {
    pub(super) fn of_one_pipe() -> Vec<Plot> {
        let none = Faults::default();
        let faults = [
            Faults { ends: 1, ..none },
            Faults { cuts: 1, ..none },
            Faults { echoes: 1, ..none },
            Faults { goodbyes: 1, ..none },
            Faults { dials: 1, ..none },
            Faults { losses: 1, dials: 1, ..none },
            Faults { losses: 1, dials: 1, cuts: 1, ..none },
            Faults { losses: 1, dials: 1, echoes: 1, ..none },
            Faults { losses: 2, dials: 2, ..none },
            Faults { ends: 1, dials: 1, ..none },
            Faults { goodbyes: 1, dials: 1, losses: 1, ..none },
        ];
        let mut plots = Vec::new();
        for openers in [WRITER, READER] {
            let plot = Plot { openers, bytes: 1, is_corrupt: false, faults: none };
            plots.push(Plot { bytes: 2, ..plot });
            plots.extend(faults.map(|faults| Plot { faults, ..plot }));
            plots.push(Plot { is_corrupt: true, faults: faults[0], ..plot });
        }
        plots
    }

    /// What is rare only where content is corrupted is looked for more thoroughly.
    pub(super) fn width(&self, width: usize) -> usize {
        if self.is_corrupt { width.saturating_mul(3) } else { width }
    }

    pub(super) fn of_two_pipes() -> Vec<Plot> {
        let faults = Faults { losses: 1, dials: 1, ..Faults::default() };
        let groups: [&[Opener]; 2] =
            [&[Opener::Writer, Opener::Reader], &[Opener::Writer, Opener::Writer]];
        groups.map(|openers| Plot { openers, bytes: 1, is_corrupt: false, faults }).to_vec()
    }
}

impl Story {
    pub(super) fn new(plot: &Plot) -> Story {
        let mut world = World::new(CONFIG);
        let ids = world.open(0, plot.openers).unwrap();
        ids.iter().for_each(|id| world.pipes.get_mut(id).unwrap().is_corrupt = plot.is_corrupt);
        let mut story = Story { world, ids, left: plot.faults, bytes: plot.bytes };
        story.send();
        story
    }

    pub(super) fn replay(plot: &Plot, path: &[Act]) -> Story {
        let mut story = Story::new(plot);
        path.iter().for_each(|act| story.act(*act));
        story
    }

    /// What can be said is said once the message before has arrived, as on a slow connection; what
    /// can be sent is sent at once.
    fn send(&mut self) {
        for node in 0..2 {
            if self.world.nodes[node].session.poll_timeout().is_some_and(|at| at <= World::soon()) {
                self.world.tick(node);
            }
        }
        self.ids.iter().for_each(|id| self.world.carry(*id));
        for node in 0..2 {
            while !self.world.is_talking(node) && self.world.say(node) {}
        }
    }

    /// What can happen now.
    pub(super) fn acts(&self) -> Vec<Act> {
        let mut acts = Vec::new();
        (0..self.ids.len()).for_each(|pipe| self.acts_of_pipe(pipe, &mut acts));
        (0..2).for_each(|node| self.acts_of_node(node, &mut acts));
        for (index, link) in self.world.links.iter().enumerate() {
            for node in 0..2 {
                if link.has_control(node) {
                    acts.push(Act::Deliver(index, node));
                    acts.extend((self.left.echoes > 0).then_some(Act::Echo(index, node)));
                }
            }
            if !link.is_dead && self.left.losses > 0 {
                acts.push(Act::Lose(index));
            }
        }
        acts
    }

    fn acts_of_pipe(&self, index: usize, acts: &mut Vec<Act>) {
        let (world, id) = (&self.world, self.ids[index]);
        let pipe = &world.pipes[&id];
        let (writer, reader) = (&world.nodes[pipe.writer], &world.nodes[1 - pipe.writer]);
        let may_write = pipe.opener == pipe.writer || pipe.is_accepted;
        if may_write && pipe.end.is_none() && pipe.write_outcome.is_none() && !writer.is_crashed {
            acts.extend((pipe.written < self.bytes).then_some(Act::Write(index)));
            acts.push(Act::End(index, EndKind::Eof));
            let abort = Act::End(index, EndKind::Aborted(Cause::WriterDropped));
            acts.extend((!pipe.is_corrupt).then_some(abort));
        }
        if pipe.may_read() && pipe.read_outcome.is_none() && !reader.is_crashed {
            acts.extend((!pipe.is_corrupt).then_some(Act::CloseRead(index)));
            acts.extend((pipe.received > pipe.consumed).then_some(Act::Consume(index)));
        }
        for (index, link) in world.links.iter().enumerate() {
            acts.extend((0..link.carries(id)).map(|nth| Act::Stream(index, id, nth)));
        }
        if self.left.cuts > 0 && world.has_stream_open(id) {
            acts.extend([Act::Cut(index, false), Act::Cut(index, true)]);
        }
    }

    fn acts_of_node(&self, node: usize, acts: &mut Vec<Act>) {
        let (world, left) = (&self.world, &self.left);
        let [side, peer] = [&world.nodes[node], &world.nodes[1 - node]];
        if side.is_crashed {
            return;
        }
        if !side.offers.is_empty() {
            acts.extend([Act::Answer(node, true), Act::Answer(node, false)]);
        }
        if side.is_over {
            return;
        }
        acts.extend((peer.is_over || peer.is_crashed).then_some(Act::HearGone(node)));
        if left.ends > 0 {
            acts.extend([Act::GiveUp(node), Act::Crash(node)]);
        }
        acts.extend((left.dials > 0 && world.may_dial(node)).then_some(Act::Dial(node)));
        acts.extend((left.goodbyes > 0).then_some(Act::Goodbye(node)));
    }

    pub(super) fn act(&mut self, act: Act) {
        let world = &mut self.world;
        match act {
            Act::Answer(node, accept) => world.answer(node, accept),
            Act::CloseRead(pipe) => world.close_read(self.ids[pipe]),
            Act::Consume(pipe) => world.consume(self.ids[pipe], 1),
            Act::Crash(node) => {
                self.left.ends -= 1;
                world.crash(node);
            }
            Act::Cut(pipe, is_known) => {
                self.left.cuts -= 1;
                match is_known {
                    true => world.drop_stream(self.ids[pipe], 0),
                    false => world.cut(self.ids[pipe], 0),
                }
            }
            Act::Deliver(link, node) => {
                world.deliver_control_on(link, node);
            }
            Act::Dial(node) => {
                self.left.dials -= 1;
                world.dial(node);
            }
            Act::Echo(link, node) => {
                self.left.echoes -= 1;
                world.links[link].echo(node);
            }
            Act::End(pipe, kind) => world.end(self.ids[pipe], kind),
            Act::GiveUp(node) => {
                self.left.ends -= 1;
                world.give_up(node);
            }
            Act::Goodbye(node) => {
                self.left.goodbyes -= 1;
                world.close(node);
            }
            Act::HearGone(node) => world.give_up(node),
            Act::Lose(link) => {
                self.left.losses -= 1;
                world.lose_link(link);
                (0..2).for_each(|node| world.notice(node));
            }
            Act::Stream(link, id, nth) => {
                world.deliver_stream_on(link, id, nth, 1);
            }
            Act::Write(pipe) => {
                world.write(self.ids[pipe], 1);
            }
        }
        self.send();
    }
}
