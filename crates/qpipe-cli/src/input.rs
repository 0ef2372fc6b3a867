//! Standard input.

use std::io::{self, IsTerminal};

use anyhow::bail;
use qpipe_node::Source;
use rustix::{
    fs::{Mode, OFlags, open},
    stdio::{dup2_stdin, stdin},
};

use crate::startup;

/// Whether standard input is a terminal.
pub(crate) fn is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Makes sure that there is a standard input.
///
/// # Errors
/// The process was started without one.
pub(crate) fn must_be_open() -> anyhow::Result<()> {
    if startup::stdin_was_closed() {
        bail!("standard input is closed: write `< /dev/null` to send nothing");
    }
    Ok(())
}

/// Takes standard input out of its place. Dropping what this gives closes it, so that the producer gets
/// SIGPIPE even while the process lives on.
///
/// # Errors
/// It cannot be read, or no descriptor is left.
pub(crate) fn take() -> io::Result<Source> {
    let input = stdin().try_clone_to_owned()?;
    close_stdin()?;
    Source::take(input)
}

/// Puts /dev/null in the place of standard input: an empty place would be taken by whatever is
/// opened next.
pub(crate) fn close_stdin() -> io::Result<()> {
    let null = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(dup2_stdin(null)?)
}
