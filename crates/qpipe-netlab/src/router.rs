//! The threads that move packets between the TUN devices and the links.
//!
//! There is one thread per host. It reads what its host sends, puts it on the link
//! to the destination, and writes what comes out of these links to the device of
//! the destination. So each link belongs to one thread, and nothing is shared
//! but the address book; whoever wants to see or change links sends a job.

use std::{
    num::NonZeroU64,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
    thread::set_current_timer_slack,
};
use serde::Serialize;

use crate::{
    addr::{AddressBook, Refusal},
    link::Link,
    packet::Pool,
    sys,
    tun::Tun,
    units::{MILLISECOND, Nanos, SECOND},
};

/// How many packets a thread reads before it looks at the clock for deliveries.
const BATCH: usize = 64;

/// A busy thread looks again only after this time, as network cards moderate their interrupts: woken
/// by each packet, it would take a processor from the programs at 500 Mbit/s. So packets of a busy link
/// come so much late at most.
const MODERATION: Duration = Duration::from_micros(100);

/// A thread is busy that moved so many packets a millisecond, in and out, when that was last counted.
/// Slower links are exact.
const BUSY_PACKETS: u64 = 40;

/// The lab's time: nanoseconds since it started.
#[derive(Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> Nanos {
        self.0.elapsed().as_nanos() as Nanos
    }
}

/// What has happened to packets outside the links, per sending host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct HostStats {
    /// Not for any host of the lab (multicast, for example).
    pub(crate) unroutable: u64,
    /// From or to an address that host A no longer has.
    pub(crate) stale_address: u64,
    /// Refused by the kernel of the receiver (corrupted beyond recognition).
    pub(crate) write_errors: u64,
}

/// The links that start at one host, and what is needed to work on them.
pub(crate) struct Station {
    /// By destination; `None` for the host itself.
    pub(crate) links: Vec<Option<Link>>,
    pub(crate) pool: Pool,
    pub(crate) stats: HostStats,
}

type Job = Box<dyn FnOnce(&mut Station, Nanos) + Send>;

/// The means to reach the threads; can be cloned freely.
#[derive(Clone)]
pub(crate) struct Remote {
    threads: Arc<[(Sender<Job>, Arc<OwnedFd>)]>,
}

impl Remote {
    pub(crate) fn hosts(&self) -> usize {
        self.threads.len()
    }

    /// Runs `job` on the thread of a host and returns its result.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        host: usize,
        job: impl FnOnce(&mut Station, Nanos) -> T + Send + 'static,
    ) -> Result<T> {
        let (jobs, wake) = &self.threads[host];
        let (result, answer) = channel();
        let job = move |station: &mut Station, now| {
            let _ = result.send(job(station, now));
        };
        jobs.send(Box::new(job)).map_err(|_| anyhow!("the emulator has stopped"))?;
        wake_up(wake)?;
        answer.recv().context("the emulator has stopped")
    }
}

/// The running threads; they stop when this is dropped.
pub(crate) struct Router {
    remote: Option<Remote>,
    threads: Vec<JoinHandle<()>>,
}

impl Router {
    /// Starts one thread per host. `links` are by source, then by destination.
    pub(crate) fn start(
        tuns: Vec<Tun>,
        links: Vec<Vec<Option<Link>>>,
        book: Arc<AddressBook>,
        clock: Clock,
        buffer_size: usize,
        real_time: bool,
    ) -> Result<Self> {
        let tuns: Arc<[Tun]> = tuns.into();
        let mut remotes = Vec::new();
        let mut threads = Vec::new();
        for (host, links) in links.into_iter().enumerate() {
            let (sender, jobs) = channel();
            let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
            remotes.push((sender, wake.clone()));
            let worker = Worker {
                host,
                tuns: tuns.clone(),
                book: book.clone(),
                clock,
                jobs,
                wake,
                station: Station {
                    links,
                    pool: Pool::new(buffer_size),
                    stats: HostStats::default(),
                },
                load: Load::default(),
            };
            let thread = thread::Builder::new().name(format!("netlab-{host}"));
            threads.push(thread.spawn(move || worker.run(real_time))?);
        }
        Ok(Self { remote: Some(Remote { threads: remotes.into() }), threads })
    }

    pub(crate) fn remote(&self) -> Remote {
        self.remote.clone().expect("it is there until the drop")
    }

