//! What happened in a run: a hash of all of it, and if wanted every line.

use std::fmt;

use crate::clock::Time;
use crate::rng::mix;

/// The trace of one run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    count: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// A trace that keeps its lines if `verbose`.
    pub fn new(verbose: bool) -> Trace {
        Trace { lines: verbose.then(Vec::new), ..Trace::default() }
    }

    /// Notes that `what` happened on `host`, with two numbers that say more.
    pub fn note(&mut self, now: Time, host: usize, what: &'static str, a: u64, b: u64) {
        let word = what.bytes().fold(host as u64, |sum, byte| mix(sum ^ u64::from(byte)));
        for number in [now.as_nanos() as u64, word, a, b] {
            self.hash = mix(self.hash.rotate_left(7) ^ number);
        }
        self.count += 1;
        self.say(now, host, format_args!("{what} {a} {b}"));
    }

    /// Adds a line for people only.
    pub fn say(&mut self, now: Time, host: usize, what: fmt::Arguments<'_>) {
        if let Some(lines) = &mut self.lines {
            let host = ["A", "B", "-"][host.min(2)];
            lines.push(format!("{:>14.6} {host} {what}", now.as_secs_f64()));
        }
    }

    /// Whether lines are kept.
    pub fn is_verbose(&self) -> bool {
        self.lines.is_some()
    }

    /// The hash of all that was noted.
    pub fn hash(&self) -> u64 {
        mix(self.hash ^ self.count)
    }

    /// The lines, if they were kept.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
