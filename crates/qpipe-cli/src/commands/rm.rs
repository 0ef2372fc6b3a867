//! `qpipe rm`: named pipes that are kept no longer.

use qpipe_node::remove_kept;

use super::mk::own_names;
use crate::{args::RmArgs, exit::Exit, host, say};

/// Keeps named pipes of this host no longer. What is open goes on to its end.
///
/// # Errors
/// A name is none, or names.toml is broken or cannot be written: then all stay. One that is not kept is
/// told of, and does not keep the others from going.
pub(crate) fn run(args: &RmArgs) -> anyhow::Result<Exit> {
    let home = host::home()?;
    let names = own_names(&home, &args.names)?;
    home.create()?;
    let unknown = remove_kept(&home.names_file(), &names)?;
    for name in &unknown {
        say::error(format_args!("`{name}` is not kept: `qpipe ls` shows which names are"));
    }
    Ok(if unknown.is_empty() { Exit::Success } else { Exit::Failure })
}
