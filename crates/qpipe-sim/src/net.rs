//! The simulated network: one link for each direction, and the hosts' addresses.
//!
//! A packet is serialised first (rate and queue) and lost after, so that what is lost has taken its
//! time on the wire. Addresses are all there is to routing: what is sent to an address that its host
//! no longer has is gone.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::Time;
use crate::rng::Rng;

/// How one direction treats packets.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkPlan {
    /// Bits in a second; `None` takes no time.
    pub rate: Option<u64>,
    /// Packets that wait to be serialised; more are dropped.
    pub queue: usize,
    /// On the way, at least.
    pub delay: Duration,
    /// Added to the delay, up to this.
    pub jitter: Duration,
    /// The part of packets that is lost, one by one.
    pub loss: f64,
    /// The part of packets that begins a burst of losses, and the longest burst.
    pub burst: (f64, u64),
    /// The part of packets that arrives twice.
    pub duplicate: f64,
    /// The part of packets that falls behind others, and behind how many at most.
    pub reorder: (f64, u64),
    /// The part of packets in which bits flip.
    pub corrupt: f64,
    /// Larger datagrams are dropped, in bytes.
    pub mtu: usize,
}

impl LinkPlan {
    /// A link that loses nothing: 10 ms, 1 Gbit/s.
    pub fn clean() -> LinkPlan {
        LinkPlan {
            rate: Some(1_000_000_000),
            queue: 1000,
            delay: Duration::from_millis(10),
            jitter: Duration::ZERO,
            loss: 0.0,
            burst: (0.0, 1),
            duplicate: 0.0,
            reorder: (0.0, 1),
            corrupt: 0.0,
            mtu: 1500,
        }
    }
}

/// One direction.
#[derive(Debug)]
struct Link {
    plan: LinkPlan,
    rng: Rng,
    /// When what was taken in is serialised.
    departures: VecDeque<Time>,
    /// Losses left of a burst.
    burst: u64,
}

/// The smallest distance of packets that reordering counts with.
const GAP_MIN: Duration = Duration::from_micros(20);

impl Link {
    /// When copies of a packet of `length` bytes arrive.
    fn carry(&mut self, now: Time, length: usize) -> Result<Vec<Time>, &'static str> {
        if length > self.plan.mtu {
            return Err("too large");
        }
        while self.departures.front().is_some_and(|at| *at <= now) {
            self.departures.pop_front();
        }
        if self.departures.len() >= self.plan.queue {
            return Err("queue full");
        }
        let gap = self.serialise(length).max(GAP_MIN);
        let departure =
            self.departures.back().copied().unwrap_or(now).max(now) + self.serialise(length);
        self.departures.push_back(departure);
        if self.burst > 0 {
            self.burst -= 1;
            return Err("lost in a burst");
        }
        if self.rng.chance(self.plan.burst.0) {
            self.burst = self.rng.below(self.plan.burst.1);
            return Err("lost in a burst");
        }
        if self.rng.chance(self.plan.loss) {
            return Err("lost");
        }
        let copies = 1 + usize::from(self.rng.chance(self.plan.duplicate));
        Ok((0..copies).map(|_| departure + self.way(gap)).collect())
    }

    fn serialise(&self, length: usize) -> Duration {
        // What IP and UDP add, in bytes.
        let bits = (length as u64 + 28) * 8;
        self.plan
            .rate
            .map_or(Duration::ZERO, |rate| Duration::from_nanos(bits * 1_000_000_000 / rate))
    }

    fn way(&mut self, gap: Duration) -> Duration {
        let jitter = self.rng.below(self.plan.jitter.as_nanos() as u64 + 1);
        let (part, packets) = self.plan.reorder;
        let behind = if self.rng.chance(part) { self.rng.within(1, packets) } else { 0 };
        self.plan.delay + Duration::from_nanos(jitter) + gap * behind as u32
    }

    fn corrupt(&mut self, bytes: &mut [u8]) -> bool {
        if bytes.is_empty() || !self.rng.chance(self.plan.corrupt) {
            return false;
        }
        for _ in 0..self.rng.within(1, 3) {
            let bit = self.rng.below(bytes.len() as u64 * 8);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        true
    }
}

/// A datagram on its way.
#[derive(Clone, Debug)]
pub struct Packet {
    /// The host that sent it.
    pub from_host: usize,
    /// The address it came from.
    pub from: SocketAddr,
    /// The address it goes to.
    pub to: SocketAddr,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// A time during which packets of one or both directions are lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outage {
    /// From when.
    pub from: Time,
    /// Until when.
    pub until: Time,
    /// From host A, from host B.
    pub ways: [bool; 2],
}

/// The network between host 0 and host 1.
#[derive(Debug)]
pub struct Network {
    links: [Link; 2],
    addresses: [SocketAddr; 2],
    outages: Vec<Outage>,
    moves: u16,
}

/// The port of the first address of a host.
const PORT: u16 = 7473;

impl Network {
    /// A network whose directions, by the host that sends, are `plans`.
    pub fn new(seed: u64, plans: &[LinkPlan; 2], outages: &[Outage]) -> Network {
        let link = |host: usize, what| Link {
            plan: plans[host].clone(),
            rng: Rng::new(seed, what),
            departures: VecDeque::new(),
            burst: 0,
        };
        let address = |host: u8| SocketAddr::from(([10, 0, 0, host], PORT));
        Network {
            links: [link(0, "link from A"), link(1, "link from B")],
            addresses: [address(1), address(2)],
            outages: outages.to_vec(),
            moves: 0,
        }
    }

    /// From now on nothing is lost, late or slow.
    pub fn heal(&mut self, plan: &LinkPlan) {
        self.outages.clear();
        for link in &mut self.links {
            link.plan = plan.clone();
            link.burst = 0;
        }
    }

    /// Where `host` is now.
    pub fn address(&self, host: usize) -> SocketAddr {
        self.addresses[host]
    }

    /// Gives `host` another port, or another address as well.
    pub fn renumber(&mut self, host: usize, address_too: bool) {
        self.moves += 1;
        let old = self.addresses[host];
        let ip = match old.ip() {
            std::net::IpAddr::V4(ip) if address_too => {
                let [a, b, _, d] = ip.octets();
                [a, b, self.moves as u8, d].into()
            }
            ip => ip,
        };
        self.addresses[host] = SocketAddr::new(ip, PORT + self.moves);
    }

    /// Takes a datagram from `host`; returns when it arrives, and as what, or why it does not.
    ///
    /// # Errors
    /// Why it is lost.
    pub fn send(
        &mut self,
        now: Time,
        host: usize,
        to: SocketAddr,
        bytes: Vec<u8>,
    ) -> Result<Vec<(Time, Packet)>, &'static str> {
        if self.is_down(now, host) {
            return Err("link down");
        }
        let from = self.addresses[host];
        let arrivals = self.links[host].carry(now, bytes.len())?;
        let packets = arrivals.into_iter().map(|at| {
            let mut bytes = bytes.clone();
            self.links[host].corrupt(&mut bytes);
            (at, Packet { from_host: host, from, to, bytes })
        });
        Ok(packets.collect())
    }

    /// The host that a packet reaches, now that it arrives.
    pub fn arrives(&self, now: Time, packet: &Packet) -> Option<usize> {
        let host = 1 - packet.from_host;
        (!self.is_down(now, packet.from_host) && self.addresses[host] == packet.to).then_some(host)
    }

    fn is_down(&self, now: Time, host: usize) -> bool {
        self.outages.iter().any(|out| out.ways[host] && out.from <= now && now < out.until)
    }
}

#[cfg(test)]
mod tests;
