//! Seeds that failed once, or whose runs have what others hardly ever have: they are run first.

use std::ops::Range;

/// Those, and then some others.
pub fn before(others: Range<u64>) -> impl Iterator<Item = u64> {
    kept().into_iter().chain(others)
}

/// The seeds of `seeds.txt`, each the first word of a line.
pub fn kept() -> Vec<u64> {
    let lines = include_str!("../seeds.txt").lines();
    lines.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_seed_or_a_comment() {
        let lines = include_str!("../seeds.txt").lines();
        let seeds = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).count();
        assert_eq!(kept().len(), seeds);
    }
}
