//! `qpipe mk`: named pipes that are kept.

use qpipe_node::{Config, Home, KeepChange, is_nodes_own, keep};
use qpipe_proto::{PipeName, Target};

use crate::{WrongUsage, args::MkArgs, exit::Exit, host, say};

/// Keeps named pipes of this host.
///
/// # Errors
/// A name is none, names.toml is broken or cannot be written, or there are too many: then none of them
/// is kept. One that is kept already is told of, and does not keep the others from it.
pub(crate) fn run(args: &MkArgs) -> anyhow::Result<Exit> {
    let home = host::home()?;
    let names = own_names(&home, &args.names)?;
    home.create()?;
    let change = KeepChange {
        capacity: args.capacity,
        mode: args.mode,
        description: args.description.clone().map(|description| description.0),
        changes_kept: args.force,
    };
    let untouched = keep(&home.names_file(), &names, &change)?;
    for name in &untouched {
        say::error(format_args!("`{name}` exists: change it with `qpipe mk --force`"));
    }
    Ok(if untouched.is_empty() { Exit::Success } else { Exit::Failure })
}

/// The pipes of this host that these texts name.
///
/// # Errors
/// [`WrongUsage`] if one names none.
pub(super) fn own_names(home: &Home, texts: &[String]) -> anyhow::Result<Vec<PipeName>> {
    let config = Config::load(&home.config_file())?;
    let own_name = |text: &String| {
        let wrong = |why: String| WrongUsage(format!("`{}`: {why}", say::clean(text)));
        match Target::parse(text, |name| config.host(name).is_some()) {
            Ok(Target::Local(name)) if is_nodes_own(&name) => {
                Err(wrong("names that begin with .qpipe/ are the node's own".to_owned()).into())
            }
            Ok(Target::Local(name)) => Ok(name),
            Ok(Target::Remote { .. }) => {
                let why = "this is a pipe of another host; one of this host is written ./NAME";
                Err(wrong(why.to_owned()).into())
            }
            // It is not shown: it may be a secret.
            Ok(Target::Ticket(_)) => {
                Err(WrongUsage("a ticket names no pipe of this host".to_owned()).into())
            }
            Err(error @ qpipe_proto::target::TargetError::Ticket(_)) => {
                Err(WrongUsage(error.to_string()).into())
            }
            Err(error) => Err(wrong(error.to_string()).into()),
        }
    };
    texts.iter().map(own_name).collect()
}
