//! One pipe, every order in which what happens can happen.

use std::collections::BTreeSet;

use qpipe_proto::cause::Cause;
use qpipe_proto::fact::{EndKind, Opener};
use qpipe_proto::{PipeId, ReadOutcome, WriteOutcome};

use crate::world::{Config, World};

const CONFIG: Config = Config { opens: 2, initial_limit: 4096, memory: [1 << 20; 2] };

#[derive(Clone, Copy, Debug)]
enum Act {
    Accept,
    CloseRead,
    Consume,
    End(EndKind),
    Refuse,
    Write,
}

use Act::{Accept, CloseRead, Consume, End, Refuse, Write};

const EOF: Act = End(EndKind::Eof);
const ABORT: Act = End(EndKind::Aborted(Cause::WriterDropped));

/// The next thing that happens.
#[derive(Clone, Copy, Debug)]
enum Next {
    Act(usize, Act),
    Control(usize),
    Stream,
}

/// What the nodes do, each in this order, after node 0 opened the pipe.
struct Script<'a> {
    opener: Opener,
    acts: [&'a [Act]; 2],
}

/// A run of a script.
struct Run<'a> {
    script: &'a Script<'a>,
    world: World,
    id: PipeId,
    done: [usize; 2],
}

impl Run<'_> {
    fn new<'a>(script: &'a Script<'a>) -> Run<'a> {
        let mut world = World::new(CONFIG);
        let id = world.open(0, &[script.opener]).unwrap()[0];
        let mut run = Run { script, world, id, done: [0, 0] };
        run.send();
        run
    }

    /// What is said and sent is on its way at once; when it arrives is the question.
    fn send(&mut self) {
        self.world.carry(self.id);
        for node in 0..2 {
            while self.world.say(node) {}
        }
    }

    /// What can happen now.
    fn options(&self) -> Vec<Next> {
        let mut options = Vec::new();
        for node in 0..2 {
            let next = self.script.acts[node].get(self.done[node]);
            options
                .extend(next.filter(|act| self.can(node, **act)).map(|act| Next::Act(node, *act)));
            if self.world.has_control(node) {
                options.push(Next::Control(node));
            }
        }
        if self.world.has_stream(self.id) {
            options.push(Next::Stream);
        }
        options
    }

    fn step(&mut self, next: Next) {
        match next {
            Next::Act(node, act) => {
                self.done[node] += 1;
                self.act(node, act);
            }
            Next::Control(node) => drop(self.world.deliver_control(node)),
            Next::Stream => drop(self.world.deliver_stream(self.id, u64::MAX)),
        }
        self.send();
    }

    /// All there is to know: two runs with the same state have the same future.
    fn state(&self) -> String {
        let sessions = self.world.nodes.each_ref().map(|node| &node.session);
        let pipe = &self.world.pipes[&self.id];
        format!("{:?} {pipe:?} {:?} {sessions:?}", self.done, self.world.links)
    }

    fn can(&self, node: usize, act: Act) -> bool {
        match act {
            Accept | Refuse => !self.world.nodes[node].offers.is_empty(),
            Consume => {
                let pipe = &self.world.pipes[&self.id];
                pipe.may_read() && pipe.received > pipe.consumed
            }
            Write | End(_) if node == 1 => self.world.pipes[&self.id].is_accepted,
            CloseRead if node == 1 => self.world.pipes[&self.id].is_accepted,
            _ => true,
        }
    }

    fn act(&mut self, node: usize, act: Act) {
        match act {
            Accept => self.world.answer(node, true),
            Refuse => self.world.answer(node, false),
            CloseRead => self.world.close_read(self.id),
            Consume => self.world.consume(self.id, u64::MAX),
            End(kind) => self.world.end(self.id, kind),
            Write => {
                self.world.write(self.id, 5);
            }
        }
    }
}

/// What the writer and the reader saw, in the end.
type Seen = (Option<WriteOutcome>, Option<ReadOutcome>);

