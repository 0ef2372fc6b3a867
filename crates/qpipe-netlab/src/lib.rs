//! Network namespaces ("hosts") on one Linux machine, joined by an emulated bad link.
//!
//! Each host has a TUN device, read by one thread, which puts the packets on the link to their
//! destination and writes what is due to the destination's device. There is a link for each ordered
//! pair of hosts: a pure state machine (`link.rs`). Tests build a [`Lab`]; the command `netlab` is
//! the same thing for shells.

#![cfg(target_os = "linux")]
// A lab runs in real time, and its threads poll devices with deadlines.
#![allow(clippy::disallowed_methods)]

mod addr;
mod cli;
mod ctl;
mod dice;
mod garbage;
mod ip;
mod lab;
mod link;
mod netns;
mod packet;
mod params;
mod report;
mod roam;
mod router;
mod schedule;
mod session;
mod sys;
mod tun;
mod units;

pub use cli::run;
pub use lab::Lab;
