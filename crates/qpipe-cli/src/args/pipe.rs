//! What commands take that open pipes.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::Args;
use qpipe_node::{ByteSize, Capacity, Waiting, parse_waiting_time};

use super::AddressArgs;
use crate::rate::Rate;

/// What `send` and `duplex` take, and `recv` too.
#[derive(Args, Clone, Debug)]
pub(crate) struct PipeArgs {
    /// HOST/NAME, NAME, or a ticket; `-` reads a ticket from standard input (recv only)
    ///
    /// Default: the ticket in $QPIPE_TICKET; if that is not set, an anonymous pipe.
    pub(crate) target: Option<String>,

    /// Fail at once if nobody is at the other end of a named pipe, rather than wait
    #[arg(long)]
    pub(crate) no_wait: bool,

    /// How long to wait until somebody is at the other end, as 10s, 5min [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Option<Duration>,

    /// The most bytes a second, as 10MiB/s or 500kB/s [default: as many as go]
    #[arg(long)]
    pub(crate) rate: Option<Rate>,

    /// Bytes that may go at once under --rate, as 1MiB [default: a tenth of a second's]
    #[arg(long, value_name = "SIZE", requires = "rate")]
    pub(crate) burst: Option<ByteSize>,

    /// The most bytes that wait in memory, as 256MiB [default: of config.toml, 256MiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<ByteSize>,

    /// Do everything in this process, rather than through the node that this host's commands share
    ///
    /// The same if $QPIPE_DIRECT is set, for pipes without a name, and with --rate, --memory,
    /// --listen, and times to wait, which are about this process alone.
    #[arg(long)]
    pub(crate) direct: bool,

    /// Take an unknown host's key as its own without asking, and pin it
    #[arg(long)]
    pub(crate) accept_new: bool,

    #[command(flatten)]
    pub(crate) flow: FlowArgs,

    #[command(flatten)]
    pub(crate) waiting: WaitingArgs,

    #[command(flatten)]
    pub(crate) at: AddressArgs,
}

/// How a pipe between two hosts shares the way between them.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct FlowArgs {
    /// Send its bytes before those of other pipes to that host, or only when those have none
    ///
    /// Without this pipes take turns, and one that has little to send goes first.
    #[arg(long, default_value = "normal")]
    pub(crate) priority: Priority,

    /// What may be on its way to another host before the writer has to wait, as 1MiB, at least 4KiB
    /// [default: as much as keeps the way there full]
    #[arg(long, value_name = "SIZE")]
    pub(crate) capacity: Option<Capacity>,
}

/// How a pipe's bytes are sent beside those of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Priority {
    /// When no other pipe has anything to send
    Low,
    /// In turns
    #[default]
    Normal,
    /// Before all others
    High,
}

impl From<Priority> for qpipe::Priority {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Low => Self::Low,
            Priority::Normal => Self::Normal,
            Priority::High => Self::High,
        }
    }
}

/// How long a peer that is not heard is waited for.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct WaitingArgs {
    /// Try another way to a host that was not heard for so long [default: of config.toml, 3s]
    #[arg(long, value_name = "TIME", value_parser = parse_waiting_time)]
    pub(crate) heartbeat: Option<Duration>,

    /// Say so when a host was not heard for so long, and go on [default: of config.toml, 15s]
    #[arg(long, value_name = "TIME", value_parser = parse_waiting_time)]
    pub(crate) notice: Option<Duration>,

    /// End the pipes to a host that was not heard for so long [default: of config.toml, 10min;
    /// serve: 24h]
    #[arg(long, value_name = "TIME", value_parser = parse_waiting_time)]
    pub(crate) give_up: Option<Duration>,
}

impl WaitingArgs {
    /// Whether the user says anything.
    pub(crate) fn is_given(&self) -> bool {
        self.heartbeat.is_some() || self.notice.is_some() || self.give_up.is_some()
    }
}

