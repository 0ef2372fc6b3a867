//! Reaching another host: who it must be, whom to ask when that is not known, and what to say when
//! it does not work.

use std::{
    fs::OpenOptions,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use qpipe::{DialError, Fingerprint, Node, Peer, Secret, Session, tls::ExpectedHost};
use qpipe_node::{Alias, Home, local_peer, pin_host, running_serve};
use qpipe_proto::{
    Ticket,
    target::HostRef,
    ticket::{Address, Host},
};

use crate::{
    host::ThisHost,
    say,
    target::{alias_of, host_text},
};

/// How a host is reached.
#[derive(Debug)]
pub(crate) struct Way {
    peer: Peer,
    kind: Kind,
}

/// Why a host is expected to answer: what to look at when it does not.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// It is the node of this very host.
    Own,
    /// It serves; its key is pinned under this name when it is new.
    Serving(Alias),
    /// It made a ticket.
    Ticket,
}

impl Way {
    /// The way to the host that the user names: its addresses and key as config.toml has them, or
    /// the address itself.
    ///
    /// # Errors
    /// The host cannot be named in config.toml.
    pub(crate) fn to(host: &HostRef, this: &ThisHost) -> anyhow::Result<Self> {
        let alias = alias_of(host)?;
        let name = host_text(host);
        let known = this.config.host(alias.as_str());
        let addresses = match (known, host) {
            (Some(known), _) => known.addresses.clone(),
            (None, HostRef::Address(address)) => vec![address.clone()],
            (None, HostRef::Alias(_)) => bail!("the host {name} is not in config.toml any more"),
        };
        // An address may also be known under another name.
        let key = known.and_then(|host| host.fingerprint).or_else(|| {
            let has_it = |address: &Address| addresses.contains(address);
            let mut hosts = this.config.hosts.values();
            hosts.find(|host| host.addresses.iter().any(has_it)).and_then(|host| host.fingerprint)
        });
        let expected = key.map_or(ExpectedHost::Unknown, ExpectedHost::Is);
        Ok(Self { peer: Peer { name, addresses, expected }, kind: Kind::Serving(alias) })
    }

    /// The way to the node that made a ticket.
    pub(crate) fn by_ticket(ticket: &Ticket) -> Self {
        let expected = ExpectedHost::Is(*ticket.fingerprint());
        let addresses = ticket.addresses().to_vec();
        let name = "the host of the ticket".to_owned();
        Self { peer: Peer { name, addresses, expected }, kind: Kind::Ticket }
    }

    /// The way to this host's own `qpipe serve`.
    ///
    /// # Errors
    /// None runs.
    pub(crate) async fn to_own_node(this: &ThisHost) -> anyhow::Result<Self> {
        let home = this.home()?;
        wait_for_start(home).await;
        let Some(peer) = local_peer(home, this.identity.fingerprint()) else {
            let hosts: Vec<&str> = this.config.hosts.keys().map(|alias| alias.as_str()).collect();
            let known = match &hosts[..] {
                [] => String::new(),
                hosts => {
                    format!("; if another host was meant: config.toml has {}", hosts.join(", "))
                }
            };
            bail!("no qpipe serve runs on this host: start one with \"qpipe serve &\"{known}");
        };
        Ok(Self { peer, kind: Kind::Own })
    }

    /// Connects, and asks the user first whether an unknown host's key is right.
    ///
    /// # Errors
    /// It did not work: the text says what happened and what to do about it.
    pub(crate) async fn connect(
        mut self,
        node: &Node,
        this: &ThisHost,
        secret: Option<&Secret>,
        accept_new: bool,
    ) -> anyhow::Result<Session> {
        let first = node.connect(&self.peer, secret).await;
        let (Err(DialError::UnknownHost { seen }), Kind::Serving(alias)) = (&first, &self.kind)
        else {
            return first.map_err(|error| self.explain(&error));
        };
        self.trust(alias, seen, accept_new).await?;
        let home = this.home().context("an unknown host's key cannot be pinned")?;
        pin_host(&home.config_file(), alias, &self.peer.addresses, seen)?;
        say::note(format_args!("pinned the key {seen} for {}", self.peer.name));
        self.peer.expected = ExpectedHost::Is(*seen);
        node.connect(&self.peer, secret).await.map_err(|error| self.explain(&error))
    }

