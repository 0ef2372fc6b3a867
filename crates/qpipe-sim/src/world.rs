//! One run: two hosts, their programs, the network between them, and the oracle that watches.

mod ends;
mod faults;
mod programs;
mod queue;

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::clock::Time;
use crate::net::{Network, Packet};
use crate::node::Node;
use crate::oracle::{Checked, Oracle, Violation};
use crate::plan::Plan;
use crate::planted::{self, Planted};
use crate::trace::Trace;
use programs::Programs;
use queue::{Due, Queue};

/// How a run is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A bug to have.
    pub planted: Option<Planted>,
    /// Whether to keep what happens, line by line.
    pub verbose: bool,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The hash of everything that happened.
    pub hash: u64,
    /// The promise that was broken, if one was.
    pub failure: Option<Violation>,
    /// How long it took, in its own time.
    pub time: Time,
    /// Bytes that reading programs were handed.
    pub bytes: u64,
    /// What happened, if it was to be kept.
    pub lines: Vec<String>,
}

/// Runs `seed`.
pub fn run(seed: u64, options: Options) -> Outcome {
    run_plan(seed, Plan::new(seed), options)
}

/// Runs `plan`, with the dice of `seed`.
pub fn run_plan(seed: u64, plan: Plan, options: Options) -> Outcome {
    planted::plant(options.planted);
    let mut world = World::new(seed, plan, options);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    if world.trace.is_verbose() {
        for host in 0..2 {
            let text = world.hosts[host].node.as_mut().map(Node::explain);
            world.trace.say(world.now, host, format_args!("{text:?}"));
        }
    }
    let failure = match result {
        Ok(checked) => checked.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let what = format!("a panic: {}", text.unwrap_or_default());
            Some(Violation { promise: "P15", what })
        }
    };
    Outcome {
        hash: world.trace.hash(),
        failure,
        time: world.now,
        bytes: world.programs.delivered(),
        lines: world.trace.into_lines(),
    }
}

struct Host {
    node: Option<Node>,
    /// How often its node was started.
    starts: u64,
    is_paused: bool,
    /// What its socket holds while it stands still.
    socket: Vec<(SocketAddr, Vec<u8>)>,
    /// When it may hear again that nothing listens where it sends.
    refused: Time,
}

struct World {
    seed: u64,
    options: Options,
    plan: Plan,
    now: Time,
    network: Network,
    hosts: [Host; 2],
    programs: Programs,
    oracle: Oracle,
    trace: Trace,
    queue: Queue,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Faults,
    /// Nothing goes wrong any more, and every pipe has to end.
    Calm,
    /// Every pipe has ended; sessions go by Bye, or are left alone.
    Closing {
        since: Time,
    },
    Over,
}

/// Datagrams that the socket of a node that stands still holds.
const SOCKET_PACKETS_MAX: usize = 200;

/// How long a pipe may stand still when the faults have ended: what a dial that was begun before may
/// take, the longest pause between two, and the heartbeat; round trips come on top.
const STILL_MAX: Duration = Duration::from_secs(20);

/// How long an open may wait for a session when the faults have ended.
const OPEN_MAX: Duration = Duration::from_secs(60);

/// How long two nodes may need to part: a session without pipes is not dialled again, but forgotten after
/// a minute.
const PART_MAX: Duration = Duration::from_secs(75);

/// Steps of one run, and of each of its seconds. A run of a minute has a few thousand, a connection at
/// rest about ten a second.
const STEPS_MAX: u64 = 1_000_000;
const STEPS_PER_SECOND_MAX: u64 = 100;

/// Steps at one moment; more is spinning.
const STEPS_AT_ONCE_MAX: u64 = 20_000;

/// An ICMP message is sent at most so often (Linux limits them likewise).
const REFUSAL_EVERY: Duration = Duration::from_secs(1);

