//! What goes into programs and comes out of them.

use std::{
    fs::File,
    io::Write,
    os::fd::AsFd,
    path::PathBuf,
    process::ChildStdout,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::pipe::{SpliceFlags, splice};

use crate::measure::noise;

/// The content, which is repeated, in bytes.
const NOISE_BYTES: usize = 1 << 20;

/// One write: what a kernel pipe holds by default, in bytes.
const WRITE_BYTES: usize = 64 * 1024;

/// The most that is taken out of a pipe at once, in bytes.
const SPLICE_BYTES: usize = 1 << 20;

/// From one entry of a timeline to the next.
const ENTRY_EVERY: Duration = Duration::from_millis(2);

/// Writes so many bytes into a program, then closes its input. Ends early with the program.
pub(crate) fn feed(mut input: impl Write + Send + 'static, bytes: u64) -> JoinHandle<()> {
    thread::spawn(move || {
        let noise = noise(NOISE_BYTES);
        let mut left = bytes;
        for chunk in noise.chunks(WRITE_BYTES).cycle() {
            let length = left.min(chunk.len() as u64);
            if length == 0 || input.write_all(&chunk[..length as usize]).is_err() {
                return;
            }
            left -= length;
        }
    })
}

/// Where the bytes come out.
pub(crate) enum Outlet {
    Pipe(ChildStdout),
    /// A FIFO that a program will write to.
    Fifo(PathBuf),
}

/// How many bytes had come out, and when.
#[derive(Clone)]
pub(crate) struct Arrivals {
    start: Instant,
    timeline: Arc<Mutex<Timeline>>,
}

#[derive(Default)]
struct Timeline {
    entries: Vec<(Duration, u64)>,
    last: (Duration, u64),
    is_over: bool,
}

impl Arrivals {
    /// Takes all that comes, in a thread of its own.
    pub(crate) fn of(outlet: Outlet, start: Instant) -> Arrivals {
        let this = Arrivals { start, timeline: Arc::default() };
        let arrivals = this.clone();
        thread::spawn(move || {
            match outlet {
                Outlet::Pipe(pipe) => arrivals.drain(pipe),
                // Waits until it is opened to write.
                Outlet::Fifo(path) => drop(File::open(path).map(|fifo| arrivals.drain(fifo))),
            }
            arrivals.lock().is_over = true;
        });
        this
    }

    fn drain(&self, from: impl AsFd) {
        let Ok(nowhere) = File::options().write(true).open("/dev/null") else { return };
        let mut total = 0;
        loop {
            match splice(&from, None, &nowhere, None, SPLICE_BYTES, SpliceFlags::empty()) {
                Ok(0) => return,
                Ok(length) => total += length as u64,
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return,
            }
            let at = self.start.elapsed();
            let mut timeline = self.lock();
            timeline.last = (at, total);
            if timeline.entries.last().is_none_or(|(last, _)| *last + ENTRY_EVERY <= at) {
                timeline.entries.push((at, total));
            }
        }
    }

    /// Waits for the end of what comes; `false` if it is not there in time.
    pub(crate) fn end_within(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while !self.lock().is_over {
            if Instant::now() > end {
                return false;
            }
            thread::sleep(ENTRY_EVERY);
        }
        true
    }

    /// The last byte: when, and how many there were with it.
    pub(crate) fn last(&self) -> (Duration, u64) {
        self.lock().last
    }

    /// When so many bytes had come.
    pub(crate) fn time_of(&self, bytes: u64) -> Option<Duration> {
        let timeline = self.lock();
        let mut all = timeline.entries.iter().chain([&timeline.last]);
        all.find(|(_, total)| *total >= bytes).map(|(at, _)| *at)
    }

    /// How many bytes came between two points in time.
    pub(crate) fn between(&self, from: Duration, to: Duration) -> u64 {
        let timeline = self.lock();
        let total = |until: Duration| {
            let before = timeline.entries.iter().chain([&timeline.last]).rev();
            before.filter(|(at, _)| *at <= until).map(|(_, total)| *total).max().unwrap_or(0)
        };
        total(to) - total(from)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Timeline> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
