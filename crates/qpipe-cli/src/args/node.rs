//! What commands take that run a node or look after one.

use std::{net::SocketAddr, time::Duration};

use clap::Args;
use qpipe_node::{ByteSize, Capacity, Description, PeerMode};
use qpipe_proto::ticket::Address;

use super::WaitingArgs;
use crate::log;

/// Where this process can be reached.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct AddressArgs {
    /// Listen on this UDP address of this host, as `0.0.0.0:7473` or `[::]:7473`; may be repeated
    ///
    /// Default: for anonymous pipes a free port; for `invite` what `serve` would listen on.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Vec<SocketAddr>,

    /// Name this address in tickets, before those this host knows; may be repeated
    ///
    /// For hosts behind address translation or under a DNS name.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Vec<Address>,
}

/// What bounds all pipes of a node.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct BoundArgs {
    /// The most bytes that wait in all pipes together, as 1GiB [default: of config.toml, 256MiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<ByteSize>,

    #[command(flatten)]
    pub(crate) waiting: WaitingArgs,
}

/// What `serve` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServeArgs {
    /// Listen on this UDP address of this host, as `0.0.0.0:7473` or `[::]:7473`; may be repeated
    ///
    /// Default: what config.toml says, or port 7473 on IPv4 and IPv6.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Vec<SocketAddr>,

    /// How what it says on standard error is written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: log::Format,

    #[command(flatten)]
    pub(crate) bounds: BoundArgs,
}

/// What `node` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct NodeArgs {
    /// End after so long without anything to do [default: of config.toml, 1min]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) linger: Option<Duration>,

    #[command(flatten)]
    pub(crate) bounds: BoundArgs,
}

/// Whose node is asked.
#[derive(Args, Clone, Debug)]
pub(crate) struct OfHostArgs {
    /// Ask the node of this other host, as HOST in HOST/NAME [default: this host's]
    ///
    /// It tells of the pipes that a rule there lets this host ask about (list:PATTERN), and of the
    /// session with this host.
    pub(crate) host: Option<String>,

    /// Take an unknown host's key as its own without asking, and pin it
    #[arg(long, requires = "host")]
    pub(crate) accept_new: bool,
}

/// What `status` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) of: OfHostArgs,

    /// For programs: one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `ls` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) of: OfHostArgs,

    /// For programs: a JSON array
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `mk` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct MkArgs {
    /// NAME of a pipe of this host; ./NAME if it looks like one of another host
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,

    /// What may wait in the pipe before its writers have to, from 4KiB to 1GiB [default: 512KiB]
    ///
    /// What is taken from a writer at once is not cut for it: each may come with 64 KiB more. Two
    /// programs of this host have a kernel pipe between them, which has a capacity of its own.
    #[arg(long, value_name = "SIZE")]
    pub(crate) capacity: Option<Capacity>,

    /// What other hosts may do, of what authorized.toml allows: rw, r (read), w (write), - (nothing)
    /// [default: rw]
    #[arg(long)]
    pub(crate) mode: Option<PeerMode>,

    /// What it is for: one line, at most 256 bytes; an empty one takes it away
    #[arg(long, value_name = "TEXT", value_parser = parse_description)]
    pub(crate) description: Option<DescriptionArg>,

    /// Change names that are kept already: what is not given stays as it is
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// A description, or that there is to be none.
#[derive(Clone, Debug)]
pub(crate) struct DescriptionArg(pub(crate) Option<Description>);

fn parse_description(text: &str) -> Result<DescriptionArg, qpipe_node::ParseDescriptionError> {
    let description = if text.is_empty() { None } else { Some(text.parse()?) };
    Ok(DescriptionArg(description))
}

/// What `rm` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct RmArgs {
    /// NAME of a pipe of this host; ./NAME if it looks like one of another host
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

/// What `stop` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct StopArgs {
    /// How long pipes that are open may go on, as 10s, 5min; then they are cut. 0s cuts them now
    #[arg(long, value_name = "TIME", default_value = "10s",
        value_parser = humantime::parse_duration)]
    pub(crate) within: Duration,
}