impl From<WaitingArgs> for Waiting {
    fn from(args: WaitingArgs) -> Waiting {
        let WaitingArgs { heartbeat, notice, give_up } = args;
        Waiting { heartbeat, notice, give_up }
    }
}

/// What `send` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct SendArgs {
    #[command(flatten)]
    pub(crate) pipe: PipeArgs,

    /// Keep lines whole, of up to 16 KiB, whoever else writes into the pipe; each goes to one reader
    ///
    /// Without this only the writes of programs that have the pipe itself are kept whole, of up to
    /// 4 KiB: see `qpipe open`.
    #[arg(long, value_name = "WHAT", conflicts_with = "rate")]
    pub(crate) records: Option<Records>,

    /// Go on with what qsend has asked the node for, over the connection that is standard output
    #[arg(long, hide = true)]
    pub(crate) asked: Option<Asked>,
}

/// How far a pipe has come that `qsend` or `qrecv` has asked this host's node for (see qpipe-quick).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Asked {
    /// The request was sent: the node has a copy of the descriptor
    Sent,
    /// Open: the node's is the only one
    Opened,
    /// Somebody is at its other end
    Joined,
}

/// What stays together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Records {
    /// Lines
    Line,
}

/// What `recv` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct RecvArgs {
    #[command(flatten)]
    pub(crate) pipe: PipeArgs,

    /// Exit 0 also when the writer aborted the pipe, as the kernel would
    ///
    /// The bytes may then be only the beginning of what there was to be.
    #[arg(long)]
    pub(crate) abort_as_eof: bool,

    /// Go on with what qrecv has asked the node for, over the connection that is standard input
    #[arg(long, hide = true)]
    pub(crate) asked: Option<Asked>,
}

/// What `open` takes.
#[derive(Args, Clone, Debug)]
#[command(group(clap::ArgGroup::new("end").required(true).args(["write", "read"])))]
pub(crate) struct OpenArgs {
    /// The program gets the end to write
    #[arg(long)]
    pub(crate) write: bool,

    /// The program gets the end to read
    #[arg(long)]
    pub(crate) read: bool,

    /// HOST/NAME or NAME
    pub(crate) target: String,

    /// The number of the descriptor: 0, 1 and 2 are the program's standard ones
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(i32).range(0..))]
    pub(crate) fd: i32,

    /// Fail at once if nobody is at the other end, rather than wait
    #[arg(long)]
    pub(crate) no_wait: bool,

    /// How long to wait until somebody is at the other end, as 10s, 5min [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Option<Duration>,

    /// Take an unknown host's key as its own without asking, and pin it
    #[arg(long)]
    pub(crate) accept_new: bool,

    #[command(flatten)]
    pub(crate) flow: FlowArgs,

    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// What `fifo` takes.
#[derive(Args, Clone, Debug)]
#[command(group(clap::ArgGroup::new("side").required(true).args(["write", "read"])))]
pub(crate) struct FifoArgs {
    /// Programs write into the FIFO
    #[arg(long)]
    pub(crate) write: bool,

    /// Programs read from the FIFO
    #[arg(long)]
    pub(crate) read: bool,

    /// HOST/NAME or NAME
    pub(crate) target: String,

    /// Where the FIFO is: made if nothing is there, and removed at the end if it was made
    pub(crate) path: PathBuf,

    /// The permissions of a FIFO that is made, in octal
    #[arg(long, default_value = "600", value_parser = parse_mode)]
    pub(crate) mode: u32,

    /// Leave the FIFO where it is
    #[arg(long)]
    pub(crate) keep: bool,

    /// End after one life of the pipe
    #[arg(long)]
    pub(crate) once: bool,

    /// Take an unknown host's key as its own without asking, and pin it
    #[arg(long)]
    pub(crate) accept_new: bool,

    #[command(flatten)]
    pub(crate) flow: FlowArgs,
}

/// Permissions as chmod(1) takes them.
fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("permissions are octal, from 0 to 777, as 640".to_owned()),
    }
}
