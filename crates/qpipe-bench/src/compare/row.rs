//! A row of the table: a link, what is measured on it, with whom, and what is asked of it.

use std::time::Duration;

use super::peer::Peer;

/// What is measured.
pub(super) struct Row {
    /// By which it is chosen.
    pub(super) name: String,
    /// Its heading.
    pub(super) about: String,
    pub(super) link: Link,
    pub(super) what: What,
    pub(super) peers: Vec<Peer>,
    pub(super) asked: Vec<Asked>,
    /// Rows that take long are not measured as often as others.
    pub(super) runs_max: usize,
}

/// Between the two hosts.
#[derive(Clone)]
pub(super) enum Link {
    /// Both are this machine.
    Loopback,
    /// Two namespaces with a pair of devices, MTU 1500.
    Veth,
    /// Two namespaces with an emulated link.
    Emulated {
        /// Of `netlab run`.
        options: Vec<String>,
        mbit_s: f64,
        /// The round trip of an empty link.
        rtt: Duration,
    },
}

/// Between two points in time after the start.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) from: Duration,
    pub(super) to: Duration,
}

pub(super) enum What {
    /// So many bytes through two processes, from the client's start to the last byte.
    Bulk { bytes: u64 },
    /// The first byte through a new connection, or a new pipe.
    Short,
    /// As many bytes as get through within a window of time.
    Steady(Window),
    /// Pipes that are all busy, inside of one process at each end.
    Busy { pipes: usize, time: Duration },
    /// Short pipes inside of one process at each end.
    Many { pipes: u64, at_once: usize },
    /// Short pipes, each between processes of their own.
    ManyProcesses { pipes: usize, at_once: usize },
    /// 64-byte messages every 10 ms, beside a bulk pipe.
    Echo { time: Duration },
    /// Idle pipes in one session.
    Idle { pipes: usize },
    /// A transfer and a TCP connection with this congestion control (`iperf3 -C`), for so long.
    Beside { rival: &'static str, time: Duration },
    /// Sessions between processes of their own, for so long.
    Together { sessions: usize, time: Duration },
    /// A process with a node that starts and ends.
    Start,
}

/// A figure that is asked for.
pub(super) struct Asked {
    pub(super) what: String,
    pub(super) ours: (Peer, &'static str),
    /// What to divide it by: in which row, of whom.
    pub(super) theirs: Option<(String, Peer, &'static str)>,
    pub(super) bound: Bound,
    /// Whether it is only told.
    pub(super) is_only_told: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
    Between(f64, f64),
}

impl Bound {
    pub(super) fn is_kept(self, value: f64) -> bool {
        match self {
            Bound::AtLeast(least) => value >= least,
            Bound::AtMost(most) => value <= most,
            Bound::Between(least, most) => (least..=most).contains(&value),
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bound::AtLeast(least) => write!(f, "≥ {least}"),
            Bound::AtMost(most) => write!(f, "≤ {most}"),
            Bound::Between(least, most) => write!(f, "{least} to {most}"),
        }
    }
}

impl Row {
    pub(super) fn new(name: &str, about: &str, link: Link, what: What, peers: &[Peer]) -> Row {
        Row {
            name: name.to_owned(),
            about: about.to_owned(),
            link,
            what,
            peers: peers.to_vec(),
            asked: Vec::new(),
            runs_max: usize::MAX,
        }
    }

    /// Asks for a ratio of two programs' medians.
    pub(super) fn ratio(
        self,
        what: &str,
        ours: (Peer, &'static str),
        theirs: (Peer, &'static str),
        bound: Bound,
    ) -> Row {
        let row = self.name.clone();
        self.ratio_to(&row, what, ours, theirs, bound)
    }

    /// The same, to a median of another row.
    pub(super) fn ratio_to(
        mut self,
        row: &str,
        what: &str,
        ours: (Peer, &'static str),
        (peer, value): (Peer, &'static str),
        bound: Bound,
    ) -> Row {
        let theirs = Some((row.to_owned(), peer, value));
        self.asked.push(Asked { what: what.into(), ours, theirs, bound, is_only_told: false });
        self
    }

    /// Asks for a median.
    pub(super) fn value(mut self, what: &str, ours: (Peer, &'static str), bound: Bound) -> Row {
        let theirs = None;
        self.asked.push(Asked { what: what.into(), ours, theirs, bound, is_only_told: false });
        self
    }

    /// The figure asked for last need not be so good here.
    pub(super) fn only_told(mut self) -> Row {
        if let Some(asked) = self.asked.last_mut() {
            asked.is_only_told = true;
        }
        self
    }

    pub(super) fn at_most_runs(mut self, runs: usize) -> Row {
        self.runs_max = runs;
        self
    }
}
