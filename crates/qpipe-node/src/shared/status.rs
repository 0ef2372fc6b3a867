//! What a node tells of itself: `qpipe status`.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use qpipe::{End, Fingerprint, PipeName, SessionStatus};
use serde::{Deserialize, Serialize};

use super::SharedNode;
use super::registry::Open;
use crate::alias::Alias;
use crate::authorized::Authorized;
use crate::kept::{Kept, KeptName};
use crate::names::NameStatus;

/// Pipes, and names, that a status shows, at most: beyond that it says how many there are.
const SHOWN_MAX: usize = 1024;

/// A node, as of the moment when it was asked. Times are in seconds.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct NodeStatus {
    /// The version of its program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The fingerprint of the host's key.
    pub key: String,
    /// Whether it is this host's `qpipe serve`, which other hosts can reach.
    pub serves: bool,
    /// UDP addresses that it is bound to.
    pub addresses: Vec<SocketAddr>,
    /// How long it runs.
    pub uptime: f64,
    /// Memory for pipes, in bytes: floors and growth that are taken now.
    pub memory_taken: u64,
    /// Its sessions with other hosts.
    pub sessions: Vec<Session>,
    /// What programs of this host have open: the oldest, if there are many, and how many in all.
    pub pipes: Vec<Pipe>,
    /// See `pipes`.
    pub pipes_in_all: usize,
    /// Its named pipes that are in use or kept: the first, if there are many, those in use before
    /// others; and how many in all.
    pub names: Vec<Name>,
    /// See `names`.
    pub names_in_all: usize,
}

/// A session with another host.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Session {
    /// The peer's alias here, if it has one.
    pub name: Option<String>,
    /// The fingerprint of its host's key.
    pub key: String,
    /// Where it is, or was when there last was a connection.
    pub address: Option<SocketAddr>,
    /// Whether this host dialled.
    pub dialled: bool,
    /// How long it lasts.
    pub age: f64,
    /// How often another connection took over.
    pub resumed: u32,
    /// How long ago the peer was heard.
    pub silent: f64,
    /// Pipes that are not settled.
    pub pipes: usize,
    /// Bytes of UDP payload that went either way within the last second.
    #[serde(default)]
    pub rate: u64,
    /// The connection; none while there is no way to the peer.
    pub connection: Option<Connection>,
}

/// The connection of a session.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Connection {
    /// The smoothed round trip, in milliseconds.
    pub rtt_ms: f64,
    /// The congestion window, in bytes.
    pub congestion_window: u64,
    /// The largest UDP payload that the path carries, in bytes.
    pub mtu: u16,
    /// Packets sent, and those of them that were lost.
    pub sent_packets: u64,
    /// See `sent_packets`.
    pub lost_packets: u64,
    /// Bytes of UDP payload sent and received.
    pub sent_bytes: u64,
    /// See `sent_bytes`.
    pub received_bytes: u64,
}

/// What a program of this host has open.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Pipe {
    /// Which pipe: NAME or HOST/NAME.
    pub name: String,
    /// `send`, `recv` or `duplex`.
    pub end: String,
    /// The program and its process.
    pub process: String,
    /// Its process id, where the system tells it.
    pub pid: Option<i32>,
    /// Whether it is a pipe of this node.
    #[serde(default)]
    pub local: bool,
    /// `open`, or `waiting` while nobody is at the other end.
    pub state: String,
    /// Whom it waits for: `reader`, `writer`, or `partner` if it goes both ways.
    #[serde(default)]
    pub waiting_for: Option<String>,
    /// How long it is open.
    pub age: f64,
    /// Bytes that came from the program.
    pub sent: u64,
    /// Bytes that went to the program.
    pub received: u64,
    /// Bytes that moved within the last second.
    pub rate: u64,
}

/// A named pipe that is in use, or kept.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Name {
    /// Its name.
    pub name: String,
    /// Whether it is opened in both directions at once.
    pub duplex: bool,
    /// Whether bytes can move: a writer and a reader are there.
    pub open: bool,
    /// Writers that are there.
    pub writers: usize,
    /// Readers that are there.
    pub readers: usize,
    /// Whom those who are there wait for: `reader`, `writer`, or `partner` if it goes both ways.
    #[serde(default)]
    pub waiting_for: Option<String>,
    /// Whether it is kept until it is removed.
    #[serde(default)]
    pub kept: bool,
    /// What may wait in it, in bytes, if it is kept.
    #[serde(default)]
    pub capacity: Option<u64>,
    /// What peers may do with it, if it is kept: `rw`, `r`, `w` or `-`.
    #[serde(default)]
    pub mode: Option<String>,
    /// What it is for, if that was said.
    #[serde(default)]
    pub description: Option<String>,
}

/// Who asks a node how it is.
#[derive(Clone, Copy)]
pub(crate) enum Asker<'a> {
    /// This host itself.
    Host,
    /// Another host, which is told of its own session, and of those pipes of this node that it may ask
    /// about, without the programs that have them: a command line is nobody else's to read.
    Peer {
        /// Which.
        key: Fingerprint,
        /// Whether it may ask about this pipe.
        may_ask: &'a dyn Fn(&PipeName) -> bool,
    },
}

impl Asker<'_> {
    fn is_told_of_session(self, session: &SessionStatus) -> bool {
        match self {
            Asker::Host => true,
            Asker::Peer { key, .. } => session.peer.host() == key,
        }
    }

    fn is_told_of_pipe(self, open: &Open) -> bool {
        match self {
            Asker::Host => true,
            Asker::Peer { .. } => open.is_local && self.is_told_of(&open.place),
        }
    }

    fn is_told_of(self, name: &str) -> bool {
        match self {
            Asker::Host => true,
            Asker::Peer { may_ask, .. } => name.parse().is_ok_and(|name| may_ask(&name)),
        }
    }
}

