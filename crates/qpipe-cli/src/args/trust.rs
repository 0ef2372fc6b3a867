//! What commands take that say who may do what.

use std::time::Duration;

use clap::{Args, Subcommand};
use qpipe_node::{Alias, Rule};
use qpipe_proto::{Fingerprint, ticket::Address};

use super::AddressArgs;

/// What to show of the key.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Print the fingerprint and where the key is kept; makes a key where there is none
    Show,
    /// Print the fingerprint alone, for comparing or pasting
    Fingerprint,
}

/// What to do about trust.
#[derive(Debug, Subcommand)]
pub(crate) enum TrustCommand {
    /// List the peers that may do something here, and the hosts whose keys are pinned
    List,
    /// Let a peer do something here (--allow), or pin a host's key (--address), or both
    Add(TrustAddArgs),
    /// Take back what a name or a key was trusted with
    Remove(TrustRemoveArgs),
}

/// What `trust add` takes.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["allow", "address"])))]
pub(crate) struct TrustAddArgs {
    /// What to call the peer or host
    pub(crate) name: Alias,

    /// The fingerprint of its key: what `qpipe key fingerprint` prints there
    #[arg(long, value_name = "SHA256:…")]
    pub(crate) key: Fingerprint,

    /// What it may do here: send:PATTERN, recv:PATTERN, list:PATTERN, as 'send:inbox/*'; may be
    /// repeated
    ///
    /// `list` lets it ask which of these pipes there are, and what becomes of them.
    #[arg(long, value_name = "RULE")]
    pub(crate) allow: Vec<Rule>,

    /// Where to dial it, as b.example or 192.0.2.7:7473; may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: Vec<Address>,
}

/// What `trust remove` takes.
#[derive(Args, Debug)]
pub(crate) struct TrustRemoveArgs {
    /// The name of a peer or host, or the fingerprint of a peer's key
    pub(crate) name: String,

    /// Only what it may do here
    #[arg(long, conflicts_with = "host")]
    pub(crate) peer: bool,

    /// Only its pinned key and its addresses
    #[arg(long)]
    pub(crate) host: bool,
}

/// What `invite` takes.
#[derive(Args, Debug)]
pub(crate) struct InviteArgs {
    /// What to call the host that joins
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) alias: Alias,

    /// What it may do here: send:PATTERN, recv:PATTERN, list:PATTERN, as 'send:inbox/*'; may be
    /// repeated
    ///
    /// `list` lets it ask which of these pipes there are, and what becomes of them.
    #[arg(long, value_name = "RULE", required = true)]
    pub(crate) allow: Vec<Rule>,

    /// How long the invitation is good, as 10min, 1h
    #[arg(long, value_name = "TIME", default_value = "10min",
        value_parser = humantime::parse_duration)]
    pub(crate) expires: Duration,

    #[command(flatten)]
    pub(crate) at: AddressArgs,
}

/// What `join` takes.
#[derive(Args, Debug)]
pub(crate) struct JoinArgs {
    /// The ticket of the invitation; `-` reads it from standard input
    ///
    /// Default: the ticket in $QPIPE_TICKET.
    pub(crate) ticket: Option<String>,

    /// What to call the inviting host [default: what it calls itself]
    #[arg(long = "as", value_name = "ALIAS")]
    pub(crate) alias: Option<Alias>,
}
