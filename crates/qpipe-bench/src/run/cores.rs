//! Processors: which one a process keeps to, and how far two of them are from each other.
//!
//! A virtual machine's processors are moved between those of its host. While two of them share no
//! cache, whatever passes from one to the other takes several times as long, and programs at both
//! ends of a connection carry half of what they do otherwise.

use std::{
    hint, io,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A line is sent to and fro so often, which takes some milliseconds.
const ROUND_TRIPS: u32 = 20_000;

/// What the last round trip leaves, or who cannot take part.
const OVER: u32 = u32::MAX;

/// The first and the last processor that this thread may use.
pub(crate) fn first_and_last() -> Result<(usize, usize)> {
    let set = sched_getaffinity(None)?;
    let mut allowed = (0..CpuSet::MAX_CPU).filter(|processor| set.is_set(*processor));
    let first = allowed.next().context("no processor")?;
    Ok((first, allowed.next_back().unwrap_or(first)))
}

/// Keeps this thread, and what it starts from now on, to a processor.
pub(crate) fn keep_to(processor: usize) -> io::Result<()> {
    let mut one = CpuSet::new();
    one.set(processor);
    Ok(sched_setaffinity(None, &one)?)
}

/// How long a cache line takes from the first processor to the last and back; `None` if there is one.
pub(crate) fn round_trip() -> Result<Option<Duration>> {
    let (first, last) = first_and_last()?;
    if first == last {
        return Ok(None);
    }
    let line = AtomicU32::new(0);
    // Even values are the first one's turn.
    let play = |processor, mine: u32| {
        keep_to(processor).inspect_err(|_| line.store(OVER, SeqCst))?;
        let start = Instant::now();
        for turn in (mine..2 * ROUND_TRIPS).step_by(2) {
            while line.load(SeqCst) != turn {
                if line.load(SeqCst) == OVER {
                    return Ok(Duration::ZERO);
                }
                hint::spin_loop();
            }
            let _ = line.compare_exchange(turn, turn + 1, SeqCst, SeqCst);
        }
        Ok::<_, io::Error>(start.elapsed() / ROUND_TRIPS)
    };
    let (near, far) = thread::scope(|scope| {
        let far = scope.spawn(|| play(last, 1));
        let near = scope.spawn(|| play(first, 0));
        (near.join(), far.join())
    });
    let both = near.and_then(|near| Ok((near, far?)));
    let (near, far) = both.map_err(|_| anyhow::anyhow!("a thread panicked"))?;
    // Either may have waited for the other to begin.
    Ok(Some(near?.min(far?)))
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
