//! Processors: which one a process keeps to, and how far two of them are from each other.
//!
//! A virtual machine's processors are moved between those of its host. While two of them share no
//! cache, whatever passes from one to the other takes several times as long, and programs at both
//! ends of a connection carry half of what they do otherwise. While they are two threads of one core, it
//! takes a part of the time, but each computes half as fast.

use std::{
    hint, io,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A line is sent to and fro so often in each round, which takes a tenth of a millisecond; of the rounds
/// the shortest counts: in some the kernel gives a processor to somebody else.
const ROUNDS: u32 = 20;
const ROUND_TRIPS: u32 = 1000;

/// What who cannot take part leaves.
const OVER: u32 = u32::MAX;

/// The first and the last processor that this thread may use.
pub(crate) fn first_and_last() -> Result<(usize, usize)> {
    let set = sched_getaffinity(None)?;
    let mut allowed = (0..CpuSet::MAX_CPU).filter(|processor| set.is_set(*processor));
    let first = allowed.next().context("no processor")?;
    Ok((first, allowed.next_back().unwrap_or(first)))
}

/// Keeps this thread, and what it starts from now on, to a processor. Two ends that are both busy, and nothing
/// else, are otherwise often left on one of two processors: the kernel looks for an idle one only while few
/// are busy.
pub(crate) fn keep_to(processor: usize) -> io::Result<()> {
    let mut one = CpuSet::new();
    one.set(processor);
    Ok(sched_setaffinity(None, &one)?)
}

/// How long a cache line takes from the first processor to the last and back, when nobody else has
/// either of them; `None` if there is one processor.
pub(crate) fn round_trip() -> Result<Option<Duration>> {
    let (first, last) = first_and_last()?;
    if first == last {
        return Ok(None);
    }
    let line = AtomicU32::new(0);
    let (near, far) = thread::scope(|scope| {
        let far = scope.spawn(|| play(&line, last, 1));
        let near = scope.spawn(|| play(&line, first, 0));
        (near.join(), far.join())
    });
    let both = near.and_then(|near| Ok((near, far?)));
    let (near, far) = both.map_err(|_| anyhow::anyhow!("a thread panicked"))?;
    far?;
    Ok(Some(near?))
}

/// Counts the line up whenever it is this one's turn, which begins with `mine`; returns what a round
/// trip takes at best.
fn play(line: &AtomicU32, processor: usize, mine: u32) -> io::Result<Duration> {
    keep_to(processor).inspect_err(|_| line.store(OVER, SeqCst))?;
    let mut best = Duration::MAX;
    for round in 0..ROUNDS {
        let start = Instant::now();
        for trip in 0..ROUND_TRIPS {
            let turn = 2 * (round * ROUND_TRIPS + trip) + mine;
            while line.load(SeqCst) != turn {
                if line.load(SeqCst) == OVER {
                    return Ok(Duration::MAX);
                }
                hint::spin_loop();
            }
            // The other one may have given up.
            let _ = line.compare_exchange(turn, turn + 1, SeqCst, SeqCst);
        }
        best = best.min(start.elapsed() / ROUND_TRIPS);
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_takes_time_where_there_are_two_processors() {
        let (first, last) = first_and_last().unwrap();
        let time = round_trip().unwrap();
        assert_eq!(time.is_some(), first != last);
        assert!(time.is_none_or(|time| time > Duration::ZERO));
    }
}