pub(super) fn of(shared: &SharedNode, asker: Asker<'_>) -> NodeStatus {
    // Without them peers have no names.
    let config = shared.config().unwrap_or_default();
    let authorized = Authorized::load(&shared.home.authorized_file()).unwrap_or_default();
    let (floors, growth) = shared.node.budget().committed();
    let mut sessions = shared.node.sessions();
    sessions.retain(|session| asker.is_told_of_session(session));
    let session = |status| {
        let rate = shared.rates.of(&status);
        let listed = authorized.rules_for(&status.peer.host()).and_then(|rules| rules.name.clone());
        let name = config.alias_by_fingerprint(&status.peer.host()).cloned().or(listed);
        Session::new(status, rate, name)
    };
    let mut names = with_kept(shared.names.list(), &shared.names.kept());
    names.retain(|name| asker.is_told_of(&name.name));
    let names_in_all = names.len();
    names.sort_by_key(Name::is_unused);
    names.truncate(SHOWN_MAX);
    names.sort_by(|a, b| a.name.cmp(&b.name));
    let mut pipes = shared.registry.all();
    pipes.retain(|open| asker.is_told_of_pipe(open));
    NodeStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        key: shared.node.fingerprint().to_string(),
        serves: shared.serves,
        addresses: shared.node.local_addresses(),
        uptime: shared.since.elapsed().as_secs_f64(),
        memory_taken: floors + growth,
        sessions: sessions.into_iter().map(session).collect(),
        pipes: pipes.iter().take(SHOWN_MAX).map(|open| Pipe::new(open, asker)).collect(),
        pipes_in_all: pipes.len(),
        names,
        names_in_all,
    }
}

/// The names that are in use, and those that are only kept.
fn with_kept(used: Vec<NameStatus>, kept: &Kept) -> Vec<Name> {
    let used: Vec<Name> =
        used.into_iter().map(|status| Name::used(&status, kept.get(&status.name))).collect();
    let seen: HashSet<&str> = used.iter().map(|name| name.name.as_str()).collect();
    let unused = unused(kept).filter(|name| !seen.contains(name.name.as_str()));
    let unused: Vec<Name> = unused.collect();
    used.into_iter().chain(unused).collect()
}

/// The names that are kept, as they are while no node runs: nobody uses them.
pub fn unused(kept: &Kept) -> impl Iterator<Item = Name> {
    kept.iter().map(|(name, kept)| Name::new(name.to_string(), Some(kept)))
}

impl Session {
    fn new(status: SessionStatus, rate: u64, alias: Option<Alias>) -> Session {
        let host = status.peer.host();
        let alias = alias.map(|alias| alias.to_string());
        let connection = status.connection.map(|connection| Connection {
            rtt_ms: connection.rtt.as_secs_f64() * 1000.0,
            congestion_window: connection.congestion_window,
            mtu: connection.mtu,
            sent_packets: connection.sent_packets,
            lost_packets: connection.lost_packets,
            sent_bytes: connection.sent_bytes,
            received_bytes: connection.received_bytes,
        });
        let seconds = |time: Duration| time.as_secs_f64();
        Session {
            name: alias.or(status.name),
            key: host.to_string(),
            address: status.address,
            dialled: status.is_dialler,
            age: seconds(status.age),
            resumed: status.resumed,
            silent: seconds(status.silent),
            pipes: status.pipes,
            rate,
            connection,
        }
    }
}

impl Pipe {
    fn new(open: &Open, asker: Asker<'_>) -> Pipe {
        let (end, partner) = match open.end {
            End::Duplex => ("duplex", "partner"),
            End::Read => ("recv", "writer"),
            End::Write => ("send", "reader"),
        };
        let is_joined = open.client.is_joined();
        let is_told = matches!(asker, Asker::Host);
        Pipe {
            name: open.place.clone(),
            end: end.to_owned(),
            process: if is_told { open.process.clone() } else { String::new() },
            pid: open.pid.filter(|_| is_told),
            local: open.is_local,
            state: if is_joined { "open" } else { "waiting" }.to_owned(),
            waiting_for: (!is_joined).then(|| partner.to_owned()),
            age: open.since.elapsed().as_secs_f64(),
            sent: open.client.sent(),
            received: open.client.received(),
            rate: open.rate(),
        }
    }
}

impl Name {
    /// Whether nobody uses it: it is only kept.
    pub fn is_unused(&self) -> bool {
        !self.open && self.writers + self.readers == 0
    }

    fn used(status: &NameStatus, kept: Option<&KeptName>) -> Name {
        Name {
            duplex: status.is_duplex,
            open: status.joined > 0,
            writers: status.writers,
            readers: status.readers,
            waiting_for: status.waits_for().map(str::to_owned),
            ..Name::new(status.name.to_string(), kept)
        }
    }

    fn new(name: String, kept: Option<&KeptName>) -> Name {
        Name {
            name,
            duplex: false,
            open: false,
            writers: 0,
            readers: 0,
            waiting_for: None,
            kept: kept.is_some(),
            capacity: kept.map(KeptName::capacity_bytes),
            mode: kept.map(|kept| kept.mode.to_string()),
            description: kept.and_then(|kept| kept.description.as_ref()).map(ToString::to_string),
        }
    }
}

impl NameStatus {
    /// Whom those wait for who are there and have no partner.
    fn waits_for(&self) -> Option<&'static str> {
        match (self.joined, self.writers, self.readers) {
            (1.., ..) | (_, 0, 0) => None,
            _ if self.is_duplex => Some("partner"),
            (_, 1.., _) => Some("reader"),
            _ => Some("writer"),
        }
    }
}
