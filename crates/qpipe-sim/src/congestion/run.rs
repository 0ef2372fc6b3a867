//! Runs a scene.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::host::Host;
use super::report::LOOK;
use super::{Change, Demand, Report, Scene};
use crate::clock::{self, Time};
use crate::net::{LinkPlan, Network, Packet};

/// Bytes that make the first part of a connection.
const FIRST_BYTES: u64 = 5_000_000;

/// Which bytes are to be sent before anything is: more than can be.
const ALL: u64 = u64::MAX / 2;

#[derive(Debug)]
enum Due {
    Arrives(Packet),
    Begins(usize),
    Bursts(usize),
    Ends(usize),
    Changes(usize),
    Looks,
}

struct World<'a> {
    scene: &'a Scene,
    now: Time,
    hosts: [Host; 2],
    network: Network,
    link: LinkPlan,
    /// What is due when, by number; the number keeps the order of equals.
    due: BinaryHeap<Reverse<(Time, u64)>>,
    events: std::collections::BTreeMap<u64, Due>,
    number: u64,
    /// The handle of each flow at host 0; those at host 1 are numbered as they come.
    handles: Vec<Option<usize>>,
    reports: Vec<Report>,
    /// Tokens of the policer in bytes, and since when.
    tokens: (f64, Time),
}

/// Runs `scene`; a report for each flow.
pub fn run(scene: &Scene) -> Vec<Report> {
    let link = scene.link();
    let mut world = World {
        scene,
        now: Time::ZERO,
        hosts: [Host::new(scene.seed, 0), Host::new(scene.seed, 1)],
        network: Network::new(scene.seed, &[link.clone(), link.clone()], &[]),
        link,
        due: BinaryHeap::new(),
        events: Default::default(),
        number: 0,
        handles: vec![None; scene.flows.len()],
        reports: vec![Report::default(); scene.flows.len()],
        tokens: (scene.policer.map_or(0.0, |policer| policer.1 as f64), Time::ZERO),
    };
    for (n, flow) in scene.flows.iter().enumerate() {
        world.push(flow.begins, Due::Begins(n));
        world.push(flow.ends, Due::Ends(n));
    }
    for (n, change) in scene.changes.iter().enumerate() {
        world.push(change.0, Due::Changes(n));
    }
    world.push(Time::ZERO, Due::Looks);
    while world.step(scene.measured.1) {}
    world.reports
}

