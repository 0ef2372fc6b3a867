//! Measuring one program once.

use std::{
    cell::RefCell,
    env,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use qpipe_netlab::Lab;
use serde_json::Value;

use crate::run::{Arrivals, Exit, Outlet, Process, Site, cores, feed, stop};

use super::{
    peer::Peer,
    plan::{A, End, Plan, Started},
    row::{Link, Row, What, Window},
    rows,
    sample::{Sample, Values, median_of},
};

mod inside;
mod processes;
mod rivals;
mod steady;

/// How long a transfer of any size may take.
const TRANSFER_MAX: Duration = Duration::from_secs(300);

/// How long the last bytes may take to come out once the client has ended.
const LAST_BYTES_MAX: Duration = Duration::from_secs(20);

/// How long a server that ends by itself may take for that.
const SERVER_END_MAX: Duration = Duration::from_millis(500);

/// Where processors are is unusual if a round trip between them takes so many times what it usually does,
/// or that part of it.
const UNUSUAL: f64 = 3.0;

/// How often that is looked at first, and how long it is waited in between, to learn what is usual.
const LOOKS: usize = 11;
const LOOK_STEP: Duration = Duration::from_millis(200);

/// How often a run is taken that begins or ends with the processors at unusual places.
const ATTEMPTS_MAX: usize = 5;

/// How long a run waits for them to be where they usually are.
const USUAL_WAIT_MAX: Duration = Duration::from_secs(10);

/// What measurements need.
pub(super) struct Bench {
    /// Keys and certificates.
    state: PathBuf,
    /// Where programs are looked for.
    path: Vec<PathBuf>,
    /// Round trips between processors, in seconds: some first ones, and what was seen after each run.
    looks: RefCell<Vec<f64>>,
}

impl Bench {
    pub(super) fn new(state: PathBuf, path: Vec<PathBuf>) -> Bench {
        Bench { state, path, looks: RefCell::default() }
    }

    /// Measures a program, or says why it cannot be.
    pub(super) fn sample(&self, row: &Row, peer: Peer, run: usize) -> Sample {
        let measured = match peer.missing(&self.path) {
            Some(program) => Err(format!("absent: there is no `{program}` here")),
            None => self.measure_usual(row, peer).map_err(|error| format!("failed: {error:#}")),
        };
        let (values, failure) = match measured {
            Ok(values) => (values, None),
            Err(failure) => (Values::new(), Some(failure)),
        };
        Sample { row: row.name.clone(), peer, run, values, failure }
    }

    /// Measures while the processors are where they usually are, where it is they that limit the rate.
    fn measure_usual(&self, row: &Row, peer: Peer) -> Result<Values> {
        if matches!(row.link, Link::Emulated { .. }) {
            return self.measure(row, peer);
        }
        for _ in 0..ATTEMPTS_MAX {
            let start = Instant::now();
            while !self.is_usual(false)? && start.elapsed() < USUAL_WAIT_MAX {
                stop::check()?;
                thread::sleep(LOOK_STEP);
            }
            let values = self.measure(row, peer)?;
            if self.is_usual(true)? {
                return Ok(values);
            }
            eprintln!("{}, {}: not counted, the processors were moved", row.name, peer.name());
        }
        bail!("the processors were at unusual places after each of {ATTEMPTS_MAX} runs")
    }

    /// Whether the first and the last processor are as far from each other as they usually are, as far as
    /// is known by now. What is seen while a run waits is not usual.
    fn is_usual(&self, learns: bool) -> Result<bool> {
        let look = || Ok::<_, anyhow::Error>(cores::round_trip()?.map(|time| time.as_secs_f64()));
        let mut looks = self.looks.borrow_mut();
        let Some(now) = look()? else { return Ok(true) };
        for _ in looks.len()..LOOKS {
            looks.extend(look()?);
            thread::sleep(LOOK_STEP);
        }
        if learns {
            looks.push(now);
        }
        let Some(usual) = median_of(looks.clone()) else { return Ok(true) };
        Ok(now < usual * UNUSUAL && now * UNUSUAL > usual)
    }

    fn measure(&self, row: &Row, peer: Peer) -> Result<Values> {
        let dir = tempfile::Builder::new().prefix("qpipe-bench.").tempdir()?;
        let site = self.site(&row.link, dir.path())?;
        match &row.what {
            What::Bulk { bytes } if peer == Peer::Iperf3 => {
                rivals::iperf3(&site, &format!("-n {bytes}"))
            }
            What::Busy { pipes, time } => {
                let (time, memory) = (time.as_secs(), rows::busy_memory_mib(*pipes));
                let verb = format!("busy --pipes {pipes} --time {time}s");
                self.with_options(peer, &site, &format!("--memory {memory} --apart"), &verb)
            }
            What::Bulk { .. } if matches!(peer, Peer::QuinnInside | Peer::YamuxInside) => {
                self.inside(peer, &site, "busy", "")
            }
            What::Bulk { bytes } => self.bulk(peer, &site, *bytes),
            What::Short => self.bulk(peer, &site, 1),
            What::Steady(window) => {
                self.steady(peer, &site, &row.link, *window).context("steady transfer")
            }
            What::Many { pipes, at_once } => {
                let more = format!("--pipes {pipes} --at-once {at_once}");
                self.inside(peer, &site, "many", &more)
            }
            What::ManyProcesses { pipes, at_once } => {
                processes::many(self, peer, &site, *pipes, *at_once)
            }
            What::Echo { time } => self.echo(peer, &site, *time),
            What::Idle { pipes } => self.idle(peer, &site, *pipes),
            What::Beside { rival, time } => rivals::beside(self, peer, &site, rival, *time),
            What::Together { sessions, time } => {
                rivals::together(self, peer, &site, *sessions, *time)
            }
            What::Start => self.start(&site),
        }
    }

    fn site(&self, link: &Link, dir: &Path) -> Result<Site> {
        let lab = match link {
            Link::Loopback => None,
            Link::Veth => Some(Lab::new(&["--veth"])?),
            Link::Emulated { options, .. } => {
                let options: Vec<&str> = options.iter().map(String::as_str).collect();
                Some(Lab::new(&options)?)
            }
        };
        let mut site = Site::new(lab, dir);
        let path = env::join_paths(&self.path)?;
        let path = path.to_str().context("a path that is no text")?.to_owned();
        site.environment.push(("PATH".to_owned(), path));
        Ok(site)
    }

    /// So many bytes from a program's input to the other end.
    fn bulk(&self, peer: Peer, site: &Site, bytes: u64) -> Result<Values> {
        let plan = Plan::pipe(peer, site, &self.state, false)?;
        let is_client_read = plan.end == End::Client;
        let Started { mut servers, client, outlet } = plan.start(site)?;
        let start = Instant::now();
        let mut client = site.start("client", A, &client, true, is_client_read)?;
        let outlet = match client.stdout.take() {
            Some(stdout) => Some(Outlet::Pipe(stdout)),
            None => outlet,
        };
        let arrivals = outlet.map(|outlet| Arrivals::of(outlet, start));
        feed(client.stdin.take().context("no input")?, bytes);
        let exit = client.succeed(TRANSFER_MAX)?;
        let mut seconds = (exit.at - start).as_secs_f64();
        let mut values = Values::from([("client_s".to_owned(), seconds)]);
        if let Some(arrivals) = arrivals {
            ensure!(arrivals.end_within(LAST_BYTES_MAX), "the output does not end");
            let (at, total) = arrivals.last();
            ensure!(total == bytes, "{total} bytes came out of {bytes}");
            seconds = at.as_secs_f64();
        }
        values.insert("seconds".to_owned(), seconds);
        values.insert("mbit_s".to_owned(), bytes as f64 * 8e-6 / seconds);
        add_accounts(&mut values, exit, &mut servers, bytes);
        if bytes == 1 {
            // Of one byte there is no rate.
            values.retain(|name, _| !["mbit_s", "cpu_s_gib"].contains(&name.as_str()));
        }
        Ok(values)
    }
}

/// Ends the servers; processor time and memory of all.
fn add_accounts(values: &mut Values, client: Exit, servers: &mut [Process], bytes: u64) {
    let exits = servers.iter_mut().rev().filter_map(|server| match server.wait(SERVER_END_MAX) {
        Some(exit) => Some(exit),
        None => server.end(),
    });
    let all: Vec<Exit> = exits.chain([client]).collect();
    let cpu: f64 = all.iter().map(|exit| exit.accounts.cpu.as_secs_f64()).sum();
    let rss = all.iter().map(|exit| exit.accounts.rss_kib).max().unwrap_or(0);
    values.insert("cpu_s_gib".to_owned(), cpu / (bytes as f64 / f64::from(1 << 30)));
    values.insert("rss_mib".to_owned(), rss as f64 / 1024.0);
}

/// The numbers of an object.
fn numbers(json: &Value) -> Values {
    let fields = json.as_object().into_iter().flatten();
    fields.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect()
}

/// What a program printed: one JSON line, or a document.
fn printed(process: &Process) -> Result<Value> {
    serde_json::from_str(&process.output()).context("no JSON came out")
}

/// Whether a window is shown by a link's rate.
fn share(bytes: u64, window: Window, mbit_s: f64) -> f64 {
    bytes as f64 * 8e-6 / (window.to - window.from).as_secs_f64() / mbit_s
}
