//! Dice that fall alike in every run with one seed.

use std::time::Duration;

/// SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    /// Whether one of `sides` comes up.
    pub(super) fn one_in(&mut self, sides: u64) -> bool {
        self.below(sides) == 0
    }

    /// A time of up to so many milliseconds, short ones more often.
    pub(super) fn millis(&mut self, most: u64) -> Duration {
        let bound = 1 + self.below(most);
        Duration::from_millis(self.below(bound))
    }

    /// Other dice.
    pub(super) fn fork(&mut self) -> Dice {
        Dice(self.roll())
    }
}

/// The byte at `offset` of the pipe `pipe`: any slip shows.
pub(super) fn byte(pipe: u64, offset: u64) -> u8 {
    let mixed =
        (pipe ^ offset.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed >> 41) as u8
}

/// Bytes of a pipe.
pub(super) fn bytes(pipe: u64, from: u64, length: usize) -> Vec<u8> {
    (from..from + length as u64).map(|offset| byte(pipe, offset)).collect()
}
