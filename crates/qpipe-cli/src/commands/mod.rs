//! One file for each command.

mod afar;
mod completions;
mod duplex;
mod fifo;
mod invite;
mod join;
mod key;
mod looped;
mod man;
mod mk;
mod node;
mod open;
mod recv;
mod rm;
mod send;
mod serve;
mod status;
mod trust;

use std::future::Future;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime;

pub(crate) use self::serve::bind_remedy;
use crate::{args::Command, exit::Exit};

/// Does what the command line says.
///
/// # Errors
/// Whatever kept the command from doing its work; how a pipe ended is no error but an [`Exit`].
pub(crate) fn run(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Completions { shell } => completions::run(shell),
        Command::Duplex(args) => wait_for(duplex::run(args)),
        Command::Fifo(args) => wait_for(fifo::run(args)),
        Command::Invite(args) => wait_for(invite::run(args)),
        Command::Join(args) => wait_for(join::run(args)),
        Command::Key(command) => key::run(command),
        Command::Ls(args) => wait_for(status::list(args)),
        Command::Node(args) => wait_for(node::run(args)),
        Command::Status(args) => wait_for(status::run(args)),
        Command::Stop(args) => wait_for(status::stop(args)),
        Command::Loop(args) => wait_for(looped::run(args)),
        Command::Man { dir } => man::run(&dir),
        Command::Mk(args) => mk::run(&args),
        Command::Open(args) => wait_for(open::run(args)),
        Command::Recv(args) => wait_for(recv::run(args)),
        Command::Rm(args) => rm::run(&args),
        Command::Send(args) => wait_for(send::run(args)),
        Command::Serve(args) => wait_for(serve::run(args)),
        Command::Trust(command) => trust::run(command),
    }
}

/// Lets a node have as many descriptors as the system allows: each program of this host takes two or
/// three, and the usual limit is for programs that might use select(2).
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    // Without it there is room for a few hundred programs, and others are told so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Runs a command's future. Threads that still look up a name when it is done are not waited for.
fn wait_for(command: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(qpipe::EVENT_INTERVAL)
        .global_queue_interval(qpipe::WAKE_INTERVAL)
        .build()
        .context("cannot start the asynchronous runtime")?;
    let exit = runtime.block_on(command);
    runtime.shutdown_background();
    exit
}
