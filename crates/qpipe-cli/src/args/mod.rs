//! The command line.

mod node;
mod pipe;
mod trust;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use qpipe_node::ByteSize;

pub(crate) use self::{node::*, pipe::*, trust::*};
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
    /// QPIPE_LOG sets the same in the language of tracing's filters, as `qpipe=debug,quinn=info`. Releases are
    /// built without the level `trace`.
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
    use std::time::Duration;

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
