//! Hello: what both sides say before anything else, and whether they can talk.

use std::fmt;

use crate::limits::{INITIAL_LIMIT_BYTES_MAX, VERSION};
use crate::wire::Hello;

/// A session's id, chosen at random by the side that dials.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to tell sessions apart in a log.
        write!(f, "session {:02x}{:02x}{:02x}{:02x}", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

/// Which run of a node: its key's owner counts its starts, and rolls a number at each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Instance {
    /// How often a node with this key has started.
    pub start: u64,
    /// Another one for every run: two nodes that use one key have the same start some time.
    pub random: u64,
}

/// What a Hello asks for, in the light of what its reader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The session it speaks of is over, or its sender is.
    Gone,
    /// A session that is to begin.
    New,
    /// Another connection of a session that is known.
    Resumes,
    /// A connection that a newer one of its session has replaced already.
    Superseded,
    /// Two nodes use one key.
    Twin,
}

/// Judges a Hello. `known` is the newest instance of the peer's key that was heard of, `highest` the
/// highest epoch of the session that the Hello names, if that is known. The sessions of an instance
/// older than the Hello's are to be ended before: [`Instance::ends`].
pub fn judge(hello: &Hello, known: Option<Instance>, highest: Option<u64>) -> Judgement {
    if let Some(known) = known {
        if hello.instance.start < known.start {
            return Judgement::Gone;
        }
        if hello.instance.start == known.start && hello.instance.random != known.random {
            return Judgement::Twin;
        }
    }
    match highest {
        Some(highest) if hello.epoch <= highest => Judgement::Superseded,
        Some(_) => Judgement::Resumes,
        None if hello.resumed => Judgement::Gone,
        None => Judgement::New,
    }
}

impl Instance {
    /// Whether this run of a node means that the `older` one is over.
    pub fn ends(self, older: Instance) -> bool {
        self.start > older.start
    }
}

/// What a side allows its peer before it says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that the peer may send on a pipe that it opened before it hears Limit.
    pub initial_limit: u64,
    /// Opens that the peer may make, counted from the session's beginning.
    pub opens_allowed: u64,
}

impl Limits {
    /// The peer's limits as far as this side makes use of them.
    pub fn clamped(self) -> Limits {
        Limits { initial_limit: self.initial_limit.min(INITIAL_LIMIT_BYTES_MAX), ..self }
    }
}

/// What an invitation granted, as the acceptor tells it. Text from outside: to be cleaned before it
/// reaches a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// What the acceptor calls the dialler.
    pub name: String,
    /// Names that the dialler may send to.
    pub send: Vec<String>,
    /// Names that the dialler may receive from.
    pub recv: Vec<String>,
    /// Names that the dialler may ask about.
    pub list: Vec<String>,
}

/// Two sides without a protocol version in common.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer speaks qpipe versions {theirs:?}, this side speaks {ours}", ours = VERSION)]
pub struct VersionMismatch {
    /// The peer's versions.
    pub theirs: Vec<u32>,
}

/// The version that both sides speak: the highest in common.
///
/// # Errors
/// There is none.
pub fn agree(hello: &Hello) -> Result<u32, VersionMismatch> {
    if hello.versions.contains(&VERSION) {
        Ok(VERSION)
    } else {
        Err(VersionMismatch { theirs: hello.versions.iter().copied().take(8).collect() })
    }
}