/// Runs the script in every order, but from no state twice; returns what was seen, and how many
/// states there are.
fn explore(script: &Script<'_>) -> (Vec<Seen>, usize) {
    // Which of how many options was taken at each step.
    let mut path: Vec<(usize, usize)> = Vec::new();
    let (mut seen, mut states) = (Vec::new(), BTreeSet::new());
    loop {
        let mut run = Run::new(script);
        for (taken, _) in &path {
            run.step(run.options()[*taken]);
        }
        let mut is_new = states.insert(run.state());
        while let Some(next) = run.options().first().copied().filter(|_| is_new) {
            path.push((0, run.options().len()));
            run.step(next);
            is_new = states.insert(run.state());
        }
        if is_new {
            run.world.finish();
            let pipe = &run.world.pipes[&run.id];
            let outcome = (pipe.write_outcome, pipe.read_outcome);
            if !seen.contains(&outcome) {
                seen.push(outcome);
            }
        }
        // The last step that has another option takes it next.
        while path.pop_if(|(taken, options)| *taken + 1 == *options).is_some() {}
        let Some((taken, _)) = path.last_mut() else { return (seen, states.len()) };
        *taken += 1;
    }
}

const COMPLETE: Option<WriteOutcome> = Some(WriteOutcome::Complete { length: 5 });
const LEFT: Option<ReadOutcome> = Some(ReadOutcome::Closed(Cause::ReaderClosed));
const DROPPED: Option<ReadOutcome> = Some(ReadOutcome::Aborted(Cause::WriterDropped));

fn broken(consumed: u64) -> Option<WriteOutcome> {
    Some(WriteOutcome::Broken { cause: Cause::ReaderClosed, consumed })
}

fn dropped(consumed: u64) -> Option<WriteOutcome> {
    Some(WriteOutcome::Failed { cause: Cause::WriterDropped, consumed })
}

fn check(opener: Opener, acts: [&[Act]; 2], allowed: &[Seen]) {
    let (mut seen, states) = explore(&Script { opener, acts });
    assert!(states > 10, "{states} states of {acts:?}");
    for outcome in &seen {
        assert!(allowed.contains(outcome), "{acts:?}: {outcome:?}");
    }
    seen.retain(|outcome| allowed.contains(outcome));
    assert_eq!(seen.len(), allowed.len(), "{acts:?}: only {seen:?}");
}

#[test]
fn a_pipe_that_is_written_ended_and_read_is_complete_in_every_order() {
    let eof = [(COMPLETE, Some(ReadOutcome::Eof))];
    check(Opener::Writer, [&[Write, EOF], &[Accept, Consume]], &eof);
    check(Opener::Reader, [&[Consume], &[Accept, Write, EOF]], &eof);
}

#[test]
fn an_end_and_a_closed_cross_in_every_order() {
    let nothing = [(broken(0), LEFT)];
    check(Opener::Writer, [&[Write, EOF], &[Accept, CloseRead]], &nothing);
    check(Opener::Reader, [&[CloseRead], &[Accept, Write, EOF]], &nothing);
}

#[test]
fn an_end_crosses_the_closed_of_a_reader_that_took_everything() {
    let allowed = [(COMPLETE, Some(ReadOutcome::Eof)), (COMPLETE, LEFT), (broken(5), LEFT)];
    check(Opener::Writer, [&[Write, EOF], &[Accept, Consume, CloseRead]], &allowed);
    check(Opener::Reader, [&[Consume, CloseRead], &[Accept, Write, EOF]], &allowed);
}

#[test]
fn an_abort_crosses_the_closed_of_the_reader() {
    let allowed = [(broken(5), LEFT), (dropped(5), DROPPED)];
    check(Opener::Writer, [&[Write, ABORT], &[Accept, Consume, CloseRead]], &allowed);
    check(Opener::Reader, [&[Consume, CloseRead], &[Accept, Write, ABORT]], &allowed);
}

#[test]
fn a_refusal_crosses_the_closed_of_the_reader() {
    let cause = Cause::NotAllowed;
    let allowed = [(None, Some(ReadOutcome::Refused(cause))), (None, LEFT)];
    check(Opener::Reader, [&[CloseRead], &[Refuse]], &allowed);
}

#[test]
fn a_refusal_crosses_bytes_and_the_end() {
    let refused = (Some(WriteOutcome::Refused(Cause::NotAllowed)), None);
    check(Opener::Writer, [&[Write, EOF], &[Refuse]], &[refused]);
    check(Opener::Writer, [&[Write, ABORT], &[Refuse]], &[refused]);
}