    async fn trust(
        &self,
        alias: &Alias,
        seen: &Fingerprint,
        accept_new: bool,
    ) -> anyhow::Result<()> {
        let name = &self.peer.name;
        if accept_new {
            return Ok(());
        }
        let question = format!(
            "qpipe: the key of {name} is not known here yet. It is\n  {seen}\n\
             which `qpipe key fingerprint` prints there, if it is the right one. Is it? (yes/no) "
        );
        match tokio::task::spawn_blocking(move || ask(&question)).await? {
            Some(true) => Ok(()),
            Some(false) => bail!("the key of {name} was not accepted, and nothing was sent"),
            None => bail!(
                "the key of {name} is not known here yet, and there is no terminal to ask on. It \
                 is {seen}: if `qpipe key fingerprint` prints the same there, run `qpipe trust add \
                 {alias} --key {seen} --address {}`, or take whatever key it has with --accept-new",
                joined(&self.peer.addresses)
            ),
        }
    }

    fn explain(&self, error: &DialError) -> anyhow::Error {
        anyhow!(explain(&self.peer, &self.kind, error))
    }
}

/// Gives a node that holds this home's lock time to say where it listens: it has just been started.
pub(crate) async fn wait_for_start(home: &Home) {
    for _ in 0..START_POLLS_MAX {
        match running_serve(home) {
            Some(serve) if serve.addresses.is_empty() => tokio::time::sleep(START_POLL).await,
            _ => return,
        }
    }
}

/// How often and how long a starting node is looked at: 3 s, where a start takes a few milliseconds.
const START_POLL: Duration = Duration::from_millis(50);
const START_POLLS_MAX: u32 = 60;

/// Asks on the terminal, even when the standard descriptors are pipes; `None` if there is none.
fn ask(question: &str) -> Option<bool> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
    terminal.write_all(question.as_bytes()).ok()?;
    let mut answer = String::new();
    BufReader::new(terminal).read_line(&mut answer).ok()?;
    Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "yes" | "y"))
}

/// What happened, and what to do about it.
fn explain(peer: &Peer, kind: &Kind, error: &DialError) -> String {
    let name = &peer.name;
    let start = match kind {
        Kind::Own => "start it with \"qpipe serve &\"",
        Kind::Serving(_) => "start `qpipe serve` there",
        Kind::Ticket => "the command that made the ticket has ended: start it again",
    };
    match error {
        DialError::Busy => format!("{name} has no room for another session now: try again later"),
        DialError::Handshake(failure) => format!("cannot talk to {name}: {failure}"),
        DialError::HostKey { expected, seen } => wrong_key(name, kind, expected, seen),
        DialError::Local(error) => format!("this host cannot dial {name}: {error}"),
        DialError::Lost(reason) => format!(
            "the connection to {name} broke while it was set up: {}; try again",
            say::clean(reason)
        ),
        DialError::NoAnswer { tried, after } => {
            let seconds = after.as_secs_f64().round();
            let serving = match kind {
                Kind::Ticket => "is the command that made the ticket still running",
                _ => "is qpipe serve running there",
            };
            format!(
                "no answer from {name} ({}) in {seconds} s: {serving}, is UDP {} open?",
                places(tried),
                ports(tried)
            )
        }
        DialError::NotAllowed { reason } => {
            format!("{name} does not let this host in: {}", say::clean(reason))
        }
        DialError::Refused { tried } => {
            format!("nothing listens at {name} ({}): {start}", places(tried))
        }
        DialError::Resolve { host, source } => format!(
            "{} has no address: {source}; is the name right? (a pipe of this host is ./NAME)",
            say::clean(host)
        ),
        DialError::Ticket => {
            "the ticket is unknown, used or expired: a ticket works once, and as long as its \
             command runs; ask for a new one"
                .to_owned()
        }
        DialError::UnknownHost { seen } => format!("the key of {name} is not known: it is {seen}"),
        DialError::Unreachable { tried, source } => format!(
            "there is no way to {name} ({}): {source}; is the network up, is the address right?",
            places(tried)
        ),
        DialError::Version(reason) => format!(
            "{name} speaks no version of qpipe that this one does: {}; update the older of the two",
            say::clean(reason)
        ),
    }
}

