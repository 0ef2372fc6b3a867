//! Measures the library, and runs qpipe and other programs in the same way.
//!
//! ```text
//! qpipe-bench compare [--rows veth,loss] [--runs 5]    qpipe beside every peer, as docs/performance.md says
//! qpipe-bench busy qpipe --pipes 1000                  the library, or another carrier, over loopback
//! qpipe-bench serve qpipe 10.0.0.2:7500                the far end, and
//! qpipe-bench busy qpipe --to 10.0.0.2:7500            the near end, on two hosts with the same --state
//! ```
//!
//! A result is one line of JSON on standard output.

#![cfg_attr(target_os = "linux", allow(clippy::disallowed_macros, clippy::disallowed_methods))]

#[cfg(target_os = "linux")]
mod args;
#[cfg(target_os = "linux")]
mod carrier;
#[cfg(target_os = "linux")]
mod compare;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod run;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    args::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
