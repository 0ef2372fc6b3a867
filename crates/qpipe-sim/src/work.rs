//! What programs do in a run: which pipes are opened, what is written and read, how it ends.

use std::time::Duration;

use crate::clock::Time;
use crate::rng::Rng;

/// A group of pipes that a program opens.
#[derive(Clone, Debug)]
pub struct Job {
    /// When.
    pub at: Time,
    /// The host that opens.
    pub opener: usize,
    /// The pipes.
    pub pipes: Vec<PipePlan>,
    /// What the program that is asked does.
    pub answer: AnswerPlan,
}

/// What becomes of an open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerPlan {
    /// How long it takes.
    pub after: Duration,
    /// Whether it is accepted.
    pub accepts: bool,
}

/// One pipe.
#[derive(Clone, Debug)]
pub struct PipePlan {
    /// Its number in the run.
    pub number: usize,
    /// The host that writes it.
    pub writer: usize,
    /// The writing program.
    pub write: WritePlan,
    /// The reading program.
    pub read: ReadPlan,
}

/// How a writing program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteEnding {
    /// It is killed, or says that it aborts.
    Abort,
    /// It closes the pipe and waits for what becomes of it.
    Close,
    /// It closes the pipe and is gone at once.
    CloseAndGo,
    /// It lets go of the pipe unfinished.
    Drop,
    /// It writes all and stays, until its reader leaves.
    Stay,
}

/// A writing program.
#[derive(Clone, Debug)]
pub struct WritePlan {
    /// Bytes in all.
    pub bytes: u64,
    /// The most that it writes at once.
    pub chunk: usize,
    /// How it ends.
    pub ending: WriteEnding,
    /// When it rests.
    pub pace: Pace,
    /// How long it is silent after half of its bytes.
    pub silence: Duration,
}

/// A reading program.
#[derive(Clone, Debug)]
pub struct ReadPlan {
    /// The most that it reads at once.
    pub chunk: usize,
    /// It leaves after so many bytes, if not before.
    pub leaves_at: Option<u64>,
    /// When it rests.
    pub pace: Pace,
}

/// When a program rests: in a part of its steps, for up to so long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// The part of steps after which it rests.
    pub part: f64,
    /// For how long at most.
    pub rest: Duration,
}

/// The largest pipe, in bytes.
const PIPE_BYTES_MAX: u64 = 1024 * 1024;

/// What all pipes of most runs carry together, in bytes.
const RUN_BYTES: u64 = 64 * 1024;

/// Draws the work of a run.
pub fn draw(_seed: u64, rng: &mut Rng) -> Vec<Job> {
    let count = rng.skewed(1, 12);
    let mut left = if rng.chance(0.03) { PIPE_BYTES_MAX } else { RUN_BYTES };
    let mut number = 0;
    let mut jobs = Vec::new();
    for n in 0..count {
        let opener = rng.below(2) as usize;
        let at = if n == 0 { Duration::ZERO } else { rng.millis(1, 20_000) };
        // Writes, reads, does both: in the last case the first pipe is written by the opener.
        let writers = match rng.below(4) {
            0 => vec![1 - opener],
            1 => vec![opener, 1 - opener],
            _ => vec![opener],
        };
        let pipes = writers.into_iter().map(|writer| {
            let bytes = size(rng).min(left);
            left -= bytes;
            number += 1;
            pipe(number - 1, writer, bytes, rng)
        });
        let pipes: Vec<PipePlan> = pipes.collect();
        let after = if rng.chance(0.7) { Duration::ZERO } else { rng.millis(1, 3_000) };
        let answer = AnswerPlan { after, accepts: rng.chance(0.93) };
        jobs.push(Job { at, opener, pipes, answer });
    }
    jobs
}

/// One pipe that is silent for so long between its first half and its second.
pub fn silent(length: Duration) -> Vec<Job> {
    let pace = Pace { part: 0.0, rest: Duration::ZERO };
    let (bytes, chunk, ending) = (2048, 512, WriteEnding::Close);
    let write = WritePlan { bytes, chunk, ending, pace, silence: length };
    let read = ReadPlan { chunk, leaves_at: None, pace };
    // Written by the side that was dialled: only what the other sends keeps a NAT's mapping.
    let pipes = vec![PipePlan { number: 0, writer: 1, write, read }];
    let answer = AnswerPlan { after: Duration::ZERO, accepts: true };
    vec![Job { at: Duration::ZERO, opener: 0, pipes, answer }]
}

/// Mostly small, with a heavy tail; the sizes at which something begins or ends are frequent.
fn size(rng: &mut Rng) -> u64 {
    match rng.below(10) {
        0 => 0,
        1 => rng.pick(&[1, 4095, 4096, 4097, 16_384, 16_385, 65_536]),
        2..=5 => rng.skewed(1, 4096),
        6..=8 => rng.skewed(1024, 65_536),
        _ => rng.skewed(32_768, PIPE_BYTES_MAX),
    }
}

fn pipe(number: usize, writer: usize, bytes: u64, rng: &mut Rng) -> PipePlan {
    let ending = match rng.below(10) {
        0 => WriteEnding::Abort,
        1 => WriteEnding::Drop,
        2 => WriteEnding::Stay,
        3 | 4 => WriteEnding::CloseAndGo,
        _ => WriteEnding::Close,
    };
    let stays = ending == WriteEnding::Stay;
    let leaves = stays || rng.chance(0.15);
    let leaves_at = leaves.then(|| rng.below(bytes + 1));
    PipePlan {
        number,
        writer,
        write: WritePlan {
            bytes,
            chunk: chunk(rng),
            ending,
            pace: pace(rng),
            silence: Duration::ZERO,
        },
        read: ReadPlan { chunk: chunk(rng), leaves_at, pace: pace(rng) },
    }
}

fn chunk(rng: &mut Rng) -> usize {
    rng.skewed(64, 65_536) as usize
}

fn pace(rng: &mut Rng) -> Pace {
    let part = if rng.chance(0.5) { 0.0 } else { rng.skewed(1, 200) as f64 / 1000.0 };
    Pace { part, rest: rng.millis(1, 5_000) }
}
