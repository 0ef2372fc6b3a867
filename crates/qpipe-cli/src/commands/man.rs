//! `qpipe man DIR`.

use std::{fs, path::Path};

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::{args::Cli, exit::Exit, say};

/// The quick forms of two commands, and what they do more quickly.
const QUICK: [(&str, &str); 2] = [("qsend", "send"), ("qrecv", "recv")];

/// Writes a manual page for qpipe, for each of its commands, and for their quick forms.
///
/// # Errors
/// The directory cannot be made or written to.
pub(crate) fn run(dir: &Path) -> anyhow::Result<Exit> {
    let failed = || format!("cannot write manual pages to {}", dir.display());
    fs::create_dir_all(dir).with_context(failed)?;
    clap_mangen::generate_to(Cli::command(), dir).with_context(failed)?;
    let mut cli = Cli::command();
    cli.build();
    for (name, verb) in QUICK {
        if let Some(command) = cli.find_subcommand(verb) {
            let quick = quick(command.clone(), name, verb);
            Man::new(quick).generate_to(dir).with_context(failed)?;
        }
    }
    say::note(format_args!(
        "the manual pages are in {}: try `man -l qpipe.1` there",
        dir.display()
    ));
    Ok(Exit::Success)
}

/// What the page of a quick form is made of: the options are those of the command.
fn quick(command: Command, name: &'static str, verb: &str) -> Command {
    let about = format!("`qpipe {verb}` for scripts that open pipes by the thousand");
    let more = format!(
        "Does what qpipe-{verb}(1) does, in a process that costs next to nothing as long as it is told no \
         more than the name of a pipe. Whatever else there is to be done is left to `qpipe`, which has to \
         be in the same directory."
    );
    command.name(name).display_name(name).bin_name(name).about(about).long_about(more)
}
