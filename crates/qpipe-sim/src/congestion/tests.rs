//! What the evaluation must not fall below: short scenes, in virtual time.

use std::time::Duration;

use super::Algorithm::{Bbr, Cubic, Own};
use super::*;

fn scene(loss: f64, seconds: u64) -> Scene {
    let mut scene = Scene::one(50_000_000, Duration::from_millis(20), loss, seconds);
    scene.measured.0 = Duration::from_secs(4);
    scene
}

fn share(scene: &Scene, report: &Report) -> f64 {
    report.goodput(scene.measured.0, scene.measured.1) / scene.rate as f64
}

#[test]
fn random_loss_costs_little_more_than_what_is_lost() {
    for (loss, least) in [(0.0, 0.9), (0.01, 0.88), (0.05, 0.8)] {
        let scene = scene(loss, 9);
        let share = share(&scene, &run(&scene)[0]);
        assert!(share > least, "{share:.3} at a loss of {loss}");
    }
}

#[test]
fn the_queue_of_one_flow_stays_short_however_much_would_fit() {
    let mut scene = scene(0.0, 9);
    scene.queue = scene.bdp_packets(4.0);
    let report = &run(&scene)[0];
    let rtt = report.mean_rtt(scene.measured.0, scene.measured.1);
    assert!(rtt < scene.base().mul_f64(1.25), "{rtt:?}");
}

#[test]
fn two_flows_share_equally() {
    let mut scene = scene(0.0, 20).with(&[Own, Own]);
    scene.measured.0 = Duration::from_secs(8);
    let shares: Vec<f64> = run(&scene).iter().map(|report| share(&scene, report)).collect();
    assert!(jain(&shares) > 0.95, "{shares:?}");
}

#[test]
fn beside_cubic_neither_starves() {
    let mut scene = scene(0.0, 30).with(&[Own, Cubic]);
    scene.measured.0 = Duration::from_secs(8);
    let shares: Vec<f64> = run(&scene).iter().map(|report| share(&scene, report)).collect();
    assert!(shares.iter().all(|share| *share > 0.15), "{shares:?}");
}

#[test]
fn beside_bbr_neither_starves_whichever_begins() {
    for flows in [[Own, Bbr], [Bbr, Own]] {
        let mut scene = scene(0.0, 25).with(&flows);
        scene.measured.0 = Duration::from_secs(8);
        let shares: Vec<f64> = run(&scene).iter().map(|report| share(&scene, report)).collect();
        assert!(shares.iter().all(|share| *share > 0.15), "{flows:?}: {shares:?}");
    }
}

#[test]
fn the_stand_in_for_bbr_alone_fills_the_link_with_a_short_queue() {
    let scene = scene(0.0, 9).with(&[Bbr]);
    let report = &run(&scene)[0];
    let rtt = report.mean_rtt(scene.measured.0, scene.measured.1);
    assert!(share(&scene, report) > 0.9 && rtt < scene.base().mul_f64(1.25), "{rtt:?}");
}

#[test]
fn a_link_that_slows_down_is_not_taken_for_one_that_is_shared() {
    let mut scene = scene(0.0, 16);
    scene.changes = vec![(Duration::from_secs(4), Change::Rate(scene.rate / 10))];
    scene.measured.0 = Duration::from_secs(10);
    let report = &run(&scene)[0];
    let rtt = report.mean_rtt(scene.measured.0, scene.measured.1);
    let share = 10.0 * share(&scene, report);
    assert!(share > 0.75 && rtt < scene.base().mul_f64(1.25), "{share:.3}, {rtt:?}");
}

#[test]
fn a_path_that_becomes_longer_is_not_taken_for_a_queue_of_others() {
    let mut scene = scene(0.0, 14);
    scene.changes = vec![(Duration::from_secs(4), Change::Delay(2 * scene.delay))];
    scene.measured.0 = Duration::from_secs(8);
    let share = share(&scene, &run(&scene)[0]);
    assert!(share > 0.85, "{share:.3}");
}

#[test]
fn a_token_bucket_is_told_from_random_loss() {
    let mut scene = scene(0.0, 14);
    scene.policer = Some((scene.rate / 2, 50_000));
    let report = &run(&scene)[0];
    let share = 2.0 * share(&scene, report);
    assert!(share > 0.9 && report.lost < 0.04, "{share:.3}, lost {:.3}", report.lost);
}

#[test]
fn bursts_of_loss_are_not_taken_for_a_token_bucket() {
    for seed in 1..=8 {
        let mut scene = scene(0.0, 25);
        scene.seed = seed;
        scene.burst = (0.01, 10);
        let share = share(&scene, &run(&scene)[0]);
        assert!(share > 0.8, "{share:.3} with seed {seed}");
    }
}

#[test]
fn a_flow_goes_on_after_an_outage() {
    let mut scene = scene(0.0, 14);
    let at = Duration::from_secs;
    scene.changes = vec![(at(5), Change::Loss(1.0)), (at(8), Change::Loss(0.0))];
    scene.measured.0 = at(11);
    let share = share(&scene, &run(&scene)[0]);
    assert!(share > 0.8, "{share:.3}");
}

#[test]
fn the_same_scene_gives_the_same_reports() {
    let scene = scene(0.01, 3);
    assert_eq!(run(&scene)[0].received, run(&scene)[0].received);
}
