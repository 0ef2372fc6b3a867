//! The command line.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand};
use qpipe_node::{
    Alias, ByteSize, Capacity, Description, PeerMode, Rule, Waiting, parse_waiting_time,
};
use qpipe_proto::{Fingerprint, ticket::Address};

use crate::{log, rate::Rate, version};

/// Unix pipes that cross hosts: `producer | consumer`, with the two on different machines.
#[derive(Debug, Parser)]
#[command(
    name = "qpipe",
    version = version::SHORT,
    long_version = version::LONG,
    propagate_version = true,
    max_term_width = 100,
    after_help = AFTER_HELP,
)]
pub(crate) struct Cli {
    /// Say nothing but errors (and the command for the other host), show no progress
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Say more: what becomes of pipes (-v), of connections (-vv), everything (-vvv)
    ///
    /// QPIPE_LOG sets the same in the language of tracing's filters, as `qpipe=debug,quinn=info`.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What follows the list of commands.
const AFTER_HELP: &str = "\
A TARGET is HOST/NAME (a pipe on another host: an alias, a DNS name or an address, with :PORT unless \
it is 7473), NAME (a pipe of this host's own node), or a ticket (qpipe1…). Since `ps` shows \
arguments to everybody on the host, a ticket may also be put into $QPIPE_TICKET.

Exit status: 0 when every byte was consumed (send) or came through (recv); death of SIGPIPE (141) \
when the reader has gone; 1 when a pipe was aborted or failed; 2 for wrong usage.";

/// What follows the options of `open`.
const OPEN_AFTER_HELP: &str = "\
Example: qpipe open --write b/inbox -- sh -c 'date >&3; ./report >&3'";

/// What follows the options of `fifo`.
const FIFO_AFTER_HELP: &str = "\
Example: qpipe fifo --write b/log /run/app/log.fifo &  app --log-file /run/app/log.fifo";

/// One thing to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send standard input into a pipe
    ///
    /// Without a TARGET: into an anonymous pipe; the command for the other host is shown on
    /// standard error. Exits 0 only when the reader has consumed every byte.
    Send(SendArgs),
    /// Write what comes out of a pipe to standard output
    ///
    /// Without a TARGET: from an anonymous pipe; the command for the other host is shown on
    /// standard error. Exits 0 only when every byte came, up to the writer's end of file.
    Recv(RecvArgs),
    /// Send standard input, and write what comes back: two pipes at once
    ///
    /// The far program sees our end of file at once, and its reply still arrives. Usable as
    /// ProxyCommand of ssh.
    Duplex(PipeArgs),
    /// Run a program that has an end of a pipe as a file descriptor
    ///
    /// The descriptor is that of a real kernel pipe: the program may write, poll or splice it, and
    /// hand it to its children. It starts when the pipe is open. With --write, the reader gets its
    /// end of file when everybody has closed the descriptor and CMD has ended with success; if CMD
    /// fails, the pipe is aborted.
    ///
    /// Exit status: CMD's (128 and the number if a signal ended it) if that is not 0; else what it
    /// would be for `send` or `recv`, but 0 if CMD has read no more than it wanted. 127 if there is
    /// no CMD, 126 if it cannot be run. TERM, INT and HUP are passed to CMD.
    #[command(after_help = OPEN_AFTER_HELP)]
    Open(OpenArgs),
    /// Have a FIFO on disk that is one end of a pipe, for programs that know nothing of qpipe
    ///
    /// Programs open PATH as any FIFO: that waits until somebody is at the far end of the pipe. When
    /// the last of those who write has closed it, the far reader gets its end of file; when the far
    /// reader goes, they get SIGPIPE; and likewise with --read. Then the next life of the pipe
    /// begins, until SIGINT, SIGTERM or SIGHUP ends the command, or after one life with --once.
    ///
    /// What a FIFO cannot tell: a program that was killed has ended its output as any other, and one
    /// that reads sees the end of file also where the pipe was cut off. This command says so then,
    /// and --once exits 1.
    ///
    /// Exit status: with --once, what it would be for `send` or `recv`.
    #[command(after_help = FIFO_AFTER_HELP)]
    Fifo(FifoArgs),
    /// Show what a node does: its sessions with other hosts, what programs have open
    Status(StatusArgs),
    /// List the named pipes of a node that are in use, or kept
    Ls(ListArgs),
    /// Keep named pipes of this host, also while nobody uses them and over restarts of its node
    ///
    /// As `mkfifo` does, it fails for a name that is kept already. A pipe that is not kept can be
    /// used all the same: it is there as long as it is in use.
    Mk(MkArgs),
    /// Keep named pipes of this host no longer
    ///
    /// Who has one open goes on to the end.
    Rm(RmArgs),
    /// End this host's node: what is open has some time to come to its end
    ///
    /// Whoever waits for a partner at a name of this host is told at once. The next command starts
    /// another node.
    Stop(StopArgs),
    /// Run the node that this host's commands share; they start it themselves
    #[command(hide = true)]
    Node(NodeArgs),
    /// Run this host's node, in the foreground: named pipes, for whom authorized.toml lists
    ///
    /// SIGTERM and SIGINT end it: what is open has 10 s to come to its end, and a second signal cuts
    /// it. SIGHUP has it read authorized.toml again.
    Serve(ServeArgs),
    /// Show this host's key
    #[command(subcommand)]
    Key(KeyCommand),
    /// Show and change whom this host trusts
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Let another host do something here: prints the command that it is to run
    ///
    /// Works once, and grants nothing but what it prints. Where no `qpipe serve` runs, this command
    /// waits for the other host itself.
    Invite(InviteArgs),
    /// Accept an invitation: learn the other host's address and key, and be listed there
    Join(JoinArgs),
    /// Send standard input to standard output, through QUIC between two nodes in this process
    ///
    /// Shows that qpipe works on this machine.
    Loop(LoopArgs),
    /// Print a script that completes qpipe's commands in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    #[command(hide = true)]
    Man {
        /// The directory to write them to; made if it is missing
        dir: PathBuf,
    },
}

