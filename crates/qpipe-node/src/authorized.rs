//! `authorized.toml`: who may do what on this node. What is not listed is not allowed.
//!
//! ```toml
//! [[peer]]
//! key = "SHA256:…"
//! name = "alice"
//! send = ["inbox/*"]
//! recv = []
//! list = ["inbox/*"]
//! ```

mod edit;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use qpipe_proto::{Fingerprint, NamePattern, PipeName};
use serde::Deserialize;
use toml::Spanned;

pub use self::edit::{AddPeerError, add_peer, remove_peer};
use crate::alias::Alias;
use crate::document::{self, Parsed, Policy, ReadError, unwrapped};
use crate::rule::{Rule, Verb};

/// The most peers that one node has: rules are looked at by hand and kept in memory whole.
pub const PEERS_MAX: usize = 10_000;

/// The most patterns in one list of a peer: each is tried at every open of that peer.
pub const PATTERNS_PER_LIST_MAX: usize = 256;

/// The largest `authorized.toml` that is read, in bytes: [`PEERS_MAX`] peers at 400 bytes each.
pub const AUTHORIZED_FILE_BYTES_MAX: u64 = 4 << 20;

const POLICY: Policy = Policy { bytes_max: AUTHORIZED_FILE_BYTES_MAX, owner_writes_alone: true };

/// What `authorized.toml` says: the rules of every peer, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Authorized {
    peers: Vec<PeerRules>,
    by_key: HashMap<Fingerprint, usize>,
}

/// What one peer may do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerRules {
    /// The fingerprint of the peer's key.
    pub key: Fingerprint,
    /// What the user calls the peer. No two peers of a file have the same name.
    pub name: Option<Alias>,
    /// Into which pipes it may write.
    pub send: Vec<NamePattern>,
    /// From which pipes it may read.
    pub recv: Vec<NamePattern>,
    /// Which pipes it may ask about: `qpipe ls HOST` and `qpipe status HOST`.
    pub list: Vec<NamePattern>,
}

impl Authorized {
    /// Reads the file; a missing one allows nobody anything.
    ///
    /// # Errors
    /// If it cannot be read, is larger than [`AUTHORIZED_FILE_BYTES_MAX`], may be written by others
    /// than its owner, has anything in it that is not understood, a key or a name twice, or more
    /// than [`PEERS_MAX`] peers.
    pub fn load(path: &Path) -> Result<Self, ReadError> {
        match document::read(path, POLICY)? {
            Some(text) => Self::parse(path, &text),
            None => Ok(Self::default()),
        }
    }

    /// The rules of the peer with this key, if it is listed.
    pub fn rules_for(&self, key: &Fingerprint) -> Option<&PeerRules> {
        self.by_key.get(key).map(|index| &self.peers[*index])
    }

    /// The peer that the user calls `name`.
    pub fn peer_by_name(&self, name: &str) -> Option<&PeerRules> {
        self.peers.iter().find(|peer| peer.is_called(name))
    }

    /// Every peer, in the order of the file.
    pub fn peers(&self) -> &[PeerRules] {
        &self.peers
    }

    /// Reads the text of the file `path`.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, ReadError> {
        let file: AuthorizedText = document::parse(path, text)?;
        let mut authorized = Self::default();
        let mut names = HashSet::new();
        for spanned in file.peer {
            let (table_at, key_at) = (spanned.span().start, spanned.get_ref().key.span().start);
            let wrong = |at, what: String| Err(document::invalid(path, text, at, &what));
            let peer = PeerRules::from(spanned.into_inner());
            if authorized.peers.len() == PEERS_MAX {
                return wrong(table_at, format!("more than {PEERS_MAX} peers"));
            }
            if peer.longest_list() > PATTERNS_PER_LIST_MAX {
                return wrong(table_at, format!("more than {PATTERNS_PER_LIST_MAX} patterns"));
            }
            if let Some(name) = peer.name.clone().filter(|name| names.contains(name)) {
                return wrong(table_at, format!("the name `{name}` is given to two peers"));
            }
            names.extend(peer.name.clone());
            if authorized.by_key.insert(peer.key, authorized.peers.len()).is_some() {
                return wrong(key_at, format!("the key {} is listed twice", peer.key));
            }
            authorized.peers.push(peer);
        }
        Ok(authorized)
    }
}

impl PeerRules {
    /// The peer with this key and name, and with these rules.
    pub fn new(
        key: Fingerprint,
        name: Option<Alias>,
        rules: impl IntoIterator<Item = Rule>,
    ) -> Self {
        let mut peer = Self { key, name, send: Vec::new(), recv: Vec::new(), list: Vec::new() };
        for Rule { verb, pattern } in rules {
            peer.patterns_mut(verb).push(pattern);
        }
        peer
    }

    /// Whether the peer may write into the pipe `name`.
    pub fn may_send(&self, name: &PipeName) -> bool {
        self.may(Verb::Send, name)
    }

    /// Whether the peer may read from the pipe `name`.
    pub fn may_recv(&self, name: &PipeName) -> bool {
        self.may(Verb::Recv, name)
    }

    /// Whether the peer may do `verb` with the pipe `name`.
    pub fn may(&self, verb: Verb, name: &PipeName) -> bool {
        self.patterns(verb).iter().any(|pattern| pattern.matches(name))
    }

    /// Its rules, one by one.
    pub fn rules(&self) -> impl Iterator<Item = Rule> + '_ {
        Verb::ALL.into_iter().flat_map(|verb| {
            self.patterns(verb).iter().map(move |pattern| Rule { verb, pattern: pattern.clone() })
        })
    }

    fn longest_list(&self) -> usize {
        Verb::ALL.map(|verb| self.patterns(verb).len()).into_iter().max().unwrap_or_default()
    }

    fn patterns(&self, verb: Verb) -> &[NamePattern] {
        match verb {
            Verb::List => &self.list,
            Verb::Recv => &self.recv,
            Verb::Send => &self.send,
        }
    }

    fn patterns_mut(&mut self, verb: Verb) -> &mut Vec<NamePattern> {
        match verb {
            Verb::List => &mut self.list,
            Verb::Recv => &mut self.recv,
            Verb::Send => &mut self.send,
        }
    }

    fn is_called(&self, name: &str) -> bool {
        self.name.as_ref().is_some_and(|own| own.as_str() == name)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthorizedText {
    #[serde(default)]
    peer: Vec<Spanned<PeerText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerText {
    key: Spanned<Parsed<Fingerprint>>,
    name: Option<Parsed<Alias>>,
    #[serde(default)]
    send: Vec<Parsed<NamePattern>>,
    #[serde(default)]
    recv: Vec<Parsed<NamePattern>>,
    #[serde(default)]
    list: Vec<Parsed<NamePattern>>,
}

impl From<PeerText> for PeerRules {
    fn from(text: PeerText) -> Self {
        Self {
            key: text.key.into_inner().0,
            name: text.name.map(|Parsed(name)| name),
            send: unwrapped(text.send),
            recv: unwrapped(text.recv),
            list: unwrapped(text.list),
        }
    }
}

#[cfg(test)]
mod tests;
