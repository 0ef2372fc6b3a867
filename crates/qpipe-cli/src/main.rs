//! `qpipe`: Unix pipes that cross hosts.

#![deny(unsafe_code)]

mod args;
mod commands;
mod dial;
mod ending;
mod exit;
mod host;
mod input;
mod log;
mod output;
mod pipes;
mod progress;
mod pump;
mod rate;
mod say;
mod shared;
mod signals;
mod silence;
mod startup;
mod target;
mod version;

use std::{env, io};

use clap::Parser;

use crate::{args::Cli, exit::Exit};

fn main() {
    startup::tune_allocator();
    if env::args_os().nth(1).is_some_and(|command| command == "node") {
        // Before there is anything else: it outlives whoever starts it.
        qpipe_node::local::detach();
    }
    let cli = Cli::parse();
    say::configure(cli.quiet, cli.verbose);
    log::start(cli.verbose, cli.command.log_format());
    commands::run(cli.command).unwrap_or_else(|error| end_of(&error)).leave()
}

/// A command line whose parts make no sense together; everything else that goes wrong is a failure.
#[derive(Debug)]
struct WrongUsage(String);

impl std::fmt::Display for WrongUsage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongUsage {}

/// Says what went wrong, unless it is that nobody reads what was to be printed.
fn end_of(error: &anyhow::Error) -> Exit {
    let is_broken_pipe =
        |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe && error.get_ref().is_none();
    if error.downcast_ref::<io::Error>().is_some_and(is_broken_pipe) {
        return Exit::broken_pipe();
    }
    say::error(sentence(error));
    if error.is::<WrongUsage>() { Exit::Usage } else { Exit::Failure }
}

/// The error with its causes, each told once: many errors name their cause in their own words, and
/// give it as their source as well.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |told, cause| match cause.to_string() {
        cause if told.contains(&cause) => told,
        cause if told.is_empty() => cause,
        cause => format!("{told}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn a_cause_that_an_error_has_told_is_not_told_again() {
        let full = io::Error::other("the disk is full");
        let error =
            Err::<(), _>(anyhow::Error::new(full).context("cannot write f: the disk is full"))
                .context("no key")
                .unwrap_err();

        assert_eq!(sentence(&error), "no key: cannot write f: the disk is full");
        assert_eq!(sentence(&anyhow!("no key").context("no node")), "no node: no key");
    }
}
