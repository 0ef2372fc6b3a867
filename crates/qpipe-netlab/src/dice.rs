//! What chance does to packets: repeatable, with a generator for each impairment.

use crate::{
    params::{JitterDist, LinkParams},
    units::Nanos,
};

/// What is to happen to a packet.
pub(crate) struct Fate {
    pub(crate) lost: bool,
    pub(crate) duplicated: bool,
    pub(crate) held_back: bool,
    /// Which bit to flip, if any.
    pub(crate) corrupted: Option<u64>,
}

/// The random generators of one link, one for each impairment.
pub(crate) struct Dice {
    loss: Generator,
    burst: Generator,
    burst_is_bad: bool,
    dup: Generator,
    reorder: Generator,
    corrupt: Generator,
    jitter: Generator,
}

impl Dice {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let generator = |impairment: u64| {
            // Far apart in the sequence that they share, and not by a multiple of its step.
            let start = Generator(seed.wrapping_add(stream * 8 + impairment)).draw();
            Generator(start)
        };
        Self {
            loss: generator(0),
            burst: generator(1),
            burst_is_bad: false,
            dup: generator(2),
            reorder: generator(3),
            corrupt: generator(4),
            jitter: generator(5),
        }
    }

    pub(crate) fn roll(&mut self, params: &LinkParams) -> Fate {
        let lost_alone = unit(&mut self.loss) < params.loss;
        let burst = unit(&mut self.burst);
        self.burst_is_bad = match params.loss_burst {
            None => false,
            Some(chance) if self.burst_is_bad => burst >= chance.r,
            Some(chance) => burst < chance.p,
        };
        let corrupted = unit(&mut self.corrupt) < params.corrupt;
        let bit = self.corrupt.draw();
        Fate {
            lost: lost_alone || self.burst_is_bad,
            duplicated: unit(&mut self.dup) < params.dup,
            held_back: unit(&mut self.reorder) < params.reorder,
            corrupted: corrupted.then_some(bit),
        }
    }

    /// A deviation from the mean delay.
    pub(crate) fn jitter(&mut self, dist: JitterDist, size: Nanos) -> i64 {
        let deviation = match dist {
            JitterDist::Uniform => 2.0 * unit(&mut self.jitter) - 1.0,
            JitterDist::Normal => {
                // Box-Muller; 1 - u keeps the logarithm finite.
                let radius = (-2.0 * (1.0 - unit(&mut self.jitter)).ln()).sqrt();
                let angle = std::f64::consts::TAU * unit(&mut self.jitter);
                (radius * angle.cos()).clamp(-3.0, 3.0)
            }
        };
        (deviation * size as f64) as i64
    }
}

/// SplitMix64: each of its 2^64 states leads to the next, however they are seeded.
struct Generator(u64);

impl Generator {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Uniform in [0, 1).
fn unit(generator: &mut Generator) -> f64 {
    (generator.draw() >> 11) as f64 / (1u64 << 53) as f64
}

/// Jitter that does not reorder: a deviation that wanders between random values.
///
/// Independent draws for each packet, forced into order, would pile up near the
/// largest deviation as soon as packets are close together. Instead the deviation
/// is interpolated between draws four limits apart: it then changes more slowly
/// than time passes, so order is kept and the mean delay stays the one asked for.
/// Packets further apart than that get independent deviations.
#[derive(Default)]
pub(crate) struct JitterWalk {
    from: Knot,
    to: Knot,
}

#[derive(Clone, Copy, Default)]
struct Knot {
    time: Nanos,
    deviation: i64,
}

impl JitterWalk {
    /// The deviation at `time`; `draw` gives random ones of at most `limit` either way.
    pub(crate) fn at(&mut self, time: Nanos, limit: Nanos, mut draw: impl FnMut() -> i64) -> i64 {
        let spacing = 4 * limit;
        if time >= self.to.time + spacing {
            self.from = Knot { time, deviation: draw() };
            self.to = Knot { time: time + spacing, deviation: draw() };
        } else if time >= self.to.time {
            self.from = self.to;
            self.to = Knot { time: self.from.time + spacing, deviation: draw() };
        }
        let Self { from, to } = self;
        let progress = (time.saturating_sub(from.time)) as f64 / (to.time - from.time) as f64;
        from.deviation + ((to.deviation - from.deviation) as f64 * progress) as i64
    }
}