fn wrong_key(name: &str, kind: &Kind, expected: &Fingerprint, seen: &Fingerprint) -> String {
    let remedy = match kind {
        Kind::Own => "another program answers at its address: look at `qpipe serve`".to_owned(),
        Kind::Serving(alias) => format!(
            "Somebody else may be answering in its place. If it was set up anew, and `qpipe key \
             fingerprint` prints the second there, run `qpipe trust remove --host {alias}` and try \
             again"
        ),
        Kind::Ticket => "another host answers at its address: ask for a new ticket".to_owned(),
    };
    format!(
        "{name} has the wrong key, and nothing was sent.\nexpected {expected}\nfound    {seen}\n{remedy}"
    )
}

fn places(tried: &[SocketAddr]) -> String {
    let places: Vec<String> = tried.iter().map(|address| format!("{address}/udp")).collect();
    places.join(", ")
}

fn ports(tried: &[SocketAddr]) -> String {
    let mut ports: Vec<u16> = tried.iter().map(SocketAddr::port).collect();
    ports.sort_unstable();
    ports.dedup();
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    ports.join(", ")
}

fn joined(addresses: &[Address]) -> String {
    let texts: Vec<String> = addresses.iter().map(Address::to_string).collect();
    texts.join(" --address ")
}

/// Whether a name that a peer proposes for itself could pass for an address.
pub(crate) fn passes_for_address(name: &str) -> bool {
    let is_ip = name.parse::<Address>().is_ok_and(|address| matches!(address.host(), Host::Ip(_)));
    is_ip || name == "localhost" || name.contains(['.', ':', '['])
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn told(kind: Kind, error: &DialError) -> String {
        let peer =
            Peer { name: "b".to_owned(), addresses: vec![], expected: ExpectedHost::Unknown };
        explain(&peer, &kind, error)
    }

    fn serving() -> Kind {
        Kind::Serving("b".parse().unwrap())
    }

    fn tried(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn no_answer_says_where_how_long_and_what_to_look_at() {
        let after = Duration::from_millis(10_003);
        let error = DialError::NoAnswer { tried: tried(&["192.0.2.7:7473"]), after };

        assert_eq!(
            told(serving(), &error),
            "no answer from b (192.0.2.7:7473/udp) in 10 s: is qpipe serve running there, is UDP \
             7473 open?"
        );
        let tried = tried(&["192.0.2.7:7473", "[2001:db8::7]:7473"]);
        let several = told(Kind::Ticket, &DialError::NoAnswer { tried, after });
        assert!(several.contains("(192.0.2.7:7473/udp, [2001:db8::7]:7473/udp)"), "{several}");
        assert!(several.ends_with("the ticket still running, is UDP 7473 open?"), "{several}");
    }

    #[test]
    fn refused_and_unreachable_are_told_apart() {
        let here = tried(&["192.0.2.7:7473"]);
        let refused = told(serving(), &DialError::Refused { tried: here.clone() });
        let source = std::sync::Arc::new(io::ErrorKind::HostUnreachable.into());
        let unreachable = told(serving(), &DialError::Unreachable { tried: here, source });

        assert!(refused.starts_with("nothing listens at b (192.0.2.7:7473/udp)"), "{refused}");
        assert!(unreachable.starts_with("there is no way to b (192.0.2.7:7473/udp)"));
    }

    #[test]
    fn a_wrong_key_shows_both_and_the_remedy() {
        let expected = Fingerprint::from_bytes([1; 32]);
        let seen = Fingerprint::from_bytes([2; 32]);
        let text = told(serving(), &DialError::HostKey { expected, seen });

        assert!(text.contains(&format!("expected {expected}")));
        assert!(text.contains(&format!("found    {seen}")));
        assert!(text.contains("qpipe trust remove --host b"));
    }

    #[test]
    fn what_the_peer_says_is_cleaned() {
        let error = DialError::NotAllowed { reason: "\u{1b}[2Jgo away".to_owned() };

        assert!(told(serving(), &error).ends_with(": \u{fffd}[2Jgo away"));
    }

    #[test]
    fn proposed_names_that_look_like_addresses_are_noticed() {
        for name in ["bank.example", "192.0.2.7", "localhost", "7", "::1"] {
            assert_eq!(passes_for_address(name), name != "7", "{name}");
        }
    }
}
