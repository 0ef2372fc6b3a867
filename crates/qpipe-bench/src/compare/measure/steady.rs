//! A transfer that goes on while a window of time is looked at.

use std::{
    process::Command,
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Bench, add_accounts, share};
use crate::{
    compare::{
        peer::Peer,
        plan::{A, Plan, Started},
        row::{Link, Window},
        sample::{Values, median_of},
    },
    run::{Arrivals, Site, feed},
};

/// The beginning of a connection that is looked at, in bytes.
const BEGINNING_BYTES: u64 = 5_000_000;

/// How often the node is asked for its round trip.
const ASK_EVERY: Duration = Duration::from_millis(500);

impl Bench {
    /// The share of the link that gets through within the window; the beginning; the round trip.
    pub(super) fn steady(
        &self,
        peer: Peer,
        site: &Site,
        link: &Link,
        window: Window,
    ) -> Result<Values> {
        let Link::Emulated { mbit_s, rtt: base, .. } = link else { bail!("a link without a rate") };
        let plan = Plan::pipe(peer, site, &self.state, true)?;
        let Started { mut servers, client, outlet } = plan.start(site)?;
        let start = Instant::now();
        let mut client = site.start("client", A, &client, true, false)?;
        let arrivals = Arrivals::of(outlet.context("no output")?, start);
        feed(client.stdin.take().context("no input")?, u64::MAX);
        let asking = (peer == Peer::Qpipe).then(|| self.ask(site, start, window));
        let left = (start + window.to).saturating_duration_since(Instant::now());
        if client.wait(left).is_some() {
            // It had more to send.
            client.succeed(Duration::ZERO)?;
            bail!("the client ended early");
        }
        let bytes = arrivals.between(window.from, window.to);
        let mut values = Values::from([
            ("share".to_owned(), share(bytes, window, *mbit_s)),
            ("mbit_s".to_owned(), share(bytes, window, 1.0)),
        ]);
        if let Some(at) = arrivals.time_of(BEGINNING_BYTES) {
            values.insert("first_5mb_s".to_owned(), at.as_secs_f64());
        }
        if let Some(rtt) = asking.and_then(|asked| median_of(asked.into_iter().collect())) {
            values.insert("rtt_ms".to_owned(), rtt);
            values.insert("rtt_ratio".to_owned(), rtt / (base.as_secs_f64() * 1e3));
        }
        let total = arrivals.last().1.max(1);
        let exit = client.kill().context("the client does not end")?;
        add_accounts(&mut values, exit, &mut servers, total);
        Ok(values)
    }

    /// Asks A's node for its smoothed round trip, in ms, as long as the window lasts.
    fn ask(&self, site: &Site, start: Instant, window: Window) -> Receiver<f64> {
        let (told, answers) = channel();
        let environment = site.environment.clone();
        let home = site.dir.join("a");
        thread::spawn(move || {
            thread::sleep((start + window.from).saturating_duration_since(Instant::now()));
            while start.elapsed() < window.to {
                let mut status = Command::new("qpipe");
                status.args(["status", "--json"]).envs(environment.iter().cloned());
                let output = status.env("QPIPE_HOME", &home).output();
                if let Some(rtt) = output.ok().and_then(|output| round_trip(&output.stdout))
                    && told.send(rtt).is_err()
                {
                    return;
                }
                thread::sleep(ASK_EVERY);
            }
        });
        answers
    }
}

/// The round trip of the one session there is.
fn round_trip(status: &[u8]) -> Option<f64> {
    let status: Value = serde_json::from_slice(status).ok()?;
    status["sessions"][0]["connection"]["rtt_ms"].as_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_round_trip_is_that_of_the_session() {
        let status = br#"{"sessions":[{"connection":{"rtt_ms":50.5}}]}"#;
        assert_eq!(round_trip(status), Some(50.5));
        assert_eq!(round_trip(br#"{"sessions":[]}"#), None);
        assert_eq!(round_trip(b"no node"), None);
    }
}
