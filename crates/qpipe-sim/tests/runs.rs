//! Whole runs: what held once holds, seeds replay, and what is planted is found.

use std::fmt::Write;
use std::time::Duration;

use qpipe_sim::plan::Plan;
use qpipe_sim::planted::Planted;
use qpipe_sim::seeds;
use qpipe_sim::world::{Options, run, run_plan};

/// Seeds of a plain `cargo test`. The command runs many more: `qpipe-sim run`.
const SEEDS: u64 = 400;

/// By then every planted bug has to show. The command allows 10,000.
const PLANTED_SEEDS: u64 = 3_000;

fn failures(seeds: impl Iterator<Item = u64>) -> String {
    let mut text = String::new();
    for seed in seeds {
        if let Some(failure) = run(seed, Options::default()).failure {
            let _ = writeln!(text, "{failure}; replay with: qpipe-sim replay {seed} -v");
        }
    }
    text
}

#[test]
fn seeds_that_failed_once_hold() {
    assert_eq!(failures(seeds::kept().into_iter()), "");
}

#[test]
fn the_first_seeds_hold() {
    assert_eq!(failures(0..SEEDS), "");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 1_000..1_020 {
        let hashes = [(); 2].map(|()| run(seed, Options::default()).hash);
        assert_eq!(hashes[0], hashes[1], "seed {seed}");
    }
}

#[test]
fn a_byte_gets_through_at_once_after_24_hours_of_silence_and_a_nat_that_forgets() {
    let day = Duration::from_secs(24 * 3600);
    let plan = Plan::silent(day, Duration::from_secs(30));
    let outcome = run_plan(1, plan, Options::default());
    assert_eq!(outcome.failure, None);
    assert_eq!(outcome.bytes, 2048);
    // Lingering and parting included; the wait for a keep-alive of the side behind the NAT, too.
    assert!(outcome.time < day + Duration::from_secs(5), "{:?}", outcome.time - day);
}

#[test]
fn another_seed_gives_another_trace() {
    assert_ne!(run(1, Options::default()).hash, run(2, Options::default()).hash);
}

#[test]
fn every_planted_bug_is_caught() {
    std::panic::set_hook(Box::new(|_| {}));
    for bug in Planted::all() {
        let options = Options { planted: Some(bug), verbose: false };
        let mut tried = seeds::before(0..PLANTED_SEEDS);
        let is_caught = tried.any(|seed| run(seed, options).failure.is_some());
        assert!(is_caught, "{bug}");
    }
}
