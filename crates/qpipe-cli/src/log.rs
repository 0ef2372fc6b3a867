//! Tracing's log, for those who look for a fault in qpipe. Off unless asked for.

use std::{env, io};

use tracing_subscriber::EnvFilter;

use crate::say;

/// Where a filter of one's own comes from, in the language of tracing's filters.
const FILTER_VARIABLE: &str = "QPIPE_LOG";

/// Begins to log to standard error, if `-vv` or $QPIPE_LOG asks for it.
pub(crate) fn start(verbose: u8) {
    let filter = env::var(FILTER_VARIABLE).ok().filter(|filter| !filter.is_empty());
    let asked = match verbose {
        0 | 1 => None,
        2 => Some("qpipe=debug,qpipe_node=debug,qpipe_proto=debug"),
        _ => Some("trace"),
    };
    let Some(filter) = filter.as_deref().or(asked) else { return };
    match EnvFilter::try_new(filter) {
        Ok(filter) => tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .with_ansi(say::takes_colour())
            .init(),
        Err(error) => say::error(format_args!("{FILTER_VARIABLE} is not a filter: {error}")),
    }
}
