//! What is measured over a carrier, or through any programs. Each gives one JSON object.

pub(crate) mod busy;
pub(crate) mod echo;
pub(crate) mod idle;
pub(crate) mod many;
pub(crate) mod through;

use std::time::Duration;

use bytes::Bytes;

/// One write, in bytes: what a kernel pipe holds.
const CHUNK_BYTES: usize = 64 * 1024;

/// Bytes without a pattern that anything could shorten.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| next()).collect()
}

fn chunk(bytes: usize) -> Bytes {
    noise(bytes).into()
}

/// The quantile of sorted times, in ms: the smallest that at least this share does not exceed.
pub(crate) fn quantile_ms(sorted: &[Duration], share: f64) -> Option<f64> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    Some(sorted.get(rank.max(1) - 1)?.as_secs_f64() * 1e3)
}

/// Jain's index of fairness: 1 if all have the same, 1/n if one has everything.
pub(crate) fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    if squares == 0.0 { 0.0 } else { sum * sum / (shares.len() as f64 * squares) }
}

/// Mbit/s.
pub(crate) fn mbit_s(bytes: u64, time: Duration) -> f64 {
    bytes as f64 * 8e-6 / time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let times: Vec<_> = (1..=1000).map(Duration::from_millis).collect();
        assert_eq!(quantile_ms(&times, 0.5), Some(500.0));
        assert_eq!(quantile_ms(&times, 0.999), Some(999.0));
        assert_eq!(quantile_ms(&times[..1], 0.01), Some(1.0));
        assert_eq!(quantile_ms(&[], 0.5), None);
    }

    #[test]
    fn jain_is_one_for_equals_and_a_share_for_one_of_many() {
        assert_eq!(jain(&[3.0, 3.0, 3.0]), 1.0);
        assert_eq!(jain(&[4.0, 0.0, 0.0, 0.0]), 0.25);
        assert_eq!(jain(&[0.0, 0.0]), 0.0);
    }
}
