//! The evaluation, printed: what RFC 9743 asks of a congestion controller, as far as one bottleneck
//! can show it.

use std::fmt::Write;
use std::time::Duration;

use super::Algorithm::{Bbr, Cubic, NewReno, Own};
use super::{Change, Demand, Scene, jain, run};

const MBIT: u64 = 1_000_000;

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A table's name, and what makes it.
pub type Table = (&'static str, fn() -> String);

/// All of them.
pub const TABLES: [Table; 4] =
    [("alone", alone), ("beside", beside), ("together", together), ("events", events)];

/// Rate, delay of one way, loss, and queue in bandwidth-delay products; how long, measured from when.
const ALONE: &[(u64, u64, f64, f64, u64, u64)] = &[
    (100, 25, 0.0, 1.0, 20, 5),
    (100, 25, 0.0, 0.25, 20, 5),
    (100, 25, 0.0, 4.0, 20, 5),
    (100, 25, 0.001, 1.0, 20, 5),
    (100, 25, 0.01, 1.0, 20, 5),
    (100, 25, 0.02, 1.0, 20, 5),
    (100, 25, 0.05, 1.0, 20, 5),
    (100, 25, 0.1, 1.0, 20, 5),
    (20, 5, 0.0, 1.0, 20, 5),
    (20, 5, 0.02, 4.0, 20, 5),
    (500, 75, 0.0, 1.0, 15, 10),
    (500, 75, 0.01, 1.0, 15, 10),
    (10, 300, 0.0, 1.0, 35, 15),
    (10, 300, 0.01, 1.0, 35, 15),
    (2, 50, 0.0, 1.5, 35, 5),
    (2, 50, 0.01, 1.5, 35, 5),
    (1000, 1, 0.0, 4.0, 4, 2),
];

fn alone() -> String {
    let mut text =
        "Alone: share of the rate at the reader, smoothed round trip over the base, packets \
                    lost, first 5 MB\n"
            .to_owned();
    for (rate, delay, loss, queue, until, from) in ALONE {
        let mut scene = Scene::one(rate * MBIT, millis(*delay), *loss, *until);
        scene.queue = scene.bdp_packets(*queue);
        scene.measured.0 = seconds(*from);
        text += &line(&scene, *queue);
    }
    let mut scene = Scene::one(100 * MBIT, millis(25), 0.0, 20);
    scene.burst = (0.01, 10);
    text + &line(&scene, 1.0)
}

fn line(scene: &Scene, queue: f64) -> String {
    let report = &run(scene)[0];
    let (from, to) = scene.measured;
    let rtt = report.mean_rtt(from, to);
    let burst = if scene.burst.0 > 0.0 { " in bursts" } else { "" };
    format!(
        "{:>5} Mbit/s {:>4} ms {:>5.1} %{burst} queue {queue:>4} BDP: {:>5.1} %  {:>5.2}x (+{:.1} packets)  lost {:>5.2} %  {}\n",
        scene.rate / MBIT,
        scene.delay.as_millis(),
        scene.loss * 100.0,
        report.goodput(from, to) / scene.rate as f64 * 100.0,
        rtt.as_secs_f64() / scene.base().as_secs_f64(),
        rtt.saturating_sub(scene.base()).as_secs_f64() / scene.packets(1).as_secs_f64(),
        report.lost * 100.0,
        report.first_5mb.map_or("-".to_owned(), |took| format!("{} ms", took.as_millis())),
    )
}

/// Two flows at 50 Mbit/s: the delay of one way, and the queue in bandwidth-delay products.
const BESIDE: [(u64, f64); 4] = [(10, 1.0), (10, 4.0), (20, 1.0), (20, 4.0)];

fn beside() -> String {
    let mut text =
        "\nBeside others, 50 Mbit/s: our share from second 10 to 60, all of the rate, round trip, \
                    packets lost of ours\n"
            .to_owned();
    for (delay, queue) in BESIDE {
        for other in [Cubic, NewReno, Bbr] {
            for flows in [[Own, other], [other, Own]] {
                let mut scene = Scene::one(50 * MBIT, millis(delay), 0.0, 60).with(&flows);
                scene.queue = scene.bdp_packets(queue);
                scene.measured.0 = seconds(10);
                let (ours, all, rtt, lost) = shares(&scene);
                let _ = writeln!(
                    text,
                    "{delay} ms, queue {queue} BDP, {flows:?}: {:.0} %, {:.0} %, {:.2}x  lost {:.1} %",
                    ours * 100.0,
                    all * 100.0,
                    rtt,
                    lost * 100.0,
                );
            }
        }
    }
    text
}

/// Our share, all of the rate, the round trip over the base, what we lost.
fn shares(scene: &Scene) -> (f64, f64, f64, f64) {
    let (from, to) = scene.measured;
    let reports = run(scene);
    let goodput: Vec<f64> = reports.iter().map(|report| report.goodput(from, to)).collect();
    let all: f64 = goodput.iter().sum();
    let ours = scene.flows.iter().zip(&goodput).filter(|(flow, _)| flow.algorithm == Own);
    let ours: f64 = ours.map(|(_, goodput)| *goodput).sum();
    let rtt = reports[0].mean_rtt(from, to).as_secs_f64() / scene.base().as_secs_f64();
    let lost = scene.flows.iter().zip(&reports).filter(|(flow, _)| flow.algorithm == Own);
    let lost = lost.map(|(_, report)| report.lost).sum();
    (ours / all, all / scene.rate as f64, rtt, lost)
}

/// Our own flows: how many, rate, delay of one way, queue in bandwidth-delay products, loss.
const TOGETHER: &[(usize, u64, u64, f64, f64)] = &[
    (2, 50, 10, 1.0, 0.0),
    (2, 50, 10, 4.0, 0.0),
    (2, 100, 25, 1.0, 0.01),
    (8, 50, 10, 1.0, 0.0),
    (8, 50, 10, 4.0, 0.0),
    (8, 50, 20, 1.0, 0.0),
    (8, 100, 25, 1.0, 0.01),
];

/// They begin so many milliseconds after each other: one lucky order is no proof.
const APART: [u64; 3] = [1000, 370, 1730];

fn together() -> String {
    let mut text = "\nTogether: Jain's index from second 20 to 60, all of the rate, round trip; \
                    begun 1, 0.37 and 1.73 s apart\n"
        .to_owned();
    for (count, rate, delay, queue, loss) in TOGETHER {
        let _ = write!(
            text,
            "{count} flows, {rate} Mbit/s, {delay} ms, queue {queue} BDP, loss {} %:",
            loss * 100.0
        );
        for apart in APART {
            let flows = vec![Own; *count];
            let mut scene = Scene::one(rate * MBIT, millis(*delay), *loss, 60).with(&flows);
            scene.seed = apart;
            scene.queue = scene.bdp_packets(*queue);
            scene.measured.0 = seconds(20);
            for (n, flow) in scene.flows.iter_mut().enumerate() {
                flow.begins = millis(n as u64 * apart);
            }
            let (fairness, all, rtt) = fairness(&scene);
            let _ = write!(text, "  {fairness:.3}, {all:.0} %, {rtt:.2}x");
        }
        text.push('\n');
    }
    text
}

/// Jain's index, all of the rate, the round trip over the base.
fn fairness(scene: &Scene) -> (f64, f64, f64) {
    let (from, to) = scene.measured;
    let reports = run(scene);
    let goodput: Vec<f64> = reports.iter().map(|report| report.goodput(from, to)).collect();
    let rtt = reports[0].mean_rtt(from, to).as_secs_f64() / scene.base().as_secs_f64();
    (jain(&goodput), goodput.iter().sum::<f64>() / scene.rate as f64 * 100.0, rtt)
}

fn events() -> String {
    let mut text =
        "\nEvents, 100 Mbit/s, 25 ms: share of the rate of the time, round trip\n".to_owned();
    let base = || Scene::one(100 * MBIT, millis(25), 0.0, 20);
    let mut show = |name: &str, scene: &Scene, parts: &[(u64, u64, u64)]| {
        let report = &run(scene)[0];
        let _ = write!(text, "{name}:");
        for (from, to, mbit) in parts {
            let (from, to) = (seconds(*from), seconds(*to));
            let share = report.goodput(from, to) / (mbit * MBIT) as f64 * 100.0;
            let rtt = report.mean_rtt(from, to).as_millis();
            let span = format!("{}-{} s", from.as_secs(), to.as_secs());
            let _ = write!(text, "  {span} {share:.0} %, {rtt} ms");
        }
        let _ = writeln!(text, "  lost {:.2} %", report.lost * 100.0);
    };
    let changed = |change| Scene { changes: vec![(seconds(5), change)], ..base() };
    let later = [(3, 5, 100), (5, 6, 100), (6, 8, 100), (8, 20, 100)];
    show("rate halves", &changed(Change::Rate(50 * MBIT)), &later.map(halved));
    let parts = [(3, 5, 100), (5, 8, 10), (8, 12, 10), (12, 20, 10)];
    show("rate falls to a tenth", &changed(Change::Rate(10 * MBIT)), &parts);
    show("rate doubles", &changed(Change::Rate(200 * MBIT)), &later.map(doubled));
    show("round trip doubles", &changed(Change::Delay(millis(50))), &later);
    show("round trip halves", &changed(Change::Delay(millis(12))), &later);
    let mut outage = base();
    outage.changes = vec![(seconds(5), Change::Loss(1.0)), (seconds(8), Change::Loss(0.0))];
    show("down from 5 to 8", &outage, &[(3, 5, 100), (5, 8, 100), (8, 10, 100), (10, 20, 100)]);
    for depth in [50_000, 500_000] {
        let policed = Scene { policer: Some((30 * MBIT, depth)), ..base() };
        show(&format!("policer, {} kB", depth / 1000), &policed, &[(1, 5, 30), (5, 20, 30)]);
    }
    let stalled = Scene { stalls: Some((millis(15), millis(20))), ..base() };
    show("hosts that work 5 of 20 ms", &stalled, &[(5, 20, 100)]);
    let mut bursts = base();
    bursts.flows[0].demand = Demand::Bursts(2_000_000, seconds(1));
    show("2 MB a second", &bursts, &[(2, 20, 16)]);
    text
}

fn halved((from, to, mbit): (u64, u64, u64)) -> (u64, u64, u64) {
    (from, to, if from < 5 { mbit } else { mbit / 2 })
}

fn doubled((from, to, mbit): (u64, u64, u64)) -> (u64, u64, u64) {
    (from, to, if from < 5 { mbit } else { mbit * 2 })
}
