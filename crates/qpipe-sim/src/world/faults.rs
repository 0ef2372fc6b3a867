//! What goes wrong in a run, and the end of that.

use super::queue::Due;
use super::{Phase, STILL_MAX, TOLD_WITHIN, World};
use crate::node::{Node, NodePlan};
use crate::oracle::Checked;
use crate::plan::Happening;

impl World {
    pub(super) fn go_wrong(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Alarm { host } => {
                let is_paused = self.hosts[host].is_paused;
                if let Some(node) = self.hosts[host].node.as_mut().filter(|_| !is_paused) {
                    node.network_changed(self.now);
                }
                self.drive(host)
            }
            Happening::Cut { host, by_fin } => {
                let node = self.hosts[host].node.as_mut();
                let cut = node.is_some_and(|node| node.cut_stream(by_fin));
                self.trace.note(self.now, host, "cuts a stream", cut.into(), by_fin.into());
                if self.hosts[host].is_paused { Ok(()) } else { self.drive(host) }
            }
            Happening::Kill { host, gone } => {
                if self.hosts[host].node.is_none() {
                    return Ok(());
                }
                self.trace.note(self.now, host, "is killed", 0, 0);
                let target = &mut self.hosts[host];
                (target.node, target.is_paused) = (None, false);
                target.socket.clear();
                self.oracle.excuse_all();
                self.programs.die(host, &mut self.oracle);
                self.queue.push(self.now + gone, Due::Restarts(host));
                Ok(())
            }
            Happening::Move { host, address, noticed } => {
                self.network.renumber(host, address);
                self.trace.note(self.now, host, "moves", address.into(), noticed.into());
                let is_paused = self.hosts[host].is_paused;
                match &mut self.hosts[host].node {
                    Some(node) if noticed && !is_paused => {
                        node.network_changed(self.now);
                        self.drive(host)
                    }
                    _ => Ok(()),
                }
            }
            Happening::Pause { host, length } => {
                let target = &mut self.hosts[host];
                if target.node.is_some() && !target.is_paused {
                    target.is_paused = true;
                    self.trace.note(self.now, host, "stands still", 0, 0);
                    self.queue.push(self.now + length, Due::Resumes(host));
                }
                Ok(())
            }
        }
    }

    /// Starts a host's node, unless it runs.
    pub(super) fn start(&mut self, host: usize) -> Checked {
        if self.hosts[host].node.is_some() {
            return Ok(());
        }
        self.hosts[host].starts += 1;
        let starts = self.hosts[host].starts;
        self.trace.note(self.now, host, "starts", starts, 0);
        let plan = NodePlan {
            seed: self.seed,
            host,
            memory: self.plan.memory[host],
            patience: self.plan.patience,
            keeps_session: !self.plan.is_found[host],
            planted: self.options.planted,
        };
        let mut node = Node::new(plan, starts);
        if starts > 1 {
            // It greets the peers that it had sessions with.
            node.greet(self.now);
        }
        self.hosts[host].node = Some(node);
        self.drive(host)
    }

    pub(super) fn resume(&mut self, host: usize) -> Checked {
        if !std::mem::take(&mut self.hosts[host].is_paused) {
            return Ok(());
        }
        self.trace.note(self.now, host, "goes on", 0, 0);
        let socket = std::mem::take(&mut self.hosts[host].socket);
        if let Some(node) = &mut self.hosts[host].node {
            for (from, bytes) in socket {
                node.datagram(from, &bytes, self.now);
            }
        }
        self.drive(host)
    }

    /// From now on nothing goes wrong.
    pub(super) fn calm(&mut self) -> Checked {
        if self.phase != Phase::Faults {
            return Ok(());
        }
        self.phase = Phase::Calm;
        self.trace.note(self.now, 2, "the faults end", 0, 0);
        self.network.heal(&self.plan.calm);
        let still_max = STILL_MAX + 20 * self.plan.calm_rtt();
        self.oracle.calm(self.now, still_max);
        if !self.plan.is_clean() {
            self.oracle.prompt(self.now + still_max, self.plan.calm_rtt() + TOLD_WITHIN);
        }
        self.programs.calm(self.now);
        for host in 0..2 {
            self.start(host)?;
            self.resume(host)?;
            self.drive(host)?;
        }
        Ok(())
    }
}