impl World {
    fn new(seed: u64, plan: Plan, options: Options) -> World {
        let network = Network::new(seed, &plan.links, &plan.outages);
        let backlog_max = plan.memory[0].max(plan.memory[1]) / 2;
        let mut oracle = Oracle::new(seed, backlog_max);
        if plan.is_clean() {
            // The handshake, and Hellos, and whatever MTU discovery puts before them.
            oracle.prompt(20 * plan.calm_rtt(), plan.calm_rtt() + TOLD_WITHIN);
        }
        let host = || Host {
            node: None,
            starts: 0,
            is_paused: false,
            socket: Vec::new(),
            refused: Duration::ZERO,
        };
        let mut world = World {
            seed,
            options,
            now: Duration::ZERO,
            network,
            hosts: [host(), host()],
            programs: Programs::new(seed, &plan.jobs),
            oracle,
            trace: Trace::new(options.verbose),
            queue: Queue::default(),
            phase: Phase::Faults,
            plan,
        };
        world.queue.push(world.plan.faults_until, Due::FaultsEnd);
        for (at, happening) in world.plan.happenings.clone() {
            world.queue.push(at, Due::Happens(happening));
        }
        world
    }

    fn run(&mut self) -> Checked {
        if self.trace.is_verbose() {
            self.trace.say(self.now, 2, format_args!("{:#?}", self.plan));
        }
        self.start(0)?;
        self.start(1)?;
        if self.plan.both_dial {
            for host in 0..2 {
                if let Some(node) = &mut self.hosts[host].node {
                    node.greet(self.now);
                }
                self.drive(host)?;
            }
        }
        let (mut steps, mut at_once) = (0u64, 0u64);
        while self.phase != Phase::Over {
            let before = self.now;
            self.step()?;
            steps += 1;
            at_once = if self.now > before { 0 } else { at_once + 1 };
            let steps_max = STEPS_MAX + STEPS_PER_SECOND_MAX * self.now.as_secs();
            if steps > steps_max || at_once > STEPS_AT_ONCE_MAX {
                let what = format!("{steps} steps, {at_once} of them at once: it spins");
                return Err(Violation { promise: "P12", what });
            }
            self.advance()?;
        }
        Ok(())
    }

    /// Does what is due next.
    fn step(&mut self) -> Checked {
        let queued = self.queue.next();
        let timeouts = [self.timeout(0), self.timeout(1)];
        let first = [queued, timeouts[0], timeouts[1]].into_iter().flatten().min();
        let Some(at) = first else {
            if matches!(self.phase, Phase::Closing { .. }) {
                return Ok(());
            }
            return Err(Violation { promise: "P16", what: "nothing is due any more".to_owned() });
        };
        self.now = self.now.max(at);
        if queued == Some(at)
            && let Some(due) = self.queue.pop()
        {
            return self.happen(due);
        }
        for (host, timeout) in timeouts.into_iter().enumerate() {
            if timeout == Some(at) {
                self.drive(host)?;
            }
        }
        Ok(())
    }

    fn timeout(&mut self, host: usize) -> Option<Time> {
        let is_paused = self.hosts[host].is_paused;
        let node = self.hosts[host].node.as_mut().filter(|_| !is_paused)?;
        let program = self.programs.wake(host, self.now);
        [node.poll_timeout(), program].into_iter().flatten().min()
    }

    fn happen(&mut self, due: Due) -> Checked {
        match due {
            Due::Arrives(packet) => self.arrive(packet),
            Due::FaultsEnd => self.calm(),
            Due::Happens(_) if self.phase != Phase::Faults => Ok(()),
            Due::Happens(happening) => self.go_wrong(happening),
            Due::Restarts(host) => self.start(host),
            Due::Resumes(host) => self.resume(host),
            Due::Unreachable(host) => {
                if let Some(node) = &mut self.hosts[host].node {
                    node.unreachable(self.now);
                }
                self.drive(host)
            }
        }
    }

    fn arrive(&mut self, packet: Packet) -> Checked {
        let length = packet.bytes.len() as u64;
        let Some(host) = self.network.arrives(self.now, &packet) else {
            self.trace.note(self.now, 2, "lost on the way", length, 0);
            return Ok(());
        };
        self.trace.note(self.now, host, "gets", length, 0);
        let target = &mut self.hosts[host];
        if target.is_paused {
            if target.socket.len() < SOCKET_PACKETS_MAX {
                target.socket.push((packet.from, packet.bytes));
            }
            return Ok(());
        }
        let Some(node) = &mut target.node else {
            let sender = &mut self.hosts[packet.from_host];
            if sender.refused <= self.now {
                sender.refused = self.now + REFUSAL_EVERY;
                let at = self.now + self.plan.links[host].delay;
                self.queue.push(at, Due::Unreachable(packet.from_host));
            }
            return Ok(());
        };
        node.datagram(packet.from, &packet.bytes, self.now);
        self.drive(host)
    }

