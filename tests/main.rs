//! The built `qpipe` command with real programs around it: what a user at a shell relies on.
//!
//! Two hosts on one machine are two homes ([`host::Host`]). Where `a | b` makes sense as it is, it
//! runs first, through the kernel's own pipe, and says what is to be expected of
//! `a | qpipe send` and `qpipe recv | b`.

#![allow(missing_docs, unreachable_pub)]
// The clock bounds waits, and what is skipped says so.
#![allow(clippy::disallowed_methods, clippy::disallowed_macros)]

mod afar;
mod anonymous;
mod bad_input;
mod cases;
mod coreutils;
mod crowd;
mod descriptors;
mod endings;
mod fifo;
mod host;
mod invitations;
mod kept;
mod named;
mod namespaces;
#[cfg(target_os = "linux")]
mod network;
mod open;
mod options;
#[cfg(target_os = "linux")]
mod quick;
mod serving;
mod shared;
mod trust;
mod volume;
