use super::*;
use crate::{
    params::{BurstLoss, JitterDist},
    units::{MICROSECOND, MILLISECOND},
};

/// A link, its pool, and the time and number of each delivery.
struct Bench {
    link: Link,
    pool: Pool,
    deliveries: Vec<(Nanos, u32)>,
}

fn bench(params: LinkParams) -> Bench {
    bench_with(params, &[], 1)
}

fn bench_with(params: LinkParams, outages: &[Outage], seed: u64) -> Bench {
    Bench {
        link: Link::new(params, outages.into(), seed, 0),
        pool: Pool::new(2048),
        deliveries: Vec::new(),
    }
}

impl Bench {
    /// Delivers all that is due by `now`, each at its proper time.
    fn run_until(&mut self, now: Nanos) {
        while let Some(event) = self.link.next_event().filter(|event| *event <= now) {
            while let Some(packet) = self.link.pop_due(event, &mut self.pool) {
                let number = u32::from_be_bytes(packet.bytes()[..4].try_into().unwrap());
                self.deliveries.push((event, number));
                self.pool.give(packet);
            }
            // The event may only have been a lower bound.
            if self.link.next_event() == Some(event) {
                panic!("no progress at {event}");
            }
        }
    }

    fn send(&mut self, now: Nanos, number: u32, len: usize) {
        self.run_until(now);
        let mut bytes = vec![0; len];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let packet = self.pool.copy_of(&bytes);
        self.link.push(now, packet, &mut self.pool);
    }

    /// Sends `count` packets of 1000 bytes, one each `gap`, and waits for them all.
    fn send_many(&mut self, count: u32, gap: Nanos) {
        for number in 0..count {
            self.send(number as Nanos * gap, number, 1000);
        }
        self.run_until(Nanos::MAX);
    }

    fn numbers(&self) -> Vec<u32> {
        self.deliveries.iter().map(|(_, number)| *number).collect()
    }

