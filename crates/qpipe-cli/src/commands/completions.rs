//! `qpipe completions SHELL`.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{args::Cli, exit::Exit, say};

/// Prints the script that completes qpipe's commands.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn run(shell: Shell) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "qpipe", &mut script);
    say::answer(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Success)
}