impl World<'_> {
    fn push(&mut self, at: Time, due: Due) {
        self.number += 1;
        self.events.insert(self.number, due);
        self.due.push(Reverse((at, self.number)));
    }

    /// What is due next happens; false after the end.
    fn step(&mut self, end: Time) -> bool {
        let event = self.due.peek().map(|Reverse(due)| *due);
        let timer = self.next_timer();
        let is_timer = timer.is_some_and(|timer| event.is_none_or(|event| timer.0 < event.0));
        let at = if is_timer { timer.map(|timer| timer.0) } else { event.map(|event| event.0) };
        let Some(at) = at.filter(|at| *at <= end) else { return false };
        self.now = at.max(self.now);
        if let (true, Some((_, host, id))) = (is_timer, timer) {
            let now = clock::instant(self.now);
            if let Some(end) = self.hosts[host].ends.get_mut(&id) {
                end.quic.handle_timeout(now);
            }
            self.drive(host, id);
        } else if let Some(Reverse((_, number))) = self.due.pop()
            && let Some(due) = self.events.remove(&number)
        {
            self.happen(due);
        }
        true
    }

    fn next_timer(&mut self) -> Option<(Time, usize, usize)> {
        let (stalls, now) = (self.scene.stalls, self.now);
        let awake = |host, at| awake(stalls, host, at);
        let mut next: Option<(Time, usize, usize)> = None;
        for (host, one) in self.hosts.iter_mut().enumerate() {
            for (id, end) in &mut one.ends {
                if let Some(at) = end.due() {
                    let at = awake(host, clock::time(at).max(now));
                    if next.is_none_or(|next| at < next.0) {
                        next = Some((at, host, *id));
                    }
                }
            }
        }
        next
    }

    fn happen(&mut self, due: Due) {
        let now = clock::instant(self.now);
        match due {
            Due::Arrives(packet) => {
                let Some(host) = self.network.arrives(self.now, &packet) else { return };
                if let Some(id) = self.hosts[host].datagram(now, packet.from, &packet.bytes) {
                    self.drive(host, id);
                }
            }
            Due::Begins(flow) => {
                let plan = self.scene.flows[flow];
                let to = self.network.address(1);
                let Some(id) = self.hosts[0].dial(now, to, plan.algorithm) else { return };
                self.handles[flow] = Some(id);
                match plan.demand {
                    Demand::All => self.want(id, ALL),
                    Demand::Bursts(..) => self.push(self.now, Due::Bursts(flow)),
                }
                self.drive(0, id);
            }
            Due::Bursts(flow) => {
                let plan = self.scene.flows[flow];
                let (Demand::Bursts(bytes, every), Some(id)) = (plan.demand, self.handles[flow])
                else {
                    return;
                };
                if self.now < plan.ends {
                    self.want(id, bytes);
                    self.push(self.now + every, Due::Bursts(flow));
                    self.drive(0, id);
                }
            }
            Due::Ends(flow) => {
                if let Some(end) = self.handles[flow].and_then(|id| self.hosts[0].ends.get_mut(&id))
                {
                    end.wanted = 0;
                }
            }
            Due::Changes(n) => self.change(self.scene.changes[n].1),
            Due::Looks => self.look(),
        }
    }

    fn want(&mut self, id: usize, bytes: u64) {
        if let Some(end) = self.hosts[0].ends.get_mut(&id) {
            end.wanted += bytes;
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Rate(rate) => self.link.rate = Some(rate),
            Change::Delay(delay) => self.link.delay = delay,
            Change::Loss(loss) => self.link.loss = loss,
        }
        self.network.heal(&self.link);
    }

    fn look(&mut self) {
        let now = self.now;
        for (flow, report) in self.reports.iter_mut().enumerate() {
            let from = self.handles[flow].and_then(|id| self.hosts[0].ends.get(&id));
            // Both hosts number their connections as they begin.
            let to = self.handles[flow].and_then(|id| self.hosts[1].ends.get(&id));
            report.received.push(to.map_or(0, |end| end.received));
            report.rtt.push(from.map_or(Time::ZERO, |end| end.quic.rtt()));
            if let Some(path) = from.map(|end| end.quic.stats().path) {
                report.lost = path.lost_packets as f64 / path.sent_packets.max(1) as f64;
            }
        }
        self.push(now + LOOK, Due::Looks);
    }

    fn drive(&mut self, host: usize, id: usize) {
        let to = self.network.address(1 - host);
        for bytes in self.hosts[host].drive(clock::instant(self.now), id) {
            if host == 0 && !self.passes(bytes.len()) {
                continue;
            }
            for (at, packet) in self.network.send(self.now, host, to, bytes).unwrap_or_default() {
                let at = awake(self.scene.stalls, 1 - host, at);
                self.push(at, Due::Arrives(packet));
            }
        }
        if host == 1
            && let Some(end) = self.hosts[1].ends.get(&id)
            && end.received >= FIRST_BYTES
            && let Some(flow) = self.handles.iter().position(|handle| *handle == Some(id))
        {
            let begins = self.scene.flows[flow].begins;
            self.reports[flow].first_5mb.get_or_insert(self.now - begins);
        }
    }

    /// Whether the policer lets a packet through.
    fn passes(&mut self, bytes: usize) -> bool {
        let Some((rate, depth)) = self.scene.policer else { return true };
        let (tokens, since) = self.tokens;
        let refill = (self.now - since).as_secs_f64() * rate as f64 / 8.0;
        let tokens = (tokens + refill).min(depth as f64);
        let passes = tokens >= bytes as f64;
        self.tokens = (if passes { tokens - bytes as f64 } else { tokens }, self.now);
        passes
    }
}

/// When a host that wants to act at `at` can.
fn awake(stalls: Option<(Duration, Duration)>, host: usize, at: Time) -> Time {
    let Some((part, every)) = stalls else { return at };
    // The two hosts do not keep step.
    let shift = every * host as u32 / 3;
    let phase = Duration::from_nanos(((at + shift).as_nanos() % every.as_nanos()) as u64);
    if phase < part { at + (part - phase) } else { at }
}