impl Command {
    /// How what it says is written.
    pub(crate) fn log_format(&self) -> log::Format {
        match self {
            Command::Serve(args) => args.log_format,
            _ => log::Format::Text,
        }
    }
}

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

/// What `loop` takes.
#[derive(Args, Debug)]
pub(crate) struct LoopArgs {
    /// The most bytes a second, as 10MiB/s [default: as many as go]
    #[arg(long)]
    pub(crate) rate: Option<Rate>,

    /// Bytes that may go at once under --rate, as 1MiB [default: a tenth of a second's]
    #[arg(long, value_name = "SIZE", requires = "rate")]
    pub(crate) burst: Option<ByteSize>,

    /// The most bytes that wait in each node's memory, as 256MiB
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub(crate) memory: ByteSize,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    fn refusal(line: &str) -> ErrorKind {
        parse(line).unwrap_err().kind()
    }

    #[test]
    fn the_definition_is_consistent_and_documents_every_flag() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{}: {argument}", command.get_name());
            }
        }
    }

    #[test]
    fn durations_sizes_and_rates_become_values() {
        let cli = parse("qpipe send --timeout 1min --rate 10MiB/s --burst 64K b/x").unwrap();

        let Command::Send(args) = cli.command else { panic!("{cli:?}") };
        assert_eq!(args.pipe.timeout, Some(Duration::from_secs(60)));
        assert_eq!(args.pipe.rate, Some("10485760".parse().unwrap()));
        assert_eq!(args.pipe.burst, Some(ByteSize::from_bytes(65536)));
    }

    #[test]
    fn values_that_make_no_sense_are_wrong_usage() {
        for line in [
            "qpipe send --timeout fast",
            "qpipe send --rate 0",
            "qpipe send --memory many",
            "qpipe send --listen here",
            "qpipe send --heartbeat 1ms",
            "qpipe serve --give-up never",
            "qpipe invite --as a/b --allow send:x",
            "qpipe invite --as a --allow write:x",
            "qpipe trust add b --key MD5:x --address b",
            "qpipe fifo --read --mode rw x y",
            "qpipe fifo --read --mode 1777 x y",
        ] {
            assert_eq!(refusal(line), ErrorKind::ValueValidation, "{line}");
        }
    }

    #[test]
    fn what_belongs_together_is_demanded() {
        for line in [
            "qpipe send --burst 1K",
            "qpipe invite --as alice",
            "qpipe trust add b --key SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0",
        ] {
            assert_eq!(refusal(line), ErrorKind::MissingRequiredArgument, "{line}");
        }
        assert_eq!(refusal("qpipe -q -v send"), ErrorKind::ArgumentConflict);
    }
}
