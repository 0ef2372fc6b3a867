//! Dice: every one of a run comes from its seed.

use std::time::Duration;

/// A generator of numbers that a seed determines (splitmix64).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The dice of `seed` that are for `what`: drawing more for one purpose changes no other.
    pub fn new(seed: u64, what: &str) -> Rng {
        let label = what.bytes().fold(0u64, |sum, byte| mix(sum ^ u64::from(byte)));
        Rng(mix(seed) ^ label)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    /// A number from `first` to `last`, both included.
    pub fn within(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    /// True in a part `p` (0 to 1) of all cases.
    pub fn chance(&mut self, p: f64) -> bool {
        (self.bits() >> 11) as f64 / ((1u64 << 53) as f64) < p
    }

    /// A number from `first` to `last` whose logarithm is uniform: small ones are as likely as
    /// large ones.
    pub fn skewed(&mut self, first: u64, last: u64) -> u64 {
        let low = (first.max(1)).ilog2();
        let high = last.max(1).ilog2();
        let top = 1u64 << self.within(u64::from(low), u64::from(high));
        self.within(top, (2 * top - 1).max(top)).clamp(first, last)
    }

    /// A duration from `first` to `last` milliseconds, skewed, with a part of a millisecond.
    pub fn millis(&mut self, first: u64, last: u64) -> Duration {
        Duration::from_micros(self.skewed(first.max(1) * 1000, last.max(1) * 1000))
    }

    /// One of `choices`, which are not empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Scatters 64 bits over 64 bits (the finaliser of splitmix64).
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_dice_and_another_purpose_others() {
        let draw = |what| Rng::new(7, what).bits();
        assert_eq!(draw("net"), draw("net"));
        assert_ne!(draw("net"), draw("work"));
    }

    #[test]
    fn draws_stay_in_their_bounds() {
        let mut rng = Rng::new(1, "bounds");
        for _ in 0..10_000 {
            assert!((3..=9).contains(&rng.within(3, 9)));
            assert!((5..=700).contains(&rng.skewed(5, 700)));
            assert!(rng.skewed(0, 1) <= 1);
        }
    }
}
