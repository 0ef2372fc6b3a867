//! `--rate`: a token bucket for the bytes of one pipe.

use std::{
    num::{NonZeroU32, NonZeroU64},
    str::FromStr,
    time::Duration,
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use qpipe_node::ByteSize;

/// Bytes in a second, written as an amount with or without `/s` behind it: `10MiB/s`, `500kB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate(NonZeroU64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let amount = text.strip_suffix("/s").unwrap_or(text);
        let size: ByteSize = amount.parse().map_err(|error| format!("{error}"))?;
        NonZeroU64::new(size.bytes()).map(Self).ok_or_else(|| "a rate of 0 never ends".to_owned())
    }
}

/// Holds a pipe's bytes back to a rate.
pub(crate) struct Throttle {
    bucket: Option<Bucket>,
}

struct Bucket {
    limiter: DefaultDirectRateLimiter,
    /// Bytes that one token stands for.
    token_bytes: u64,
    /// Tokens that the bucket holds.
    tokens_max: u32,
    /// Bytes that went and were not paid for, less than one token's.
    unpaid_bytes: u64,
}

impl Throttle {
    /// A bucket that `rate` fills and that holds `burst` bytes; without a rate all may pass.
    pub(crate) fn new(rate: Option<Rate>, burst: Option<ByteSize>) -> Self {
        Self { bucket: rate.map(|rate| Bucket::new(rate, burst)) }
    }

    /// The most bytes that [`Self::pay`] takes at once; `None` for any number.
    pub(crate) fn piece_bytes_max(&self) -> Option<usize> {
        let bucket = self.bucket.as_ref()?;
        let bytes = bucket.token_bytes.saturating_mul(bucket.tokens_max.into());
        Some(usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// Waits until `bytes` more may go: at most [`Self::piece_bytes_max`].
    pub(crate) async fn pay(&mut self, bytes: usize) {
        if let Some(bucket) = &mut self.bucket {
            bucket.pay(bytes as u64).await;
        }
    }
}

/// Tokens come no faster than this, since the bucket counts whole nanoseconds between them: at
/// 10 µs rounding them changes the rate by less than one part in ten thousand.
const TOKENS_PER_SECOND_MAX: u64 = 100_000;

/// The burst that comes with a rate: what it moves in a tenth of a second.
const BURSTS_PER_SECOND: u64 = 10;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

impl Bucket {
    fn new(Rate(rate): Rate, burst: Option<ByteSize>) -> Self {
        let rate = rate.get();
        let burst = burst.map_or(rate / BURSTS_PER_SECOND, ByteSize::bytes);
        let token_bytes = rate.div_ceil(TOKENS_PER_SECOND_MAX);
        let tokens = u32::try_from(burst / token_bytes).unwrap_or(u32::MAX);
        let tokens_max = NonZeroU32::new(tokens).unwrap_or(NonZeroU32::MIN);
        let nanos = u128::from(token_bytes) * NANOS_PER_SECOND / u128::from(rate);
        let period = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX).max(1));
        let quota = Quota::with_period(period)
            .unwrap_or(Quota::per_second(NonZeroU32::MIN))
            .allow_burst(tokens_max);
        let tokens_max = tokens_max.get();
        Self { limiter: RateLimiter::direct(quota), token_bytes, tokens_max, unpaid_bytes: 0 }
    }

    async fn pay(&mut self, bytes: u64) {
        self.unpaid_bytes = self.unpaid_bytes.saturating_add(bytes);
        let tokens = self.unpaid_bytes / self.token_bytes;
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX).min(self.tokens_max);
        if let Some(wanted) = NonZeroU32::new(tokens) {
            self.unpaid_bytes -= u64::from(tokens) * self.token_bytes;
            // It fails only for more tokens than the bucket holds, which the line above rules out.
            let _ = self.limiter.until_n_ready(wanted).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn rate(text: &str) -> Result<u64, String> {
        text.parse::<Rate>().map(|Rate(bytes)| bytes.get())
    }

    #[test]
    fn a_rate_is_an_amount_with_or_without_per_second() {
        assert_eq!(rate("10MiB/s"), Ok(10 << 20));
        assert_eq!(rate("500kB"), Ok(500_000));
        assert_eq!(rate("1.5K/s"), Ok(1536));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in ["", "/s", "0", "0/s", "10MiB/m", "-1/s", "fast"] {
            assert!(rate(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_burst_follows_the_rate_unless_it_is_given() {
        let piece = |rate: &str, burst: Option<u64>| {
            let rate = rate.parse().unwrap();
            Throttle::new(Some(rate), burst.map(ByteSize::from_bytes)).piece_bytes_max().unwrap()
        };

        assert_eq!(piece("100000/s", None), 10_000);
        assert_eq!(piece("100000/s", Some(500)), 500);
        assert_eq!(piece("1/s", None), 1);
        assert_eq!(piece("1/s", Some(0)), 1);
        assert_eq!(Throttle::new(None, None).piece_bytes_max(), None);
    }

    #[test]
    fn rates_beyond_what_a_second_can_count_are_held_in_larger_tokens() {
        let bucket = Bucket::new("20GiB/s".parse().unwrap(), None);
        let per_second = u128::from(bucket.token_bytes) * u128::from(TOKENS_PER_SECOND_MAX);

        assert!(per_second.abs_diff(20 << 30) < (20 << 30) / 1000);
    }

    #[tokio::test]
    async fn bytes_beyond_the_burst_wait() {
        let mut throttle =
            Throttle::new(Some("1MB/s".parse().unwrap()), Some(ByteSize::from_bytes(10_000)));
        let start = Instant::now();

        for _ in 0..21 {
            throttle.pay(10_000).await;
        }

        // The first burst is free, the other 200,000 bytes take a fifth of a second.
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(195), "{took:?}");
    }
}
