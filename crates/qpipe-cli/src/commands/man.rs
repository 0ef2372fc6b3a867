//! `qpipe man DIR`.

use std::{fs, path::Path};

use anyhow::Context;
use clap::CommandFactory;

use crate::{args::Cli, exit::Exit, say};

/// Writes a manual page for qpipe and for each of its commands.
///
/// # Errors
/// The directory cannot be made or written to.
pub(crate) fn run(dir: &Path) -> anyhow::Result<Exit> {
    let failed = || format!("cannot write manual pages to {}", dir.display());
    fs::create_dir_all(dir).with_context(failed)?;
    clap_mangen::generate_to(Cli::command(), dir).with_context(failed)?;
    say::note(format_args!(
        "the manual pages are in {}: try `man -l qpipe.1` there",
        dir.display()
    ));
    Ok(Exit::Success)
}
