//! Standard output.

use std::io::{self, IsTerminal};

use anyhow::bail;
use qpipe_node::Delivery;
use rustix::{
    fs::{Mode, OFlags, open},
    stdio::{dup2_stdout, stdout},
};

use crate::startup;

/// Whether standard output is a terminal.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Makes sure that there is a standard output.
///
/// # Errors
/// The process was started without one.
pub(crate) fn must_be_open() -> anyhow::Result<()> {
    if startup::stdout_was_closed() {
        bail!("standard output is closed: write `> /dev/null` to throw the bytes away");
    }
    Ok(())
}

/// Takes standard output out of its place. Dropping what this gives closes it, so that the program behind it
/// sees EOF even while the process lives on.
///
/// # Errors
/// It cannot be written, [`io::ErrorKind::BrokenPipe`] if nobody reads it any more; or no descriptor is
/// left.
pub(crate) fn take() -> io::Result<Delivery> {
    let output = stdout().try_clone_to_owned()?;
    close_stdout()?;
    Delivery::take(output)
}

/// Puts /dev/null in the place of standard output: an empty place would be taken by whatever is
/// opened next.
pub(crate) fn close_stdout() -> io::Result<()> {
    let null = open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(dup2_stdout(null)?)
}
