//! Many short pipes, each between processes of its own.

use std::{
    io::Write,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

use super::Bench;
use crate::{
    compare::{
        peer::Peer,
        plan::{A, B, Plan, Started, home},
        sample::Values,
    },
    measure::{noise, quantile_ms},
    run::{Process, Site},
};

/// What each pipe carries, in bytes.
const CONTENT_BYTES: usize = 1024;

/// How long one pipe may take.
const PIPE_MAX: Duration = Duration::from_secs(60);

/// `pipes`, so many at once: how many a second.
pub(super) fn many(
    bench: &Bench,
    peer: Peer,
    site: &Site,
    pipes: usize,
    at_once: usize,
) -> Result<Values> {
    let plan = match peer {
        Peer::Qpipe => Plan::nodes(site)?,
        Peer::SshMaster => Plan::ssh_server(peer, site, &bench.state),
        _ => bail!("{} has no shared connection", peer.name()),
    };
    let Started { servers: _running, client, .. } = plan.start(site)?;
    // The first one makes the connection.
    one(peer, site, &client, pipes)?;
    let (next, start) = (AtomicUsize::new(0), Instant::now());
    let lane = || {
        let mut times = Vec::new();
        loop {
            let number = next.fetch_add(1, Relaxed);
            if number >= pipes {
                return anyhow::Ok(times);
            }
            times.push(one(peer, site, &client, number)?);
        }
    };
    let lanes: Result<Vec<Vec<Duration>>> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..at_once).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().map(|lane| lane.join().map_err(|_| anyhow!("a lane panicked"))?).collect()
    });
    let seconds = start.elapsed().as_secs_f64();
    let mut times = lanes?.concat();
    times.sort_unstable();
    let mut values = Values::from([("pipes_s".to_owned(), pipes as f64 / seconds)]);
    for (name, share) in [("p50_ms", 0.5), ("p99_ms", 0.99)] {
        values.extend(quantile_ms(&times, share).map(|time| (name.to_owned(), time)));
    }
    Ok(values)
}

/// One pipe: from the start of its processes to the end of both.
fn one(peer: Peer, site: &Site, client: &str, number: usize) -> Result<Duration> {
    let start = Instant::now();
    let (mut writing, mut reading) = if peer == Peer::Qpipe {
        let recv = format!("{} exec qpipe recv p{number} >/dev/null", home(site, B));
        let send = format!("{} exec qpipe send b/p{number}", home(site, A));
        let reading = site.start(&format!("recv{number}"), B, &recv, false, false)?;
        (site.start(&format!("send{number}"), A, &send, true, false)?, Some(reading))
    } else {
        let script = format!("{client} 'cat >/dev/null'");
        (site.start(&format!("send{number}"), A, &script, true, false)?, None)
    };
    let mut input = writing.stdin.take().context("no input")?;
    input.write_all(&noise(CONTENT_BYTES))?;
    drop(input);
    let end = |process: &mut Process| process.succeed(PIPE_MAX).map(|exit| exit.at);
    let mut last = end(&mut writing)?;
    if let Some(reading) = &mut reading {
        last = last.max(end(reading)?);
    }
    Ok(last - start)
}
