//! Reaching another host: who it must be, and what to say when it does not work.

use std::net::SocketAddr;
use std::time::Duration;

use qpipe::tls::ExpectedHost;
use qpipe::{Address, DialError, Fingerprint, Peer, Ticket};
use qpipe_proto::name::is_obeyed_by_terminals;
use qpipe_proto::target::HostRef;
use qpipe_proto::ticket::DEFAULT_PORT;

use crate::alias::{Alias, ParseAliasError};
use crate::config::Config;
use crate::home::Home;
use crate::local::local_peer;
use crate::lock::running_serve;

/// How a host is reached.
#[derive(Clone, Debug)]
pub struct Way {
    /// Where it may be, and which key it must have.
    pub peer: Peer,
    kind: Kind,
}

/// Why a host is expected to answer: what to look at when it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// It is the node of this very host.
    Own,
    /// It serves; its key is pinned under this name when it is new.
    Serving(Alias),
    /// It made a ticket.
    Ticket,
}

/// Why there is no way to a host.
#[derive(Debug, thiserror::Error)]
pub enum WayError {
    /// Its text cannot be the name under which a key is pinned.
    #[error("cannot pin a key for `{text}`: give the host an alias ({cause})")]
    Alias {
        /// The host as it was named.
        text: String,
        /// Why not.
        cause: ParseAliasError,
    },
    /// config.toml does not have it (any more).
    #[error("the host {0} is not in config.toml any more")]
    NotInConfig(String),
    /// No node serves on this host; what else could have been meant.
    #[error("no qpipe serve runs on this host: start one with \"qpipe serve &\"{0}")]
    NotServing(String),
}

impl Way {
    /// The way to the host that the user names: its addresses and key as config.toml has them, or
    /// the address itself.
    ///
    /// # Errors
    /// The host cannot be named in config.toml, or is not there.
    pub fn to(host: &HostRef, config: &Config) -> Result<Self, WayError> {
        let alias = alias_of(host)?;
        let name = host_text(host);
        let known = config.host(alias.as_str());
        let addresses = match (known, host) {
            (Some(known), _) => known.addresses.clone(),
            (None, HostRef::Address(address)) => vec![address.clone()],
            (None, HostRef::Alias(_)) => return Err(WayError::NotInConfig(name)),
        };
        // An address may also be known under another name.
        let key = known.and_then(|host| host.fingerprint).or_else(|| {
            let has_it = |address: &Address| addresses.contains(address);
            let mut hosts = config.hosts.values();
            hosts.find(|host| host.addresses.iter().any(has_it)).and_then(|host| host.fingerprint)
        });
        let expected = key.map_or(ExpectedHost::Unknown, ExpectedHost::Is);
        Ok(Self { peer: Peer { name, addresses, expected }, kind: Kind::Serving(alias) })
    }

    /// The way to the node that made a ticket.
    pub fn by_ticket(ticket: &Ticket) -> Self {
        let expected = ExpectedHost::Is(*ticket.fingerprint());
        let addresses = ticket.addresses().to_vec();
        let name = "the host of the ticket".to_owned();
        Self { peer: Peer { name, addresses, expected }, kind: Kind::Ticket }
    }

    /// The way to this host's own `qpipe serve`, whose key is `host`.
    ///
    /// # Errors
    /// None runs.
    pub async fn to_own_node(
        home: &Home,
        host: Fingerprint,
        config: &Config,
    ) -> Result<Self, WayError> {
        wait_for_start(home).await;
        let Some(peer) = local_peer(home, host) else {
            let hosts: Vec<&str> = config.hosts.keys().map(|alias| alias.as_str()).collect();
            let known = match &hosts[..] {
                [] => String::new(),
                hosts => {
                    format!("; if another host was meant: config.toml has {}", hosts.join(", "))
                }
            };
            return Err(WayError::NotServing(known));
        };
        Ok(Self { peer, kind: Kind::Own })
    }

    /// The name under which an unknown key is to be pinned; `None` where the key must be known.
    pub fn alias(&self) -> Option<&Alias> {
        match &self.kind {
            Kind::Serving(alias) => Some(alias),
            Kind::Own | Kind::Ticket => None,
        }
    }

    /// Why a dial did not work, and what to do about it.
    pub fn explain(&self, error: &DialError) -> String {
        explain(&self.peer, &self.kind, error)
    }
}

/// Gives a node that holds this home's lock time to say where it listens: it has just been started.
pub async fn wait_for_start(home: &Home) {
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

/// The host as the user writes it: without the port that is meant anyway.
pub fn host_text(host: &HostRef) -> String {
    let text = host.to_string();
    match (host, text.strip_suffix(&format!(":{DEFAULT_PORT}"))) {
        (HostRef::Address(_), Some(host)) => host.to_owned(),
        _ => text,
    }
}

/// The name under which a host that was dialled by its address is pinned.
fn alias_of(host: &HostRef) -> Result<Alias, WayError> {
    let text = host_text(host);
    text.parse().map_err(|cause| WayError::Alias { text, cause })
}

/// The text without anything that a terminal would obey: control characters, and those that turn
/// the direction of writing around. For whatever comes from a peer, a ticket or a file.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|character| if is_obeyed_by_terminals(character) { '\u{fffd}' } else { character })
        .collect()
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
            clean(reason)
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
            format!("{name} does not let this host in: {}", clean(reason))
        }
        DialError::Refused { tried } => {
            format!("nothing listens at {name} ({}): {start}", places(tried))
        }
        DialError::Resolve { host, source } => format!(
            "{} has no address: {source}; is the name right? (a pipe of this host is ./NAME)",
            clean(host)
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
            clean(reason)
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

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
        let source = Arc::new(io::ErrorKind::HostUnreachable.into());
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
    fn what_a_terminal_would_obey_is_replaced() {
        assert_eq!(clean("\u{1b}[31mred\u{7}"), "\u{fffd}[31mred\u{fffd}");
        assert_eq!(clean("a\nb\rc\td"), "a\u{fffd}b\u{fffd}c\u{fffd}d");
        assert_eq!(clean("\u{9b}2J\u{202e}txt"), "\u{fffd}2J\u{fffd}txt");
    }

    #[test]
    fn other_text_stays_as_it_is() {
        assert_eq!(clean("qpipe: grüße, 世界 ✓"), "qpipe: grüße, 世界 ✓");
    }
}
