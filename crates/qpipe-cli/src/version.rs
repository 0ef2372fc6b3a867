//! What this program is.

/// Its version.
pub(crate) const SHORT: &str = env!("CARGO_PKG_VERSION");

/// Its version and what it was built from, on lines of their own.
pub(crate) const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit ",
    env!("QPIPE_COMMIT"),
    "\nbuild ",
    env!("QPIPE_BUILD"),
    "\nprotocol qpipe/1\nTLS rustls ",
    env!("QPIPE_RUSTLS"),
    " with aws-lc-rs",
);
