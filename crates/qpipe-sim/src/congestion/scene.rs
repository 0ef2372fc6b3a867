//! What is to be simulated.

use std::time::Duration;

use super::Algorithm;
use crate::clock::Time;
use crate::net::LinkPlan;

/// Bytes of a full packet on the wire, with IP and UDP.
const PACKET_BYTES: u64 = 1480;

/// A path, and those who use it.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Of the dice.
    pub seed: u64,
    /// Bits in a second.
    pub rate: u64,
    /// One way.
    pub delay: Duration,
    /// Both ways, the part of packets.
    pub loss: f64,
    /// Losses in a row, as in [`LinkPlan::burst`].
    pub burst: (f64, u64),
    /// Packets that wait at the bottleneck.
    pub queue: usize,
    /// The connections.
    pub flows: Vec<FlowPlan>,
    /// What happens on the way.
    pub changes: Vec<(Time, Change)>,
    /// A token bucket before the link: bits in a second, bytes.
    pub policer: Option<(u64, u64)>,
    /// Both hosts are busy with something else for the first part of every so long.
    pub stalls: Option<(Duration, Duration)>,
    /// What is reported is measured from here to there.
    pub measured: (Time, Time),
}

/// A connection.
#[derive(Clone, Copy, Debug)]
pub struct FlowPlan {
    /// What controls it.
    pub algorithm: Algorithm,
    /// When it begins.
    pub begins: Time,
    /// When it has no more to send.
    pub ends: Time,
    /// How much it wants to send.
    pub demand: Demand,
}

/// How much a flow wants to send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Demand {
    /// As much as it can.
    All,
    /// So many bytes, every so often.
    Bursts(u64, Duration),
}

/// What happens to a path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// The rate is now this, in bits in a second.
    Rate(u64),
    /// The delay of one way is now this.
    Delay(Duration),
    /// The part of packets that is lost is now this; 1: the link is down.
    Loss(f64),
}

impl Scene {
    /// One flow of qpipe's own for so many seconds, measured from second 5 on; the queue holds one
    /// bandwidth-delay product.
    pub fn one(rate: u64, delay: Duration, loss: f64, seconds: u64) -> Scene {
        let mut scene = Scene {
            seed: 1,
            rate,
            delay,
            loss,
            burst: (0.0, 1),
            queue: 0,
            flows: Vec::new(),
            changes: Vec::new(),
            policer: None,
            stalls: None,
            measured: (Duration::from_secs(5.min(seconds / 2)), Duration::from_secs(seconds)),
        };
        scene.queue = scene.bdp_packets(1.0);
        scene.with(&[Algorithm::Own])
    }

    /// With these flows instead, which begin a second after each other.
    pub fn with(mut self, algorithms: &[Algorithm]) -> Scene {
        let flow = |(n, algorithm): (usize, &Algorithm)| FlowPlan {
            algorithm: *algorithm,
            begins: Duration::from_secs(n as u64),
            ends: Duration::MAX,
            demand: Demand::All,
        };
        self.flows = algorithms.iter().enumerate().map(flow).collect();
        self
    }

    /// Packets of `part` bandwidth-delay products.
    pub fn bdp_packets(&self, part: f64) -> usize {
        let bytes = self.rate as f64 / 8.0 * self.delay.as_secs_f64() * 2.0;
        (bytes * part / PACKET_BYTES as f64).ceil().max(4.0) as usize
    }

    /// The round trip of a full packet and its acknowledgement where nothing waits.
    pub fn base(&self) -> Duration {
        2 * self.delay + self.packets(1)
    }

    /// The time that so many packets take at the bottleneck.
    pub fn packets(&self, count: u64) -> Duration {
        Duration::from_nanos(count * PACKET_BYTES * 8 * 1_000_000_000 / self.rate)
    }

    /// The link as it is at first.
    pub(super) fn link(&self) -> LinkPlan {
        LinkPlan {
            rate: Some(self.rate),
            queue: self.queue,
            delay: self.delay,
            loss: self.loss,
            burst: self.burst,
            ..LinkPlan::clean()
        }
    }
}
