//! The simulator's command.
//!
//! ```text
//! qpipe-sim run [--seeds 20000] [--from N] [--replays 200]
//!                                          so many seeds, from N on; so many of them a second time
//! qpipe-sim replay SEED [-v] [--plant BUG] one seed, twice; -v: all that happens
//! qpipe-sim nightly [--from N]             until it is told to stop (SIGINT)
//! qpipe-sim planted [--seeds 10000]        every planted bug has to be caught
//! qpipe-sim congestion [TABLE]             evaluates the congestion controller; one table:
//!                                          alone, beside, together, events
//! ```
#![expect(clippy::disallowed_macros, reason = "the command prints; the library does not")]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use qpipe_sim::clock::real_now;
use qpipe_sim::congestion::TABLES;
use qpipe_sim::planted::Planted;
use qpipe_sim::seeds;
use qpipe_sim::world::{Options, Outcome, run};

const USAGE: &str = "usage: qpipe-sim run [--seeds N] [--from N] [--replays N] | replay SEED [-v] [--plant BUG] | \
                     nightly [--from N] | planted [--seeds N] | congestion [TABLE]";

/// Seeds of `run` and `planted` unless told otherwise.
const SEEDS: u64 = 20_000;
const PLANTED_SEEDS: u64 = 10_000;

/// How often `nightly` says how far it is.
const REPORT_EVERY: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // What panics inside a run is reported with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let number = |name: &str, default| match args.iter().position(|arg| arg == name) {
        Some(at) => args.get(at + 1).and_then(|text| text.parse().ok()),
        None => Some(default),
    };
    let done = match args.first().map(String::as_str) {
        Some("run") => number("--seeds", SEEDS)
            .zip(number("--from", 0))
            .zip(number("--replays", 0))
            .map(|((count, from), replays)| run_all(from, from + count, replays)),
        Some("nightly") => number("--from", SEEDS).map(nightly),
        Some("planted") => number("--seeds", PLANTED_SEEDS).map(catch_all),
        Some("replay") => replay(&args[1..]),
        Some("congestion") => congestion(args.get(1)),
        _ => None,
    };
    match done {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::FAILURE,
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// The seeds that failed once, then all from `from` to `to`; then the first `replays` again.
fn run_all(from: u64, to: u64, replays: u64) -> bool {
    let start = real_now();
    let mut sum = Sum::default();
    let mut hashes = Vec::new();
    for seed in seeds::before(from..to) {
        let outcome = run(seed, Options::default());
        if (from..to.min(from + replays)).contains(&seed) {
            hashes.push((seed, outcome.hash));
        }
        sum.add(seed, &outcome);
    }
    sum.print(start.elapsed());
    let is_same = |(seed, hash): &(u64, u64)| run(*seed, Options::default()).hash == *hash;
    let same = hashes.iter().filter(|one| is_same(one)).count();
    if replays > 0 {
        println!("{same} of {} replays have the same trace", hashes.len());
    }
    sum.failures == 0 && same == hashes.len()
}

fn nightly(from: u64) -> bool {
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_interrupt(stop.clone());
    let (start, mut sum) = (real_now(), Sum::default());
    let mut reported = start.elapsed();
    for seed in from.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        sum.add(seed, &run(seed, Options::default()));
        if start.elapsed() - reported >= REPORT_EVERY {
            reported = start.elapsed();
            sum.print(reported);
        }
    }
    sum.print(start.elapsed());
    sum.failures == 0
}

fn replay(args: &[String]) -> Option<bool> {
    let seed: u64 = args.first()?.parse().ok()?;
    let planted = match args.iter().position(|arg| arg == "--plant") {
        Some(at) => Some(args.get(at + 1)?.parse::<Planted>().ok()?),
        None => None,
    };
    let verbose = args.iter().any(|arg| arg == "-v");
    let outcome = run(seed, Options { planted, verbose });
    let again = run(seed, Options { planted, verbose: false });
    outcome.lines.iter().for_each(|line| println!("{line}"));
    println!("seed {seed}: {:?} of virtual time, trace {:016x}", outcome.time, outcome.hash);
    if let Some(failure) = &outcome.failure {
        println!("{failure}");
    }
    if again.hash != outcome.hash {
        println!("P20: a second run has another trace, {:016x}", again.hash);
    }
    Some(outcome.failure.is_none() && again.hash == outcome.hash)
}

fn congestion(wanted: Option<&String>) -> Option<bool> {
    let wanted = |name: &str| wanted.is_none_or(|wanted| wanted == name);
    let mut tables = TABLES.iter().filter(|(name, _)| wanted(name)).peekable();
    tables.peek()?;
    tables.for_each(|(_, table)| println!("{}", table()));
    Some(true)
}

fn catch_all(seeds: u64) -> bool {
    let mut all = true;
    for bug in Planted::all() {
        let options = Options { planted: Some(bug), verbose: false };
        let mut tried = seeds::before(0..seeds);
        let caught = tried.find_map(|seed| Some((seed, run(seed, options).failure?)));
        all &= caught.is_some();
        match caught {
            Some((seed, failure)) => println!("{bug}: caught by seed {seed}: {failure}"),
            None => println!("{bug}: NOT caught by {seeds} seeds"),
        }
    }
    all
}

/// Sets `stop` when the user has had enough.
fn stop_on_interrupt(stop: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let Ok(runtime) = runtime
            && runtime.block_on(tokio::signal::ctrl_c()).is_ok()
        {
            stop.store(true, Ordering::Relaxed);
        }
    });
}

/// What many runs came to.
#[derive(Default)]
struct Sum {
    runs: u64,
    failures: u64,
    bytes: u64,
    time: Duration,
}

impl Sum {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.runs += 1;
        self.bytes += outcome.bytes;
        self.time += outcome.time;
        if let Some(failure) = &outcome.failure {
            self.failures += 1;
            println!("FAILED {failure}\n  replay with: qpipe-sim replay {seed} -v");
        }
    }

    fn print(&self, took: Duration) {
        let runs = self.runs.max(1);
        println!(
            "{} runs, {} failed; {:.0} runs/s; each {} KiB and {:.1} s of virtual time",
            self.runs,
            self.failures,
            self.runs as f64 / took.as_secs_f64(),
            self.bytes / 1024 / runs,
            self.time.as_secs_f64() / runs as f64,
        );
    }
}
