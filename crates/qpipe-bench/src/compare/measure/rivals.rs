//! Several transfers on one link: with TCP, and among themselves.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Bench, TRANSFER_MAX, printed};
use crate::{
    compare::{
        peer::Peer,
        plan::{A, Plan, Started},
        sample::Values,
    },
    measure::{jain, mbit_s},
    run::{Arrivals, Process, Site, feed, stop},
};

/// TCP alone.
pub(super) fn iperf3(site: &Site, more: &str) -> Result<Values> {
    let Started { servers: _running, client, .. } = Plan::iperf3(site, more).start(site)?;
    let mut client = site.start("iperf3", A, &client, false, false)?;
    client.succeed(TRANSFER_MAX)?;
    Ok(Values::from([("mbit_s".to_owned(), received(&printed(&client)?)?)]))
}

/// Mbit/s at the receiver.
fn received(report: &Value) -> Result<f64> {
    let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(rate.with_context(|| format!("no result: {}", report["error"]))? * 1e-6)
}

/// A transfer and TCP, which begin together: who gets how much of what both get.
pub(super) fn beside(
    bench: &Bench,
    peer: Peer,
    site: &Site,
    rival: &str,
    time: Duration,
) -> Result<Values> {
    let more = format!("-t {} -C {rival}", time.as_secs());
    let tcp = Plan::iperf3(site, &more).start(site)?;
    let ours = Transfer::prepare(bench, peer, site, "")?;
    let start = Instant::now();
    let ours = ours.start(site, start)?;
    let mut client = site.start("iperf3", A, &tcp.client, false, false)?;
    client.succeed(TRANSFER_MAX)?;
    let theirs = received(&printed(&client)?)?;
    let ours = mbit_s(ours.arrivals.between(Duration::ZERO, time), time);
    Ok(Values::from([
        ("our_share".to_owned(), ours / (ours + theirs)),
        ("mbit_s".to_owned(), ours),
        ("rival_mbit_s".to_owned(), theirs),
    ]))
}

/// Sessions that begin together: how even, and how much in all.
pub(super) fn together(
    bench: &Bench,
    peer: Peer,
    site: &Site,
    sessions: usize,
    time: Duration,
) -> Result<Values> {
    let prepared: Result<Vec<_>> =
        (0..sessions).map(|i| Transfer::prepare(bench, peer, site, &format!("-{i}"))).collect();
    let start = Instant::now();
    let running: Result<Vec<_>> = prepared?.into_iter().map(|one| one.start(site, start)).collect();
    let running = running?;
    stop::pause_until(start + time)?;
    let rate = |one: &Running| mbit_s(one.arrivals.between(Duration::ZERO, time), time);
    let rates: Vec<f64> = running.iter().map(rate).collect();
    ensure!(rates.iter().any(|rate| *rate > 0.0), "nothing came through");
    Ok(Values::from([("jain".to_owned(), jain(&rates)), ("mbit_s".to_owned(), rates.iter().sum())]))
}

/// A transfer that is about to start.
struct Transfer {
    started: Started,
    name: String,
}

/// One that goes on until it is dropped.
struct Running {
    arrivals: Arrivals,
    _client: Process,
    _servers: Vec<Process>,
}

impl Transfer {
    fn prepare(bench: &Bench, peer: Peer, site: &Site, suffix: &str) -> Result<Transfer> {
        let plan = Plan::pipe(peer, site, &bench.state, true)?;
        Ok(Transfer { started: plan.start(site)?, name: format!("client{suffix}") })
    }

    fn start(self, site: &Site, start: Instant) -> Result<Running> {
        let Started { servers, client, outlet } = self.started;
        let mut client = site.start(&self.name, A, &client, true, false)?;
        let arrivals = Arrivals::of(outlet.context("no output")?, start);
        feed(client.stdin.take().context("no input")?, u64::MAX);
        Ok(Running { arrivals, _client: client, _servers: servers })
    }
}
