//! Which pipes the host's node is to carry, and what it calls them.

use std::env;

use qpipe::End;
use qpipe_node::local::Place;

use crate::{args::PipeArgs, host::ThisHost, input, target};

/// The variable that keeps commands from sharing a node, as `--direct` does.
const DIRECT_VARIABLE: &str = "QPIPE_DIRECT";

/// Where the pipe is, if the host's node is to carry it: none with `--direct`, for pipes without a
/// name, and where an option is about this process's own connection.
pub(super) fn place(
    this: &ThisHost,
    args: &PipeArgs,
    end: End,
    target: &target::Place,
) -> Option<Place> {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_own = args.rate.is_some()
        || args.memory.is_some()
        || args.waiting.is_given()
        || !args.at.listen.is_empty();
    // What is typed is read by this process alone, which the shell can stop.
    let is_typed = end == End::Duplex && input::is_terminal();
    // Without a home there is no place for a socket.
    if args.direct || is_typed || is_own || is_set(DIRECT_VARIABLE) || this.home().is_err() {
        return None;
    }
    named(target)
}

/// What the node calls it; none for pipes without a name.
pub(crate) fn named(target: &target::Place) -> Option<Place> {
    match target {
        target::Place::Local(name) => Some(Place::Local { name: name.to_string() }),
        target::Place::Remote { host, name } => {
            Some(Place::Remote { host: host.to_string(), name: name.to_string() })
        }
        target::Place::Anonymous | target::Place::Ticket(_) => None,
    }
}
