//! What is measured inside of one process at each end: our own program does it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Bench, numbers, printed};
use crate::{
    compare::{
        peer::Peer,
        plan::{A, Plan, Started},
        sample::{Values, median_of},
    },
    run::{Process, Site},
};

/// How long any of these may take.
const LIMIT: Duration = Duration::from_secs(300);

/// How often a process is started.
const STARTS: u32 = 20;

impl Bench {
    pub(super) fn inside(&self, peer: Peer, site: &Site, verb: &str, more: &str) -> Result<Values> {
        self.with_options(peer, site, "", &format!("{verb} {more}"))
    }

    /// `verb` has its options after it; both ends have `options`.
    pub(super) fn with_options(
        &self,
        peer: Peer,
        site: &Site,
        options: &str,
        verb: &str,
    ) -> Result<Values> {
        let (verb, more) = verb.split_once(' ').context("no verb")?;
        let plan = Plan::inside(peer, site, &self.state, options)?;
        let Started { servers, client, .. } = plan.start(site)?;
        let client = format!("{} {more}", client.replace("{verb}", verb));
        let mut client = site.start("client", A, &client, false, false)?;
        let far = || servers.iter().map(Process::last_words).collect::<String>();
        client.succeed(LIMIT).with_context(|| format!("the far end: {:?}", far()))?;
        Ok(numbers(&printed(&client)?))
    }

    pub(super) fn echo(&self, peer: Peer, site: &Site, time: Duration) -> Result<Values> {
        let time = format!("--warmup 2s --time {}s", time.as_secs());
        if peer != Peer::SshMaster {
            return self.inside(peer, site, "echo", &time);
        }
        let plan = Plan::ssh_server(peer, site, &self.state);
        let Started { servers: _running, client, .. } = plan.start(site)?;
        let echo = format!("{client} cat");
        let bulk = format!(r#"{client} "cat >/dev/null""#);
        let script =
            format!("exec qpipe-bench echo-through --echo '{echo}' --bulk '{bulk}' {time}");
        let mut client = site.start("client", A, &script, false, false)?;
        client.succeed(LIMIT)?;
        Ok(numbers(&printed(&client)?))
    }

    pub(super) fn idle(&self, peer: Peer, site: &Site, pipes: usize) -> Result<Values> {
        self.with_options(peer, site, "--memory 1024", &format!("idle --pipes {pipes}"))
    }

    /// Medians of several processes, one after the other.
    pub(super) fn start(&self, site: &Site) -> Result<Values> {
        let script = format!("exec qpipe-bench --state {} start", self.state.display());
        let (mut process_ms, mut node_ms, mut cpu_ms) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..STARTS {
            let start = Instant::now();
            let mut process = site.start("start", A, &script, false, false)?;
            let exit = process.succeed(LIMIT)?;
            process_ms.push((exit.at - start).as_secs_f64() * 1e3);
            cpu_ms.push(exit.accounts.cpu.as_secs_f64() * 1e3);
            node_ms.extend(printed(&process)?["start_ms"].as_f64());
        }
        let all = [("process_ms", process_ms), ("node_ms", node_ms), ("cpu_ms", cpu_ms)];
        let medians = all.into_iter().filter_map(|(name, values)| Some((name, median_of(values)?)));
        Ok(medians.map(|(name, value)| (name.to_owned(), value)).collect())
    }
}
