//! Two hosts, one thread, virtual time: the protocol core of qpipe over quinn-proto, on a simulated
//! network that loses, delays, doubles, corrupts and forgets, with nodes that stand still and die.
//!
//! A seed determines a run: its network, its faults, its work, every packet's fate. A run has two
//! phases, one with faults and one without, in which everything has to come to its end. An oracle
//! that knows nothing of the product watches what programs write and read.
//!
//! | module | what |
//! | --- | --- |
//! | [`plan`], [`work`] | what a seed determines: faults; what programs do |
//! | [`net`] | the simulated links |
//! | [`node`] | a host's node: the protocol core, driven over quinn-proto |
//! | [`world`] | one run: the two hosts, their programs, the network, the clock |
//! | [`oracle`], [`content`] | what must hold; what pipes carry |
//! | [`planted`] | bugs that the oracle has to catch |
//! | [`congestion`] | the congestion controller's evaluation: flows that share a bottleneck |
//! | [`trace`], [`rng`], [`clock`], [`seeds`] | same seed, same trace |

#![forbid(unsafe_code)]

pub mod clock;
pub mod congestion;
pub mod content;
pub mod net;
pub mod node;
pub mod oracle;
pub mod plan;
pub mod planted;
pub mod rng;
pub mod seeds;
pub mod trace;
pub mod work;
pub mod world;
