//! Targets: how a user says which pipe is meant.

use std::fmt;

use crate::{
    name::{ParseNameError, PipeName},
    ticket::{Address, Host, ParseAddressError, ParseTicketError, Ticket, begins_like_ticket},
};

/// The pipe that a user means.
///
/// | text | means |
/// | --- | --- |
/// | `qpipe1…` | what the ticket grants |
/// | `./NAME` | the pipe NAME of this host's node, whatever NAME looks like |
/// | `HOST/NAME` | the pipe NAME of the node HOST: an alias or an [`Address`] |
/// | `NAME` | the pipe NAME of this host's node |
///
/// What stands before the first `/` is a host if it is an alias, is `localhost`, or has a `.`, `:`
/// or `[` in it. So `inbox/x` is a pipe of this host, unless there is an alias `inbox`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A named pipe of this host's node.
    Local(PipeName),
    /// A named pipe of another node.
    Remote {
        /// The node.
        host: HostRef,
        /// The pipe there.
        name: PipeName,
    },
    /// Whatever the ticket grants.
    Ticket(Ticket),
}

impl Target {
    /// Reads what a user wrote; `is_alias` tells which hosts the configuration names.
    ///
    /// # Errors
    /// If the text is none of the above, or names a host and no pipe. No error shows any of the
    /// text, which may be a mistyped ticket.
    pub fn parse(text: &str, is_alias: impl Fn(&str) -> bool) -> Result<Self, TargetError> {
        if begins_like_ticket(text.trim_start()) {
            return Ok(Self::Ticket(text.parse()?));
        }
        if let Some(name) = text.strip_prefix("./") {
            return Ok(Self::Local(name.parse()?));
        }
        match text.split_once('/') {
            Some((host, name)) if is_alias(host) || looks_like_host(host) => {
                if name.is_empty() {
                    return Err(TargetError::NoName);
                }
                let host = HostRef::parse(host, is_alias).map_err(TargetError::Host)?;
                Ok(Self::Remote { host, name: name.parse()? })
            }
            None if is_alias(text) || looks_like_bare_host(text) => Err(TargetError::NoName),
            _ => Ok(Self::Local(text.parse()?)),
        }
    }
}

/// A node, as a user names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostRef {
    /// Where it is; who it is must be known from elsewhere.
    Address(Address),
    /// The name of a host in the configuration.
    Alias(String),
}

impl HostRef {
    /// Reads a host by itself; an alias comes before an address that looks the same.
    ///
    /// # Errors
    /// If the text is neither an alias nor an address.
    pub fn parse(text: &str, is_alias: impl Fn(&str) -> bool) -> Result<Self, ParseAddressError> {
        if is_alias(text) {
            return Ok(Self::Alias(text.to_owned()));
        }
        text.parse().map(Self::Address)
    }
}

impl fmt::Display for HostRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Alias(alias) => f.pad(alias),
        }
    }
}

/// Why a text names no pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// What stands before the first `/` can only be a host, and is none.
    #[error("{0}; a pipe of this host is written ./NAME")]
    Host(ParseAddressError),
    /// The name of the pipe breaks a rule.
    #[error(transparent)]
    Name(#[from] ParseNameError),
    /// A host, and nothing after it.
    #[error(
        "this names a host but no pipe: write HOST/NAME, or ./NAME if it is a pipe of this host"
    )]
    NoName,
    /// It begins like a ticket, and is none.
    #[error(transparent)]
    Ticket(#[from] ParseTicketError),
}

/// Whether the text before the first `/` is to be read as a host. `.` and `..` are left to the
/// rules of names, which refuse them.
fn looks_like_host(text: &str) -> bool {
    text == "localhost" || (text.contains(['.', ':', '[']) && !matches!(text, "." | ".."))
}

/// Whether a text without any `/` is a host whose pipe was forgotten. A dot alone does not make it
/// one: `build.log` is a good name for a pipe.
fn looks_like_bare_host(text: &str) -> bool {
    let is_ip = text.parse::<Address>().is_ok_and(|address| matches!(address.host(), Host::Ip(_)));
    text == "localhost" || text.contains(':') || text.starts_with('[') || is_ip
}

#[cfg(test)]
mod tests;
