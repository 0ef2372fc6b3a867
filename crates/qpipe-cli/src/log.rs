//! Tracing's log, for those who look for a fault in qpipe. Off unless asked for.

use std::{env, io};

use clap::ValueEnum;
use tracing::level_filters::STATIC_MAX_LEVEL;
use tracing_subscriber::EnvFilter;

use crate::say;

/// Where a filter of one's own comes from, in the language of tracing's filters.
const FILTER_VARIABLE: &str = "QPIPE_LOG";

/// How what a service says is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Sentences, for people
    #[default]
    Text,
    /// One JSON object a line, for programs that gather logs
    Json,
}

/// Begins to log to standard error, if `-vv` or $QPIPE_LOG asks for it. As JSON, sentences for the
/// user are events of the log, too.
pub(crate) fn start(verbose: u8, format: Format) {
    let filter = env::var(FILTER_VARIABLE).ok().filter(|filter| !filter.is_empty());
    // Releases are built without what quinn says of each packet: even unheard it costs time.
    let everything = STATIC_MAX_LEVEL.to_string();
    let asked = match verbose {
        0 | 1 => None,
        2 => Some("qpipe=debug,qpipe_node=debug,qpipe_proto=debug"),
        _ => Some(everything.as_str()),
    };
    let asked = filter.as_deref().or(asked);
    let filter = match (asked, format) {
        (None, Format::Text) => return,
        (Some(asked), Format::Text) => asked.to_owned(),
        (asked, Format::Json) => format!("{},{}=debug", asked.unwrap_or("off"), say::TARGET),
    };
    match EnvFilter::try_new(filter) {
        Ok(filter) => {
            let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
            match format {
                Format::Text => log.with_ansi(say::takes_colour()).init(),
                Format::Json => {
                    log.json().flatten_event(true).init();
                    say::to_log();
                }
            }
        }
        Err(error) => say::error(format_args!("{FILTER_VARIABLE} is not a filter: {error}")),
    }
}