    /// The final word of every host's thread.
    pub(crate) fn collect<T: Send + 'static>(
        &self,
        job: impl Fn(&mut Station) -> T + Clone + Send + 'static,
    ) -> Result<Vec<T>> {
        let remote = self.remote();
        (0..remote.hosts())
            .map(|host| {
                let job = job.clone();
                remote.call(host, move |station, _| job(station))
            })
            .collect()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let stop = |station: &mut Station, _| station.links.clear();
        if let Some(remote) = self.remote.take() {
            for host in 0..remote.hosts() {
                let _ = remote.call(host, stop);
            }
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What a thread did of late.
#[derive(Default)]
struct Load {
    began: Nanos,
    packets: u64,
    is_busy: bool,
}

impl Load {
    fn add(&mut self, now: Nanos, packets: usize) {
        self.packets += packets as u64;
        let ms = (now - self.began) / MILLISECOND;
        if let Some(pace) = self.packets.checked_div(ms) {
            self.is_busy = pace >= BUSY_PACKETS;
            (self.began, self.packets) = (now, 0);
        }
    }
}

struct Worker {
    host: usize,
    tuns: Arc<[Tun]>,
    book: Arc<AddressBook>,
    clock: Clock,
    jobs: Receiver<Job>,
    wake: Arc<OwnedFd>,
    station: Station,
    load: Load,
}

impl Worker {
    fn run(mut self, real_time: bool) {
        // One nanosecond: timers are to be precise. What is refused makes delays less exact.
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        if real_time {
            sys::prefer_this_thread();
        }
        while self.run_jobs() {
            let (read, more) = self.read_batch();
            let delivered = self.deliver();
            self.load.add(self.clock.now(), read + delivered);
            match more {
                true => {}
                false if self.load.is_busy => thread::sleep(MODERATION),
                false => self.sleep(),
            }
        }
    }

    /// Runs the jobs that wait; false means that it is time to stop.
    fn run_jobs(&mut self) -> bool {
        loop {
            match self.jobs.try_recv() {
                Ok(job) => job(&mut self.station, self.clock.now()),
                Err(TryRecvError::Empty) => return !self.station.links.is_empty(),
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Reads packets from the host: how many, and whether there may be more.
    fn read_batch(&mut self) -> (usize, bool) {
        let Station { links, pool, stats } = &mut self.station;
        let tun = &self.tuns[self.host];
        for read in 0..BATCH {
            let mut packet = pool.take();
            match packet.fill_with(|buffer| tun.read(buffer)) {
                Ok(()) => {}
                Err(Errno::AGAIN | Errno::INTR) => {
                    pool.give(packet);
                    return (read, false);
                }
                Err(error) => panic!("the network device is gone: {error}"),
            }
            let now = self.clock.now();
            match self.book.depart(self.host, now, packet.bytes_mut()) {
                Ok(destination) => {
                    let link = links[destination].as_mut().expect("no host sends to itself");
                    link.push(now, packet, pool);
                }
                Err(refusal) => {
                    count(stats, refusal);
                    pool.give(packet);
                }
            }
        }
        (BATCH, true)
    }

    /// Writes the packets that are due to their destinations: how many.
    fn deliver(&mut self) -> usize {
        let Station { links, pool, stats } = &mut self.station;
        let now = self.clock.now();
        let mut delivered = 0;
        for (destination, link) in links.iter_mut().enumerate() {
            let Some(link) = link else { continue };
            while let Some(mut packet) = link.pop_due(now, pool) {
                delivered += 1;
                match self.book.arrive(destination, now, packet.bytes_mut()) {
                    Ok(()) => {
                        if self.tuns[destination].write(packet.bytes()).is_err() {
                            stats.write_errors += 1;
                        }
                    }
                    Err(refusal) => count(stats, refusal),
                }
                pool.give(packet);
            }
        }
        delivered
    }

    /// Waits for a packet from the host, the next delivery, or a job.
    fn sleep(&self) {
        let links = self.station.links.iter().flatten();
        let timeout = links.filter_map(Link::next_event).min().map(|event| {
            let left = event.saturating_sub(self.clock.now());
            Timespec { tv_sec: (left / SECOND) as i64, tv_nsec: (left % SECOND) as _ }
        });
        let tun = self.tuns[self.host].as_fd();
        let mut events =
            [PollFd::from_borrowed_fd(tun, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
        match poll(&mut events, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
        if !events[1].revents().is_empty() {
            let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        }
    }
}

fn wake_up(wake: &OwnedFd) -> Result<()> {
    rustix::io::write(wake, &1u64.to_ne_bytes())?;
    Ok(())
}

fn count(stats: &mut HostStats, refusal: Refusal) {
    match refusal {
        Refusal::Unroutable => stats.unroutable += 1,
        Refusal::Stale => stats.stale_address += 1,
    }
}
