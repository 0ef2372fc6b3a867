//! The parts; the whole is evaluated by qpipe-sim.

use std::time::{Duration, Instant};

use crate::contest::Contest;
use crate::filter::{MaxRate, MinRtt, Pauses};
use crate::rate::Sampler;

/// One beginning for all tests: only differences of instants matter.
#[expect(clippy::disallowed_methods, reason = "instants cannot be made otherwise")]
pub(crate) fn zero() -> Instant {
    Instant::now()
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn a_sample_is_what_was_delivered_over_the_time_it_took() {
    let zero = zero();
    let mut sampler = Sampler::new(zero);
    sampler.on_sent(zero, 0);
    sampler.on_sent(zero + ms(10), 1000);
    sampler.on_ack(zero + ms(50), zero, 1000);
    assert!(sampler.take(zero + ms(50), 1000, false).is_some());
    sampler.on_ack(zero + ms(60), zero + ms(10), 1000);
    let sample = sampler.take(zero + ms(60), 0, false).expect("a newer packet");
    assert_eq!(sample.rtt, ms(50));
    // Both packets arrived since the second was sent, at which nothing had been delivered.
    assert!((sample.rate - 2000.0 / 0.06).abs() < 1.0, "{}", sample.rate);
}

#[test]
fn an_older_packet_makes_no_sample() {
    let zero = zero();
    let mut sampler = Sampler::new(zero);
    sampler.on_sent(zero, 0);
    sampler.on_sent(zero + ms(1), 1000);
    sampler.on_ack(zero + ms(50), zero + ms(1), 1000);
    assert!(sampler.take(zero + ms(50), 1000, false).is_some());
    sampler.on_ack(zero + ms(51), zero, 1000);
    assert!(sampler.take(zero + ms(51), 0, false).is_none());
}

#[test]
fn the_largest_rate_is_forgotten_after_its_rounds_and_the_last_one_never() {
    let mut rate = MaxRate::default();
    rate.add(0, 5.0);
    rate.add(1, 3.0);
    assert_eq!(rate.get(), 5.0);
    rate.expire(13);
    assert_eq!(rate.get(), 3.0);
    rate.expire(1000);
    assert_eq!(rate.get(), 3.0);
}

#[test]
fn the_smallest_round_trip_rises_when_it_is_not_seen_for_long() {
    let zero = zero();
    let mut rtt = MinRtt::new(zero);
    rtt.add(zero, 0, ms(50));
    for n in 1..200 {
        rtt.add(zero + ms(100 * n), n, ms(90));
    }
    assert_eq!(rtt.get(), Some(ms(90)));
}

#[test]
fn one_round_trip_as_long_as_an_outage_changes_nothing() {
    let zero = zero();
    let mut rtt = MinRtt::new(zero);
    rtt.add(zero, 0, ms(50));
    rtt.add(zero + ms(60_000), 1, ms(60_000));
    assert_eq!(rtt.get(), Some(ms(50)));
}

#[test]
fn a_contest_grows_cuts_and_grows_back() {
    let zero = zero();
    let mut contest = Contest::new(zero, 0, 5_000_000.0, ms(20));
    assert_eq!(contest.window(), 70_000, "of 100,000 that were held");
    assert!(contest.cut(zero + ms(1000), 40, ms(20), 1000));
    assert_eq!(contest.window(), 49_500, "nearly half of them");
    assert!(!contest.cut(zero + ms(1010), 41, ms(20), 1000), "too soon");
    for n in 0..400 {
        contest.grow(zero + ms(1020 + 20 * n), ms(20), 49_500, 1000);
    }
    assert!(contest.window() > 70_000, "{}", contest.window());
}

#[test]
fn a_contest_beside_who_never_reacts_keeps_half_of_what_was_held() {
    let zero = zero();
    let mut contest = Contest::new(zero, 0, 5_000_000.0, ms(20));
    for n in 1..=20 {
        contest.cut(zero + ms(500 * n), 12 * n, ms(40), 1000);
    }
    // Of 200,000 bytes at this round trip half, and a little less for each of the cuts.
    assert!((80_000..100_000).contains(&contest.window()), "{}", contest.window());
}

#[test]
fn pauses_count_when_there_were_three_of_late() {
    let zero = zero();
    let mut pauses = Pauses::default();
    let mut add = |at: u64, pause: Duration| {
        pauses.add(zero + ms(at), pause);
        pauses.get(zero + ms(at))
    };

    assert_eq!(add(0, ms(5)), Duration::ZERO);
    assert_eq!(add(20, ms(3)), Duration::ZERO);
    // Too short to be one.
    assert_eq!(add(30, Duration::from_micros(900)), Duration::ZERO);
    assert_eq!(add(40, ms(9)), ms(3));
    // The first one is too long ago, or pushed out.
    assert_eq!(add(101, ms(4)), ms(3));
    assert_eq!(add(139, ms(2)), ms(2));
    assert_eq!(add(400, ms(7)), Duration::ZERO);
}