    /// Lets a host's node and programs do all there is to do.
    fn drive(&mut self, host: usize) -> Checked {
        if self.hosts[host].is_paused {
            return Ok(());
        }
        let peer = self.plan.is_found[1 - host].then(|| self.network.address(1 - host));
        loop {
            let [a, b] = &mut self.hosts;
            let (this, other) = if host == 0 { (a, b) } else { (b, a) };
            let Some(node) = &mut this.node else { return Ok(()) };
            node.set_peer_address(peer);
            let packets = node.drive(self.now);
            let (notes, failures) = node.take_notes();
            for note in notes {
                self.trace.note(self.now, host, note.what, note.numbers.0, note.numbers.1);
            }
            if let Some((promise, what)) = failures.into_iter().next() {
                return Err(Violation { promise, what });
            }
            if node.take_gave_up() {
                self.oracle.excuse_all();
            }
            self.oracle.holds(host, node.committed(), self.plan.memory[host])?;
            let worked = self.programs.step(
                host,
                node,
                other.node.as_ref(),
                &mut self.oracle,
                &mut self.trace,
                self.now,
            )?;
            for (to, bytes) in packets {
                self.send(host, to, bytes);
            }
            if !worked {
                return Ok(());
            }
        }
    }

    fn send(&mut self, host: usize, to: SocketAddr, bytes: Vec<u8>) {
        let length = bytes.len() as u64;
        match self.network.send(self.now, host, to, bytes) {
            Ok(packets) => {
                self.trace.note(self.now, host, "sends", length, packets.len() as u64);
                for (at, packet) in packets {
                    self.queue.push(at, Due::Arrives(packet));
                }
            }
            Err(why) => self.trace.note(self.now, host, why, length, 0),
        }
    }

    /// Looks whether the run comes to its next phase, and whether it should have.
    fn advance(&mut self) -> Checked {
        self.oracle.look(self.now)?;
        let is_done = self.programs.is_done() && self.oracle.is_over();
        match self.phase {
            Phase::Faults if is_done => self.calm(),
            Phase::Calm if is_done => {
                self.phase = Phase::Closing { since: self.now };
                self.trace.note(self.now, 2, "the work is done", 0, 0);
                Ok(())
            }
            Phase::Calm
                if self.now > self.plan.faults_until + OPEN_MAX && !self.programs.is_open() =>
            {
                let what = "an open is neither made nor answered".to_owned();
                Err(Violation { promise: "P18", what })
            }
            Phase::Closing { since } => self.part(since),
            Phase::Calm | Phase::Faults | Phase::Over => Ok(()),
        }
    }

    /// The work is done: nothing of it may be left.
    fn part(&mut self, since: Time) -> Checked {
        let mut left = Vec::new();
        for host in 0..2 {
            if self.plan.says_bye {
                if let Some(node) = self.hosts[host].node.as_mut().filter(|n| n.counts().0 == 0) {
                    node.close(self.now);
                }
                self.drive(host)?;
            }
            let Some(node) = &self.hosts[host].node else { continue };
            let (unsettled, sessions, connections) = node.counts();
            let is_left = if self.plan.says_bye {
                unsettled + sessions + connections > 0
            } else {
                unsettled > 0 || node.committed() != node.reserved()
            };
            if is_left {
                left.push((host, unsettled, sessions, connections, node.committed()));
            }
        }
        if left.is_empty() {
            self.phase = Phase::Over;
            for host in 0..2 {
                let node = self.hosts[host].node.as_ref();
                let leaked = node.map_or(0, |node| node.committed() - node.reserved());
                self.oracle.idle(host, leaked)?;
            }
        } else if self.now > since + PART_MAX + 20 * self.plan.calm_rtt() {
            let what = "(host, pipes, sessions, connections, bytes of memory) are left";
            return Err(Violation { promise: "P16", what: format!("{what}: {left:?}") });
        }
        Ok(())
    }
}

/// How much later than a round trip a writer may hear of its reader's end.
const TOLD_WITHIN: Duration = Duration::from_millis(50);
