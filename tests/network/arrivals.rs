//! What arrives at a reader, and when.

use std::{
    io::{PipeReader, Read},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{wait, weather::Change};

/// A thread that reads at once whatever there is, until EOF.
pub struct Arrivals {
    /// When each read returned, and how many bytes had come by then.
    reads: Arc<Mutex<Vec<(Instant, u64)>>>,
    thread: JoinHandle<Vec<u8>>,
}

impl Arrivals {
    pub fn of(mut reader: PipeReader) -> Arrivals {
        let reads = Arc::<Mutex<Vec<_>>>::default();
        let noted = reads.clone();
        let thread = thread::spawn(move || {
            let mut bytes = Vec::new();
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                bytes.extend_from_slice(&buffer[..read]);
                noted.lock().unwrap().push((Instant::now(), bytes.len() as u64));
            }
            bytes
        });
        Arrivals { reads, thread }
    }

    /// How many bytes have come so far.
    pub fn total(&self) -> u64 {
        self.reads.lock().unwrap().last().map_or(0, |(_, total)| *total)
    }

    /// Waits until more than so many bytes have come.
    pub fn exceed(&self, bytes: u64, limit: Duration) {
        wait(limit, "bytes at the reader", || (self.total() > bytes).then_some(()));
    }

    /// Waits for the first read after a moment; returns how long after it.
    pub fn first_after(&self, moment: Instant, limit: Duration) -> Duration {
        wait(limit, "the first byte at the reader", || {
            let reads = self.reads.lock().unwrap();
            let first = reads.partition_point(|(when, _)| *when <= moment);
            reads.get(first).map(|(when, _)| *when - moment)
        })
    }

    /// For each of these changes, in their order: the longest time without a byte that begins
    /// before it or soon after, less what of it passed while the change took place.
    pub fn gaps(&self, changes: &[Change]) -> Vec<Duration> {
        let reads = self.reads.lock().unwrap();
        let gap = |change: &Change| {
            let pairs = reads.windows(2).map(|pair| (pair[0].0, pair[1].0));
            // It may begin a little later, with what was under way at that moment.
            let near =
                pairs.filter(|(last, next)| change.began < *next && *last < change.began + NEAR);
            near.map(|(last, next)| {
                let excused = next.min(change.over).duration_since(last.max(change.began));
                (next - last).saturating_sub(excused)
            })
            .max()
        };
        changes.iter().filter_map(gap).collect()
    }

    /// Waits for EOF; returns all that came.
    pub fn bytes(self) -> Vec<u8> {
        self.thread.join().unwrap()
    }
}

/// How long after a fault its effect on the reader begins at most.
const NEAR: Duration = Duration::from_secs(1);
