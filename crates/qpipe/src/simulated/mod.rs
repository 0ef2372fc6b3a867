//! The library in virtual time: nodes in one thread, on tokio's paused clock, over a network in
//! memory. The protocol itself is simulated elsewhere, in volume; this is for the tasks around it.
//!
//! | file | what |
//! | --- | --- |
//! | `network` | datagrams: delay, rate, queue, loss, blackholes, address translators |
//! | `place` | hosts with nodes, and what they do with each other |
//! | `crowd` | many pipes that share a connection |
//! | `drawn` | runs drawn from a seed |
//! | `outages`, `quiet`, `moves`, `restarts` | one scenario each |
//!
//! A run is drawn from its seed alone. Keys, ids and TLS are not, so that a replay is the same story,
//! but not the same bytes.

#![allow(clippy::disallowed_macros, reason = "figures of the runs are for whoever asks for them")]

mod crowd;
mod dice;
mod drawn;
mod moves;
mod network;
mod outages;
mod place;
mod quiet;
mod restarts;

pub(crate) use network::{SimulatedProbe, is_simulated};