    /// The delay of every delivery of [`Bench::send_many`].
    fn delays(&self, gap: Nanos) -> Vec<f64> {
        self.deliveries
            .iter()
            .map(|(time, number)| (*time as f64) - *number as f64 * gap as f64)
            .collect()
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn a_default_link_is_transparent() {
    let mut bench = bench(LinkParams::default());
    bench.send_many(100, 0);
    assert_eq!(bench.numbers(), (0..100).collect::<Vec<_>>());
    assert!(bench.deliveries.iter().all(|(time, _)| *time == 0));
    assert_eq!(bench.link.next_event(), None);
    let stats = bench.link.stats();
    assert_eq!((stats.packets_in, stats.packets_delivered), (100, 100));
    assert_eq!((stats.bytes_in, stats.bytes_delivered), (100_000, 100_000));
    assert_eq!(stats.in_flight, 0);
}

#[test]
fn delay_is_exact() {
    let mut bench = bench(LinkParams { delay: 20 * MILLISECOND, ..Default::default() });
    bench.send(5, 0, 100);
    assert_eq!(bench.link.next_event(), Some(20 * MILLISECOND + 5));
    assert_eq!(bench.link.stats().in_flight, 1);
    bench.run_until(20 * MILLISECOND + 4);
    assert!(bench.deliveries.is_empty());
    bench.run_until(20 * MILLISECOND + 5);
    assert_eq!(bench.deliveries, [(20 * MILLISECOND + 5, 0)]);
}

#[test]
fn rate_serialises_back_to_back() {
    // 1000 bytes at 8 Mbit/s take 1 ms.
    let rate = Some(8_000_000);
    let mut bench = bench(LinkParams { rate, delay: 10 * MILLISECOND, ..Default::default() });
    for number in 0..5 {
        bench.send(0, number, 1000);
    }
    bench.run_until(Nanos::MAX);
    let expected: Vec<_> = (0..5).map(|n| ((11 + n as Nanos) * MILLISECOND, n)).collect();
    assert_eq!(bench.deliveries, expected);
}

#[test]
fn a_late_caller_gets_the_same_schedule() {
    let rate = Some(8_000_000);
    let mut bench = bench(LinkParams { rate, ..Default::default() });
    bench.send(0, 0, 1000);
    bench.send(0, 1, 1000);
    // Nobody calls for 1.5 ms: packet 1 is still due at 2 ms, not later.
    assert!(bench.link.pop_due(1_500_000, &mut bench.pool).is_some());
    assert_eq!(bench.link.next_event(), Some(2 * MILLISECOND));
}

#[test]
fn the_queue_drops_its_tail() {
    let params = LinkParams { rate: Some(8_000_000), queue: Some(3000), ..Default::default() };
    let mut bench = bench(params);
    for number in 0..5 {
        bench.send(0, number, 1000);
    }
    bench.send(MILLISECOND, 5, 1000); // by now there is room for one more
    bench.run_until(Nanos::MAX);
    assert_eq!(bench.numbers(), [0, 1, 2, 5]);
    let stats = bench.link.stats();
    assert_eq!(stats.dropped_queue, 2);
    assert_eq!(stats.max_queue_bytes, 3000);
}

#[test]
fn a_tiny_queue_still_passes_single_packets() {
    let params = LinkParams { rate: Some(8_000_000), queue: Some(10), ..Default::default() };
    let mut bench = bench(params);
    bench.send_many(3, 2 * MILLISECOND);
    assert_eq!(bench.numbers(), [0, 1, 2]);
}

#[test]
fn a_rate_change_applies_to_the_packet_being_sent() {
    let params = LinkParams { rate: Some(8_000), ..Default::default() };
    let mut bench = bench(params.clone());
    bench.send(0, 0, 1000); // takes 1 s
    bench.send(0, 1, 1000);
    let faster = LinkParams { rate: Some(8_000_000), ..params };
    bench.link.set_params(SECOND / 2, &mut bench.pool, faster);
    bench.run_until(Nanos::MAX);
    let start = SECOND / 2;
    assert_eq!(bench.deliveries, [(start + 500 * MICROSECOND, 0), (start + 1500 * MICROSECOND, 1)]);
}

#[test]
fn a_shorter_delay_does_not_reorder() {
    let params = LinkParams { delay: 100 * MILLISECOND, ..Default::default() };
    let mut bench = bench(params);
    bench.send(0, 0, 100);
    bench.link.set_params(1, &mut bench.pool, LinkParams::default());
    bench.send(2, 1, 100);
    bench.run_until(Nanos::MAX);
    assert_eq!(bench.numbers(), [0, 1]);
}

#[test]
fn random_loss_has_the_right_mean() {
    let mut bench = bench(LinkParams { loss: 0.05, ..Default::default() });
    bench.send_many(100_000, 1);
    let lost = bench.link.stats().dropped_loss;
    assert!((4_700..5_300).contains(&lost), "{lost}");
    assert_eq!(bench.deliveries.len() as u64, 100_000 - lost);
}

#[test]
fn lost_packets_use_up_the_link() {
    let params = LinkParams { rate: Some(8_000_000), loss: 1.0, ..Default::default() };
    let mut bench = bench(params.clone());
    bench.send(0, 0, 1000);
    bench.link.set_params(0, &mut bench.pool, LinkParams { loss: 0.0, ..params });
    bench.send(0, 1, 1000);
    bench.run_until(Nanos::MAX);
    assert_eq!(bench.deliveries, [(2 * MILLISECOND, 1)]);
}

#[test]
fn loss_depends_on_seed_and_packet_index_alone() {
    let lossy = LinkParams { loss: 0.2, ..Default::default() };
    let mut plain = bench_with(lossy.clone(), &[], 7);
    plain.send_many(1000, MILLISECOND);

    // Other timing, other impairments: the same packets are lost.
    let busy = LinkParams {
        rate: Some(100_000_000),
        delay: 30 * MILLISECOND,
        jitter: 10 * MILLISECOND,
        corrupt: 0.5,
        reorder: 0.1,
        ..lossy.clone()
    };
    let mut other = bench_with(busy, &[], 7);
    for number in 0..1000 {
        other.send(number * 3 * MILLISECOND, number as u32, 60 + number as usize);
    }
    other.run_until(Nanos::MAX);
    assert_eq!(other.link.stats().dropped_loss, plain.link.stats().dropped_loss);

    // Packets dropped for other reasons count too.
    let outage = Outage { start: 100 * MILLISECOND, end: 200 * MILLISECOND };
    let mut cut = bench_with(lossy.clone(), &[outage], 7);
    cut.send_many(1000, MILLISECOND);
    let survivors: Vec<_> =
        plain.numbers().into_iter().filter(|n| !(100..200).contains(n)).collect();
    assert_eq!(cut.numbers(), survivors);

    let mut different = bench_with(lossy, &[], 8);
    different.send_many(1000, MILLISECOND);
    assert_ne!(different.numbers(), plain.numbers());
}

#[test]
fn the_two_directions_differ() {
    let params = LinkParams { loss: 0.5, ..Default::default() };
    let mut bits = Vec::new();
    for stream in [1, 16] {
        let mut dice = Dice::new(1, stream);
        bits.push((0..64).map(|_| dice.roll(&params).lost).collect::<Vec<_>>());
    }
    assert_ne!(bits[0], bits[1]);
}

#[test]
fn burst_loss_has_the_right_mean_and_burst_length() {
    let loss_burst = Some(BurstLoss { p: 0.01, r: 0.25 });
    let mut bench = bench(LinkParams { loss_burst, ..Default::default() });
    bench.send_many(200_000, 1);
    let numbers = bench.numbers();
    let share = 1.0 - numbers.len() as f64 / 200_000.0;
    assert!((share - 0.01 / 0.26).abs() < 0.004, "{share}");
    let gaps: Vec<f64> = numbers
        .windows(2)
        .map(|pair| (pair[1] - pair[0] - 1) as f64)
        .filter(|gap| *gap > 0.0)
        .collect();
    assert!((mean(&gaps) - 4.0).abs() < 0.3, "{}", mean(&gaps));
}

#[test]
fn jitter_keeps_the_order_the_bounds_and_the_mean() {
    for (jitter_dist, reach) in [(JitterDist::Uniform, 5), (JitterDist::Normal, 15)] {
        for gap in [10 * MICROSECOND, MILLISECOND, 200 * MILLISECOND] {
            let delay = 40 * MILLISECOND;
            let jitter = 5 * MILLISECOND;
            let mut bench = bench(LinkParams { delay, jitter, jitter_dist, ..Default::default() });
            let count = (400 * SECOND / gap).min(400_000) as u32;
            bench.send_many(count, gap);
            assert!(bench.numbers().is_sorted());
            assert_eq!(bench.link.stats().reordered, 0);
            let delays = bench.delays(gap);
            let (low, high) = ((40 - reach) as f64 * 1e6, (40 + reach) as f64 * 1e6);
            assert!(delays.iter().all(|delay| (low..=high).contains(delay)));
            let mean = mean(&delays);
            assert!((mean - 40e6).abs() < 1.5e6, "{jitter_dist:?} {gap}: {mean}");
            let spread =
                delays.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / delays.len() as f64;
            assert!((1.5e6..6e6).contains(&spread.sqrt()), "{}", spread.sqrt());
        }
    }
}

#[test]
fn jitter_larger_than_the_delay_does_not_go_back_in_time() {
    let params = LinkParams { delay: MILLISECOND, jitter: 5 * MILLISECOND, ..Default::default() };
    let mut bench = bench(params);
    bench.send_many(10_000, 100 * MICROSECOND);
    assert!(bench.numbers().is_sorted());
    assert!(bench.delays(100 * MICROSECOND).iter().all(|delay| *delay >= 0.0));
}

#[test]
fn free_jitter_reorders() {
    let params = LinkParams {
        delay: 20 * MILLISECOND,
        jitter: 5 * MILLISECOND,
        jitter_reorder: true,
        ..Default::default()
    };
    let mut bench = bench(params);
    bench.send_many(10_000, MILLISECOND);
    assert!(bench.link.stats().reordered > 2_000);
}

#[test]
fn reordering_lets_later_packets_pass() {
    let params = LinkParams { reorder: 0.1, delay: MILLISECOND, ..Default::default() };
    let mut bench = bench(params);
    bench.send_many(10_000, MILLISECOND);
    let reordered = bench.link.stats().reordered;
    assert!((900..1100).contains(&reordered), "{reordered}");
    let held = bench.delays(MILLISECOND).iter().filter(|d| **d == 6e6).count() as u64;
    assert_eq!(held, reordered);
    assert_eq!(bench.deliveries.len(), 10_000);
}

#[test]
fn duplicates_come_in_pairs() {
    let mut bench = bench(LinkParams { dup: 0.2, ..Default::default() });
    bench.send_many(10_000, 1);
    let duplicated = bench.link.stats().duplicated;
    assert!((1_800..2_200).contains(&duplicated), "{duplicated}");
    assert_eq!(bench.deliveries.len() as u64, 10_000 + duplicated);
    assert_eq!(bench.link.stats().reordered, 0);
}

#[test]
fn corruption_flips_one_bit() {
    let mut link = Link::new(LinkParams { corrupt: 1.0, ..Default::default() }, [].into(), 1, 0);
    let mut pool = Pool::new(2048);
    let packet = pool.copy_of(&[0; 500]);
    link.push(0, packet, &mut pool);
    let packet = link.pop_due(0, &mut pool).unwrap();
    let ones: u32 = packet.bytes().iter().map(|byte| byte.count_ones()).sum();
    assert_eq!(ones, 1);
    assert_eq!(link.stats().corrupted, 1);
}

#[test]
fn outages_drop_what_goes_in_and_what_comes_out() {
    let outage = Outage { start: 100 * MILLISECOND, end: 200 * MILLISECOND };
    let params = LinkParams { delay: 30 * MILLISECOND, ..Default::default() };
    let mut bench = bench_with(params, &[outage], 1);
    bench.send_many(30, 10 * MILLISECOND);
    // Sent at 0..60 ms: in before the outage; from 200 ms on: after it.
    let expected: Vec<u32> = (0..7).chain(20..30).collect();
    assert_eq!(bench.numbers(), expected);
    assert_eq!(bench.link.stats().dropped_outage, 13);
}

#[test]
fn down_and_up() {
    let mut bench = bench(LinkParams::default());
    bench.link.set_up(false);
    bench.send(0, 0, 100);
    bench.link.set_up(true);
    bench.send(1, 1, 100);
    bench.run_until(Nanos::MAX);
    assert_eq!(bench.numbers(), [1]);
}

#[test]
fn every_packet_is_accounted_for() {
    let params = LinkParams {
        rate: Some(50_000_000),
        queue: Some(20_000),
        delay: 7 * MILLISECOND,
        jitter: 2 * MILLISECOND,
        loss: 0.03,
        loss_burst: Some(BurstLoss { p: 0.01, r: 0.3 }),
        dup: 0.02,
        reorder: 0.05,
        corrupt: 0.01,
        ..Default::default()
    };
    let outage = Outage { start: 300 * MILLISECOND, end: 350 * MILLISECOND };
    let mut bench = bench_with(params, &[outage], 3);
    for number in 0..10_000u64 {
        bench.send(number * 120 * MICROSECOND, number as u32, 40 + number as usize % 1400);
    }
    let midway = bench.link.stats();
    assert!(midway.in_flight > 0);
    bench.run_until(Nanos::MAX);
    let stats = bench.link.stats();
    assert_eq!(stats.in_flight, 0);
    assert_eq!(
        stats.packets_in + stats.duplicated,
        stats.packets_delivered + stats.dropped_queue + stats.dropped_loss + stats.dropped_outage
    );
    assert!(stats.dropped_queue > 0 && stats.dropped_outage > 0 && stats.reordered > 0);
}
